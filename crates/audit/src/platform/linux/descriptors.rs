//! Open descriptors: `/proc/PID/fd`.

use super::sockets::Sockets;
use super::{clean, has_ended, parse};
use crate::facts::{Kind, Open};
use nix::sys::stat::{major, minor};
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// `NETLINK_ROUTE`, `NETLINK_SOCK_DIAG`, `NETLINK_NETFILTER` and `NETLINK_GENERIC` (linux/netlink.h).
const ROUTE: u32 = 0;
const SOCK_DIAG: u32 = 4;
const NETFILTER: u32 = 12;
const GENERIC: u32 = 16;

/// All that are open now; one that is closed meanwhile is left out.
pub fn read(pid: i32, sockets: &Sockets, cell: &Path) -> io::Result<Vec<Open>> {
    let mut open = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let path = entry?.path();
        let Some(number) = path.file_name().and_then(|name| name.to_str()?.parse().ok()) else { continue };
        match one(pid, &path, number, sockets, cell) {
            Ok(found) => open.push(found),
            Err(error) if has_ended(&error) => {}
            Err(error) => return Err(error),
        }
    }
    open.sort_by_key(|open| open.number);
    Ok(open)
}

fn one(pid: i32, path: &Path, number: i32, sockets: &Sockets, cell: &Path) -> io::Result<Open> {
    let link = fs::read_link(path)?;
    let text = link.to_string_lossy();
    let (kind, shown) = if text.starts_with('/') {
        file(path, &link, &text, cell)?
    } else if let Some(inode) = text.strip_prefix("socket:").and_then(parse::bracketed) {
        socket(path, inode, sockets)?
    } else {
        (special(&text), text.into_owned())
    };
    let others = if text_is_pipe(&link) { Some(sockets.others(pid, path)) } else { None };
    Ok(Open { number, kind, shown: clean(&shown), rights: None, others })
}

/// Without a name: who holds the other end of a named one does not show.
fn text_is_pipe(link: &Path) -> bool {
    link.to_string_lossy().starts_with("pipe:[")
}

/// Something with a path, or a memory file, which looks as if it had one.
fn file(path: &Path, link: &Path, text: &str, cell: &Path) -> io::Result<(Kind, String)> {
    let meta = fs::metadata(path)?;
    let kind = meta.file_type();
    let deleted = meta.nlink() == 0;
    let plain = if deleted { PathBuf::from(text.strip_suffix(" (deleted)").unwrap_or(text)) } else { link.to_path_buf() };
    let shown = text.to_owned();
    Ok(if kind.is_char_device() {
        let numbers = (major(meta.rdev()), minor(meta.rdev()));
        let null = numbers == (1, 3);
        let shown = if null { "/dev/null".to_owned() } else { format!("{shown} (device {}:{})", numbers.0, numbers.1) };
        (if null { Kind::Null } else { Kind::Device(device(numbers).unwrap_or(plain)) }, shown)
    } else if kind.is_dir() {
        (Kind::Directory(plain), shown)
    } else if kind.is_fifo() {
        (Kind::Fifo(plain), shown)
    } else if kind.is_file() {
        (if deleted && text.starts_with("/memfd:") { Kind::Memory } else { Kind::File(of_cell(plain, &meta, cell)) }, shown)
    } else {
        (Kind::Other, shown)
    })
}

/// A file that was opened inside a cell has its path there; the same file lies in one of the prepared roots below `STATE/cell`.
fn of_cell(path: PathBuf, meta: &fs::Metadata, cell: &Path) -> PathBuf {
    let is_it = |path: &Path| fs::metadata(path).is_ok_and(|other| (other.dev(), other.ino()) == (meta.dev(), meta.ino()));
    if is_it(&path) {
        return path;
    }
    let inside = path.strip_prefix("/").unwrap_or(&path);
    // Those of earlier builds, too, as long as cells are in them.
    let roots = fs::read_dir(cell).into_iter().flatten().filter_map(Result::ok).map(|root| root.path().join(inside));
    let there = roots.into_iter().find(|there| is_it(there));
    there.unwrap_or(path)
}

/// A device is its number, under whatever path a cell has it.
fn device(numbers: (u64, u64)) -> Option<PathBuf> {
    let known = match numbers {
        (10, 200) => "/dev/net/tun",
        (10, 232) => "/dev/kvm",
        (1, 5) => "/dev/zero",
        (1, 8) => "/dev/random",
        (1, 9) => "/dev/urandom",
        _ => return None,
    };
    Some(PathBuf::from(known))
}

fn socket(path: &Path, inode: u64, sockets: &Sockets) -> io::Result<(Kind, String)> {
    if let Some(unix) = sockets.unix(inode) {
        let place = unix.path.as_ref().map(|path| format!(" {}", path.display())).unwrap_or_default();
        let what = if unix.listens { "listens at" } else { "of" };
        let shown = if place.is_empty() { "UNIX socket".to_owned() } else { format!("UNIX socket, {what}{place}") };
        return Ok((Kind::Unix { path: unix.path.clone(), listens: unix.listens }, shown));
    }
    let name = CString::new(path.as_os_str().as_encoded_bytes()).map_err(io::Error::from)?;
    let protocol = skep_sys::linux::socket_protocol(&name)?;
    let kind = match protocol.as_str() {
        unix if unix.starts_with("UNIX") => Kind::Unix { path: None, listens: false },
        "NETLINK" if sockets.netlink(inode) == Some(ROUTE) => Kind::Netlink,
        "NETLINK" if sockets.netlink(inode) == Some(NETFILTER) => Kind::Netfilter,
        "NETLINK" if sockets.netlink(inode) == Some(SOCK_DIAG) => Kind::SockDiag,
        "NETLINK" if sockets.netlink(inode) == Some(GENERIC) => Kind::GenericNetlink,
        "PACKET" => Kind::Packet,
        inet if ["TCP", "UDP", "RAW", "PING", "MPTCP", "SCTP"].iter().any(|p| inet.starts_with(p)) => Kind::Inet(inet.to_owned()),
        _ => Kind::Other,
    };
    let shown = if matches!(kind, Kind::Unix { .. }) { "UNIX socket".to_owned() } else { format!("socket {protocol}") };
    Ok((kind, shown))
}

/// Descriptors without a path: `pipe:[1]`, `anon_inode:[eventpoll]`, `net:[1]`.
fn special(text: &str) -> Kind {
    let anonymous = text.strip_prefix("anon_inode:");
    match text.split(':').next().unwrap_or_default() {
        "pipe" => Kind::Pipe,
        "pidfd" => Kind::Process,
        "user" | "mnt" | "pid" | "net" | "ipc" | "uts" | "cgroup" | "time" => Kind::Namespace,
        _ => match anonymous {
            Some("[eventfd]" | "[eventpoll]" | "[timerfd]" | "[signalfd]" | "inotify") => Kind::Event,
            Some("[pidfd]") => Kind::Process,
            // A machine, or a virtual CPU of it, that was made through the device.
            Some(made) if made.starts_with("kvm-") => Kind::Device(PathBuf::from("/dev/kvm")),
            _ => Kind::Other,
        },
    }
}
