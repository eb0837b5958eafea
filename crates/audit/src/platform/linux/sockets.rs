//! Sockets by their inode. A socket stays in the network namespace where it was made, so every namespace's list is read.

use super::super::Listener;
use super::{clean, namespace, parse};
use skep_rights::Namespace;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::PathBuf;

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
}

impl Sockets {
    /// Reads them. What may not be read, or is gone, is left out.
    pub fn read(pids: &[i32]) -> Self {
        let mut seen = HashSet::new();
        let mut unix = HashMap::new();
        for pid in pids {
            let Ok(net) = namespace(&pid.to_string(), Namespace::Net) else { continue };
            if seen.insert(net) {
                let list = fs::read(format!("/proc/{pid}/net/unix")).unwrap_or_default();
                unix.extend(String::from_utf8_lossy(&list).lines().filter_map(socket));
            }
        }
        let mut holders: HashMap<u64, Vec<i32>> = HashMap::new();
        for pid in pids {
            for inode in held(*pid).into_iter().filter(|inode| unix.get(inode).is_some_and(|socket: &UnixSocket| socket.listens))
            {
                holders.entry(inode).or_default().push(*pid);
            }
        }
        Self { unix, holders }
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

/// Inodes of a process's sockets.
fn held(pid: i32) -> Vec<u64> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let links = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    links.filter_map(|link| parse::bracketed(link.to_str()?.strip_prefix("socket:")?)).collect()
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
    use super::socket;
    use std::path::Path;

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
