//! Linux: `/proc`.

mod descriptors;
mod network;
mod parse;
mod sockets;

use super::Listener;
use crate::facts::{Confinement, Facts, Linux};
use crate::{Error, Options};
use skep_rights::Namespace;
use sockets::Sockets;
use std::fs;
use std::io;
use std::path::PathBuf;

const NAMESPACES: [Namespace; 7] =
    [Namespace::User, Namespace::Mount, Namespace::Pid, Namespace::Net, Namespace::Ipc, Namespace::Uts, Namespace::Cgroup];

/// The kernel, and what was read of it once for all processes.
pub struct Kernel {
    own: Vec<(Namespace, u64)>,
    sockets: Sockets,
    cell: PathBuf,
}

impl Kernel {
    /// Reads what is needed for every process.
    pub fn open(options: &Options) -> Result<Self, Error> {
        let own = NAMESPACES.map(|which| namespace("self", which).map(|inode| (which, inode)));
        let own = own.into_iter().collect::<io::Result<Vec<_>>>().map_err(Error::kernel("/proc/self/ns"))?;
        let cell = options.state.canonicalize().unwrap_or_else(|_| options.state.clone()).join("cell");
        Ok(Self { own, sockets: Sockets::read(&pids()?), cell })
    }

    /// Every process.
    #[allow(clippy::unused_self)]
    pub fn processes(&self) -> Result<Vec<i32>, Error> {
        pids()
    }

    /// UNIX sockets that listen.
    #[allow(clippy::unnecessary_wraps)]
    pub fn listeners(&self) -> Result<Vec<Listener>, Error> {
        Ok(self.sockets.listeners())
    }

    /// A process's parent.
    #[allow(clippy::unused_self)]
    pub fn parent(&self, pid: i32) -> Option<i32> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        parse::field(&status, "PPid")?.parse().ok()
    }

    /// The other processes of a runner's pid namespace. Without one of its own: its children.
    pub fn cell_mates(&self, runner: i32) -> Result<Vec<i32>, Error> {
        let of = |pid: i32| namespace(&pid.to_string(), Namespace::Pid).ok();
        let Some(cell) = of(runner) else { return Ok(Vec::new()) };
        let shared = self.own.contains(&(Namespace::Pid, cell));
        let belongs = |pid: &i32| if shared { self.parent(*pid) == Some(runner) } else { of(*pid) == Some(cell) };
        Ok(pids()?.into_iter().filter(|pid| *pid != runner && belongs(pid)).collect())
    }

    /// Nothing: what is left of a cell here is its control groups, which hold no process and no right.
    #[allow(clippy::unused_self)]
    pub fn left_over(&self, _options: &Options, _machines: &[skep_proto::MachineId]) -> Option<Vec<String>> {
        None
    }

    /// What it says about one process. `None`: it has ended.
    pub fn facts(&self, pid: i32) -> Result<Option<Facts>, Error> {
        match self.read(pid) {
            Ok(facts) => Ok(facts),
            Err(error) if has_ended(&error) => Ok(None),
            Err(error) => Err(Error::kernel(format!("/proc/{pid}"))(error)),
        }
    }

    fn read(&self, pid: i32) -> io::Result<Option<Facts>> {
        let text = |file: &str| fs::read(format!("/proc/{pid}/{file}")).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let Some(status) = parse::status(&text("status")?) else { return Ok(None) };
        let namespaces = self.own.iter().map(|(which, hosts)| Ok((*which, namespace(&pid.to_string(), *which)?, *hosts)));
        let linux = Linux {
            capabilities: status.capabilities,
            no_new_privs: status.no_new_privs,
            seccomp: status.seccomp,
            filters: status.filters,
            namespaces: namespaces.collect::<io::Result<Vec<_>>>()?,
            mounts: parse::mounts(&text("mountinfo")?),
            cgroups: parse::cgroups(&text("cgroup")?),
        };
        Ok(Some(Facts {
            pid,
            // As deep as no suite is.
            ancestors: std::iter::successors(Some(status.parent), |pid| self.parent(*pid))
                .take_while(|pid| *pid > 0)
                .take(32)
                .collect(),
            // A kernel thread has none; a program may have been replaced on disk meanwhile.
            program: fs::read_link(format!("/proc/{pid}/exe")).map(|path| clean(&path.to_string_lossy())).unwrap_or(status.name),
            arguments: text("cmdline")?.split('\0').filter(|text| !text.is_empty()).map(clean).collect(),
            uids: status.uids,
            gids: status.gids,
            groups: status.groups,
            threads: status.threads,
            descriptors: descriptors::read(pid, &self.sockets, &self.cell)?,
            most_descriptors: parse::most_descriptors(&text("limits")?),
            confinement: Confinement::Linux(linux),
            reach: network::reach(
                &text("net/dev")?,
                &text("net/fib_trie").unwrap_or_default(),
                &text("net/if_inet6").unwrap_or_default(),
            ),
        }))
    }
}

/// A process that ends takes its files along, at any moment.
fn has_ended(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ESRCH)
}

fn pids() -> Result<Vec<i32>, Error> {
    let entries = fs::read_dir("/proc").map_err(Error::kernel("/proc"))?;
    let mut pids: Vec<i32> = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    Ok(pids)
}

/// The number that a link of `/proc/PID/ns` shows in brackets.
fn namespace(pid: &str, which: Namespace) -> io::Result<u64> {
    let link: PathBuf = fs::read_link(format!("/proc/{pid}/ns/{}", which.file()))?;
    parse::bracketed(&link.to_string_lossy()).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// Names come from whoever made the file or the process: nothing in them may move a terminal's cursor.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}
