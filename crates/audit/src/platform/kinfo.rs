//! `struct kinfo_file` (sys/user.h, FreeBSD 12 and later, 64 bits): what `kern.proc.filedesc` gives, one after the other, each as long
//! as its first word says.

use crate::facts::{Kind, Open};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What is known of files from elsewhere.
#[derive(Debug, Default)]
pub struct Paths {
    /// Their paths, by file system and number (`st_dev`, `st_ino`).
    pub files: BTreeMap<(u64, u64), PathBuf>,
    /// The file system of STATE.
    pub state: Option<u64>,
}

const TYPE: usize = 4;
const NUMBER: usize = 8;
const UNION: usize = 32;
const SOCKET_DOMAIN: usize = UNION + 4;
const SOCKET_PROTOCOL: usize = UNION + 12;
const SOCKET_LOCAL: usize = UNION + 16;
/// Address of the socket that a UNIX socket is connected to.
const SOCKET_CONNECTION: usize = SOCKET_LOCAL + 2 * 128 + 16;
const FILE_SYSTEM: usize = UNION + 256;
const FILE_NUMBER: usize = UNION + 272;
/// Addresses of an end of a pipe, and of its other.
const PIPE: usize = UNION + 272;
const PIPE_PEER: usize = UNION + 280;
const RIGHTS: usize = 344;
const PATH: usize = 368;

/// All descriptors in it; what is cut short is left out. What lies below `root`, a jail's, is named as the jail names it: a service's
/// sees directories of the host under the host's names. The kernel has forgotten the path of many a file, or never kept it (of one that
/// was made by the opening): such are looked up in `paths`.
pub fn files(mut bytes: &[u8], root: &str, paths: &Paths) -> Vec<Open> {
    let mut open = Vec::new();
    while let Some(size) = word(bytes, 0).and_then(|size| usize::try_from(size).ok()).filter(|size| *size >= PATH) {
        let Some((one, rest)) = bytes.split_at_checked(size) else { break };
        open.extend(file(one, root, paths));
        bytes = rest;
    }
    open
}

/// Ends of pipes among them: number, address of the end, address of the other.
pub fn pipes(mut bytes: &[u8]) -> Vec<(i32, u64, u64)> {
    let mut found = Vec::new();
    while let Some(size) = word(bytes, 0).and_then(|size| usize::try_from(size).ok()).filter(|size| *size >= PATH) {
        let Some((one, rest)) = bytes.split_at_checked(size) else { break };
        if word(one, TYPE) == Some(3) {
            found.extend((|| Some((word(one, NUMBER)?, long(one, PIPE)?, long(one, PIPE_PEER)?)))());
        }
        bytes = rest;
    }
    found
}

fn file(one: &[u8], root: &str, paths: &Paths) -> Option<Open> {
    // Working directory, root, program text and so on have numbers below zero.
    let number = word(one, NUMBER).filter(|number| *number >= 0)?;
    let mut path = text(one.get(PATH..).unwrap_or_default());
    let file_system = long(one, FILE_SYSTEM);
    if path.is_empty() && matches!(word(one, TYPE), Some(1 | 4)) {
        let known = file_system.zip(long(one, FILE_NUMBER)).and_then(|file| paths.files.get(&file));
        path = known.map(|known| text(known.as_os_str().as_encoded_bytes())).unwrap_or_default();
    }
    let kind = match kind(one, &path, root) {
        Kind::File(_) if path.is_empty() && paths.state.is_some() && file_system == paths.state => Kind::Nameless,
        kind => kind,
    };
    let shown = match &kind {
        Kind::Unix { path: Some(path), listens: true } => format!("UNIX socket, listens at {}", path.display()),
        Kind::Unix { path: Some(path), .. } => format!("UNIX socket, of {}", path.display()),
        Kind::Unix { .. } => "UNIX socket".into(),
        Kind::Other if word(one, TYPE) == Some(2) => {
            let number = |at| word(one, at).unwrap_or(-1);
            format!("socket of family {}, protocol {}", number(SOCKET_DOMAIN), number(SOCKET_PROTOCOL))
        }
        Kind::Nameless => "file without a name".into(),
        Kind::Other => format!("type {}", word(one, TYPE).unwrap_or(-1)),
        Kind::Fifo(path) if path.as_os_str().is_empty() => "pipe without a name".into(),
        Kind::File(_) | Kind::Directory(_) | Kind::Device(_) | Kind::Fifo(_) | Kind::Null => path,
        named => format!("{named:?}").to_lowercase(),
    };
    Some(Open { number, kind, shown, rights: Some([long(one, RIGHTS)?, long(one, RIGHTS + 8)?]), others: None })
}

/// `KF_TYPE_*`, and `KF_VTYPE_*` for vnodes.
fn kind(one: &[u8], path: &str, root: &str) -> Kind {
    let path = path.strip_prefix(root).filter(|below| below.starts_with('/')).unwrap_or(path);
    let at = || PathBuf::from(path);
    match word(one, TYPE) {
        Some(1) => match word(one, UNION) {
            Some(1) => Kind::File(at()),
            Some(2) => Kind::Directory(at()),
            Some(4) if path == "/dev/null" => Kind::Null,
            Some(4) => Kind::Device(at()),
            Some(7) => Kind::Fifo(at()),
            _ => Kind::Other,
        },
        Some(2) => socket(one),
        Some(3) => Kind::Pipe,
        Some(4) => Kind::Fifo(at()),
        // kqueue, eventfd, timerfd.
        Some(5 | 13 | 14) => Kind::Event,
        Some(8) => Kind::Memory,
        Some(10 | 12) => Kind::Device(at()),
        Some(11) => Kind::Process,
        Some(255) => Kind::Unknown,
        _ => Kind::Other,
    }
}

fn socket(one: &[u8]) -> Kind {
    match word(one, SOCKET_DOMAIN) {
        // A sockaddr_un: length, family, path.
        Some(1) => {
            let path = text(one.get(SOCKET_LOCAL + 2..SOCKET_LOCAL + 2 + 104).unwrap_or_default());
            let path = Some(PathBuf::from(path)).filter(|path| !path.as_os_str().is_empty());
            let connected = long(one, SOCKET_CONNECTION) != Some(0);
            Kind::Unix { listens: path.is_some() && !connected, path }
        }
        Some(2) => Kind::Inet("IPv4".into()),
        Some(28) => Kind::Inet("IPv6".into()),
        // NG_CONTROL, NETLINK_ROUTE; no table has others of these, nor sockets of PF_ROUTE.
        Some(32) if word(one, SOCKET_PROTOCOL) == Some(2) => Kind::Netgraph,
        Some(38) if word(one, SOCKET_PROTOCOL) == Some(0) => Kind::Netlink,
        _ => Kind::Other,
    }
}

pub fn word(bytes: &[u8], at: usize) -> Option<i32> {
    Some(i32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

pub fn long(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

/// Up to its NUL, without what could move a terminal's cursor.
pub fn text(bytes: &[u8]) -> String {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One record as FreeBSD packs them: cut after the path's NUL, rounded up to 8.
    fn record(kind: i32, number: i32, path: &str, fill: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
        let size = (PATH + path.len() + 1).next_multiple_of(8);
        let mut bytes = vec![0; size];
        put(&mut bytes, 0, &i32::try_from(size).unwrap_or(0).to_le_bytes());
        put(&mut bytes, TYPE, &kind.to_le_bytes());
        put(&mut bytes, NUMBER, &number.to_le_bytes());
        put(&mut bytes, PATH, path.as_bytes());
        fill(&mut bytes);
        bytes
    }

    fn put(bytes: &mut [u8], at: usize, what: &[u8]) {
        bytes.iter_mut().skip(at).zip(what).for_each(|(to, from)| *to = *from);
    }

    #[test]
    fn files_sockets_and_rights_are_read() {
        let mut all = record(1, -1, "/", |_| {});
        all.extend(record(1, 0, "/dev/null", |b| put(b, UNION, &4i32.to_le_bytes())));
        all.extend(record(1, 3, "/var/skep/disks/x.raw", |b| {
            put(b, UNION, &1i32.to_le_bytes());
            put(b, RIGHTS, &0x0200_0000_0000_0001u64.to_le_bytes());
        }));
        all.extend(record(2, 4, "", |b| {
            put(b, SOCKET_DOMAIN, &1i32.to_le_bytes());
            put(b, SOCKET_LOCAL + 2, b"/run/skep/broker.sock");
        }));
        let known = Paths { files: [((7, 9), PathBuf::from("/var/skep/logs/x.log"))].into(), state: Some(7) };
        all.extend(record(1, 5, "", |b| {
            put(b, UNION, &1i32.to_le_bytes());
            put(b, FILE_SYSTEM, &7u64.to_le_bytes());
            put(b, FILE_NUMBER, &9u64.to_le_bytes());
        }));
        // Without a name: of STATE's file system, and of another.
        for (number, system) in [(6, 7u64), (7, 8)] {
            all.extend(record(1, number, "", |b| {
                put(b, UNION, &1i32.to_le_bytes());
                put(b, FILE_SYSTEM, &system.to_le_bytes());
            }));
        }
        let open = files(&all, "", &known);
        let kinds: Vec<_> = open.iter().map(|open| (open.number, open.kind.clone())).collect();
        let socket = Kind::Unix { path: Some("/run/skep/broker.sock".into()), listens: true };
        let named = Kind::File("/var/skep/logs/x.log".into());
        let disk = Kind::File("/var/skep/disks/x.raw".into());
        let nameless = [(6, Kind::Nameless), (7, Kind::File("".into()))];
        assert_eq!(kinds, [vec![(0, Kind::Null), (3, disk), (4, socket), (5, named)], nameless.into()].concat());
        assert_eq!(open.get(1).and_then(|open| open.rights), Some([0x0200_0000_0000_0001, 0]));
        // In a jail; whose path is the beginning of a name is not yet its root.
        for (root, path) in [("/var/skep", "/disks/x.raw"), ("/var/sk", "/var/skep/disks/x.raw")] {
            assert_eq!(files(&all, root, &known).get(1).map(|open| open.kind.clone()), Some(Kind::File(path.into())));
        }
    }

    #[test]
    fn sockets_of_the_kernel_s_own_are_told_apart() {
        let kinds = [(32, 2), (32, 1), (38, 0), (38, 15), (17, 0), (17, 2)].map(|(family, protocol)| {
            let one = record(2, 4, "", |b| {
                put(b, SOCKET_DOMAIN, &i32::to_le_bytes(family));
                put(b, SOCKET_PROTOCOL, &i32::to_le_bytes(protocol));
            });
            let open = files(&one, "", &Paths::default());
            open.into_iter().map(|open| (open.kind, open.shown)).next()
        });
        let other = |shown: &str| Some((Kind::Other, shown.to_owned()));
        assert_eq!(kinds.first(), Some(&Some((Kind::Netgraph, "netgraph".to_owned()))));
        assert_eq!(kinds.get(1), Some(&other("socket of family 32, protocol 1")));
        assert_eq!(kinds.get(2), Some(&Some((Kind::Netlink, "netlink".to_owned()))));
        assert_eq!(kinds.get(4), Some(&other("socket of family 17, protocol 0")));
        assert!(kinds.iter().skip(3).all(|kind| matches!(kind, Some((Kind::Other, _)))), "{kinds:?}");
    }

    #[test]
    fn both_ends_of_a_pipe_are_read() {
        let mut all = record(3, 2, "", |b| {
            put(b, PIPE, &0xfeed_0001u64.to_le_bytes());
            put(b, PIPE_PEER, &0xfeed_0002u64.to_le_bytes());
        });
        all.extend(record(1, 5, "/x", |_| {}));
        all.extend(record(4, 6, "/run/skep/console/1.console-proxy", |_| {}));
        assert_eq!(pipes(&all), [(2, 0xfeed_0001, 0xfeed_0002)]);
        let open = files(&all, "", &Paths::default());
        assert_eq!(open.first().map(|open| open.kind.clone()), Some(Kind::Pipe));
        let named = Kind::Fifo("/run/skep/console/1.console-proxy".into());
        assert_eq!(open.last().map(|open| open.kind.clone()), Some(named));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..2000), size in 0i32..1000) {
            let mut bytes = bytes;
            put(&mut bytes, 0, &size.to_le_bytes());
            let _ = (files(&bytes, "/x", &Paths::default()), pipes(&bytes));
        }
    }
}
