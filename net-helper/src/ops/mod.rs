//! The operations: each checks every name it will touch, acts, and undoes what it did if a step fails.

pub mod gateway;
pub mod list;
pub mod pair;
pub mod server;
pub mod switch;
pub mod tap;
pub mod tunnel;

use crate::platform::{HostError, Link, NetHost, Switch};
use nix::errno::Errno;
use skep_proto::tunnel::Tunnel;
use skep_proto::{IfName, InstanceId, Reason, Refusal};
use std::os::fd::OwnedFd;

/// The host, and the mark of what is ours on it.
pub type Place<'a> = (&'a mut dyn NetHost, InstanceId);

/// What takes one step back.
enum Undo {
    Delete(IfName),
    MakeTunnel(IfName, Tunnel),
    Mark(IfName, String),
    SetUp(IfName, bool),
    Leave(IfName, IfName),
    Isolate(IfName, bool),
    Join(IfName, IfName),
}

/// Steps that are all done or all undone.
pub struct Attempt<'a> {
    host: &'a mut dyn NetHost,
    done: Vec<Undo>,
}

impl<'a> Attempt<'a> {
    /// Does `work`; if it fails, takes its steps back, the last first. Descriptors that `work` made are closed before.
    fn all<T>(host: &'a mut dyn NetHost, work: impl FnOnce(&mut Self) -> Result<T, Refusal>) -> Result<T, Refusal> {
        let mut attempt = Self { host, done: Vec::new() };
        work(&mut attempt).map_err(|refusal| attempt.undo(refusal))
    }

    fn undo(self, mut refusal: Refusal) -> Refusal {
        for step in self.done.into_iter().rev() {
            let (result, name) = match step {
                Undo::Delete(name) => (self.host.delete(&name), name),
                Undo::Mark(name, note) => (self.host.mark(&name, &note), name),
                Undo::MakeTunnel(name, tunnel) => (self.host.make_tunnel(&name, &tunnel), name),
                Undo::SetUp(name, up) => (self.host.set_up(&name, up), name),
                Undo::Isolate(port, isolated) => (self.host.isolate(&port, isolated), port),
                Undo::Leave(port, bridge) => (self.host.leave(&port, &bridge), port),
                Undo::Join(port, bridge) => (self.host.join(&port, &bridge), port),
            };
            if let Err(error) = result {
                let note = format!("{}; {name} was left changed: {error}", refusal.note);
                refusal = refusal.note(note);
            }
        }
        refusal
    }

    fn make_bridge(&mut self, name: &IfName, kind: Switch) -> Result<(), Refusal> {
        self.host.make_bridge(name, kind).map_err(refused(name))?;
        self.done.push(Undo::Delete(name.clone()));
        Ok(())
    }

    fn make_tap(&mut self, name: &IfName) -> Result<OwnedFd, Refusal> {
        let tap = self.host.make_tap(name).map_err(refused(name))?;
        self.done.push(Undo::Delete(name.clone()));
        Ok(tap)
    }

    fn make_tunnel(&mut self, name: &IfName, tunnel: &Tunnel) -> Result<(), Refusal> {
        self.host.make_tunnel(name, tunnel).map_err(refused(name))?;
        // What is pushed last is done first.
        self.done.extend(tunnel.peer_key.map(|_| Undo::Delete(name.beneath())));
        self.done.push(Undo::Delete(name.clone()));
        Ok(())
    }

    /// Deletes what is left of WireGuard beneath a tunnel that is gone.
    fn delete_beneath(&mut self, link: &Link) -> Result<(), Refusal> {
        self.host.delete(&link.name).map_err(refused(&link.name))
    }

    /// Deletes a tunnel, a member of `bridge`. What it was set to is known if it was something of ours; else it does not come back.
    fn delete_tunnel(&mut self, link: &Link, tunnel: Option<Tunnel>, bridge: Option<&Link>) -> Result<(), Refusal> {
        let name = || link.name.clone();
        self.host.delete(&link.name).map_err(refused(&link.name))?;
        if let Some(tunnel) = tunnel {
            // What is pushed last is done first.
            self.done.extend(link.up.then(|| Undo::SetUp(name(), true)));
            self.done.extend(bridge.map(|bridge| Undo::Join(name(), bridge.name.clone())));
            self.done.extend([Undo::Mark(name(), link.note.clone()), Undo::MakeTunnel(name(), tunnel)]);
        }
        Ok(())
    }

    fn make_pair(&mut self, ends: &[IfName; 2]) -> Result<(), Refusal> {
        let [a, _] = ends;
        self.host.make_pair(ends).map_err(refused(a))?;
        self.done.push(Undo::Delete(a.clone()));
        Ok(())
    }

    /// Makes `name`, which was there `before` or is new, a member of `wanted` and of nothing else.
    fn place(&mut self, name: &IfName, before: Option<&Link>, links: &[Link], wanted: Option<&Link>) -> Result<(), Refusal> {
        let present = before.and_then(|before| links.iter().find(|link| Some(link.index) == before.bridge));
        if present.map(|bridge| bridge.index) == wanted.map(|bridge| bridge.index) {
            return Ok(());
        }
        if let Some(present) = present {
            self.leave(name, &present.name)?;
        }
        wanted.map_or(Ok(()), |wanted| self.join(name, &wanted.name))
    }

    /// `before`: the note of an interface that was there already.
    fn mark(&mut self, name: &IfName, note: &str, before: Option<&str>) -> Result<(), Refusal> {
        self.host.mark(name, note).map_err(refused(name))?;
        self.done.extend(before.map(|before| Undo::Mark(name.clone(), before.to_owned())));
        Ok(())
    }

    fn raise(&mut self, name: &IfName) -> Result<(), Refusal> {
        self.host.set_up(name, true).map_err(refused(name))?;
        self.done.push(Undo::SetUp(name.clone(), false));
        Ok(())
    }

    fn lower(&mut self, name: &IfName) -> Result<(), Refusal> {
        self.host.set_up(name, false).map_err(refused(name))?;
        self.done.push(Undo::SetUp(name.clone(), true));
        Ok(())
    }

    /// `before`: what it was.
    fn isolate(&mut self, port: &IfName, before: bool, isolated: bool) -> Result<(), Refusal> {
        self.host.isolate(port, isolated).map_err(refused(port))?;
        self.done.push(Undo::Isolate(port.clone(), before));
        Ok(())
    }

    fn join(&mut self, port: &IfName, bridge: &IfName) -> Result<(), Refusal> {
        self.host.join(port, bridge).map_err(refused(port))?;
        self.done.push(Undo::Leave(port.clone(), bridge.clone()));
        Ok(())
    }

    fn leave(&mut self, port: &IfName, bridge: &IfName) -> Result<(), Refusal> {
        self.host.leave(port, bridge).map_err(refused(port))?;
        self.done.push(Undo::Join(port.clone(), bridge.clone()));
        Ok(())
    }
}

/// A failed step about `name`, as a refusal.
fn refused(name: &IfName) -> impl FnOnce(HostError) -> Refusal {
    let object = format!("interface {name}");
    move |failed| {
        let errno = failed.error.raw_os_error().unwrap_or(0);
        let reason = match Errno::from_raw(errno) {
            Errno::EPERM | Errno::EACCES => Reason::NeedsRoot,
            Errno::EBUSY | Errno::EEXIST | Errno::EADDRINUSE => Reason::InUse,
            Errno::ENODEV | Errno::ENXIO => Reason::NotFound,
            Errno::EOPNOTSUPP | Errno::EPROTONOSUPPORT | Errno::EAFNOSUPPORT | Errno::ENOENT | Errno::ELOOP => {
                Reason::Unsupported
            }
            _ => Reason::Internal,
        };
        Refusal::new(reason, object).note(failed).errno(errno)
    }
}

/// A list that could not be had.
fn unlisted(failed: HostError) -> Refusal {
    Refusal::io("interfaces", failed.step, &failed.error)
}

fn find<'l>(links: &'l [Link], name: &IfName) -> Option<&'l Link> {
    links.iter().find(|link| link.name == *name)
}

/// Something else has a name of ours.
fn foreign(link: &Link, wanted: &str) -> Refusal {
    let kind = if link.kind.as_str().is_empty() { "hardware" } else { link.kind.as_str() };
    Refusal::new(Reason::AlreadyExists, format_args!("interface {}", link.name))
        .note(format_args!("it is not a {wanted} but: {kind}"))
}

/// The bridge of a switch that must be there.
fn bridge_of(host: &mut dyn NetHost, instance: InstanceId, number: u16) -> Result<Link, Refusal> {
    let name = IfName::bridge(instance, number);
    match host.link(&name).map_err(refused(&name))? {
        Some(link) if link.is_bridge() => Ok(link),
        Some(link) => Err(foreign(&link, "bridge")),
        None => {
            Err(Refusal::new(Reason::NotFound, format_args!("switch {number}")).note(format_args!("there is no bridge {name}")))
        }
    }
}

/// Whether the name is one that some instance of skep gives ([`IfName::bridge`] and its neighbours).
fn is_of_any_instance(name: &IfName) -> bool {
    let Some((instance, rest)) = name.as_str().strip_prefix("sk").and_then(|rest| rest.split_at_checked(4)) else { return false };
    let number = match rest.strip_prefix('p') {
        Some(pair) => pair.strip_suffix(['a', 'b']),
        None => rest.strip_prefix(['b', 't', 'v', 'w']),
    };
    instance.parse::<InstanceId>().is_ok() && number.is_some_and(|n| n.parse::<u16>().is_ok())
}

/// Why an interface cannot be an uplink, if it cannot.
fn no_uplink(link: &Link, instance: InstanceId) -> Option<&'static str> {
    if link.loopback {
        Some("it is the loopback")
    } else if link.name.is_of(instance) || is_of_any_instance(&link.name) {
        Some("skep made it")
    } else if link.is_bridge() {
        Some("it is a bridge itself")
    } else {
        None
    }
}
