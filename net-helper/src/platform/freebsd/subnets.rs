//! Switches that are subnets: addresses, and the rules of pf(4), on descriptors that work in capability mode.

use super::rules::{self, ANCHOR, CALL, CALLS, ON, ONLY};
use super::{GROUP, Host, is};
use crate::platform::HostError;
use nix::errno::Errno;
use skep_proto::net::{Gateway, Own, PortForward, Reach};
use skep_proto::{HOST_LINK_LOCAL, IfName, InstanceId, Subnet6};
use skep_sys::freebsd::pf::Main;
use skep_sys::freebsd::{inet6, net, pf};
use skep_sys::pf::{Action, Rule, Ruleset};
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd};

const RULES: &str = "set its rules (pf)";
const MAIN: &str = "have pf call its rules";
const LIST: &str = "list rules of pf";

const NO_CALLS: &str = "pf(4) has rules of the administrator's which do not call skep's. Add to /etc/pf.conf, each among its kind, and \
                        `service pf reload`: nat-anchor \"skep/*\" | rdr-anchor \"skep/*\" | anchor \"skep/*\"";
const NO_PF: &str = "pf(4) keeps a subnet apart, and is not loaded: `kldload pf` (for good: `sysrc kld_list+=pf`)";
const IS_OFF: &str = "pf(4) has rules and is off: `service pf enable`, `service pf start`";
const UNKNOWN: &str = "pf(4) does not say what its rules are";

impl Host {
    /// /dev/pf, once its module is there.
    fn rules(&mut self) -> Result<BorrowedFd<'_>, HostError> {
        if self.rules.is_none() {
            self.rules = Some(self.outside()?.open_rules()?);
        }
        self.rules.as_ref().map(AsFd::as_fd).ok_or_else(|| HostError::step(RULES)(Errno::EBADF))
    }

    /// The same; none where pf is not there, and so has no rules.
    fn rules_if_any(&mut self) -> Result<Option<BorrowedFd<'_>>, HostError> {
        let missing = |e: &io::Error| [Errno::ENOENT, Errno::EOPNOTSUPP, Errno::ENXIO].iter().any(|errno| is(e, *errno));
        match self.rules().map(drop) {
            Err(failed) if missing(&failed.error) => Ok(None),
            Err(failed) => Err(failed),
            Ok(()) => self.rules().map(Some),
        }
    }

    /// Anchors of skep's, of every suite.
    pub fn anchors(&mut self) -> Result<Vec<String>, HostError> {
        let Some(rules) = self.rules_if_any()? else { return Ok(Vec::new()) };
        pf::anchors(rules, ANCHOR).map_err(HostError::step(LIST))
    }

    fn main(&mut self) -> Result<Main, HostError> {
        pf::main(self.rules()?, CALL).map_err(HostError::step(LIST))
    }

    pub(super) fn why_no_subnets(&mut self) -> Option<&'static str> {
        match self.rules_if_any() {
            Ok(Some(_)) => {}
            Ok(None) => return Some(NO_PF),
            Err(_) => return Some(UNKNOWN),
        }
        match self.main() {
            Ok(Main::Empty) => None,
            Ok(Main::Others) => Some(NO_CALLS),
            Err(_) => Some(UNKNOWN),
            // Where it does not say, it is taken to be on.
            Ok(Main::Calls { .. }) => match self.rules().map(pf::is_on) {
                Ok(Ok(false)) => Some(IS_OFF),
                _ => None,
            },
        }
    }

    /// Sees to it that the main rules call ours, where there are none but for that.
    fn enter(&mut self, instance: InstanceId) -> Result<(), HostError> {
        match self.main()? {
            Main::Calls { .. } => return Ok(()),
            Main::Others => return Err(HostError::step(MAIN)(Errno::EEXIST)),
            Main::Empty => {}
        }
        let rules = self.rules()?;
        let on = pf::is_on(rules).unwrap_or(false);
        let marker = rules::marker();
        let names = [CALLS, ON].map(|end| format!("{ANCHOR}/sk{instance}{end}"));
        let marks = names.iter().take(if on { 1 } else { 2 });
        let calls = calls();
        let mut changes = in_main(&calls);
        changes.extend(marks.map(|anchor| pf::Change { anchor, ruleset: Ruleset::Filter, rules: &marker }));
        pf::change(rules, &changes).map_err(HostError::step(MAIN))?;
        // Marked before: a helper that is killed here leaves what the next one takes back.
        pf::switch(rules, true).map_err(HostError::step(MAIN))
    }

    /// Takes that back, if it was ours and no switch of any suite needs it.
    fn withdraw(&mut self) -> Result<(), HostError> {
        let anchors = self.anchors()?;
        let marked = |end| anchors.iter().filter(move |anchor| rules::is_marker(anchor, end));
        if anchors.iter().any(|anchor| rules::bridge_of(anchor).is_some()) || marked(CALLS).next().is_none() {
            return Ok(());
        }
        let ours = self.main()? == Main::Calls { alone: true };
        let rules = self.rules()?;
        let gone: Vec<String> = marked(CALLS).chain(marked(ON)).map(|name| format!("{ANCHOR}/{name}")).collect();
        let none = [Vec::new(), Vec::new(), Vec::new()];
        // If the administrator has loaded rules of his own meanwhile, they are his, as is whether pf is on.
        let mut changes = if ours { in_main(&none) } else { Vec::new() };
        changes.extend(gone.iter().map(|anchor| pf::Change { anchor, ruleset: Ruleset::Filter, rules: &[] }));
        let off = ours && marked(ON).next().is_some();
        if off {
            pf::switch(rules, false).map_err(HostError::step(MAIN))?;
        }
        pf::change(rules, &changes).map_err(HostError::step(MAIN))
    }

    /// Interfaces of the host's by which guests leave, and whether one of them is, or is on, a bridge.
    fn outside_interfaces(&self) -> Result<Vec<(IfName, bool)>, HostError> {
        let socket = self.socket.as_fd();
        let all = || -> io::Result<Vec<(IfName, bool)>> {
            let names = net::list(socket)?;
            let mut found = Vec::new();
            let mut bridged = BTreeSet::new();
            for name in &names {
                let Ok(parsed) = name.parse::<IfName>() else { continue };
                let about = (|| Ok::<_, io::Error>((net::groups(socket, name)?, net::flags(socket, name)?)))();
                let (groups, flags) = match about {
                    // It went meanwhile.
                    Err(e) if is(&e, Errno::ENXIO) => continue,
                    about => about?,
                };
                let has = |wanted: &str| groups.iter().any(|group| group == wanted);
                if has("bridge") && !has(GROUP) {
                    bridged.insert(name.clone());
                    bridged.extend(net::members(socket, name).unwrap_or_default());
                }
                if !has(GROUP) && flags & nix::libc::IFF_LOOPBACK == 0 {
                    found.push((parsed, false));
                }
            }
            found.iter_mut().for_each(|(name, part)| *part = bridged.contains(name.as_str()));
            Ok(found)
        };
        all().map_err(HostError::step("list interfaces"))
    }

    pub(super) fn guard_switch(
        &mut self, instance: InstanceId, bridge: &IfName, gateway: Option<(&Gateway, &[PortForward])>,
    ) -> Result<(), HostError> {
        let Some((gateway, forwards)) = gateway else { return self.free_switch(bridge) };
        self.enter(instance)?;
        let outside: Vec<IfName> = self.outside_interfaces()?.into_iter().map(|(name, _)| name).collect();
        let (filter, nat) = (rules::switch(bridge, gateway, forwards), rules::translation(gateway, &outside));
        let led = rules::led(bridge, forwards);
        let other = if gateway.reach == Reach::Out { Reach::Host } else { Reach::Out };
        let (anchor, other) = (rules::anchor_of(bridge, gateway.reach), rules::anchor_of(bridge, other));
        let changes = [
            pf::Change { anchor: &anchor, ruleset: Ruleset::Filter, rules: &filter },
            pf::Change { anchor: &anchor, ruleset: Ruleset::Nat, rules: &nat },
            pf::Change { anchor: &anchor, ruleset: Ruleset::Rdr, rules: &led },
            pf::Change { anchor: &other, ruleset: Ruleset::Filter, rules: &[] },
            pf::Change { anchor: &other, ruleset: Ruleset::Nat, rules: &[] },
            pf::Change { anchor: &other, ruleset: Ruleset::Rdr, rules: &[] },
        ];
        let there = self.anchors()?.iter().any(|name| anchor.strip_prefix(ANCHOR) == Some(&format!("/{name}")));
        let rules = self.rules()?;
        pf::change(rules, &changes).map_err(HostError::step(RULES))?;
        if there {
            return Ok(());
        }
        // What was let through when the subnet was another switch's is not let through for that.
        let nets = [Some(rules::net(gateway.subnet)), gateway.subnet6.map(rules::net6)];
        let forget = |net| pf::forget(rules, &net).map_err(HostError::step("forget former connections (pf)"));
        nets.into_iter().flatten().try_for_each(forget)
    }

    fn free_switch(&mut self, bridge: &IfName) -> Result<(), HostError> {
        let anchors = self.anchors()?;
        let its = anchors.iter().filter(|anchor| rules::bridge_of(anchor).is_some_and(|(of, _)| of == *bridge));
        let its: Vec<String> = its.map(|name| format!("{ANCHOR}/{name}")).collect();
        if !its.is_empty() {
            let of =
                |anchor| [Ruleset::Filter, Ruleset::Nat, Ruleset::Rdr].map(|ruleset| pf::Change { anchor, ruleset, rules: &[] });
            let changes: Vec<pf::Change<'_>> = its.iter().flat_map(|anchor| of(anchor)).collect();
            pf::change(self.rules()?, &changes).map_err(HostError::step(RULES))?;
        }
        self.withdraw()
    }

    /// See `NetHost::forward`.
    pub(super) fn forward_if_needed(&mut self, instance: InstanceId) -> Result<(), HostError> {
        let anchors = self.anchors()?;
        // Whoever's: another suite may have found it so.
        let needed = anchors.iter().filter_map(|anchor| rules::bridge_of(anchor)).any(|(_, out)| out);
        let markers: Vec<String> =
            anchors.iter().filter(|anchor| rules::is_marker(anchor, ONLY)).map(|name| format!("{ANCHOR}/{name}")).collect();
        if needed && (!markers.is_empty() || !self.outside()?.forward(None)?) {
            // First what sees to it that nobody else's packets are forwarded because ours are.
            let interfaces = self.outside_interfaces()?;
            let plain: Vec<IfName> = interfaces.iter().filter(|(_, part)| !part).map(|(name, _)| name.clone()).collect();
            let plain = interfaces.iter().any(|(_, part)| *part).then_some(plain.as_slice());
            let own = format!("{ANCHOR}/sk{instance}{ONLY}");
            self.replace(markers.first().unwrap_or(&own), &rules::only_ours(plain))?;
            self.outside()?.forward(Some(true))?;
        }
        // Whichever suite made it so: the last one takes it back.
        if !needed && !markers.is_empty() {
            self.outside()?.forward(Some(false))?;
            markers.iter().try_for_each(|marker| self.replace(marker, &[]))?;
            self.withdraw()?;
        }
        Ok(())
    }

    fn replace(&mut self, anchor: &str, rules: &[Rule]) -> Result<(), HostError> {
        let change = pf::Change { anchor, ruleset: Ruleset::Filter, rules };
        pf::change(self.rules()?, &[change]).map_err(HostError::step(RULES))
    }

    pub(super) fn address(&mut self, bridge: &IfName, address: Option<(Ipv4Addr, u8)>) -> Result<(), HostError> {
        let (inet, name) = (self.addresses.as_fd(), bridge.as_str());
        let all = net::addresses(self.socket.as_fd()).map_err(HostError::step("list addresses"))?;
        let mut there = false;
        for found in all.into_iter().filter(|(of, _)| of == name) {
            let (_, Some(IpAddr::V4(found))) = found else { continue };
            let wanted = match address.filter(|(ip, _)| *ip == found) {
                Some((ip, prefix)) => {
                    let found = net::prefix(inet, name, ip).map_err(HostError::step("look at its address"))?;
                    found == u32::from(prefix)
                }
                None => false,
            };
            there |= wanted;
            if !wanted {
                net::delete_address(inet, name, found).map_err(HostError::step("take its former address"))?;
            }
        }
        let Some((ip, prefix)) = address.filter(|_| !there) else { return Ok(()) };
        net::add_address(inet, name, ip, prefix).map_err(HostError::step("set its address"))
    }

    /// The socket for addresses of IPv6.
    pub(super) fn six(&self) -> Result<BorrowedFd<'_>, HostError> {
        let missing = || HostError::step("open a socket of IPv6, which this kernel has not")(Errno::EOPNOTSUPP);
        self.addresses6.as_ref().map(AsFd::as_fd).ok_or_else(missing)
    }

    pub(super) fn address6(&mut self, bridge: &IfName, subnet: Option<Subnet6>) -> Result<(), HostError> {
        let wanted: Vec<Ipv6Addr> = subnet.iter().flat_map(|subnet| [subnet.gateway(), HOST_LINK_LOCAL]).collect();
        let name = bridge.as_str();
        let all = net::addresses(self.socket.as_fd()).map_err(HostError::step("list addresses"))?;
        let its = |(of, found): (String, Option<IpAddr>)| match found {
            Some(IpAddr::V6(found)) if of == name => Some(found),
            _ => None,
        };
        let (there, former): (Vec<_>, Vec<_>) = all.into_iter().filter_map(its).partition(|found| wanted.contains(found));
        if there.len() == wanted.len() && former.is_empty() {
            return Ok(());
        }
        let six = self.six()?;
        for found in former {
            inet6::delete_address(six, name, found).map_err(HostError::step("take its former IPv6 address"))?;
        }
        // Before it has an address, of which it would ask whether somebody has it: no guest can.
        inet6::speak(six, name, subnet.is_some()).map_err(HostError::step("speak IPv6 at it, or no more"))?;
        let mut missing = wanted.into_iter().filter(|address| !there.contains(address));
        missing.try_for_each(|address| inet6::add_address(six, name, address)).map_err(HostError::step("set its IPv6 address"))
    }

    /// The bridge that a port is a member of.
    pub(super) fn bridge_of_port(&self, port: &IfName) -> io::Result<Option<String>> {
        let socket = self.socket.as_fd();
        for name in net::list(socket)? {
            let members = match net::groups(socket, &name) {
                Ok(groups) if groups.iter().any(|group| group == "bridge") => net::members(socket, &name),
                _ => continue,
            };
            match members {
                Ok(members) if members.iter().any(|member| member == port.as_str()) => return Ok(Some(name)),
                // It went meanwhile.
                Err(e) if !is(&e, Errno::ENXIO) => return Err(e),
                _ => {}
            }
        }
        Ok(None)
    }

    /// Has a bridge know where a guarded guest is: he teaches it himself with what he sends, and what his services have seen at his tap
    /// does not come so far.
    pub(super) fn settle(&self, port: &IfName, bridge: &str) -> io::Result<()> {
        self.own.get(port.as_str()).map_or(Ok(()), |mac| net::settle(self.socket.as_fd(), bridge, port.as_str(), *mac))
    }

    pub(super) fn guard_port(&mut self, tap: &IfName, own: Option<&Own>) -> Result<(), HostError> {
        const STEP: &str = "have its switch know where its guest is";
        if own.is_some_and(|own| own.subnet6.is_some()) {
            // The host itself is on the bridge alone; at a tap it would hear what is for several.
            inet6::speak(self.six()?, tap.as_str(), false).map_err(HostError::step("have the host speak no IPv6 at a tap"))?;
        }
        match (&self.outside, own) {
            (None, None) => return Ok(()),
            _ => match self.outside()?.guard(tap, own) {
                // Where there is no netgraph nobody is guarded.
                Err(e)
                    if own.is_none() && [Errno::EPROTONOSUPPORT, Errno::EAFNOSUPPORT].iter().any(|none| is(&e.error, *none)) => {}
                result => result?,
            },
        }
        let bridge = self.bridge_of_port(tap).map_err(HostError::step(STEP))?;
        let former = self.own.remove(tap.as_str());
        if let (Some(former), Some(bridge)) = (former, &bridge) {
            net::unsettle(self.socket.as_fd(), bridge, former).map_err(HostError::step(STEP))?;
        }
        if let Some(own) = own {
            self.own.insert(tap.as_str().to_owned(), own.mac);
        }
        bridge.map_or(Ok(()), |bridge| self.settle(tap, &bridge).map_err(HostError::step(STEP)))
    }

    /// Takes what outlived its interface.
    pub(super) fn sweep_rules(&mut self, instance: InstanceId) -> Result<(), HostError> {
        let names = net::list(self.socket.as_fd()).map_err(HostError::step("list interfaces"))?;
        for (bridge, _) in self.anchors()?.iter().filter_map(|anchor| rules::bridge_of(anchor)) {
            if bridge.is_of(instance) && !names.iter().any(|name| name == bridge.as_str()) {
                self.free_switch(&bridge)?;
            }
        }
        self.forward_if_needed(instance)?;
        self.withdraw()
    }
}

fn calls() -> [Vec<Rule>; 3] {
    [Action::Pass, Action::Nat, Action::Rdr].map(rules::call)
}

fn in_main(rules: &[Vec<Rule>; 3]) -> Vec<pf::Change<'_>> {
    let kinds = [Ruleset::Filter, Ruleset::Nat, Ruleset::Rdr];
    kinds.into_iter().zip(rules).map(|(ruleset, rules)| pf::Change { anchor: "", ruleset, rules }).collect()
}
