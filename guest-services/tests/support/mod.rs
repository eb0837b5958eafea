//! The program, started.
#![allow(dead_code)]

use skep_ipc::{CallError, Client};
use skep_proto::services::{Document, Services};
use skep_proto::{Call, NicId, Refusal, Text, TraceId};
use skep_sys::process::{Fork, fork};
use skep_sys::{fd, msg, sock};
use std::ffi::CString;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

/// The program under test: a bundle's, or the one built along.
fn program() -> CString {
    let built = || env!("CARGO_BIN_EXE_skep-guest-services").into();
    let path = std::env::var_os("SKEP_BIN_DIR").map_or_else(built, |dir| Path::new(&dir).join("skep-guest-services"));
    CString::new(path.into_os_string().into_encoded_bytes()).unwrap()
}

pub struct Process {
    pid: nix::unistd::Pid,
    client: Client<Services>,
    _dir: tempfile::TempDir,
}

impl Process {
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = sock::bind_seqpacket(&path, 0o600).unwrap();
        let (report, report_theirs) = sock::seqpacket_pair().unwrap();
        let program = program();
        let pid = match fork().unwrap() {
            Fork::Parent(pid) => nix::unistd::Pid::from_raw(pid),
            Fork::Child => {
                fd::arrange(&[(report_theirs.as_fd(), 3), (listener.as_fd(), 4)]).unwrap();
                let environment: [&CString; 0] = [];
                let Err(error) = nix::unistd::execve(&program, &[&program], &environment);
                panic!("execve: {error}")
            }
        };
        assert_eq!(msg::recv(report.as_fd(), 100, 0, None).unwrap().bytes, b"ready");
        Self { pid, client: Client::connect(&path).unwrap(), _dir: dir }
    }

    pub fn ask<C: Call<Helper = Services>>(&mut self, call: C, fds: C::SendFds) -> Result<C::Reply, Refusal> {
        self.ask_for(call, fds).map(|(reply, _)| reply)
    }

    #[allow(clippy::type_complexity)]
    pub fn ask_for<C: Call<Helper = Services>>(&mut self, call: C, fds: C::SendFds) -> Result<(C::Reply, C::ReplyFds), Refusal> {
        match self.client.call(TraceId::random(), &Text::lossy("tester"), call, fds, Duration::from_secs(20)) {
            Ok(answer) => Ok(answer),
            Err(CallError::Refused(refusal)) => Err(refusal),
            Err(e) => panic!("{e}"),
        }
    }
}

impl Process {
    /// Has it tell what happens.
    pub fn watch(&mut self) -> Result<std::os::fd::OwnedFd, Refusal> {
        let (ours, theirs) = sock::seqpacket_pair().unwrap();
        self.ask_for(skep_proto::services::Watch {}, [theirs]).map(|_| ours)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = nix::sys::signal::kill(self.pid, nix::sys::signal::Signal::SIGKILL);
        let _ = nix::sys::wait::waitpid(self.pid, None);
    }
}

pub const NIC: NicId = NicId::from_u128(5);

pub fn document() -> Document {
    Document {
        instance: Text::lossy("i-0123"),
        host: Text::lossy("web1"),
        keys: vec!["ssh-ed25519 AAAA me".into()],
        user_data: (0..100_000u32).map(|n| b'a' + (n % 23) as u8).collect(),
        vendor_data: b"#cloud-config\n".to_vec(),
        network: "version: 2\n".into(),
    }
}
