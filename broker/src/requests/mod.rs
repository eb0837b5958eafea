//! What a session may ask, by the kind of object.

mod copies;
pub mod disk;
pub mod event;
pub mod fetch;
mod file_snapshots;
pub mod firmware;
pub mod group;
pub mod host;
pub mod iscsi;
pub mod launch;
pub mod machine;
pub mod machine_jobs;
pub mod nic;
mod pace;
pub mod resize;
pub mod snapshot;
pub mod stats;
pub mod stream;
pub mod switch;
pub mod user;
pub mod whole;

use crate::broker::Broker;
use crate::db::disks::{DiskRow, Disks, Stage};
use crate::db::machines::{MachineRow, Machines};
use crate::db::nics::{NicRow, Nics};
use crate::db::switches::{SwitchRow, Switches};
use crate::db::{Change, Who};
use crate::policy::{Proof, User, permit};
use skep_proto::broker::{BrokerRequest, Ref};
use skep_proto::{Reason, Refusal, Text, upload};
use std::fmt::Display;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::str::FromStr;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

/// A request's surroundings.
#[derive(Clone)]
pub struct Cx {
    /// The broker.
    pub broker: Rc<Broker>,
    /// In whose name.
    pub who: Who,
    /// Who that is, and what he may see.
    pub user: Rc<User>,
    /// How he showed it.
    pub proof: Proof,
}

impl Cx {
    /// The id of what this request made when it came before; none: it comes for the first time. Refused: it was another one then, or what it
    /// made is no more for its user to see, which `looks` asks.
    fn before<Id: FromStr + Display>(&self, looks: impl FnOnce(Ref) -> BrokerRequest) -> Result<Option<Id>, Refusal> {
        let Some(once) = &self.who.once else { return Ok(None) };
        match self.broker.read(|db| db.made_by(once))? {
            None => Ok(None),
            Some((true, object)) => {
                let id: Id = object.parse().map_err(|_| crate::db::Fault::Row("requests"))?;
                let ask = looks(Text::lossy(&id.to_string()));
                self.broker.read(|db| permit(db, &self.user, &ask))?;
                Ok(Some(id))
            }
            Some((false, _)) => {
                let refusal = Refusal::new(Reason::AlreadyExists, format_args!("request {}", once.id)).field("request_id");
                Err(refusal.note("it was asked with other contents before; another request needs an id of its own"))
            }
        }
    }
}

fn not_found(what: &str, name: impl Display) -> Refusal {
    Refusal::new(Reason::NotFound, format_args!("{what} {name}"))
}

fn taken(what: &str, name: impl Display) -> Refusal {
    Refusal::new(Reason::AlreadyExists, format_args!("{what} {name}")).field("name")
}

fn find_machine(db: &impl Machines, name: &str) -> Result<MachineRow, Refusal> {
    let found = db.find_machine(name)?.ok_or_else(|| not_found("machine", name))?;
    match found.stage {
        Stage::Ready => Ok(found),
        _ => Err(Refusal::new(Reason::WrongState, format_args!("machine {name}")).note("it is still being made")),
    }
}

fn find_disk(db: &impl Disks, name: &str) -> Result<DiskRow, Refusal> {
    let found = db.find_disk(name)?.ok_or_else(|| not_found("disk", name))?;
    match found.stage {
        Stage::Ready => Ok(found),
        _ => Err(Refusal::new(Reason::WrongState, format_args!("disk {name}")).note("it is still being made")),
    }
}

fn find_switch(db: &impl Switches, name: &str) -> Result<SwitchRow, Refusal> {
    db.find_switch(name)?.ok_or_else(|| not_found("switch", name))
}

fn find_nic(db: &impl Nics, name: &str) -> Result<NicRow, Refusal> {
    db.find_nic(name)?.ok_or_else(|| not_found("nic", name))
}

/// Tells of a new name, and that another description was given.
fn said(
    change: &Change<'_>, object: &str, id: impl Display, (old, before): (&impl Display, &Text<256>),
    (new, now): (&impl Display, &Text<256>),
) -> Result<(), Refusal> {
    if old.to_string() != new.to_string() {
        change.event(object, &id, new, "renamed", old)?;
    }
    if before != now {
        change.event(object, &id, new, "changed", "description")?;
    }
    Ok(())
}

/// Refuses a machine of which something runs, or may be left on the host.
fn at_rest(machine: &MachineRow) -> Result<(), Refusal> {
    use skep_proto::broker::MachineState::{Failed, Stopped};
    if machine.slot.is_none() && matches!(machine.state, Stopped | Failed) {
        return Ok(());
    }
    let state = machine.state.word();
    let object = format!("machine {}", machine.name);
    Err(Refusal::new(Reason::WrongState, object).note(format_args!("it is {state}; stop it first")))
}

/// How long whoever asks may take to say what goes through a pipe.
const PIPED: Duration = Duration::from_secs(30);

/// What comes through a pipe in the form of `upload`, to the end mark. None: more than `most` bytes.
async fn piped(reader: OwnedFd, most: usize) -> Result<Option<Vec<u8>>, Refusal> {
    let failed = |e: std::io::Error| Refusal::io("", "read what comes along", &e);
    skep_sys::fd::set_nonblocking(reader.as_fd(), true).map_err(failed)?;
    let mut pipe = pipe::Receiver::from_owned_fd(reader).map_err(failed)?;
    let read = async {
        let (mut bytes, mut length) = (Vec::new(), upload::END);
        loop {
            pipe.read_exact(&mut length).await?;
            let more = u32::from_be_bytes(length) as usize;
            if more == 0 {
                return Ok::<_, std::io::Error>(Some(bytes));
            }
            if more > most.saturating_sub(bytes.len()) {
                return Ok(None);
            }
            let at = bytes.len();
            bytes.resize(at + more, 0);
            pipe.read_exact(bytes.get_mut(at..).unwrap_or_default()).await?;
        }
    };
    match tokio::time::timeout(PIPED, read).await {
        Ok(Err(e)) if e.kind() == std::io::ErrorKind::UnexpectedEof => Err(Refusal::new(Reason::Cancelled, "")),
        Ok(read) => read.map_err(failed),
        Err(_) => Err(Refusal::new(Reason::Cancelled, "").note("what was to come along did not come")),
    }
}
