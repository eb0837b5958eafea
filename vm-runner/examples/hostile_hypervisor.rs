//! A hypervisor that was taken over, for tests: the first line of its configuration says what it does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fs::File;
use std::io::{BufRead, BufReader, Write};

const GREETING: &str = "{\"QMP\":{\"version\":{\"qemu\":{\"micro\":0,\"minor\":2,\"major\":7}},\"capabilities\":[]}}\n";

fn main() {
    let script = std::fs::read_to_string("/run/machine.conf").unwrap();
    let mut qmp = qmp();
    let lines = BufReader::new(qmp.try_clone().unwrap());
    match script.lines().next().unwrap() {
        "garbage" => {
            qmp.write_all(b"\x00\xff{]\n").unwrap();
            forever()
        }
        "endless line" => flood(&mut qmp, &[b'['; 65536]),
        "flood" => {
            greet(&mut qmp, lines);
            flood(&mut qmp, "{\"event\":\"RTC_CHANGE\",\"data\":{\"offset\":0}}\n".repeat(1000).as_bytes())
        }
        "silence" => forever(),
        "deaf" => {
            greet(&mut qmp, lines);
            drop(qmp);
            forever()
        }
        "answers nothing" => {
            greet(&mut qmp, lines);
            forever()
        }
        "many words" => {
            for n in 0..200_000 {
                eprintln!("word {n}");
            }
            std::process::exit(3)
        }
        "reboots" => {
            greet(&mut qmp, lines);
            qmp.write_all(b"{\"event\":\"SHUTDOWN\",\"data\":{\"guest\":true,\"reason\":\"guest-reset\"}}\n").unwrap();
        }
        other => panic!("{other}: no such script"),
    }
}

/// The runner's line; given to this process at its exec, under this number.
fn qmp() -> File {
    File::from(skep_sys::fd::inherited(3).unwrap())
}

/// As QEMU does, until the guest runs.
fn greet(qmp: &mut File, mut lines: BufReader<File>) {
    qmp.write_all(GREETING.as_bytes()).unwrap();
    let mut line = String::new();
    for _ in 0..2 {
        line.clear();
        lines.read_line(&mut line).unwrap();
        let id: String = line.split("\"id\":").nth(1).unwrap().chars().take_while(char::is_ascii_digit).collect();
        qmp.write_all(format!("{{\"return\":{{}},\"id\":{id}}}\n").as_bytes()).unwrap();
    }
}

fn flood(qmp: &mut File, bytes: &[u8]) {
    while qmp.write_all(bytes).is_ok() {}
    forever()
}

fn forever() {
    loop {
        std::thread::park();
    }
}
