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
