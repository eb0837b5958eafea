//! Logs of machines: two halves each, `STATE/logs/machines/UUID.{serial,hypervisor}.{0,1}.log`.

use crate::store::{At, Store, hand_out, open_if_there, open_in};
use nix::fcntl::OFlag;
use skep_proto::storage::{Done, LogKind, OpenLogReader, OpenLogWriter};
use skep_proto::{MachineId, Refusal, UpTo};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

fn names(machine: MachineId, log: LogKind) -> [String; 2] {
    let kind = match log {
        LogKind::Serial => "serial",
        LogKind::Hypervisor => "hypervisor",
    };
    [0, 1].map(|half| format!("{machine}.{kind}.{half}.log"))
}

/// Names of all logs of a machine.
pub fn all_names(machine: MachineId) -> impl Iterator<Item = String> {
    [LogKind::Serial, LogKind::Hypervisor].into_iter().flat_map(move |log| names(machine, log))
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
pub fn open_reader(store: &Store, call: &OpenLogReader) -> Result<(Done, UpTo<2>), Refusal> {
    let object = object(call.machine);
    let mut halves = Vec::new();
    for name in names(call.machine, call.log) {
        if let Some(file) = open_if_there(store.logs.as_fd(), &name, OFlag::O_RDONLY).at(&object, "open")? {
            let meta = file.metadata().at(&object, "stat")?;
            halves.push(((meta.mtime(), meta.mtime_nsec()), file));
        }
    }
    halves.sort_by_key(|(written, _)| *written);
    let halves: Result<Vec<_>, _> = halves.into_iter().map(|(_, file)| hand_out("log", &object, file)).collect();
    Ok((Done {}, UpTo(halves?)))
}
