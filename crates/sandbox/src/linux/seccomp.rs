//! seccomp: the table's system calls as an allow-list; everything else fails with EPERM.

use super::super::{EnterError, failed};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};
use skep_rights::{BASE, Process};
use std::collections::BTreeMap;
use std::io;
use std::ops::RangeInclusive;

/// Two filters: the allow-list, and one that makes clone3 look absent, since its flags cannot be filtered and the C library then
/// falls back to clone.
#[derive(Debug)]
pub struct Filters([BpfProgram; 2]);

const EXEC: u64 = libc::PROT_EXEC as u64;
const AF_UNIX: u64 = libc::AF_UNIX as u64;
const AF_INET: u64 = libc::AF_INET as u64;
const AF_INET6: u64 = libc::AF_INET6 as u64;
const AF_NETLINK: u64 = libc::AF_NETLINK as u64;
const AF_PACKET: u64 = libc::AF_PACKET as u64;
/// The bit that tells datagram sockets, whose sender may name any socket of the file system, from streams and seqpackets.
const DATAGRAM: u64 = 2;
const STREAM: u64 = 1;
const THREAD: u64 = libc::CLONE_THREAD as u64;
const NAMESPACES: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u64;

/// Compiles a table's list.
pub fn compile(table: &'static Process) -> Result<Filters, EnterError> {
    let own = table.syscalls.iter().flat_map(|group| group.names);
    let ioctls: Vec<u64> = table.ioctls.iter().map(|(number, _)| *number).collect();
    compile_list(BASE.iter().chain(own).copied(), &ioctls)
}

/// Compiles a list of names; those with a colon stand for a call with limited arguments.
pub fn compile_list<'a>(names: impl Iterator<Item = &'a str>, ioctls: &[u64]) -> Result<Filters, EnterError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    let mut whole: Vec<i64> = Vec::new();
    // What a name with `:absent` stands for is answered as if the kernel had no such call.
    let mut absent = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let mut plain: Vec<i64> = Vec::new();
    for name in names {
        if let Some(name) = name.strip_suffix(":absent") {
            let call = number(name).ok_or_else(|| EnterError::Unsupported(format!("no system call {name}")))?;
            absent.insert(call, Vec::new());
            whole.push(call);
            continue;
        }
        let (call, limits) = limits(name)?;
        match limits {
            None => {
                plain.push(call);
                whole.push(call);
            }
            Some(rule) => rules.entry(call).or_default().push(rule),
        }
    }
    for request in ioctls {
        let rule = rule(vec![condition(1, Len::Dword, Op::Eq, *request & 0xffff_ffff)?])?;
        rules.entry(libc::SYS_ioctl).or_default().push(rule);
    }
    // Who has the call itself has it in place of an absent one, which those that it starts make of it.
    absent.retain(|call, _| !plain.contains(call));
    // An empty list of rules means: whatever the arguments are.
    for call in whole {
        rules.insert(call, Vec::new());
    }
    rules.insert(libc::SYS_clone3, Vec::new());
    let deny = SeccompAction::Errno(libc::EPERM as u32);
    Ok(Filters([
        program(absent, SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS as u32))?,
        // The last one: it need not allow what installing another takes.
        program(rules, deny, SeccompAction::Allow)?,
    ]))
}

/// Installs both filters for good. no_new_privs must be set.
pub fn install(filters: &Filters) -> Result<(), EnterError> {
    for filter in &filters.0 {
        seccompiler::apply_filter(filter)
            .map_err(|e| EnterError::Failed { step: "seccomp", error: io::Error::other(e.to_string()) })?;
    }
    Ok(())
}

/// For a process with CAP_SETUID and CAP_SETGID: from here on it becomes nobody but one of these uids and gids, with no other groups;
/// not root above all. A filter over those that are there; no_new_privs must be set.
pub fn only_ids(ids: RangeInclusive<u32>) -> Result<(), EnterError> {
    let outside = |arg| {
        let below = rule(vec![condition(arg, Len::Dword, Op::Lt, u64::from(*ids.start()))?])?;
        let above = rule(vec![condition(arg, Len::Dword, Op::Gt, u64::from(*ids.end()))?])?;
        Ok::<_, EnterError>([below, above])
    };
    let any = [outside(0)?, outside(1)?, outside(2)?].concat();
    let groups = vec![rule(vec![condition(0, Len::Dword, Op::Ne, 0)?])?];
    let mut refused =
        BTreeMap::from([(libc::SYS_setresuid, any.clone()), (libc::SYS_setresgid, any), (libc::SYS_setgroups, groups)]);
    // No table has these: whatever its list says, there is no way round.
    for call in
        [libc::SYS_setuid, libc::SYS_setgid, libc::SYS_setreuid, libc::SYS_setregid, libc::SYS_setfsuid, libc::SYS_setfsgid]
    {
        refused.insert(call, Vec::new());
    }
    let filter = program(refused, SeccompAction::Allow, SeccompAction::Errno(libc::EPERM as u32))?;
    seccompiler::apply_filter(&filter).map_err(|e| EnterError::Failed { step: "seccomp", error: io::Error::other(e.to_string()) })
}

fn program(rules: BTreeMap<i64, Vec<SeccompRule>>, miss: SeccompAction, hit: SeccompAction) -> Result<BpfProgram, EnterError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(compile_error)?;
    let filter = SeccompFilter::new(rules, miss, hit, arch).map_err(compile_error)?;
    filter.try_into().map_err(compile_error)
}

fn compile_error<E: std::fmt::Display>(e: E) -> EnterError {
    failed("compile the seccomp list")(io::Error::other(e.to_string()))
}

fn condition(arg: u8, len: Len, op: Op, value: u64) -> Result<SeccompCondition, EnterError> {
    SeccompCondition::new(arg, len, op, value).map_err(compile_error)
}

fn rule(conditions: Vec<SeccompCondition>) -> Result<SeccompRule, EnterError> {
    SeccompRule::new(conditions).map_err(compile_error)
}

/// The call that a name stands for, and the limits of its arguments.
fn limits(name: &str) -> Result<(i64, Option<SeccompRule>), EnterError> {
    let only = |arg, value| rule(vec![condition(arg, Len::Dword, Op::Eq, value)?]);
    let connected =
        |family| rule(vec![condition(0, Len::Dword, Op::Eq, family)?, condition(1, Len::Dword, Op::MaskedEq(DATAGRAM), 0)?]);
    // Its flags set aside.
    let of_kind =
        |family, kind| rule(vec![condition(0, Len::Dword, Op::Eq, family)?, condition(1, Len::Dword, Op::MaskedEq(0xf), kind)?]);
    Ok(match name {
        "mmap" => (libc::SYS_mmap, Some(rule(vec![condition(2, Len::Dword, Op::MaskedEq(EXEC), 0)?])?)),
        "mmap:exec" => (libc::SYS_mmap, None),
        "mprotect" => (libc::SYS_mprotect, Some(rule(vec![condition(2, Len::Dword, Op::MaskedEq(EXEC), 0)?])?)),
        "mprotect:exec" => (libc::SYS_mprotect, None),
        "socket:unix" => (libc::SYS_socket, Some(connected(AF_UNIX)?)),
        "socket:packet" => (libc::SYS_socket, Some(only(0, AF_PACKET)?)),
        "socket:udp" => (libc::SYS_socket, Some(of_kind(AF_INET, DATAGRAM)?)),
        "socket:udp6" => (libc::SYS_socket, Some(of_kind(AF_INET6, DATAGRAM)?)),
        "socket:tcp" => (libc::SYS_socket, Some(of_kind(AF_INET, STREAM)?)),
        "socket:tcp6" => (libc::SYS_socket, Some(of_kind(AF_INET6, STREAM)?)),
        "socket:netlink" => (libc::SYS_socket, Some(only(0, AF_NETLINK)?)),
        "sendto" => (libc::SYS_sendto, Some(rule(vec![condition(4, Len::Qword, Op::Eq, 0)?])?)),
        "socketpair" => (libc::SYS_socketpair, Some(connected(AF_UNIX)?)),
        "clone:thread" => {
            let thread = condition(0, Len::Qword, Op::MaskedEq(THREAD), THREAD)?;
            (libc::SYS_clone, Some(rule(vec![thread, condition(0, Len::Qword, Op::MaskedEq(NAMESPACES), 0)?])?))
        }
        "clone:process" => (libc::SYS_clone, Some(rule(vec![condition(0, Len::Qword, Op::MaskedEq(NAMESPACES), 0)?])?)),
        "prctl:name" => (libc::SYS_prctl, Some(only(0, libc::PR_SET_NAME as u64)?)),
        // In place of a device, which is kept as one for the guest.
        "mknodat:file" => {
            let (kind, file) = (u64::from(libc::S_IFMT), u64::from(libc::S_IFREG));
            (libc::SYS_mknodat, Some(rule(vec![condition(2, Len::Dword, Op::MaskedEq(kind), file)?])?))
        }
        // Neither a file nor a device.
        "mknodat:pipe" => {
            let (kind, pipe) = (u64::from(libc::S_IFMT), u64::from(libc::S_IFIFO));
            (libc::SYS_mknodat, Some(rule(vec![condition(2, Len::Dword, Op::MaskedEq(kind), pipe)?])?))
        }
        // QEMU's own files beside those that it shares.
        "fchmod:private" => (libc::SYS_fchmod, Some(only(1, 0o600)?)),
        "prctl:confine" => return Ok((libc::SYS_prctl, None)),
        // Asks for limits, and sets none.
        "prlimit64:read" => (libc::SYS_prlimit64, Some(rule(vec![condition(2, Len::Qword, Op::Eq, 0)?])?)),
        "kill:self" => (libc::SYS_kill, Some(only(0, 0)?)),
        plain => (number(plain).ok_or_else(|| EnterError::Unsupported(format!("no system call {plain}")))?, None),
    })
}

macro_rules! numbers {
    ($($name:ident)*) => {
        /// The number of a system call that some table names.
        fn number(name: &str) -> Option<i64> {
            match name { $(stringify!($name) => Some(numbers!(@ $name)),)* _ => None }
        }
    };
    (@ $name:ident) => { numbers::$name };
}

#[allow(non_upper_case_globals)]
mod numbers {
    macro_rules! these {
        ($($name:ident = $sys:ident;)*) => { $(pub const $name: i64 = libc::$sys;)* };
    }
    include!("numbers.rs");
}
include!("names.rs");
