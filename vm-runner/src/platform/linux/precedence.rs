//! Going before others, being spared when memory runs out, keeping memory in RAM: what root with `CAP_SYS_RESOURCE` may let its children
//! do without any capability (getrlimit(2), proc(5)). The spawner takes that before its sandbox; each cell lays down what its machine
//! does not ask for before its program runs.

use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use skep_proto::cell::Limits;
use std::fs;
use std::io;

/// `RLIMIT_NICE` by which a nice value of -20 may be had: 20 less the value.
const BEST_NICE: u64 = 40;
/// `oom_score_adj` of a machine that is spared: the kernel ends it last of all. With -1000 it never would, and a group of such processes
/// that has used up its memory would stand still.
const SPARED: i16 = -999;
/// Bytes of memory that may stay in RAM of a cell that asks for none.
const LOCKED: u64 = 64 << 10;

/// What may be had.
#[derive(Debug, Clone, Copy)]
pub struct Precedence {
    /// Nice values below 0.
    pub raises: bool,
    /// Being spared.
    pub spares: bool,
    /// Memory that stays in RAM.
    pub wires: bool,
}

impl Precedence {
    /// While it still may.
    pub fn acquire() -> Self {
        Self {
            raises: setrlimit(Resource::RLIMIT_NICE, BEST_NICE, BEST_NICE).is_ok(),
            spares: skep_sandbox::allow_oom_score(SPARED).is_ok(),
            wires: setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY).is_ok(),
        }
    }
}

/// In a process that becomes a cell: takes what its limits ask for, so that nothing in it can take more. The step that failed, if one did.
pub fn settle(limits: Option<&Limits>) -> Result<(), (&'static str, io::Error)> {
    if let Some(limits) = limits {
        if limits.priority != 0 {
            skep_sys::process::set_priority(limits.priority).map_err(|e| ("set the priority", e))?;
        }
        if limits.protect {
            spare().map_err(|e| ("protect the cell from a lack of memory", e))?;
        }
    }
    let wired = limits.and_then(|limits| limits.wired).unwrap_or(LOCKED);
    setrlimit(Resource::RLIMIT_MEMLOCK, wired, wired).map_err(|e| ("let memory stay in RAM", e.into()))?;
    setrlimit(Resource::RLIMIT_NICE, 0, 0).map_err(|e| ("give up precedence", e.into()))
}

/// A process that has changed its uid finds its own files in /proc to be root's, until it may be dumped again.
fn spare() -> io::Result<()> {
    nix::sys::prctl::set_dumpable(true)?;
    fs::write("/proc/self/oom_score_adj", SPARED.to_string())
}
