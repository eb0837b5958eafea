//! Rulesets of devfs: whose one is, it says itself.
#![cfg(target_os = "freebsd")]
#![allow(clippy::unwrap_used)]

use skep_sys::freebsd::devfs::{Mark, Rule, give, hide, of, show, take};
use std::fs::File;
use std::os::fd::AsFd;

/// None, and a named skip, without root.
fn dev() -> Option<File> {
    if nix::unistd::geteuid().is_root() {
        return Some(File::open("/dev").unwrap());
    }
    println!("SKIP {}: root is needed", std::thread::current().name().unwrap_or("?"));
    None
}

#[test]
fn each_suite_has_a_ruleset_of_its_own_and_takes_no_other_away() {
    let Some(dev) = dev() else { return };
    // The uids of both suites end in the same digits: no number is made of them.
    let (ours, theirs) = (Mark::new("tsa1", "volumes"), Mark::new("tsb2", "volumes"));
    let rules = |uid| [Rule::HideAll, Rule::Show("zvol".into()), Rule::ShowTo("zvol/x/*".into(), uid)];
    let our_number = take(dev.as_fd(), &ours, &rules(1_000_002)).unwrap();
    let their_number = take(dev.as_fd(), &theirs, &rules(1_003_002)).unwrap();
    assert_ne!(our_number, their_number);
    // Taken again, after a crash or by the next start, it is the same one.
    assert_eq!(take(dev.as_fd(), &ours, &rules(1_000_002)).unwrap(), our_number);
    assert_eq!((of(dev.as_fd(), &ours).unwrap(), of(dev.as_fd(), &theirs).unwrap()), (vec![our_number], vec![their_number]));
    // What is almost the mark is not it.
    give(dev.as_fd(), &Mark::new("tsa1", "volume")).unwrap();
    give(dev.as_fd(), &Mark::new("tsa1", "volumes2")).unwrap();
    for _ in 0..2 {
        give(dev.as_fd(), &ours).unwrap();
    }
    assert_eq!((of(dev.as_fd(), &ours).unwrap(), of(dev.as_fd(), &theirs).unwrap()), (vec![], vec![their_number]));
    give(dev.as_fd(), &theirs).unwrap();
    assert_eq!(of(dev.as_fd(), &theirs).unwrap(), Vec::<u16>::new());
}

#[test]
fn what_is_shown_is_what_the_rules_say_and_goes_whole() {
    let Some(dev) = dev() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (place, mark) = (dir.path().join("volumes"), Mark::new("tsa3", "volumes"));
    let names = || {
        let entries = std::fs::read_dir(&place).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    for _ in 0..2 {
        drop(show(&place, &mark, &[Rule::HideAll, Rule::Show("null".into())]).unwrap());
        assert_eq!(names(), ["null"]);
        assert_eq!(of(dev.as_fd(), &mark).unwrap().len(), 1);
    }
    hide(&place, &mark).unwrap();
    assert!(!place.exists() && of(dev.as_fd(), &mark).unwrap().is_empty());
    // After a reboot the directory may be there, with nothing mounted and no ruleset.
    std::fs::create_dir(&place).unwrap();
    hide(&place, &mark).unwrap();
    assert!(!place.exists());
    hide(&place, &mark).unwrap();
}
