//! Pairs: two interfaces like the ends of a cable, which join switches, or a switch and what somebody puts at the other end.

use super::{Attempt, Place, bridge_of, find, foreign, refused, unlisted};
use crate::platform::Link;
use skep_proto::net::{CreatePair, DeletePair, Done, PairNamed};
use skep_proto::{IfName, InstanceId, Reason, Refusal};

/// Brings a pair to the wanted state: both ends there, each a member of its switch's bridge or of none, up.
pub fn create((host, instance): Place<'_>, call: &CreatePair) -> Result<PairNamed, Refusal> {
    let ends = IfName::pair(instance, call.number);
    let object = format!("pair {}", call.number);
    let links = host.links().map_err(unlisted)?;
    let before = ends.each_ref().map(|end| find(&links, end));
    if let Some(link) = before.iter().flatten().find(|link| !link.is_end()) {
        return Err(foreign(link, "pair's end"));
    }
    let [a, b] = call.switches.map(|number| number.map(|number| bridge_of(host, instance, number)).transpose());
    let bridges = [a?, b?];
    if let [Some(a), Some(b)] = &bridges
        && joined(&links, instance, call.number, a.index, b.index)
    {
        let refusal = Refusal::new(Reason::InvalidValue, object).field("switches");
        return Err(refusal.note(format_args!("{} and {} are joined already; frames would go round for ever", a.name, b.name)));
    }
    // One end without the other is what was left half made (FreeBSD).
    let before = if let [Some(_), Some(_)] = before { before } else { [None, None] };
    if let [None, None] = before
        && let Some(end) = ends.iter().find(|end| find(&links, end).is_some())
    {
        host.delete(end).map_err(refused(end))?;
    }
    Attempt::all(host, |attempt| {
        if let [None, None] = before {
            attempt.make_pair(&ends)?;
        }
        for ((end, before), bridge) in ends.iter().zip(before).zip(&bridges) {
            attempt.mark(end, &format!("skep {instance}: pair {}", call.number), before.map(|link| link.note.as_str()))?;
            attempt.place(end, before, &links, bridge.as_ref())?;
            if !before.is_some_and(|link| link.up) {
                attempt.raise(end)?;
            }
        }
        Ok(PairNamed { ends: ends.clone() })
    })
}

/// Deletes both ends.
pub fn delete((host, instance): Place<'_>, call: &DeletePair) -> Result<Done, Refusal> {
    let links = host.links().map_err(unlisted)?;
    let ends: Vec<&Link> = IfName::pair(instance, call.number).iter().filter_map(|end| find(&links, end)).collect();
    if let Some(link) = ends.iter().find(|link| !link.is_end()) {
        return Err(foreign(link, "pair's end"));
    }
    // One takes the other along.
    if let Some(end) = ends.first() {
        host.delete(&end.name).map_err(refused(&end.name))?;
    }
    Ok(Done {})
}

/// Whether frames already find a way from one bridge to the other through our pairs, but for the one with this number.
fn joined(links: &[Link], instance: InstanceId, except: u16, from: u32, to: u32) -> bool {
    let bridge = |end: &IfName| find(links, end).filter(|link| link.is_end()).and_then(|link| link.bridge);
    let number = |link: &Link| {
        let prefix = format!("sk{instance}p");
        link.name.as_str().strip_prefix(&prefix)?.strip_suffix('a')?.parse::<u16>().ok()
    };
    let mut pairs: Vec<(u32, u32)> = links
        .iter()
        .filter_map(number)
        .filter(|number| *number != except)
        .filter_map(|number| {
            let [a, b] = IfName::pair(instance, number);
            bridge(&a).zip(bridge(&b))
        })
        .collect();
    // Each round takes the pairs that begin where we are.
    let mut reached = vec![from];
    while let Some(at) = pairs.iter().position(|(a, b)| reached.contains(a) || reached.contains(b)) {
        let (a, b) = pairs.swap_remove(at);
        reached.extend([a, b]);
    }
    reached.contains(&to)
}
