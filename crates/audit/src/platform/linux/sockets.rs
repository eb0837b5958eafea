//! Sockets, and pipes, by their inode. A socket stays in the network namespace where it was made, so every namespace's list is read.

use super::super::Listener;
use super::{clean, namespace, parse};
use skep_rights::Namespace;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What `/proc/PID/net/unix` says about one.
#[derive(Debug, Clone)]
pub struct UnixSocket {
    pub path: Option<PathBuf>,
    pub listens: bool,
}

/// All UNIX sockets of the host, and who holds those that listen.
#[derive(Debug)]
pub struct Sockets {
    unix: HashMap<u64, UnixSocket>,
    holders: HashMap<u64, Vec<i32>>,
    netlink: HashMap<u64, u32>,
    pipes: HashMap<u64, Vec<End>>,
}

/// One end of a pipe.
#[derive(Debug, Clone, Copy)]
struct End {
    pid: i32,
    reads: bool,
    writes: bool,
}

impl Sockets {
    /// Reads them. What may not be read, or is gone, is left out.
    pub fn read(pids: &[i32]) -> Self {
        let mut seen = HashSet::new();
        let (mut unix, mut netlink) = (HashMap::new(), HashMap::new());
        for pid in pids {
            let Ok(net) = namespace(&pid.to_string(), Namespace::Net) else { continue };
            if seen.insert(net) {
                let list = fs::read(format!("/proc/{pid}/net/unix")).unwrap_or_default();
                unix.extend(String::from_utf8_lossy(&list).lines().filter_map(socket));
                let list = fs::read(format!("/proc/{pid}/net/netlink")).unwrap_or_default();
                netlink.extend(String::from_utf8_lossy(&list).lines().filter_map(of_netlink));
            }
        }
        let mut holders: HashMap<u64, Vec<i32>> = HashMap::new();
        let mut pipes: HashMap<u64, Vec<End>> = HashMap::new();
        for pid in pids {
            for path in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten().map(|entry| entry.path()) {
                let Ok(link) = fs::read_link(&path) else { continue };
                let inode = |kind| link.to_str()?.strip_prefix(kind).and_then(parse::bracketed);
                if let Some(inode) = inode("socket:").filter(|inode| unix.get(inode).is_some_and(|s: &UnixSocket| s.listens)) {
                    holders.entry(inode).or_default().push(*pid);
                }
                if let Some((inode, end)) = inode("pipe:").and_then(|inode| Some((inode, end(*pid, &path)?))) {
                    pipes.entry(inode).or_default().push(end);
                }
            }
        }
        Self { unix, holders, netlink, pipes }
    }

    /// What a netlink socket speaks of: its protocol's number (`NETLINK_ROUTE`, …).
    pub fn netlink(&self, inode: u64) -> Option<u32> {
        self.netlink.get(&inode).copied()
    }

    /// The other processes that hold the other end of the pipe at `path`, a descriptor of `pid`.
    pub fn others(&self, pid: i32, path: &Path) -> Vec<i32> {
        let Some(own) = end(pid, path) else { return Vec::new() };
        let inode = fs::read_link(path).ok().and_then(|link| parse::bracketed(link.to_str()?));
        let all = inode.and_then(|inode| self.pipes.get(&inode)).map(Vec::as_slice).unwrap_or_default();
        let other = all.iter().filter(|end| end.pid != pid && (own.writes && end.reads || own.reads && end.writes));
        let mut others: Vec<i32> = other.map(|end| end.pid).collect();
        others.dedup();
        others
    }

    /// One of them.
    pub fn unix(&self, inode: u64) -> Option<&UnixSocket> {
        self.unix.get(&inode)
    }

    /// Those that listen at a path.
    pub fn listeners(&self) -> Vec<Listener> {
        let listening = self.unix.iter().filter(|(_, socket)| socket.listens);
        let listener = |(inode, socket): (&u64, &UnixSocket)| {
            Some(Listener { path: socket.path.clone()?, pids: self.holders.get(inode).cloned().unwrap_or_default() })
        };
        listening.filter_map(listener).collect()
    }
}

/// A descriptor in `/proc/PID/fd` has the permissions that it was opened with.
fn end(pid: i32, path: &Path) -> Option<End> {
    let mode = fs::symlink_metadata(path).ok()?.mode();
    Some(End { pid, reads: mode & 0o400 != 0, writes: mode & 0o200 != 0 })
}

/// `sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode`: the inode of a socket, and its protocol (`Eth`).
fn of_netlink(line: &str) -> Option<(u64, u32)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    Some((fields.last()?.parse().ok()?, fields.get(1)?.parse().ok()?))
}

/// `Num: RefCount Protocol Flags Type St Inode Path`; flag 0x10000 is "listens" (`__SO_ACCEPTCON`).
fn socket(line: &str) -> Option<(u64, UnixSocket)> {
    let mut rest = line.trim_start();
    let mut next = || {
        let (word, after) = rest.split_once(' ').unwrap_or((rest, ""));
        rest = after.trim_start();
        Some(word).filter(|word| !word.is_empty())
    };
    let (_number, _count, _protocol, flags) = (next()?, next()?, next()?, next()?);
    let (_kind, _state, inode) = (next()?, next()?, next()?);
    let listens = u32::from_str_radix(flags, 16).ok()? & 0x10000 != 0;
    // An abstract name begins with `@`; it is shown, and is nobody's path.
    let path = Some(rest).filter(|path| !path.is_empty()).map(|path| PathBuf::from(clean(path)));
    Some((inode.parse().ok()?, UnixSocket { path, listens }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{of_netlink, socket};
    use std::path::Path;

    #[test]
    fn netlink_sockets_are_told_by_their_protocol() {
        let line = |family| format!("00000000a1 {family:<4} 812        00000111 0        0        0     2        0        21871");
        assert_eq!(of_netlink(&line(0)), Some((21_871, 0)));
        assert_eq!(of_netlink(&line(12)), Some((21_871, 12)));
        let head = "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode";
        assert!(of_netlink(head).is_none() && of_netlink("").is_none());
    }

    #[test]
    fn a_listening_socket_with_blanks_in_its_path() {
        let line = "0000000026009839: 00000002 00000000 00010000 0005 01   483 /run/my skep/broker.sock";
        let (inode, found) = socket(line).unwrap();
        assert_eq!((inode, found.listens), (483, true));
        assert_eq!(found.path.unwrap(), Path::new("/run/my skep/broker.sock"));
        assert!(socket("Num       RefCount Protocol Flags    Type St Inode Path").is_none());
        assert!(socket("1: 2 3").is_none());
    }
}
