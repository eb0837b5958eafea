//! A host in memory, for faults only: the n-th thing that is asked of it fails.

use skep_net_helper::platform::{HostError, Link, NetHost, Switch};
use skep_proto::tunnel::Tunnel;
use skep_proto::{IfName, Text};
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

#[derive(Debug, Default)]
pub struct State {
    pub links: Vec<Link>,
    /// The reading ends of the taps' pipes: at their end, the tap was closed.
    pub taps: BTreeMap<String, OwnedFd>,
    pub tunnels: BTreeMap<String, Tunnel>,
    pub addresses: Vec<(IpAddr, &'static str)>,
    pub calls: usize,
    /// Calls with these numbers, from 0, fail with this.
    pub failing: Option<(std::ops::Range<usize>, i32)>,
}

/// Shared by the helper and the test.
#[derive(Debug, Clone, Default)]
pub struct Fake(pub Arc<Mutex<State>>);

pub fn link(index: u32, name: &str, kind: &str) -> Link {
    let (name, kind) = (name.parse().unwrap(), Text::lossy(kind));
    Link {
        index,
        name,
        kind,
        up: false,
        loopback: false,
        mtu: 1500,
        bridge: None,
        isolated: false,
        held: false,
        note: String::new(),
    }
}

impl State {
    fn call(&mut self) -> Result<(), HostError> {
        let number = self.calls;
        self.calls += 1;
        match &self.failing {
            Some((range, errno)) if range.contains(&number) => {
                Err(HostError { step: "fault", error: io::Error::from_raw_os_error(*errno) })
            }
            _ => Ok(()),
        }
    }
    fn add(&mut self, name: &IfName, kind: &str) -> Result<(), HostError> {
        if self.links.iter().any(|l| l.name == *name) {
            return Err(HostError::step("make")(nix::errno::Errno::EEXIST));
        }
        // As in the kernel, no index is given twice; after an undo the next is larger.
        let index = self.links.iter().map(|l| l.index).max().unwrap_or(0) + 1;
        self.links.push(link(index, name.as_str(), kind));
        Ok(())
    }
    fn find(&mut self, name: &IfName) -> Result<&mut Link, HostError> {
        self.links.iter_mut().find(|l| l.name == *name).ok_or_else(|| HostError::step("find")(nix::errno::Errno::ENODEV))
    }
}

impl NetHost for Fake {
    fn links(&mut self) -> Result<Vec<Link>, HostError> {
        let mut state = self.0.lock().unwrap();
        state.call()?;
        Ok(state.links.clone())
    }
    fn make_bridge(&mut self, name: &IfName, kind: Switch) -> Result<(), HostError> {
        let mut state = self.0.lock().unwrap();
        state.call()?;
        state.add(name, if kind == Switch::Bridge { "bridge" } else { "ng_bridge" })
    }
    fn make_tap(&mut self, name: &IfName) -> Result<OwnedFd, HostError> {
        let mut state = self.0.lock().unwrap();
        state.call()?;
        state.add(name, "tap")?;
        let (read, write) = nix::unistd::pipe().unwrap();
        state.taps.insert(name.as_str().to_owned(), read);
        Ok(write)
    }
    fn make_tunnel(&mut self, name: &IfName, tunnel: &Tunnel) -> Result<(), HostError> {
        let mut state = self.0.lock().unwrap();
        state.call()?;
        state.add(name, "vxlan")?;
        state.tunnels.insert(name.as_str().to_owned(), tunnel.clone());
        Ok(())
    }
    fn tunnel(&mut self, name: &IfName) -> Result<Option<Tunnel>, HostError> {
        let mut state = self.0.lock().unwrap();
        state.call()?;
        Ok(state.tunnels.get(name.as_str()).cloned())
    }
    fn make_pair(&mut self, ends: &[IfName; 2]) -> Result<(), HostError> {
        let mut state = self.0.lock().unwrap();
        state.call()?;
        ends.iter().try_for_each(|end| state.add(end, "veth"))
    }
    fn owners(&mut self, address: IpAddr) -> Result<Vec<IfName>, HostError> {
        let mut state = self.0.lock().unwrap();
        state.call()?;
        Ok(state.addresses.iter().filter(|(owned, _)| *owned == address).map(|(_, name)| name.parse().unwrap()).collect())
    }
    fn delete(&mut self, name: &IfName) -> Result<(), HostError> {
        let mut state = self.0.lock().unwrap();
        state.call()?;
        state.tunnels.remove(name.as_str());
        if let Some(tap) = state.taps.remove(name.as_str()) {
            // FreeBSD would wait here until it is closed.
            assert_eq!(nix::unistd::read(&tap, &mut [0]), Ok(0), "{name} is deleted before it is closed");
        }
        let (index, kind) = state.links.iter().find(|l| l.name == *name).map(|l| (l.index, l.kind.clone())).unzip();
        // Both ends of a pair go.
        let pair = kind.filter(|kind| kind.as_str() == "veth").and(name.as_str().strip_suffix(['a', 'b']));
        state.links.retain(|l| l.name != *name && pair.is_none_or(|pair| l.name.as_str().strip_suffix(['a', 'b']) != Some(pair)));
        state.links.iter_mut().filter(|l| l.bridge == index).for_each(|l| l.bridge = None);
        Ok(())
    }
    fn mark(&mut self, name: &IfName, note: &str) -> Result<(), HostError> {
        let mut state = self.0.lock().unwrap();
        state.call()?;
        note.clone_into(&mut state.find(name)?.note);
        Ok(())
    }
    fn set_up(&mut self, name: &IfName, up: bool) -> Result<(), HostError> {
        let mut state = self.0.lock().unwrap();
        state.call()?;
        state.find(name)?.up = up;
        Ok(())
    }
    fn join(&mut self, port: &IfName, bridge: &IfName) -> Result<(), HostError> {
        let mut state = self.0.lock().unwrap();
        state.call()?;
        let index = state.find(bridge)?.index;
        assert_eq!(state.find(port)?.bridge.replace(index), None, "{port} joins while it is a member");
        Ok(())
    }
    fn isolate(&mut self, port: &IfName, isolated: bool) -> Result<(), HostError> {
        let mut state = self.0.lock().unwrap();
        state.call()?;
        assert!(state.find(port)?.bridge.is_some(), "{port} is kept apart on nothing");
        state.find(port)?.isolated = isolated;
        Ok(())
    }
    fn leave(&mut self, port: &IfName, bridge: &IfName) -> Result<(), HostError> {
        let mut state = self.0.lock().unwrap();
        state.call()?;
        let index = state.find(bridge)?.index;
        let link = state.find(port)?;
        assert_eq!(link.bridge.take(), Some(index), "{port} leaves a bridge that it is no member of");
        link.isolated = false;
        Ok(())
    }
}
