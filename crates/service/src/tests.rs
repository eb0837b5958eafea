//! Flags.

use crate::{Ids, Role, Start};

const IDS: &str = "broker=71000,api-frontend=71001,storage-helper=71002,net-helper=71003,vm-runner=71004,machines=72000";

fn parse(line: &str, known: &[&str]) -> Result<Start, String> {
    Start::parse(line.split_whitespace().map(str::to_owned), known)
}

/// The flags that must be there, for whoever runs this test.
fn good() -> String {
    let flags = "--state /s --run /r --instance ab12";
    if nix::unistd::geteuid().is_root() { format!("{flags} --ids {IDS}") } else { flags.to_owned() }
}

#[test]
fn flags_give_places_instance_and_ids() {
    let start = parse(&format!("--listen x:1 {}", good()), &["listen"]).unwrap();
    assert_eq!((start.state.to_str(), start.run.to_str()), (Some("/s"), Some("/r")));
    assert_eq!((start.instance.to_string().as_str(), start.extra.get("listen").map(String::as_str)), ("ab12", Some("x:1")));
    let scene = start.scene(Role::Net);
    assert!(scene.with_parent && !scene.in_cell);
    if nix::unistd::geteuid().is_root() {
        assert_eq!(scene.identity, Some((71003, 71003)));
        assert_eq!(start.allowed(Role::Broker), Some(vec![71000]));
    } else {
        assert_eq!(scene.identity, None);
        assert_eq!(start.allowed(Role::Broker), Some(vec![nix::unistd::geteuid().as_raw()]));
    }
}

#[test]
fn wrong_flags_are_named() {
    let good = good();
    for (line, says) in [
        (String::new(), "--state is missing"),
        ("--run /r".into(), "--state is missing"),
        ("--state /s --run /r".into(), "--instance is missing"),
        ("--state s --run /r --instance ab12".into(), "s: an absolute path is expected"),
        ("--state /s --run ../r --instance ab12".into(), "../r: an absolute path is expected"),
        ("--state".into(), "--state: a value is expected"),
        ("state /s".into(), "state: a flag is expected"),
        (format!("{good} --listen x"), "--listen: no such flag"),
        (format!("{good} --listen"), "--listen: no such flag"),
        (format!("{good} stray"), "stray: a flag is expected"),
        ("--state /s --run /r --instance AB12".into(), "--instance: not a instance id"),
        ("--state /s --run /r --instance abcde".into(), "--instance: not a instance id"),
        ("--state /s --run /r --instance ../x".into(), "--instance: not a instance id"),
    ] {
        let error = parse(&line, &[]).unwrap_err();
        assert!(error.starts_with(says), "{line}: {error}");
    }
}

#[test]
fn root_needs_ids_and_nobody_else_may_give_them() {
    let root = nix::unistd::geteuid().is_root();
    let flags = "--state /s --run /r --instance ab12";
    let wrong = if root { flags.to_owned() } else { format!("{flags} --ids {IDS}") };
    assert_eq!(parse(&wrong, &[]).unwrap_err(), "--ids goes with being started as root, and only with that");
}

#[test]
fn ids_are_whole_and_none_is_root() {
    let ids = Ids::parse(IDS).unwrap();
    assert_eq!((ids.of(Role::Broker), ids.of(Role::Spawner), ids.machines()), (71000, 71004, 72000));
    let ids = Ids::parse(&IDS.replace("71000", "300:400")).unwrap();
    assert_eq!((ids.of(Role::Broker), ids.group_of(Role::Broker), ids.group_of(Role::Net)), (300, 400, 71003));
    for (text, says) in [
        (IDS.replace("71000", "71000:0"), "--ids broker=71000:0: root is not allowed"),
        (IDS.replace("71000", "71000:"), "--ids broker=71000:: a number is expected"),
        (IDS.replace("71000", "71000:1:2"), "--ids broker=71000:1:2: a number is expected"),
        (IDS.replace("broker=71000", "broker=0"), "--ids broker=0: root is not allowed"),
        (IDS.replace("machines=72000", "machines=0"), "--ids machines=0: root is not allowed"),
        (IDS.replace(",machines=72000", ""), "--ids: machines is missing"),
        (IDS.replace("net-helper", "net_helper"), "--ids: net-helper is missing"),
        (IDS.replace("71000", "-1"), "--ids broker=-1: a number is expected"),
        (IDS.replace("71000", "4294967296"), "--ids broker=4294967296: a number is expected"),
        (IDS.replace("71000", "root"), "--ids broker=root: a number is expected"),
        (String::new(), "--ids : NAME=NUMBER is expected"),
        (format!("{IDS},"), "--ids : NAME=NUMBER is expected"),
    ] {
        assert_eq!(Ids::parse(&text).unwrap_err(), says);
    }
}

/// A child between fork and exec would hold the supervisor's pipe, and with it the word that the service serves.
#[test]
fn a_child_does_not_get_the_word_to_the_supervisor() {
    use std::os::fd::{AsFd, AsRawFd};
    let (mut ours, theirs) = std::io::pipe().unwrap();
    skep_sys::fd::set_cloexec(theirs.as_fd(), false).unwrap();
    parse(&format!("{} --ready-fd {}", good(), theirs.as_raw_fd()), &[]).unwrap().begun().unwrap();
    let piped = std::process::Stdio::piped;
    let mut child = std::process::Command::new("cat").stdin(piped()).stdout(piped()).spawn().unwrap();
    drop(theirs);
    // Once it answers it is the program: what is closed on its start is closed.
    let (mut input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    std::io::Write::write_all(&mut input, b"x").unwrap();
    std::io::Read::read_exact(&mut output, &mut [0]).unwrap();
    // It lives still, so this is the end only if it has no other end of the pipe.
    skep_sys::fd::set_nonblocking(ours.as_fd(), true).unwrap();
    assert_eq!(std::io::Read::read(&mut ours, &mut [0]).unwrap(), 0);
    drop(input);
    child.wait().unwrap();
    for wrong in ["2", "1000", "x"] {
        let start = parse(&format!("{} --ready-fd {wrong}", good()), &[]).unwrap();
        let error = start.begun().unwrap_err().to_string();
        assert!(error.contains("--ready-fd"), "{error}");
    }
}

/// In a child, which has one thread: groups are a process's.
#[test]
fn no_group_of_whoever_started_it_stays_with_a_service() {
    use nix::unistd::{Gid, Pid, getgroups, setgroups};
    use skep_sys::process::{Fork, exit_now, fork};
    if !nix::unistd::geteuid().is_root() {
        println!("SKIP no_group_of_whoever_started_it_stays_with_a_service: root is needed");
        return;
    }
    let administrators = Gid::from_raw(61_999);
    let Fork::Parent(child) = fork().unwrap() else {
        // The first is the effective group itself before FreeBSD 15 (setgroups(2)).
        let had = setgroups(&[nix::unistd::getegid(), administrators]).is_ok()
            && getgroups().is_ok_and(|groups| groups.contains(&administrators));
        let start = parse(&good(), &[]).ok().and_then(|start| start.begun().ok());
        let within = start.map(|start| {
            start.as_role(Role::Broker, || {
                Ok::<_, crate::StartError>(getgroups().is_ok_and(|groups| !groups.contains(&administrators)))
            })
        });
        let gone = getgroups().is_ok_and(|groups| !groups.contains(&administrators));
        exit_now(i32::from(!(had && gone && matches!(within, Some(Ok(true))))));
    };
    let ended = nix::sys::wait::waitpid(Pid::from_raw(child), None).unwrap();
    assert_eq!(ended, nix::sys::wait::WaitStatus::Exited(Pid::from_raw(child), 0));
}
