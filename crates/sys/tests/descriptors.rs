//! Descriptors for a child between fork and exec, and locks that show their holder.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use nix::sys::stat::fstat;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use skep_sys::process::{Fork, exit_now, fork};
use skep_sys::{fd, lock, msg, sock};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Runs `act` in a child; its exit code.
fn in_child(act: impl FnOnce() -> i32) -> i32 {
    match fork().unwrap() {
        Fork::Child => exit_now(act()),
        Fork::Parent(pid) => match waitpid(Pid::from_raw(pid), None).unwrap() {
            WaitStatus::Exited(_, code) => code,
            other => panic!("{other:?}"),
        },
    }
}

#[test]
fn a_child_gets_the_planned_descriptors_and_no_other() {
    let files: Vec<OwnedFd> = (0..4).map(|_| fd::memory_file(c"test").unwrap()).collect();
    let inodes: Vec<_> = files.iter().map(|f| fstat(f).unwrap().st_ino).collect();
    let first = files[0].as_raw_fd();
    // Targets that are others' sources, and one that stays where it is.
    let plan: Vec<_> = [1, 0, 3, 2].iter().zip(first..).map(|(n, to)| (files[*n].as_fd(), to)).collect();
    let code = in_child(|| {
        if fd::arrange(&plan).is_err() {
            return 100;
        }
        for (number, expected) in (first..).zip([1, 0, 3, 2]) {
            let Ok(got) = fd::inherited(number) else { return 101 };
            if fstat(&got).unwrap().st_ino != inodes[expected] {
                return 102;
            }
            std::mem::forget(got);
        }
        (3..256).filter(|n| *n < first || *n >= first + 4).filter(|n| fd::inherited(*n).is_ok()).count() as i32
    });
    assert_eq!(code, 0);
}

#[test]
fn the_standard_three_and_unopened_numbers_are_not_inherited() {
    for number in [-1, 0, 1, 2, 900] {
        assert!(fd::inherited(number).is_err(), "{number}");
    }
}

#[test]
fn a_lock_is_one_process_s_and_ends_with_it() {
    // FreeBSD's memory files cannot be locked.
    let file = tempfile::tempfile().unwrap();
    let (ours, theirs) = sock::seqpacket_pair().unwrap();
    let Fork::Parent(holder) = fork().unwrap() else {
        drop(ours);
        let taken = lock::take(file.as_fd()).unwrap_or(false);
        let _ = msg::send(theirs.as_fd(), &[u8::from(taken)], &[], None);
        // Until the other closes.
        let _ = msg::recv(theirs.as_fd(), 1, 0, None);
        exit_now(0)
    };
    drop(theirs);
    assert_eq!(msg::recv(ours.as_fd(), 1, 0, None).unwrap().bytes, [1]);
    assert_eq!(lock::holder(file.as_fd()).unwrap(), Some(holder));
    assert!(!lock::take(file.as_fd()).unwrap());
    drop(ours);
    waitpid(Pid::from_raw(holder), None).unwrap();
    lock::wait(file.as_fd()).unwrap();
    assert_eq!(lock::holder(file.as_fd()).unwrap(), None);
    assert!(lock::take(file.as_fd()).unwrap());
    assert_eq!(in_child(|| i32::from(lock::take(file.as_fd()).unwrap_or(true))), 0, "held by this process");
}
