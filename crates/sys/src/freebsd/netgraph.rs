//! Control messages of netgraph(4) (netgraph/ng_message.h), the same from 13 to 15. Refused in capability mode, since each names its node.

use std::io;
use std::mem::offset_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

const AF_NETGRAPH: libc::c_int = 32;
const NG_CONTROL: libc::c_int = 2;
const VERSION: u8 = 8;
const RESPONSE: u32 = 1;
/// A command with this bit is answered.
const HAS_REPLY: u32 = 0x2000_0000;
/// Names of hooks, nodes and types, with their NUL.
const NAME: usize = 32;
const PATH: usize = 512;
/// What answers may need: a hook is 136 bytes of one, a node 72.
const RECEIVE_BUFFER: libc::c_int = 512 << 10;

/// Which kind of node a message is for, and what it means there.
#[derive(Debug, Clone, Copy)]
pub struct Command {
    cookie: u32,
    number: u32,
}

const GENERIC: u32 = 1_137_070_366;
const ETHER: u32 = 917_786_906;
const BRIDGE: u32 = 1_569_321_993;
const BPF: u32 = 944_100_792;
/// `NGM_READONLY | NGM_HASREPLY`.
const ASKS: u32 = 0x1000_0000 | HAS_REPLY;

/// A node ends.
pub const SHUTDOWN: Command = Command { cookie: GENERIC, number: 1 };
const MKPEER: Command = Command { cookie: GENERIC, number: 2 };
const CONNECT: Command = Command { cookie: GENERIC, number: 3 };
const NAME_IT: Command = Command { cookie: GENERIC, number: 4 };
const RMHOOK: Command = Command { cookie: GENERIC, number: 5 };
const LISTHOOKS: Command = Command { cookie: GENERIC, number: 7 | ASKS };
const LISTNAMES: Command = Command { cookie: GENERIC, number: 8 | ASKS };
/// An interface takes frames for others (`u32`).
pub const SET_PROMISCUOUS: Command = Command { cookie: ETHER, number: 6 };
/// An interface writes its own address into what it sends (`u32`).
pub const SET_SOURCE: Command = Command { cookie: ETHER, number: 8 };
/// A bridge stays without links.
pub const PERSIST: Command = Command { cookie: BRIDGE, number: 8 };

#[repr(C)]
struct Header {
    version: u8,
    spare: u8,
    spare2: u16,
    length: u32,
    command: u32,
    flags: u32,
    token: u32,
    cookie: u32,
    name: [u8; NAME],
}
const HEADER: usize = size_of::<Header>();
const _: () = assert!(HEADER == 56 && offset_of!(Header, cookie) == 20);

/// `struct sockaddr_ng` with room for a path.
#[repr(C)]
struct Address {
    length: u8,
    family: u8,
    path: [u8; 128],
}

/// A socket, which is a node without a name.
pub fn open() -> io::Result<OwnedFd> {
    // SAFETY: socket(2) takes three numbers.
    let fd = unsafe { libc::socket(AF_NETGRAPH, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, NG_CONTROL) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: socket has just made this descriptor for us.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let time = libc::timeval { tv_sec: 5, tv_usec: 0 };
    // An answer that is lost is not waited for for ever.
    set(&socket, libc::SO_RCVTIMEO, &time)?;
    set(&socket, libc::SO_RCVBUF, &RECEIVE_BUFFER)?;
    Ok(socket)
}

fn set<T>(socket: &OwnedFd, option: libc::c_int, value: &T) -> io::Result<()> {
    let size = size_of::<T>() as libc::socklen_t;
    // SAFETY: setsockopt(2) reads `size` bytes of `value`, which is as large.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, std::ptr::from_ref(value).cast(), size) };
    if result != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sends a message to the node at `path`; an error is the node's own. Of a command that is answered, the answer.
pub fn send(socket: BorrowedFd<'_>, path: &str, command: Command, data: &[u8]) -> io::Result<Vec<u8>> {
    // The answer has it, too: one that came too late for its question is not taken for the next one's.
    static TOKENS: AtomicU32 = AtomicU32::new(1);
    let token = TOKENS.fetch_add(1, Ordering::Relaxed) & i32::MAX.cast_unsigned();
    let mut address = Address { length: 0, family: AF_NETGRAPH as u8, path: [0; 128] };
    let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
    if path.len() >= address.path.len() || path.contains('\0') {
        return Err(invalid());
    }
    address.path.iter_mut().zip(path.bytes()).for_each(|(to, from)| *to = from);
    address.length = u8::try_from(path.len() + 3).map_err(|_| invalid())?;
    let length = u32::try_from(data.len()).map_err(|_| invalid())?;
    let mut message = vec![VERSION, 0, 0, 0];
    for word in [length, command.number, 0, token, command.cookie] {
        message.extend(word.to_ne_bytes());
    }
    // The text is for people; commands go by their numbers.
    message.extend([0; NAME]);
    message.extend(data);
    // SAFETY: sendto(2) reads the message and the address, both live and of the lengths that are given.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            message.as_ptr().cast(),
            message.len(),
            0,
            (&raw const address).cast(),
            libc::socklen_t::from(address.length),
        )
    };
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    if command.number & HAS_REPLY == 0 {
        return Ok(Vec::new());
    }
    let mut buffer = vec![0u8; RECEIVE_BUFFER as usize];
    loop {
        // SAFETY: recv(2) writes at most as many bytes as the buffer has.
        let got = unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        let got = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
        let answer = buffer.get(..got).unwrap_or_default();
        let (number, flags) = (word(answer, offset_of!(Header, command)), word(answer, offset_of!(Header, flags)));
        let of_this = word(answer, offset_of!(Header, token)) == Some(token);
        // What else nodes tell is not for us.
        if number == Some(command.number) && of_this && flags.is_some_and(|flags| flags & RESPONSE != 0) {
            return Ok(answer.get(HEADER..).unwrap_or_default().to_vec());
        }
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk::<4>().map(|four| u32::from_ne_bytes(*four))
}

/// A text in a field of `size` bytes.
fn field(text: &str, size: usize) -> io::Result<Vec<u8>> {
    if text.len() >= size || text.contains('\0') {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let mut bytes = text.as_bytes().to_vec();
    bytes.resize(size, 0);
    Ok(bytes)
}

fn text(bytes: &[u8], at: usize) -> String {
    let field = bytes.get(at..).and_then(|rest| rest.get(..NAME)).unwrap_or_default();
    String::from_utf8_lossy(field.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

/// Makes a node of a type at the hook of the node at `path`.
pub fn make_peer(socket: BorrowedFd<'_>, path: &str, kind: &str, hook: &str, peer_hook: &str) -> io::Result<()> {
    let data = [field(kind, NAME)?, field(hook, NAME)?, field(peer_hook, NAME)?].concat();
    send(socket, path, MKPEER, &data).map(drop)
}

/// Has a hook of the bpf node at `path` let what a program passes go on to another hook, and nothing else.
pub fn filter(socket: BorrowedFd<'_>, path: &str, hook: &str, program: &[crate::frames::Step], to: &str) -> io::Result<()> {
    const SET_PROGRAM: Command = Command { cookie: BPF, number: 1 };
    let count = i32::try_from(program.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut data = [field(hook, NAME)?, field(to, NAME)?, vec![0; NAME], count.to_ne_bytes().to_vec()].concat();
    data.extend(program.iter().flat_map(crate::frames::Step::bytes));
    send(socket, path, SET_PROGRAM, &data).map(drop)
}

/// Names the node at `path`.
pub fn set_name(socket: BorrowedFd<'_>, path: &str, name: &str) -> io::Result<()> {
    send(socket, path, NAME_IT, &field(name, NAME)?).map(drop)
}

/// Joins a hook of the node at `path` and one of another node.
pub fn connect(socket: BorrowedFd<'_>, path: &str, hook: &str, peer: &str, peer_hook: &str) -> io::Result<()> {
    let data = [field(peer, PATH)?, field(hook, NAME)?, field(peer_hook, NAME)?].concat();
    send(socket, path, CONNECT, &data).map(drop)
}

/// Takes a hook of the node at `path` off.
pub fn disconnect(socket: BorrowedFd<'_>, path: &str, hook: &str) -> io::Result<()> {
    send(socket, path, RMHOOK, &field(hook, NAME)?).map(drop)
}

/// A node with a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: String,
    /// Its number.
    pub id: u32,
}

/// `struct nodeinfo`.
const NODE: usize = 2 * NAME + 8;
/// `struct linkinfo`.
const LINK: usize = 2 * NAME + NODE;

fn node(bytes: &[u8]) -> Option<Node> {
    Some(Node { name: text(bytes, 0), kind: text(bytes, NAME), id: word(bytes, 2 * NAME)? })
}

/// Every node with a name.
pub fn nodes(socket: BorrowedFd<'_>) -> io::Result<Vec<Node>> {
    let answer = send(socket, ".", LISTNAMES, &[])?;
    Ok(answer.get(4..).unwrap_or_default().chunks_exact(NODE).filter_map(node).collect())
}

/// A joined hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// Its name.
    pub name: String,
    /// The name of the other hook.
    pub peer_hook: String,
    /// The other node.
    pub peer: Node,
}

/// The joined hooks of the node at `path`.
pub fn hooks(socket: BorrowedFd<'_>, path: &str) -> io::Result<Vec<Hook>> {
    let answer = send(socket, path, LISTHOOKS, &[])?;
    let links = answer.get(NODE..).unwrap_or_default().chunks_exact(LINK);
    let hook = |link: &[u8]| Some(Hook { name: text(link, 0), peer_hook: text(link, NAME), peer: node(link.get(2 * NAME..)?)? });
    Ok(links.filter_map(hook).collect())
}
