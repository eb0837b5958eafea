//! Guests' services: a process for each switch with a subnet, as long as a guest is at work on it (`crates/proto/src/services.rs`).
//!
//! The database says which address is whose, so the process can be killed at any time: another one is told the same.

use crate::broker::Broker;
use crate::db::Who;
use crate::db::guests::Guests;
use crate::db::machines::{MachineRow, Machines};
use crate::db::nics::{NicRow, Nics};
use crate::db::switches::{SwitchRow, Switches};
use crate::helpers::{PATIENCE, ask};
use skep_ipc::aio::{Client, Port};
use skep_proto::broker::{GuestData, SwitchKind};
use skep_proto::cell::{KillCell, StartServices, SweepCell};
use skep_proto::net::{OpenPort, OpenResolvers};
use skep_proto::services::{AddPort, Document, ListPorts, RemovePort, ServiceEvent, Services, SetResolvers, Subnet, Watch};
use skep_proto::{Fds, NicId, Reason, Refusal, SwitchId, Text, UpTo, wire};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, Notify};
use tokio::time::sleep;

/// Between two starts of a process that does not stay.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// How often the same is heard of a NIC, and of how many within this.
const HEARD: Duration = Duration::from_secs(10);
const HEARD_AT_ONCE: usize = 2048;
/// Bytes in a packet: what Ethernet carries.
const MTU: u16 = 1500;

/// A switch's process.
#[derive(Default)]
pub struct Serving {
    /// Held by whoever starts or ends it.
    turn: Mutex<()>,
    /// Somebody may have left the switch, or it is no more.
    poke: Notify,
    /// Names have changed.
    names: Notify,
}

/// Those that are kept, by switch.
pub type All = HashMap<SwitchId, Rc<Serving>>;

fn path(switch: SwitchId) -> String {
    format!("console/{}.sock", switch.cell())
}

/// A name as DNS has it: small letters, digits and hyphens.
fn label(name: &str) -> Text<63> {
    let plain: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    Text::lossy(plain.trim_matches('-'))
}

/// What a guest is told of itself.
pub fn document(machine: &MachineRow, data: &GuestData, macs: &[[u8; 6]]) -> Document {
    Document {
        instance: Text::lossy(&machine.id.to_string()),
        host: label(machine.name.as_str()),
        keys: data.keys.clone(),
        user_data: data.user_data.clone(),
        vendor_data: skep_seed::phone_home(),
        network: skep_seed::network(macs),
    }
}

/// What guests on it are told of a switch.
fn told(switch: &SwitchRow) -> Option<Subnet> {
    let subnet = switch.subnet?;
    Some(Subnet {
        prefix: subnet.prefix(),
        router: (switch.kind == SwitchKind::Nat).then(|| subnet.gateway()),
        domain: Text::lossy(&format!(
            "{}.internal",
            Text::<54>::lossy(label(switch.name.as_str()).as_str()).as_str().trim_end_matches('-')
        )),
        mtu: MTU,
        v6: switch.subnet6,
    })
}

/// Serves the NICs of a machine that is about to run: their taps are there. What cannot be served now is when the process is back.
pub async fn join(broker: &Rc<Broker>, who: &Who, machine: &MachineRow, nics: &[NicRow]) {
    for nic in nics.iter().filter(|nic| nic.address.is_some()) {
        let Some((switch, ..)) = nic.switch else { continue };
        let serving = keep(broker, switch);
        let added = async {
            ready(broker, who, switch, &serving).await?;
            add(broker, who, switch, nic, machine).await
        };
        if let Err(refusal) = added.await {
            broker.warn(who.trace, format_args!("nic {}: its guest gets no address yet: {refusal}", nic.name));
        }
    }
}

/// Serves the NICs of a machine no more.
pub async fn leave(broker: &Broker, who: &Who, nics: &[NicRow]) {
    for nic in nics.iter().filter(|nic| nic.address.is_some()) {
        let Some((switch, ..)) = nic.switch else { continue };
        let there = broker.serving.borrow().contains_key(&switch);
        if there {
            // If the process is away, there is nothing to take from it.
            let _ = ask(&broker.run, &path(switch), who, RemovePort { nic: nic.id }, [], PATIENCE).await;
        }
    }
}

/// Serves a NIC no more that leaves a switch while its machine runs. Its tap stays, and whoever served it would keep a way to it: so the
/// process ends, and another one serves who is left.
pub async fn part(broker: &Broker, who: &Who, nic: &NicRow) -> Result<(), Refusal> {
    let Some((switch, ..)) = nic.switch.as_ref().filter(|_| nic.address.is_some()) else { return Ok(()) };
    let serving = broker.serving.borrow().get(switch).cloned();
    let Some(serving) = serving else { return Ok(()) };
    let _turn = serving.turn.lock().await;
    broker.cells.call(who, KillCell { machine: switch.cell() }).await?;
    serving.poke.notify_one();
    Ok(())
}

/// Looks again at who is on a switch, or whether there still is one.
pub fn poke(broker: &Broker, switch: SwitchId) {
    if let Some(serving) = broker.serving.borrow().get(&switch) {
        serving.poke.notify_one();
    }
}

/// Looks again at every switch that is served.
pub fn poke_all(broker: &Broker) {
    broker.serving.borrow().values().for_each(|serving| serving.poke.notify_one());
}

/// Machines or switches have other names now. Nothing else is told anew: it would cut off who is asking just now.
pub fn renamed(broker: &Broker) {
    broker.serving.borrow().values().for_each(|serving| serving.names.notify_one());
}

/// Keeps a switch's process from now on.
pub fn keep(broker: &Rc<Broker>, switch: SwitchId) -> Rc<Serving> {
    let mut all = broker.serving.borrow_mut();
    if let Some(serving) = all.get(&switch) {
        return serving.clone();
    }
    let serving = Rc::new(Serving::default());
    all.insert(switch, serving.clone());
    tokio::task::spawn_local(attend(broker.clone(), switch, serving.clone()));
    serving
}

/// Sees to it that the process is there.
async fn ready(broker: &Broker, who: &Who, switch: SwitchId, serving: &Serving) -> Result<(), Refusal> {
    let _turn = serving.turn.lock().await;
    if connect(broker, switch).await.is_some() {
        return Ok(());
    }
    let row = broker.read(|db| db.find_switch(&switch.to_string()))?;
    let row = row.ok_or_else(|| Refusal::new(Reason::NotFound, format_args!("switch {switch}")))?;
    // One that is there and does not answer.
    let machine = switch.cell();
    broker.cells.call(who, KillCell { machine }).await?;
    broker.cells.call(who, SweepCell { machine }).await?;
    broker.cells.call(who, StartServices { switch, number: row.number }).await?;
    Ok(())
}

/// Tells it whom to ask for names that are not the switch's.
async fn resolvers(broker: &Broker, who: &Who, switch: SwitchId) -> Result<(), Refusal> {
    let (_, UpTo(resolvers)) = broker.net.call(who, OpenResolvers {}).await?;
    let resolvers = UpTo::from_vec(resolvers).map_err(|_| Refusal::new(Reason::Internal, "resolvers"))?;
    ask(&broker.run, &path(switch), who, SetResolvers {}, resolvers, PATIENCE).await?;
    Ok(())
}

/// Has it tell what happens.
async fn watch(broker: &Broker, who: &Who, switch: SwitchId) -> Result<Port, Refusal> {
    let failed = |e| Refusal::io(format_args!("switch {switch}"), "watch its services", &e);
    let (ours, theirs) = skep_sys::sock::seqpacket_pair().map_err(failed)?;
    ask(&broker.run, &path(switch), who, Watch {}, [theirs], PATIENCE).await?;
    Port::new(ours).map_err(failed)
}

/// What it says of its ports, against who is at work: what happened while nobody watched, and whom it serves still.
async fn compare(broker: &Broker, who: &Who, switch: SwitchId) -> Result<(), Refusal> {
    let work = at_work(broker, switch)?;
    let mut after = None;
    loop {
        let (page, []) = ask(&broker.run, &path(switch), who, ListPorts { after }, [], PATIENCE).await?;
        let Some(last) = page.ports.last() else { return Ok(()) };
        // It says in which order; it cannot say so for ever.
        if after.is_some_and(|after| last.nic <= after) {
            return Err(
                Refusal::new(Reason::Internal, format_args!("switch {switch}")).note("its services list ports in no order")
            );
        }
        after = Some(last.nic);
        for port in &page.ports {
            if !work.iter().any(|(nic, _)| nic.id == port.nic) {
                ask(&broker.run, &path(switch), who, RemovePort { nic: port.nic }, [], PATIENCE).await?;
            } else if port.home {
                note(broker, switch, port.nic, Told::Home)?;
            }
        }
    }
}

async fn connect(broker: &Broker, switch: SwitchId) -> Option<Client<Services>> {
    Client::<Services>::over(broker.run.connect(&path(switch)).ok()?).await.ok()
}

async fn add(broker: &Broker, who: &Who, switch: SwitchId, nic: &NicRow, machine: &MachineRow) -> Result<(), Refusal> {
    let row = broker.read(|db| db.find_switch(&switch.to_string()))?;
    let gone = || Refusal::new(Reason::NotFound, format_args!("switch {switch}"));
    let (subnet, address) = row.as_ref().and_then(told).zip(nic.address).ok_or_else(gone)?;
    // Names that are told apart here may be one to DNS, and another's is not to be had: then it is this one with a part of its id.
    let host = label(machine.name.as_str());
    let others = at_work(broker, switch)?;
    let same = others.iter().any(|(_, other)| other.id < machine.id && label(other.name.as_str()) == host);
    let id = machine.id.to_string();
    let part = id.get(..8).unwrap_or_default();
    let host = if same { label(&format!("{}-{part}", Text::<54>::lossy(host.as_str()))) } else { host };
    let (_, [frames]) = broker.net.call(who, OpenPort { number: nic.number, v6: nic.subnet6.is_some() }).await?;
    let data = broker.read(|db| db.guest(machine.id))?.unwrap_or_default();
    let bytes = document(machine, &data, &[nic.mac]).encode();
    let bytes = bytes
        .map_err(|e| Refusal::new(Reason::InvalidValue, format_args!("machine {}", machine.name)).field("user_data").note(e))?;
    let file = skep_sys::fd::sealed_memory_file(c"skep-document", &bytes);
    let file = file.map_err(|e| Refusal::io(format_args!("nic {}", nic.name), "write what its guest is told", &e))?;
    let call = AddPort { nic: nic.id, machine: machine.id, mac: nic.mac, address, host, subnet, document: true };
    let fds = UpTo::from_vec(vec![frames, file]).map_err(|_| Refusal::new(Reason::Internal, "descriptors"))?;
    ask(&broker.run, &path(switch), who, call, fds, PATIENCE).await?;
    Ok(())
}

/// NICs that are to be served.
fn at_work(broker: &Broker, switch: SwitchId) -> Result<Vec<(NicRow, MachineRow)>, Refusal> {
    broker.read(|db| {
        let there = db.find_switch(&switch.to_string())?.is_some_and(|row| row.subnet.is_some());
        let nics = if there { db.nics_at_work(switch)? } else { Vec::new() };
        let mut all = Vec::new();
        for nic in nics {
            let machine = nic.machine.as_ref().map(|(id, _)| db.machine(*id)).transpose()?.flatten();
            all.extend(machine.filter(|_| nic.address.is_some()).map(|machine| (nic, machine)));
        }
        Ok(all)
    })
}

/// Ends the process if nobody is on the switch; says whether nobody is.
async fn end(broker: &Broker, switch: SwitchId, serving: &Serving) -> bool {
    let _turn = serving.turn.lock().await;
    if !at_work(broker, switch).is_ok_and(|nics| nics.is_empty()) {
        return false;
    }
    let who = Who::broker();
    let machine = switch.cell();
    let ended = async {
        broker.cells.call(&who, KillCell { machine }).await?;
        broker.cells.call(&who, SweepCell { machine }).await
    };
    // What stays is found at the next start.
    if let Err(refusal) = ended.await {
        broker.warn(who.trace, format_args!("switch {switch}: its services: {refusal}"));
    }
    // Somebody may have come meanwhile, and waits for his turn.
    if !at_work(broker, switch).is_ok_and(|nics| nics.is_empty()) {
        return false;
    }
    broker.serving.borrow_mut().remove(&switch);
    true
}

/// Serves everybody who is at work, as he is now.
async fn add_all(broker: &Broker, who: &Who, switch: SwitchId) -> Result<(), Refusal> {
    for (nic, machine) in at_work(broker, switch)? {
        // Its tap may not be there yet, or no more: then it joins by itself, or leaves.
        if let Err(refusal) = add(broker, who, switch, &nic, &machine).await
            && refusal.reason != Reason::NotFound
        {
            broker.warn(who.trace, format_args!("nic {}: {refusal}", nic.name));
        }
    }
    Ok(())
}

async fn attend(broker: Rc<Broker>, switch: SwitchId, serving: Rc<Serving>) {
    let who = Who::broker();
    let mut pause = BACK_OFF.0;
    while !end(&broker, switch, &serving).await {
        let begun = Instant::now();
        let watched = async {
            ready(&broker, &who, switch, &serving).await?;
            // Without them guests have all but the names of others.
            if let Err(refusal) = resolvers(&broker, &who, switch).await {
                broker.warn(who.trace, format_args!("switch {switch}: names of others are refused on it: {refusal}"));
            }
            // Before anything is compared, so that nothing is missed.
            let events = watch(&broker, &who, switch).await?;
            compare(&broker, &who, switch).await?;
            add_all(&broker, &who, switch).await?;
            Ok::<_, Refusal>(events)
        };
        match watched.await {
            Ok(port) => listen(&broker, switch, &serving, port).await,
            Err(refusal) => broker.warn(who.trace, format_args!("switch {switch}: its services: {refusal}")),
        }
        if begun.elapsed() > BACK_OFF.1 {
            pause = BACK_OFF.0;
        }
        tokio::select! {
            () = sleep(pause) => pause = (pause * 2).min(BACK_OFF.1),
            () = serving.poke.notified() => {}
        }
    }
}

/// What is told of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Told {
    /// He has taken his address.
    Leased,
    /// He has done what he was told.
    Home,
}

/// Reads events until the process is gone, or nobody is on the switch. It may have been taken over: of each NIC it is heard now and then.
async fn listen(broker: &Broker, switch: SwitchId, serving: &Serving, port: Port) {
    let mut heard: HashMap<(NicId, Told), Instant> = HashMap::new();
    loop {
        let record = tokio::select! {
            record = port.recv() => record,
            () = serving.poke.notified() => {
                if at_work(broker, switch).is_ok_and(|nics| nics.is_empty()) {
                    // For the caller, who looks himself.
                    return serving.poke.notify_one();
                }
                continue;
            }
            () = serving.names.notified() => {
                if let Err(refusal) = add_all(broker, &Who::broker(), switch).await {
                    broker.warn(Who::broker().trace, format_args!("switch {switch}: its services: {refusal}"));
                }
                continue;
            }
        };
        let event = record.ok().filter(|r| r.fds.is_empty()).and_then(|r| wire::decode::<ServiceEvent>(&r.bytes).ok());
        let (nic, told) = match event {
            Some(ServiceEvent::Leased(nic)) => (nic, Told::Leased),
            Some(ServiceEvent::Home(nic)) => (nic, Told::Home),
            None => return,
        };
        heard.retain(|_, when| when.elapsed() < HEARD);
        if heard.contains_key(&(nic, told)) || heard.len() >= HEARD_AT_ONCE {
            continue;
        }
        heard.insert((nic, told), Instant::now());
        if let Err(refusal) = note(broker, switch, nic, told) {
            broker.warn(Who::broker().trace, format_args!("nic {nic}: {refusal}"));
        }
    }
}

/// Writes it down, if the NIC is on the switch, and it is news.
fn note(broker: &Broker, switch: SwitchId, nic: NicId, told: Told) -> Result<(), Refusal> {
    let known = broker.read(|db| {
        let row = db.find_nic(&nic.to_string())?.filter(|row| row.switch.as_ref().is_some_and(|(id, ..)| *id == switch));
        let Some((machine, _)) = row.as_ref().and_then(|row| row.machine.as_ref()) else { return Ok(true) };
        Ok::<_, Refusal>(told == Told::Home && db.guest_is_home(*machine)?)
    })?;
    if known {
        return Ok(());
    }
    broker.change(&Who::broker(), |change| {
        let Some(row) = change.find_nic(&nic.to_string())? else { return Ok(()) };
        let address = row.address.map(|address| address.to_string()).unwrap_or_default();
        let Some((machine, name)) = &row.machine else { return Ok(()) };
        match told {
            Told::Home => {
                change.guest_came_home(*machine, skep_service::now_ns())?;
                Ok(change.event("machine", *machine, name, "home", address)?)
            }
            Told::Leased => Ok(change.event("nic", row.id, &row.name, "leased", address)?),
        }
    })
}
