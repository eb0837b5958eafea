//! Logs of machines: two halves each, `STATE/logs/machines/UUID.{serial,serial2,serial3,serial4,hypervisor}.{0,1}.log`.

use crate::store::{At, Store, hand_out, open_if_there, open_in};
use nix::fcntl::OFlag;
use skep_proto::storage::{Done, LogKind, LogOpened, OpenLogReader, OpenLogWriter, OpenServiceLog};
use skep_proto::{MachineId, Reason, Refusal, UpTo};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

fn names(machine: MachineId, log: LogKind) -> [String; 2] {
    let kind = match log {
        LogKind::Serial => "serial",
        LogKind::Hypervisor => "hypervisor",
        LogKind::Serial2 => "serial2",
        LogKind::Serial3 => "serial3",
        LogKind::Serial4 => "serial4",
    };
    [0, 1].map(|half| format!("{machine}.{kind}.{half}.log"))
}

/// Names of all logs of a machine.
pub fn all_names(machine: MachineId) -> impl Iterator<Item = String> {
    use LogKind::{Hypervisor, Serial, Serial2, Serial3, Serial4};
    [Serial, Hypervisor, Serial2, Serial3, Serial4].into_iter().flat_map(move |log| names(machine, log))
}

fn object(machine: MachineId) -> String {
    format!("log of machine {machine}")
}

/// [`OpenLogWriter`].
pub fn open_writer(store: &Store, call: &OpenLogWriter) -> Result<(Done, [OwnedFd; 2]), Refusal> {
    let object = object(call.machine);
    let [first, second] = names(call.machine, call.log);
    let open = |name: &str| {
        let file = open_in(store.logs.as_fd(), name, OFlag::O_RDWR | OFlag::O_CREAT).at(&object, "open")?;
        hand_out("log", &object, file)
    };
    Ok((Done {}, [open(&first)?, open(&second)?]))
}

/// [`OpenLogReader`]. The half that was written to earlier comes first.
pub fn open_reader(store: &Store, call: &OpenLogReader) -> Result<(LogOpened, UpTo<3>), Refusal> {
    let object = object(call.machine);
    let mut halves = Vec::new();
    for name in names(call.machine, call.log) {
        let make = if call.follow { OFlag::O_CREAT } else { OFlag::empty() };
        if let Some(file) = open_if_there(store.logs.as_fd(), &name, OFlag::O_RDONLY | make).at(&object, "open")? {
            let meta = file.metadata().at(&object, "stat")?;
            // An empty half was never written, whatever its time.
            halves.push(((meta.len() > 0, meta.mtime(), meta.mtime_nsec()), file));
        }
    }
    halves.sort_by_key(|(written, _)| *written);
    opened("log to read", &object, halves.into_iter().map(|(_, file)| file).collect(), call.follow)
}

/// [`OpenServiceLog`].
pub fn open_service(store: &Store, call: &OpenServiceLog) -> Result<(LogOpened, UpTo<3>), Refusal> {
    let service = call.service.word();
    let object = format!("log of {service}");
    let open = |name: String| open_if_there(store.service_logs.as_fd(), &name, OFlag::O_RDONLY).at(&object, "open");
    let (former, live) = (open(format!("{service}.1.log"))?, open(format!("{service}.log"))?);
    let live = live.ok_or_else(|| Refusal::new(Reason::NotFound, &object).note("its output goes elsewhere"))?;
    opened("log to read", &object, former.into_iter().chain([live]).collect(), call.follow)
}

fn opened(line: &'static str, object: &str, files: Vec<File>, follow: bool) -> Result<(LogOpened, UpTo<3>), Refusal> {
    let fds: Vec<_> = files.iter().map(AsFd::as_fd).collect();
    let watcher = if follow { skep_sys::changes::watcher(&fds).at(object, "watch")? } else { None };
    let opened = LogOpened { files: u8::try_from(files.len()).unwrap_or(u8::MAX) };
    let files: Result<Vec<_>, _> = files.into_iter().map(|file| hand_out(line, object, file)).collect();
    Ok((opened, UpTo(files?.into_iter().chain(watcher).collect())))
}
