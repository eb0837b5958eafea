//! QEMU under control: started, spoken to in QMP, watched until its end. Whatever it says may be a guest's words.

use super::super::{Happening, Kit};
use crate::runner::Words;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::socket::{MsgFlags, recv};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use skep_engine_qemu::qmp::{self, Event, Line, Reader, Reply};
use skep_engine_qemu::{Exit, History};
use skep_ipc::Watch;
use skep_proto::runner::{DiskStats, DiskSwitch};
use skep_proto::{DiskRates, Reason, Refusal};
use skep_sys::{linux, msg, sock};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the writes may take that are under way when disks go on in other files.
const SWITCH: Duration = Duration::from_secs(20);
/// How long a hypervisor that was told to end may take before it is killed.
const GRACE: Duration = Duration::from_secs(3);
/// How long the kernel may take to end a killed one.
const END: Duration = Duration::from_secs(10);
/// Bytes that are read at a time: a flood on QMP must leave room for others.
const GULP: usize = 16 << 10;

const QMP: u64 = 1;
const WORDS: u64 = 2;
const PROCESS: u64 = 3;

/// What has been agreed on so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Its greeting has not come.
    Greeting,
    /// Asked to leave the greeting mode.
    Capabilities,
    /// Asked which threads its virtual CPUs are.
    Threads,
    /// Told to let the guest run.
    Continue,
    /// Done.
    Up,
}

/// One running QEMU.
pub struct Engine {
    pid: i32,
    process: OwnedFd,
    qmp: Option<OwnedFd>,
    errors: Option<OwnedFd>,
    reader: Reader,
    stage: Stage,
    history: History,
    last_id: u64,
    answer: Option<(u64, Reply)>,
    happened: Vec<Happening>,
    ended: bool,
    /// Its last words.
    pub words: Words,
    /// The guest is not let run at first.
    waits: bool,
    /// Virtual CPUs that are kept to one of the host's.
    pins: BTreeMap<u16, u16>,
    /// The processor runs the guest, and may be at a loss.
    kvm: bool,
    /// It was asked by this command why it stopped.
    asked: Option<u64>,
}

impl Engine {
    /// Where it reads its configuration, its kernel and its initial RAM disk.
    pub const FILES: [&'static str; 3] = [skep_engine_qemu::CONFIG, skep_engine_qemu::KERNEL, skep_engine_qemu::INITRD];

    /// Where it connects to for a disk that is reached over a socket.
    pub fn door(slot: u8) -> Option<String> {
        Some(skep_engine_qemu::remote(slot))
    }

    /// Whether its disks can stand on layers.
    pub const LAYERS: bool = true;

    /// Starts it. The guest runs when [`Happening::Running`] comes.
    pub fn start(kit: &Kit, words: Words) -> io::Result<Self> {
        let (ours, theirs) = sock::stream_pair()?;
        let (errors, errors_theirs) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC | nix::fcntl::OFlag::O_NONBLOCK)?;
        // Our side must never wait; its side may.
        skep_sys::fd::set_nonblocking(errors_theirs.as_fd(), false)?;
        // What the runner has written there just now.
        let config = std::fs::read_to_string(skep_engine_qemu::CONFIG)?;
        let (waits, pins) = (skep_engine_qemu::waits(&config), skep_engine_qemu::pins(&config));
        let pid = super::exec::spawn(kit, &theirs, &errors_theirs)?;
        Ok(Self {
            pid,
            process: linux::pidfd(pid)?,
            qmp: Some(ours),
            errors: Some(errors),
            reader: Reader::default(),
            stage: Stage::Greeting,
            history: History::default(),
            last_id: 0,
            answer: None,
            happened: Vec::new(),
            ended: false,
            words,
            waits,
            pins,
            kvm: kit.kvm,
            asked: None,
        })
    }

    /// What to wait for.
    pub fn watched(&self) -> Vec<Watch<'_>> {
        let process = (!self.ended).then_some((&self.process, PROCESS));
        let qmp = self.qmp.as_ref().map(|fd| (fd, QMP));
        let errors = self.errors.as_ref().map(|fd| (fd, WORDS));
        let all = [process, qmp, errors].into_iter().flatten();
        all.map(|(fd, token)| Watch { fd: fd.as_fd(), flags: PollFlags::POLLIN, token }).collect()
    }

    /// Something that was waited for is ready.
    pub fn ready(&mut self, token: u64) {
        match token {
            QMP => self.read_qmp(),
            WORDS => self.read_words(),
            PROCESS => self.finish(),
            _ => {}
        }
    }

    /// What has happened since the last call.
    pub fn happened(&mut self) -> Vec<Happening> {
        std::mem::take(&mut self.happened)
    }

    /// Whether the guest was let run.
    pub fn is_up(&self) -> bool {
        self.stage == Stage::Up
    }

    /// Whether it closed its ears while it lives: it cannot be led any more.
    pub fn is_deaf(&self) -> bool {
        self.qmp.is_none() && !self.ended
    }

    /// Waits until the guest was let run, or the hypervisor has ended. False: neither came in time.
    pub fn await_up(&mut self, patience: Duration) -> bool {
        self.step_until(Instant::now() + patience, |e| e.stage == Stage::Up || e.ended)
    }

    /// Presses the power button.
    pub fn power_button(&mut self) -> Result<(), Refusal> {
        self.call("power button", &[], qmp::system_powerdown).map(|_| ())
    }

    /// Stops the virtual CPUs.
    pub fn pause(&mut self) -> Result<(), Refusal> {
        self.call("pause", &[], qmp::stop).map(|_| ())
    }

    /// Lets them run again.
    pub fn resume(&mut self) -> Result<(), Refusal> {
        self.call("resume", &[], qmp::cont).map(|_| ())
    }

    /// Makes a new connection to the screen, and returns its other end.
    pub fn connect_screen(&mut self) -> Result<OwnedFd, Refusal> {
        let failed = |e: io::Error| Refusal::io("screen", "make a socket pair", &e);
        let (ours, theirs) = sock::stream_pair().map_err(failed)?;
        self.call("screen", &[theirs.as_fd()], |id| qmp::getfd(id, "screen"))?;
        self.call("screen", &[], |id| qmp::add_vnc_client(id, "screen"))?;
        Ok(ours)
    }

    /// Becomes the host's end of a channel, and returns its own other end.
    pub fn connect_channel(&mut self, port: u8) -> Result<OwnedFd, Refusal> {
        let object = format!("channel {port}");
        let chardevs = self.call(&object, &[], qmp::query_chardevs)?;
        match qmp::channel(&chardevs, port) {
            None => return Err(Refusal::new(Reason::WrongState, object).note("the machine runs without it")),
            Some(true) => return Err(Refusal::new(Reason::InUse, object).note("another client is connected to it")),
            Some(false) => {}
        }
        let (ours, theirs) = sock::stream_pair().map_err(|e| Refusal::io(&object, "make a socket pair", &e))?;
        self.call(&object, &[theirs.as_fd()], |id| qmp::getfd(id, "channel"))?;
        self.call(&object, &[], |id| qmp::connect_channel(id, port, "channel"))?;
        Ok(ours)
    }

    /// Takes the CD out of a drive.
    pub fn eject(&mut self, slot: u8) -> Result<(), Refusal> {
        self.call("CD", &[], |id| qmp::eject(id, slot)).map(|_| ())
    }

    /// Pulls a NIC's cable, or plugs it in.
    pub fn set_link(&mut self, slot: u8, up: bool) -> Result<(), Refusal> {
        self.call("NIC", &[], |id| qmp::set_link(id, slot, up)).map(|_| ())
    }

    /// Holds a disk to rates.
    pub fn limit_disk(&mut self, slot: u8, rates: DiskRates) -> Result<(), Refusal> {
        let some = |rate: u64| (rate > 0).then_some(rate);
        let DiskRates { read_bps, write_bps, read_iops, write_iops } = rates;
        let (read_bps, write_bps) = (some(read_bps), some(write_bps));
        let rates = skep_machine::DiskRates { read_bps, write_bps, read_iops: some(read_iops), write_iops: some(write_iops) };
        self.call("disk", &[], |id| qmp::limit_disk(id, slot, rates)).map(|_| ())
    }

    /// Makes a disk larger, whose file may then come to have `most` bytes. Refused, it is as it was, unless the hypervisor does not answer.
    pub fn grow_disk(&mut self, slot: u8, size: u64, most: u64) -> Result<(), Refusal> {
        let object = format!("disk {slot}");
        let failed = |e: io::Error| Refusal::io(&object, "raise the limit of its hypervisor's files", &e);
        // Never to less than it is: other disks may need that.
        let before = linux::file_limit(self.pid).map_err(failed)?;
        linux::set_file_limit(self.pid, before.max(most)).map_err(failed)?;
        let grown = self.call_in(&object, &[], SWITCH, |id| qmp::resize_disk(id, slot, size));
        if grown.as_ref().is_err_and(|refusal| refusal.reason != Reason::Timeout) && !self.ended {
            linux::set_file_limit(self.pid, before).map_err(failed)?;
        }
        grown.map(|_| ())
    }

    /// Has disks go on in other files, all at one moment. Refused, none has, unless it does not answer.
    pub fn switch_disks(&mut self, disks: &[(DiskSwitch, OwnedFd)]) -> Result<(), Refusal> {
        let object = "disks";
        let mut made = Vec::new();
        let mut add = |engine: &mut Self| {
            for (disk, fd) in disks {
                engine.call(object, &[fd.as_fd()], |id| qmp::add_layer_fd(id, disk.slot, disk.at))?;
                made.push(disk);
                engine.call(object, &[], |id| qmp::add_layer(id, disk.slot, disk.at, disk.no_cache))?;
            }
            let all: Vec<_> = disks.iter().map(|(disk, _)| (disk.slot, disk.at)).collect();
            engine.call_in(object, &[], SWITCH, |id| qmp::switch_disks(id, &all))
        };
        let switched = add(self);
        if switched.as_ref().is_err_and(|refusal| refusal.reason != Reason::Timeout) {
            for disk in made {
                // What was not made cannot be taken down.
                let _ = self.call(object, &[], |id| qmp::remove_layer(id, disk.slot, disk.at));
                let _ = self.call(object, &[], |id| qmp::remove_layer_fd(id, disk.slot, disk.at));
            }
        }
        switched.map(|_| ())
    }

    /// CPU time, and counters of disks.
    pub fn stats(&mut self) -> Result<(u64, Vec<DiskStats>), Refusal> {
        let answer = self.call("counters", &[], qmp::query_block_stats)?;
        let disk = |d: qmp::BlockStats| {
            let qmp::BlockStats { slot, read_bytes, write_bytes, read_ops, write_ops } = d;
            DiskStats { slot, read_bytes, write_bytes, read_ops, write_ops }
        };
        let cpu = skep_sys::process::cpu_time_of(self.pid).map_err(|e| Refusal::io("hypervisor", "read its CPU time", &e))?;
        Ok((cpu, qmp::block_stats(&answer).into_iter().map(disk).collect()))
    }

    /// Ends it: asked at first, so that it writes what it holds of its disks; killed if it does not obey. When this returns it has ended,
    /// unless the kernel cannot end it.
    pub fn end(&mut self, reset: bool) {
        if !self.ended && self.stage == Stage::Up {
            let id = self.next_id();
            let line = if reset { qmp::system_reset(id) } else { qmp::quit(id) };
            if self.send(&line, &[]).is_ok() {
                self.step_until(Instant::now() + GRACE, |e| e.ended);
            }
        }
        if !self.ended {
            self.kill();
            self.step_until(Instant::now() + END, |e| e.ended);
        }
    }

    /// Kills it, for a reason that goes to its last words. Its end is reported like any other.
    pub fn give_up(&mut self, why: &str) {
        self.words.add(format!("skep: {why}\n").as_bytes());
        self.qmp = None;
        self.kill();
    }

    fn kill(&self) {
        // It can only fail for one that has ended.
        let _ = linux::pidfd_signal(self.process.as_fd(), nix::sys::signal::Signal::SIGKILL as i32);
    }

    pub(super) fn next_id(&mut self) -> u64 {
        self.last_id = self.last_id.wrapping_add(1);
        self.last_id
    }

    fn send(&mut self, line: &str, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let Some(qmp) = &self.qmp else { return Err(io::Error::from(io::ErrorKind::NotConnected)) };
        msg::send(qmp.as_fd(), line.as_bytes(), fds, Some(Instant::now() + PATIENCE))
    }

    /// One command and its answer.
    pub(super) fn call(
        &mut self, object: &str, fds: &[BorrowedFd<'_>], command: impl FnOnce(u64) -> String,
    ) -> Result<serde_json::Value, Refusal> {
        self.call_in(object, fds, PATIENCE, command)
    }

    fn call_in(
        &mut self, object: &str, fds: &[BorrowedFd<'_>], patience: Duration, command: impl FnOnce(u64) -> String,
    ) -> Result<serde_json::Value, Refusal> {
        let gone = || Refusal::new(Reason::WrongState, object).note("the hypervisor has ended");
        let id = self.next_id();
        self.answer = None;
        self.send(&command(id), fds).map_err(|e| match e.kind() {
            io::ErrorKind::TimedOut => Refusal::new(Reason::Timeout, object).note("the hypervisor does not read"),
            _ => gone(),
        })?;
        self.step_until(Instant::now() + patience, |e| e.ended || e.qmp.is_none() || matches!(e.answer, Some((n, _)) if n == id));
        match self.answer.take() {
            Some((n, Reply::Done(value))) if n == id => Ok(value),
            Some((n, Reply::Refused(why))) if n == id => Err(Refusal::new(Reason::HypervisorFailed, object).note(why)),
            _ if self.ended || self.qmp.is_none() => Err(gone()),
            _ => Err(Refusal::new(Reason::Timeout, object).note("the hypervisor does not answer")),
        }
    }

    /// Serves only this hypervisor until `enough`. False: the deadline came first.
    fn step_until(&mut self, deadline: Instant, enough: impl Fn(&Self) -> bool) -> bool {
        while !enough(self) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let timeout = PollTimeout::try_from(left + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX);
            let ready: Vec<u64> = {
                let watched = self.watched();
                let mut set: Vec<PollFd<'_>> = watched.iter().map(|w| PollFd::new(w.fd, w.flags)).collect();
                match poll(&mut set, timeout) {
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(_) => return false,
                }
                let any = |p: &PollFd<'_>| p.revents().is_none_or(|f| !f.is_empty());
                set.iter().zip(&watched).filter(|(p, _)| any(p)).map(|(_, w)| w.token).collect()
            };
            for token in ready {
                self.ready(token);
            }
        }
        true
    }

    fn read_qmp(&mut self) {
        let Some(socket) = &self.qmp else { return };
        let mut buffer = vec![0; GULP];
        match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => self.qmp = None,
            Ok(n) => {
                let mut lines = Vec::new();
                let result = self.reader.feed(buffer.get(..n).unwrap_or_default(), |line| lines.push(line));
                for line in lines {
                    self.hear(line);
                }
                if let Err(bad) = result {
                    self.give_up(&bad.to_string());
                }
            }
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(_) => self.qmp = None,
        }
    }

    fn hear(&mut self, line: Line) {
        match (line, self.stage) {
            (Line::Greeting(..), Stage::Greeting) => self.go_on(Stage::Capabilities, qmp::capabilities),
            (Line::Greeting(..), _) => self.give_up("QMP: a second greeting"),
            (Line::Event(event), stage) => {
                self.history.note(event);
                match event {
                    Event::Stopped if stage == Stage::Up => {
                        self.happened.push(Happening::Paused);
                        self.ask_why();
                    }
                    Event::Running if stage == Stage::Up => self.happened.push(Happening::Running),
                    _ => {}
                }
            }
            (Line::Reply(id, reply), Stage::Capabilities | Stage::Threads | Stage::Continue) if id == self.last_id => match reply
            {
                Reply::Refused(why) => self.give_up(&format!("QMP: {why}")),
                Reply::Done(_) if self.stage == Stage::Capabilities => {
                    // It has read its files. They stay in its memory, not in the cell's.
                    for file in Self::FILES {
                        let _ = std::fs::remove_file(file);
                    }
                    if self.pins.is_empty() { self.let_run() } else { self.go_on(Stage::Threads, qmp::query_cpus) }
                }
                Reply::Done(answer) if self.stage == Stage::Threads => match self.pin(&qmp::cpu_threads(&answer)) {
                    Ok(()) => self.let_run(),
                    Err(why) => self.give_up(&why),
                },
                Reply::Done(_) => {
                    self.stage = Stage::Up;
                    self.happened.push(Happening::Running);
                }
            },
            (Line::Reply(id, reply), Stage::Up) if self.asked == Some(id) => self.judge(&reply),
            (Line::Reply(id, reply), Stage::Up) => self.answer = Some((id, reply)),
            (Line::Reply(..), _) => self.give_up("QMP: an answer to nothing"),
        }
    }

    /// Where the processor runs the guest, a stop can be for good: what it could not run the kernel does for it, as far as that knows how.
    fn ask_why(&mut self) {
        if self.kvm {
            let id = self.next_id();
            self.asked = Some(id);
            // If this fails it is about to end.
            let _ = self.send(&qmp::query_status(id), &[]);
        }
    }

    fn judge(&mut self, reply: &Reply) {
        self.asked = None;
        if matches!(reply, Reply::Done(said) if said.get("status").and_then(|s| s.as_str()) == Some("internal-error")) {
            self.give_up("KVM could not go on with the guest, as at an instruction that the host cannot execute for it");
        }
    }

    fn let_run(&mut self) {
        if self.waits {
            self.stage = Stage::Up;
            self.happened.push(Happening::Paused);
        } else {
            self.go_on(Stage::Continue, qmp::cont);
        }
    }

    /// QEMU may not do it itself. What it says of its threads is its word; whatever it names is in this cell, and could be no other's.
    fn pin(&self, threads: &BTreeMap<u16, i32>) -> Result<(), String> {
        for (vcpu, cpu) in &self.pins {
            let thread = threads.get(vcpu).ok_or_else(|| format!("it has no thread for virtual CPU {vcpu}"))?;
            let mut set = CpuSet::new();
            let pinned = set.set(usize::from(*cpu)).and_then(|()| sched_setaffinity(Pid::from_raw(*thread), &set));
            pinned.map_err(|e| format!("virtual CPU {vcpu} cannot be kept to CPU {cpu}: {e}"))?;
        }
        Ok(())
    }

    fn go_on(&mut self, stage: Stage, command: impl FnOnce(u64) -> String) {
        self.stage = stage;
        let id = self.next_id();
        if self.send(&command(id), &[]).is_err() {
            self.give_up("QMP: it does not read");
        }
    }

    fn read_words(&mut self) {
        let Some(pipe) = &self.errors else { return };
        let mut buffer = [0; 4096];
        match nix::unistd::read(pipe, &mut buffer) {
            Ok(0) => self.errors = None,
            Ok(n) => self.words.add(buffer.get(..n).unwrap_or_default()),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(_) => self.errors = None,
        }
    }

    /// The process is gone: takes what it said last, and judges.
    fn finish(&mut self) {
        let status = match waitpid(Pid::from_raw(self.pid), Some(nix::sys::wait::WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) => return,
            Ok(WaitStatus::Signaled(_, signal, _)) => Exit::Signal(signal as i32),
            Ok(WaitStatus::Exited(_, code)) => Exit::Code(code),
            _ => Exit::Code(255),
        };
        // Nobody writes any more, so both have an end, and it is near: what a socket and a pipe can hold.
        for _ in 0..1024 {
            if self.qmp.is_none() && self.errors.is_none() {
                break;
            }
            self.read_qmp();
            self.read_words();
        }
        self.qmp = None;
        self.errors = None;
        self.ended = true;
        self.happened.push(Happening::Ended(self.history.ended(status)));
    }
}

impl Drop for Engine {
    /// The runner never lets go of a running one; if it does by mistake, the kernel must not keep it.
    fn drop(&mut self) {
        if !self.ended {
            self.kill();
        }
    }
}
