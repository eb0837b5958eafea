//! Starts a program in a jail of its own (jail(8)).

use crate::handover::{FIRST, LISTENER, READY, REPORT};
use crate::platform::Plan;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::unistd::{Gid, Uid, execve, setgroups, setresgid, setresuid, setsid};
use skep_proto::{Reason, Refusal};
use skep_sys::freebsd::jail::{Value, create_and_enter};
use skep_sys::freebsd::net;
use skep_sys::process::{Fork, exit_now, fork};
use skep_sys::{fd, msg, sock};
use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long it may take until the program says that it is ready.
const PATIENCE: Duration = Duration::from_secs(10);
/// The record that says the process id of the jail's first process.
const CHILD: &[u8] = b"child ";

/// A jail that is to be.
pub struct Cell {
    /// Its name.
    pub name: String,
    /// Where its file systems are mounted.
    pub place: PathBuf,
    /// The uid of its processes; none: root.
    pub owner: Option<u32>,
    /// Its devfs ruleset; none: it has no devices.
    pub ruleset: Option<u16>,
    /// It gets a network stack of its own, empty but for a loopback and stand-ins for taps.
    pub stack: bool,
}

/// A step that failed.
struct Failed(&'static str, io::Error);

fn at<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> Failed {
    move |e| Failed(step, e.into())
}

/// Starts `plan`'s program; returns its process id when it has said that it is ready. After a refusal the caller removes the jail.
pub fn start(plan: &Plan<'_>, cell: &Cell) -> Result<u32, Refusal> {
    let object = format!("machine {}", plan.machine);
    let refuse = |what: &str, e: io::Error| Refusal::io(&object, what, &e);
    let (ours, theirs) = sock::seqpacket_pair().map_err(|e| refuse("make the report channel", e))?;
    let maker = match fork().map_err(|e| refuse("fork", e))? {
        Fork::Parent(pid) => pid,
        Fork::Child => {
            drop(ours);
            let Err(Failed(step, error)) = become_first(plan, cell, &theirs);
            let text = format!("{step}\t{}", error.raw_os_error().unwrap_or(0));
            // If even this fails, the spawner sees the end of the channel.
            let _ = msg::send(theirs.as_fd(), text.as_bytes(), &[], None);
            exit_now(1);
        }
    };
    drop(theirs);
    // The maker ends as soon as it has started the first process.
    let _ = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(maker), None);
    let deadline = Some(Instant::now() + PATIENCE);
    let mut pid = None;
    loop {
        let record = msg::recv(ours.as_fd(), 2000, 0, deadline)
            .map_err(|e| Refusal::new(Reason::Internal, &object).note(format_args!("the cell's program: {e}")))?;
        if let Some(number) = record.bytes.strip_prefix(CHILD) {
            pid = std::str::from_utf8(number).ok().and_then(|n| n.parse().ok());
        } else if record.bytes == READY {
            return pid.ok_or_else(|| Refusal::new(Reason::Internal, &object).note("a program that nobody started is ready"));
        } else {
            let text = String::from_utf8_lossy(&record.bytes);
            let (step, errno) = text.rsplit_once('\t').unwrap_or((&text, "0"));
            return Err(refuse(step, io::Error::from_raw_os_error(errno.parse().unwrap_or(0))));
        }
    }
}

fn become_first(plan: &Plan<'_>, cell: &Cell, report: &OwnedFd) -> Result<Infallible, Failed> {
    setsid().map_err(at("setsid"))?;
    if let Fork::Parent(pid) = fork().map_err(at("fork"))? {
        msg::send(report.as_fd(), &[CHILD, pid.to_string().as_bytes()].concat(), &[], None).map_err(at("report"))?;
        exit_now(0);
    }
    // In the jail nobody may; from here on all of it inherits them.
    if let Some(limits) = plan.limits {
        if limits.priority != 0 {
            skep_sys::process::set_priority(limits.priority).map_err(at("set the priority"))?;
        }
        if limits.protect {
            skep_sys::freebsd::process::protect().map_err(at("protect the cell from a lack of memory"))?;
        }
    }
    let path = cell.place.to_str().ok_or_else(|| Failed("path", io::Error::from(io::ErrorKind::InvalidInput)))?;
    let mut parameters = vec![
        ("name", Value::Text(cell.name.clone())),
        ("path", Value::Text(path.to_owned())),
        ("host.hostname", Value::Text("cell".to_owned())),
        ("securelevel", Value::Number(3)),
        ("enforce_statfs", Value::Number(2)),
        ("children.max", Value::Number(0)),
    ];
    parameters.extend(cell.ruleset.map(|ruleset| ("devfs_ruleset", Value::Number(i32::from(ruleset)))));
    if plan.limits.is_some() {
        parameters.push(("allow.vmm", Value::Named));
    }
    if cell.stack {
        parameters.push(("vnet", Value::Number(1)));
    } else {
        parameters.extend([("ip4", Value::Number(0)), ("ip6", Value::Number(0))]);
    }
    // The host's, since a cell need not have one.
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null").map_err(at("open /dev/null"))?;
    for number in 0..=2 {
        fd::place(null.as_fd(), number).map_err(at("standard descriptors"))?;
    }
    drop(null);
    if let Some(errors) = plan.errors {
        fd::place(errors, 2).map_err(at("standard error"))?;
    }
    // The kernel lets nobody into a jail who holds a directory; and nothing but what the program gets has to come along.
    let mut keep = vec![report.as_raw_fd(), plan.listener.as_raw_fd()];
    keep.extend(plan.fds.iter().map(AsRawFd::as_raw_fd));
    fd::close_all_but(&keep).map_err(at("close descriptors"))?;
    create_and_enter(&parameters).map_err(at("make the jail"))?;
    if cell.stack {
        stand_ins(&plan.fds).map_err(at("make stand-ins for taps"))?;
    }
    std::env::set_current_dir("/").map_err(at("chdir /"))?;
    if let Some(id) = cell.owner {
        let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
        setgroups(&[]).map_err(at("setgroups"))?;
        setresgid(gid, gid, gid).map_err(at("setresgid"))?;
        setresuid(uid, uid, uid).map_err(at("setresuid"))?;
    }
    run(plan, report)
}

/// Takes what keeps a dying jail with a network stack of its own from its end: a device of tuntap(4) that its root had the kernel make, by
/// asking devfs(5) for a name that is not there, holds the jail, which holds the stack, which holds the interface, which holds the
/// device. Nobody is in the jail any more, so the one who goes in is alone there.
pub fn empty(name: &str, deadline: Instant) -> io::Result<()> {
    let (ours, theirs) = sock::seqpacket_pair()?;
    let child = match fork()? {
        Fork::Parent(pid) => nix::unistd::Pid::from_raw(pid),
        Fork::Child => {
            let emptied = || -> io::Result<()> {
                // The kernel lets nobody in who holds a directory.
                fd::close_all_but(&[theirs.as_raw_fd()])?;
                skep_sys::freebsd::jail::enter_dying(name)?;
                // Elsewhere the interfaces would be the host's.
                if skep_sys::freebsd::sysctl_number(c"security.jail.vnet")? != 1 {
                    return Err(io::Error::from(io::ErrorKind::InvalidInput));
                }
                let control = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
                for interface in net::list(control.as_fd())? {
                    // The loopback stays, as whatever the kernel made with the stack.
                    let _ = net::destroy(control.as_fd(), &interface);
                }
                Ok(())
            };
            // It fails if the jail has ended meanwhile, which is what is wanted.
            exit_now(i32::from(emptied().is_err()))
        }
    };
    drop(theirs);
    // It says nothing: what is waited for is its end. An interface that somebody has open goes only when he closes it.
    match msg::recv(ours.as_fd(), 1, 0, Some(deadline)) {
        Err(msg::RecvError::TimedOut) => Err(io::Error::from(io::ErrorKind::TimedOut)),
        _ => nix::sys::wait::waitpid(child, None).map(drop).map_err(io::Error::from),
    }
}

/// For each tap an interface of its name in the jail's own stack: bhyve raises that, the frames go through the tap (FREEBSD.md 26).
fn stand_ins(fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let control = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    net::set_up(control.as_fd(), "lo0", true)?;
    // The screen's: bhyve listens there, for want of UNIX sockets (FREEBSD.md 34).
    let inet = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    net::add_address(inet.as_fd(), "lo0", std::net::Ipv4Addr::LOCALHOST, 8)?;
    for fd in fds {
        // Not a tap: it has no such name.
        let Ok(name) = skep_sys::freebsd::tap_name(*fd) else { continue };
        let made = net::create(control.as_fd(), "lo")?;
        net::rename(control.as_fd(), &made, &name)?;
    }
    Ok(())
}

/// Becomes the program, with its descriptors at their numbers and no other.
fn run(plan: &Plan<'_>, report: &OwnedFd) -> Result<Infallible, Failed> {
    let text = |s: &str| CString::new(s).map_err(|_| Failed("arguments", io::Error::from(io::ErrorKind::InvalidInput)));
    let program = text(plan.program)?;
    let args =
        std::iter::once(plan.program).chain(plan.args.iter().map(String::as_str)).map(text).collect::<Result<Vec<_>, _>>()?;
    let mut numbers: Vec<(BorrowedFd<'_>, RawFd)> = vec![(report.as_fd(), REPORT), (plan.listener, LISTENER)];
    numbers.extend(plan.fds.iter().copied().zip(FIRST..));
    fd::arrange(&numbers).map_err(at("arrange descriptors"))?;
    let environment: [&CStr; 0] = [];
    let Err(error) = execve(&program, &args, &environment);
    // The channel is at its number now.
    if let Ok(report) = fd::inherited(REPORT) {
        let _ = msg::send(report.as_fd(), format!("execute the program\t{}", error as i32).as_bytes(), &[], None);
        debug_assert_eq!(report.as_raw_fd(), REPORT);
    }
    exit_now(1)
}
