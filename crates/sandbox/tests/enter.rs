//! What a process can still do after entering, and that nothing is served where entering fails. The process is
//! `examples/confined`; what it is afterwards is asked of the kernel from outside.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

/// A uid that nobody has.
const NOBODY: u32 = 61_234;
const DENIED: &str = "EPERM: Operation not permitted";

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Whose process it is to become.
#[derive(Clone, Copy, PartialEq)]
enum Who {
    /// Started by root, becomes a uid of its own.
    Root,
    /// Started by an ordinary user, stays.
    Ordinary,
}

struct Confined {
    child: Child,
    output: BufReader<ChildStdout>,
    said: Vec<String>,
    _dir: tempfile::TempDir,
}

impl Confined {
    fn run(scenario: &str, who: Who) -> Self {
        Self::start(scenario, who, &[])
    }

    /// Has `by`, if it is not empty, start it.
    fn start(scenario: &str, who: Who, by: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        fs::create_dir_all(state.join("shown")).unwrap();
        for (name, mode) in [("held", 0o666), ("secret", 0o444), ("shown/file", 0o666)] {
            fs::write(state.join(name), name).unwrap();
            fs::set_permissions(state.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(state.join("shown"), fs::Permissions::from_mode(0o777)).unwrap();
        // A copy, since the checkout may be closed to other users.
        let program = dir.path().join("confined");
        fs::copy(built(), &program).unwrap();
        let mut words: Vec<&OsStr> = Vec::new();
        if is_root() && who == Who::Ordinary {
            chown(&state, Some(NOBODY), Some(NOBODY)).unwrap();
            words.extend(["setpriv", "--reuid", "61234", "--regid", "61234", "--clear-groups"].map(OsStr::new));
        }
        words.extend(by.iter().map(OsStr::new));
        words.extend([program.as_os_str(), OsStr::new(scenario), state.as_os_str()]);
        let uid = if who == Who::Root { NOBODY.to_string() } else { "-".into() };
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg(uid).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let said = output.by_ref().lines().map(Result::unwrap).take_while(|line| line != "done").collect();
        Self { child, output, said, _dir: dir }
    }

    fn attempts(&self) -> BTreeMap<&str, &str> {
        assert_eq!(self.said.first().map(String::as_str), Some("entered"), "{:?}", self.said);
        self.said
            .iter()
            .skip(1)
            .map(|line| line.rsplit_once(": ").filter(|(_, r)| *r == "ok").or(line.split_once(": ")).unwrap())
            .collect()
    }

    /// A line of `/proc/PID/status`.
    fn status(&self, key: &str) -> String {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        value.unwrap_or_else(|| panic!("no {key}")).split_whitespace().collect::<Vec<_>>().join(" ")
    }

    fn namespace(pid: &str, name: &str) -> PathBuf {
        fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap()
    }
}

impl Drop for Confined {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The example next to this test.
fn built() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    own.parent().unwrap().parent().unwrap().join("examples/confined")
}

/// Skips a test by name.
fn skipped(test: &str, reason: &str) {
    println!("SKIP {test}: {reason}");
}

fn tries_in_vain(who: Who) {
    let confined = Confined::run("usual", who);
    let attempts = confined.attempts();
    let works = ["write to the held file", "read a declared file", "make a pair of sockets", "map memory"];
    for (name, result) in &attempts {
        match *name {
            "descriptors" => assert!(result.starts_with("32, then EMFILE"), "{result}"),
            works_too if works.contains(&works_too) => assert_eq!(*result, "ok", "{name}"),
            _ => assert_ne!(*result, "ok", "{name}"),
        }
    }
    for name in works {
        assert!(attempts.contains_key(name), "{name}: {attempts:?}");
    }
    // Each for the reason that it should be: not because the thing is not there.
    let os = "Operation not permitted (os error 1)";
    for (name, reason) in [
        ("read an undeclared file", "Permission denied (os error 13)"),
        ("read a file of the host", "Permission denied (os error 13)"),
        ("write to a file declared for reading", "Permission denied (os error 13)"),
        ("make a file", "Permission denied (os error 13)"),
        ("use an undeclared descriptor", "Bad file descriptor (os error 9)"),
        ("execute a program", DENIED),
        ("map executable memory", os),
        ("make a thread", os),
        ("make a process", os),
        ("see another process", os),
        ("signal the parent", DENIED),
        ("become root", DENIED),
        ("make a user namespace", DENIED),
        ("mount", DENIED),
    ] {
        assert_eq!(attempts.get(name), Some(&reason), "{name}");
    }
    for family in ["inet", "inet6", "unix", "netlink", "packet", "vsock"] {
        let said = confined.said.iter().find(|line| line.starts_with(&format!("make a socket: {family}: "))).unwrap();
        assert!(said.ends_with(DENIED), "{said}");
    }
}

/// What the kernel says of it.
fn is_confined(who: Who) {
    let confined = Confined::run("usual", who);
    let _ = confined.attempts();
    let pid = confined.child.id().to_string();
    let uid = if is_root() { NOBODY } else { nix::unistd::geteuid().as_raw() };
    assert_eq!(confined.status("Uid"), format!("{uid} {uid} {uid} {uid}"));
    assert_eq!(confined.status("Gid"), format!("{uid} {uid} {uid} {uid}"));
    if is_root() {
        assert_eq!(confined.status("Groups"), "");
    }
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(confined.status(set), "0000000000000000", "{set}");
    }
    if who == Who::Root {
        assert_eq!(confined.status("CapBnd"), "0000000000000000");
    }
    assert_eq!((confined.status("NoNewPrivs").as_str(), confined.status("Seccomp").as_str()), ("1", "2"));
    assert_eq!(confined.status("Threads"), "1");
    for namespace in ["net", "ipc", "uts"] {
        assert_ne!(Confined::namespace(&pid, namespace), Confined::namespace("self", namespace), "{namespace}");
    }
    let devices = fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap();
    let names: Vec<&str> = devices.lines().skip(2).map(|line| line.split(':').next().unwrap().trim()).collect();
    assert!(!names.contains(&"eth0") && names.contains(&"lo"), "{names:?}");
    let addresses = fs::read_to_string(format!("/proc/{pid}/net/fib_trie")).unwrap_or_default();
    assert!(!addresses.contains("LOCAL"), "{addresses}");
    let mut open: Vec<String> =
        fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    open.sort();
    assert_eq!(open, ["0", "1", "2", "3"], "the standard three and the held one");
}

#[test]
fn root_s_service_can_do_nothing_that_its_table_does_not_name() {
    if !is_root() {
        return skipped("root_s_service_can_do_nothing_that_its_table_does_not_name", "needs root");
    }
    tries_in_vain(Who::Root);
}

#[test]
fn an_ordinary_user_s_service_can_do_nothing_that_its_table_does_not_name() {
    tries_in_vain(Who::Ordinary);
}

#[test]
fn the_kernel_shows_root_s_service_confined() {
    if !is_root() {
        return skipped("the_kernel_shows_root_s_service_confined", "needs root");
    }
    is_confined(Who::Root);
}

#[test]
fn the_kernel_shows_an_ordinary_user_s_service_confined() {
    is_confined(Who::Ordinary);
}

#[test]
fn an_error_in_a_table_or_its_use_is_not_entered() {
    for (scenario, says) in [
        ("undeclared descriptor", "not entered: confined: descriptor kind something is not in the table of rights"),
        ("unknown call", "not entered: no system call no_such_call"),
    ] {
        for who in if is_root() { vec![Who::Root, Who::Ordinary] } else { vec![Who::Ordinary] } {
            let mut confined = Confined::run(scenario, who);
            assert_eq!(confined.said, [says]);
            assert_eq!(confined.child.wait().unwrap().code(), Some(1));
        }
    }
}

#[test]
fn whatever_step_the_kernel_refuses_it_is_not_entered() {
    let of_all = [
        "close_range",
        "unshare",
        "capset",
        "prlimit64",
        "prctl",
        "landlock_create_ruleset",
        "landlock_add_rule",
        "landlock_restrict_self",
    ];
    let of_root = ["setgroups", "setresgid", "setresuid"];
    let who = if is_root() { Who::Root } else { Who::Ordinary };
    for call in of_all.iter().chain(of_root.iter().filter(|_| who == Who::Root)) {
        let mut confined = Confined::run(&format!("refused {call}"), who);
        assert!(matches!(confined.said.as_slice(), [line] if line.starts_with("not entered: ")), "{call}: {:?}", confined.said);
        assert_eq!(confined.child.wait().unwrap().code(), Some(1), "{call}");
    }
}

#[test]
fn a_service_ends_with_who_started_it() {
    // Its parent is a shell, which leaves it standard input.
    let mut confined = Confined::start("usual", Who::Ordinary, &["sh", "-c", "exec 3<&0; \"$@\" <&3 & wait", "sh"]);
    let _ = confined.attempts();
    confined.child.kill().unwrap();
    // Standard output ends with the last process that has it.
    assert_eq!(confined.output.read(&mut [0]).unwrap(), 0);
}
