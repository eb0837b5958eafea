//! Taps: one per NIC.

use super::{Attempt, Place, bridge_of, foreign, gateway, refused, unlisted};
use crate::platform::{Link, NetHost};
use skep_proto::net::{COUNTED, CountTaps, CreateTap, DeleteTap, Done, GuardTap, LimitTap, MoveTap, Named, TapCount, TapCounts};
use skep_proto::{IfName, InstanceId, OneFd, Rates, Reason, Refusal};

/// Makes a tap, up, a member of its switch's bridge.
pub fn create((host, instance): Place<'_>, call: &CreateTap) -> Result<(Named, OneFd), Refusal> {
    let name = IfName::tap(instance, call.number);
    let before = host.link(&name).map_err(refused(&name))?;
    if before.as_ref().is_some_and(|link| !link.is_tap() || link.held) {
        return Err(Refusal::new(Reason::InUse, format_args!("interface {name}")).note("a tap with this number exists"));
    }
    let bridge = call.switch.map(|number| bridge_of(host, instance, number)).transpose()?;
    if before.is_some() {
        // Nobody has it open, so nobody's it is: what a machine left that ended while nobody could delete it (FreeBSD).
        host.delete(&name).map_err(refused(&name))?;
    }
    // What a tap with this number left that ended by itself.
    free(host, &name)?;
    Attempt::all(host, |attempt| {
        let tap = attempt.make_tap(&name)?;
        attempt.mark(&name, &format!("skep {instance}: nic {} of machine {}", call.nic, call.machine), None)?;
        if let Some(bridge) = bridge {
            attempt.join(&name, &bridge.name)?;
        }
        attempt.raise(&name)?;
        Ok((Named { name: name.clone() }, [tap]))
    })
}

/// Takes a tap off its bridge, and puts it on another; and apart from others there, or among them. It is down meanwhile: whoever is on
/// either side sees it as it was or as it is to be.
pub fn move_to((host, instance): Place<'_>, call: &MoveTap) -> Result<Done, Refusal> {
    let name = IfName::tap(instance, call.number);
    let Some(tap) = own_tap(host, &name)? else {
        return Err(Refusal::new(Reason::NotFound, format_args!("interface {name}")));
    };
    let wanted = call.switch.map(|number| bridge_of(host, instance, number)).transpose()?;
    let stays = tap.bridge == wanted.as_ref().map(|b| b.index);
    // What is a member of nothing is not apart from anything.
    let (before, isolated) = (tap.isolated, call.isolated && wanted.is_some());
    if stays && tap.up && before == isolated {
        return Ok(Done {});
    }
    let links = host.links().map_err(unlisted)?;
    let present = links.iter().find(|link| Some(link.index) == tap.bridge);
    Attempt::all(host, |attempt| {
        if tap.up {
            attempt.lower(&name)?;
        }
        let mut apart = before;
        if !stays {
            if let Some(present) = present {
                // Before it leaves, so that it is what it was if it comes back.
                if apart {
                    attempt.isolate(&name, true, false)?;
                }
                attempt.leave(&name, &present.name)?;
                apart = false;
            }
            if let Some(wanted) = &wanted {
                attempt.join(&name, &wanted.name)?;
            }
        }
        if apart != isolated {
            attempt.isolate(&name, apart, isolated)?;
        }
        attempt.raise(&name)?;
        Ok(Done {})
    })
}

/// Deletes a tap.
pub fn delete((host, instance): Place<'_>, call: &DeleteTap) -> Result<Done, Refusal> {
    let name = IfName::tap(instance, call.number);
    if own_tap(host, &name)?.is_some() {
        host.delete(&name).map_err(refused(&name))?;
    }
    free(host, &name)?;
    Ok(Done {})
}

/// Takes the rules of a tap, which may be gone.
fn free(host: &mut dyn NetHost, name: &IfName) -> Result<(), Refusal> {
    host.guard_tap(name, None).map_err(refused(name))?;
    host.limit_tap(name, Rates::default()).map_err(refused(name))
}

/// Limits how much goes through a tap. After a step that failed there is no limit.
pub fn limit((host, instance): Place<'_>, call: &LimitTap) -> Result<Done, Refusal> {
    let name = IfName::tap(instance, call.number);
    if own_tap(host, &name)?.is_none() {
        return Err(Refusal::new(Reason::NotFound, format_args!("interface {name}")));
    }
    host.limit_tap(&name, call.rates).map_err(|failed| {
        let refusal = refused(&name)(failed);
        match host.limit_tap(&name, Rates::default()) {
            Ok(()) => refusal,
            Err(error) => {
                let note = format!("{}; {name} was left changed: {error}", refusal.note);
                refusal.note(note)
            }
        }
    })?;
    Ok(Done {})
}

/// Keeps a tap's guest to his own addresses, or lets him go.
pub fn guard((host, instance): Place<'_>, call: &GuardTap) -> Result<Done, Refusal> {
    let name = IfName::tap(instance, call.number);
    if own_tap(host, &name)?.is_none() {
        return Err(Refusal::new(Reason::NotFound, format_args!("interface {name}")));
    }
    if call.own.is_some_and(|own| own.subnet6.is_some()) {
        gateway::six_is_spoken(host, format_args!("interface {name}"))?;
    }
    host.guard_tap(&name, call.own.as_ref()).map_err(refused(&name))?;
    Ok(Done {})
}

/// Reads how much has gone through taps. What the host sends is what the guest receives.
pub fn count(host: &mut dyn NetHost, instance: InstanceId, call: &CountTaps) -> Result<TapCounts, Refusal> {
    if call.numbers.len() > COUNTED {
        let refusal = Refusal::new(Reason::InvalidValue, "taps").field("numbers");
        return Err(refusal.note(format_args!("{} taps; at most {COUNTED} are counted at a time", call.numbers.len())));
    }
    let mut taps = Vec::new();
    for number in &call.numbers {
        let name = IfName::tap(instance, *number);
        if let Some(seen) = host.counters(&name).map_err(refused(&name))? {
            taps.push(TapCount {
                number: *number,
                rx_bytes: seen.tx_bytes,
                rx_packets: seen.tx_packets,
                tx_bytes: seen.rx_bytes,
                tx_packets: seen.rx_packets,
            });
        }
    }
    Ok(TapCounts { taps })
}

/// The tap with this name, if there is one; something else with it is refused.
fn own_tap(host: &mut dyn NetHost, name: &IfName) -> Result<Option<Link>, Refusal> {
    match host.link(name).map_err(refused(name))? {
        Some(link) if !link.is_tap() => Err(foreign(&link, "tap")),
        link => Ok(link),
    }
}
