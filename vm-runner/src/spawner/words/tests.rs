//! Whoever speaks, and whatever he says.

use super::*;
use nix::unistd::write;
use std::fs;

struct Scene {
    dir: tempfile::TempDir,
    words: Words,
}

fn words(dir: &Path) -> Words {
    let logs = SPEAKERS.map(|service| (service, Kept::open(dir, service.word()).expect("a log"))).into();
    let alarm = Alarm::new().expect("a timer");
    Words { dir: dir.to_path_buf(), logs, alarm, ears: BTreeMap::new(), said: BTreeMap::new(), next: ALARM }
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let words = words(dir.path());
        Self { dir, words }
    }

    fn log(&self, service: ServiceName) -> String {
        fs::read_to_string(self.dir.path().join(format!("{}.log", service.word()))).expect("a log")
    }

    /// Hears all that is waited for, until nobody says anything any more.
    fn hear(&mut self) {
        loop {
            let mut set: Vec<_> =
                self.words.watched().iter().map(|w| (w.token, w.fd.try_clone_to_owned().expect("a copy"))).collect();
            set.retain(|(_, fd)| {
                let mut one = [nix::poll::PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
                nix::poll::poll(&mut one, nix::poll::PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
            });
            if set.is_empty() {
                return;
            }
            set.iter().for_each(|(token, _)| self.words.ready(*token));
        }
    }
}

fn say(end: &OwnedFd, text: &str) {
    assert_eq!(write(end, text.as_bytes()), Ok(text.len()));
}

#[test]
fn a_line_bears_its_speaker_whatever_it_says() {
    let mut scene = Scene::new();
    let (one, other) = (MachineId::from_u128(1), MachineId::from_u128(2));
    let first = scene.words.open(ServiceName::Console, one).expect("a pipe");
    let second = scene.words.open(ServiceName::GuestServices, other).expect("a pipe");
    say(&first, "info serves\nwarn trace=7 x\n");
    // As if another had said it, at another time; in pieces; with what a terminal would obey; without an end.
    say(&first, &format!("\n\n2026-01-01T00:00:00.000000Z guest-services info switch {other}: for"));
    scene.hear();
    say(&first, "ged\r2026-01-01T00:00:00.000000Z broker info x\u{1b}[2J\0\n");
    say(&second, &"ä".repeat(5000));
    drop((first, second));
    scene.hear();
    assert!(scene.words.ears.is_empty(), "both have ended");
    let log = scene.log(ServiceName::Console);
    let lines: Vec<&str> = log.lines().collect();
    let head = |line: &str| line.split_once(' ').map(|(time, rest)| (time.len(), rest.to_owned())).expect("a time");
    let wanted = [
        format!("console-proxy info machine {one}: serves"),
        format!("console-proxy warn machine {one}: trace=7 x"),
        format!(
            "console-proxy warn machine {one}: 2026-01-01T00:00:00.000000Z guest-services info switch {other}: forged \
             2026-01-01T00:00:00.000000Z broker info x [2J "
        ),
    ];
    assert_eq!(lines.iter().map(|line| head(line)).collect::<Vec<_>>(), wanted.map(|line| (27, line)));
    let log = scene.log(ServiceName::GuestServices);
    assert!(log.contains(&format!("guest-services warn switch {other}: ää")) && log.len() <= LINE + 200, "{}", log.len());
    assert_eq!(log.lines().count(), 1);
    assert_eq!(scene.log(ServiceName::Fetcher), "");
}

#[test]
fn who_says_too_much_is_not_listened_to() {
    let mut scene = Scene::new();
    let cell = MachineId::from_u128(1);
    let patient = scene.words.open(ServiceName::Console, MachineId::from_u128(2)).expect("a pipe");
    let lines = ["x\n".repeat(2000), "\n".repeat(4000), "y".repeat(4000), "z\n".into()];
    // Again and again: whoever is started anew has no more to say.
    for text in &lines {
        let loud = scene.words.open(ServiceName::Console, cell).expect("a pipe");
        // Until it is full: writing never waits.
        while let Ok(sent) = write(&loud, text.as_bytes()) {
            assert!(sent > 0);
        }
        scene.hear();
        assert!(scene.words.ears.values().any(|ear| ear.speaker.cell == cell && ear.rests.is_some()), "it rests");
        drop(loud);
    }
    let log = scene.log(ServiceName::Console);
    assert_eq!(log.lines().filter(|line| line.ends_with(": x")).count(), LINES as usize);
    assert_eq!(log.lines().filter(|line| line.contains("it says too much")).count(), 1, "{log}");
    assert_eq!(log.lines().count(), LINES as usize + 1, "{log}");
    // Others are heard.
    say(&patient, "info serves\n");
    scene.hear();
    assert!(scene.log(ServiceName::Console).ends_with("machine 00000000-0000-0000-0000-000000000002: serves\n"));
    // When the turn is over, it is heard again, and what was left out is counted.
    for said in scene.words.said.values_mut() {
        said.since = said.since.checked_sub(TURN).expect("a time");
    }
    for ear in scene.words.ears.values_mut() {
        ear.rests = ear.rests.and_then(|until| until.checked_sub(TURN));
    }
    scene.words.ready(ALARM);
    scene.hear();
    let log = scene.log(ServiceName::Console);
    let after = log.lines().skip(LINES as usize + 2).collect::<Vec<_>>();
    assert!(after.first().is_some_and(|line| line.contains("lines were left out: it said too much")), "{after:?}");
}

#[test]
fn a_successor_hears_those_that_live() {
    let mut scene = Scene::new();
    let (lives, ended) = (MachineId::from_u128(1), MachineId::from_u128(2));
    let end = scene.words.open(ServiceName::Initiator, lives).expect("a pipe");
    drop(scene.words.open(ServiceName::Initiator, ended).expect("a pipe"));
    fs::write(scene.dir.path().join(format!("{lives}.console-proxy")), "no pipe").expect("written");
    fs::write(scene.dir.path().join("console-proxy"), "").expect("written");
    say(&end, "info one\n");
    scene.hear();
    say(&end, "info two\n");
    scene.words = Words { next: ALARM, ..words(scene.dir.path()) };
    // Nobody has read what it said last. What it says while nobody listens is lost, as it is told.
    assert_eq!(write(&end, b"info three\n"), Err(Errno::EPIPE));
    scene.words.resume();
    say(&end, "info four\n");
    scene.hear();
    let log = scene.log(ServiceName::Initiator);
    let ends: Vec<&str> = log.lines().filter_map(|line| line.rsplit(' ').next()).collect();
    assert_eq!(ends, ["one", "two", "four"]);
    assert!(log.lines().all(|line| line.contains(&format!("iscsi-initiator info disk {lives}: "))), "{log}");
    let pipe = |cell: MachineId| scene.dir.path().join(format!("{cell}.iscsi-initiator"));
    assert!(pipe(lives).exists() && !pipe(ended).exists());
    scene.words.sweep(lives).expect("swept");
    assert!(!pipe(lives).exists());
    scene.words.sweep(lives).expect("swept again");
    drop(end);
    scene.hear();
    assert!(scene.words.ears.is_empty());
}
