//! Eight clients at the same few machines: whatever they do, database, host and events agree afterwards, and no change is lost.

use super::requests::text;
use super::suite::{Life, Session, Suite};
use super::world::Cut;
use crate::db::machines::{Machines, Which};
use skep_ipc::aio::Port;
use skep_proto::broker::*;
use skep_proto::{MachineId, Reason, Refusal, Text, wire};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

const CLIENTS: u64 = 8;
/// How many operations they do together, if `SKEP_STRESS_OPERATIONS` does not say: under emulation it does (run-tests).
const OPERATIONS: usize = 10_000;
/// Names that machines have; so few that clients always meet.
const NAMES: u64 = 6;
/// So often a helper dies after it has acted.
const CUTS: usize = 500;

/// What was answered with success, by machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Done {
    edits: u64,
    renames: u64,
}

#[derive(Default)]
struct Tally {
    machines: RefCell<BTreeMap<MachineId, Done>>,
    refusals: RefCell<BTreeMap<&'static str, u32>>,
    begun: Cell<usize>,
}

/// Numbers as good as random ones, the same at every run (Knuth's MMIX).
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
    fn name(&mut self) -> String {
        format!("m{}", self.throw(NAMES))
    }
}

/// One operation of a client.
async fn act(s: &mut Session, dice: &mut Dice, tally: &Tally) -> Result<(), Refusal> {
    let name = dice.name();
    let long = async |s: &mut Session, call: MachineAct| {
        let begun = s.ask(call).await?;
        s.done(begun).await.map(drop)
    };
    let machine = || text(&name);
    match dice.throw(100) {
        // Read, count on, write if nobody else did meanwhile: what each adds must be there in the end.
        0..50 => {
            let seen = s.get(&name).await?;
            let count: u64 = seen.description.as_str().parse().unwrap_or(0);
            let description = Some(Text::lossy(&(count + 1).to_string()));
            let settings = Settings { description, ..Settings::default() };
            let set = MachineSet { machine: text(&seen.id.to_string()), settings, revision: seen.revision };
            let edited = s.ask(set).await?;
            tally.machines.borrow_mut().entry(edited.machine.id).or_default().edits += 1;
        }
        50..60 => {
            let new = dice.name();
            let renamed = s.ask(MachineRename { machine: machine(), name: new.parse().expect("a name") }).await?;
            // To the name that it has, it is none.
            let counted = u64::from(new != name);
            tally.machines.borrow_mut().entry(renamed.id).or_default().renames += counted;
        }
        60..75 => drop(s.machine(&name, &[]).await?),
        75..83 => long(s, MachineAct { machine: machine(), act: Act::Start }).await?,
        83..87 => long(s, MachineAct { machine: machine(), act: Act::Stop(Stop::default()) }).await?,
        87..91 => long(s, MachineAct { machine: machine(), act: Act::Kill }).await?,
        _ => {
            let begun = s.ask(MachineDelete { machine: machine(), disks: false }).await?;
            s.done(begun).await?;
        }
    }
    Ok(())
}

/// What events tell of machines: name, state, how often changed and renamed.
type Told = BTreeMap<MachineId, (String, String, Done)>;

fn tell(told: &mut Told, event: &EventView) {
    let id: MachineId = event.id.as_str().parse().expect("an id");
    let name = event.name.to_string();
    if event.what.as_str() == "created" {
        assert!(told.insert(id, (name, "stopped".into(), Done::default())).is_none(), "created twice: {event:?}");
        return;
    }
    let Some(known) = told.get_mut(&id) else { panic!("of a machine that is not there: {event:?}") };
    match event.what.as_str() {
        "changed" => known.2.edits += 1,
        "renamed" => {
            known.2.renames += 1;
            known.0 = name;
        }
        "state" => known.1 = event.detail.as_str().split([':', ' ']).next().unwrap_or_default().to_owned(),
        "deleted" => drop(told.remove(&id)),
        _ => {}
    }
}

#[test]
fn eight_clients_leave_database_host_and_events_in_agreement() {
    let suite = Suite::new();
    suite.live(async |life: Life| {
        life.up().await;
        let mut s = life.session().await;
        let watch = EventWatch { after: Some(0), object: Text::lossy("machine") };
        let (_, [events]) = s.ask_with(watch, []).await.expect("a watch");
        let told: Rc<RefCell<(Told, u64)>> = Rc::default();
        let listener = tokio::task::spawn_local({
            let (told, port) = (told.clone(), Port::new(events).expect("a port"));
            async move {
                while let Ok(record) = port.recv().await {
                    let event: EventView = wire::decode(&record.bytes).expect("an event");
                    let mut told = told.borrow_mut();
                    tell(&mut told.0, &event);
                    told.1 = event.token;
                }
            }
        });
        let operations = std::env::var("SKEP_STRESS_OPERATIONS").map_or(OPERATIONS, |text| text.parse().expect("a number"));
        eprintln!("{operations} operations");
        let tally = Rc::new(Tally::default());
        let mut clients = Vec::new();
        for number in 0..CLIENTS {
            let (mut s, tally, world) = (life.session().await, tally.clone(), suite.world.clone());
            clients.push(tokio::task::spawn_local(async move {
                let mut dice = Dice(number);
                while tally.begun.get() < operations {
                    tally.begun.set(tally.begun.get() + 1);
                    if tally.begun.get() % CUTS == 0 {
                        let mut state = world.lock();
                        state.cut = Some((state.calls.len() + usize::try_from(dice.throw(20)).expect("few"), Cut::After));
                    }
                    if let Err(refusal) = act(&mut s, &mut dice, &tally).await {
                        *tally.refusals.borrow_mut().entry(refusal.reason.row().name).or_insert(0) += 1;
                    }
                }
            }));
        }
        for client in clients {
            client.await.expect("no client panics");
        }
        suite.world.lock().cut = None;
        suite.settled(&life.broker).await;

        let expected = [
            Reason::NotFound,
            Reason::AlreadyExists,
            Reason::WrongState,
            Reason::Conflict,
            Reason::Unavailable,
            Reason::Cancelled,
        ];
        let refusals = tally.refusals.borrow().clone();
        eprintln!("{refusals:?}");
        for name in refusals.keys() {
            assert!(expected.iter().any(|reason| reason.row().name == *name), "{refusals:?}");
        }
        assert!(refusals.contains_key("CONFLICT"), "clients never met: {refusals:?}");
        // The listener has heard everything by now, or hears it yet.
        let newest = life.broker.read(|db| db.last_event()).expect("a token");
        let s = &mut s;
        s.ask(MachineCreate { name: "last".parse().expect("a name"), settings: Settings::default(), group: None })
            .await
            .expect("made");
        while told.borrow().1 <= newest {
            tokio::task::yield_now().await;
        }
        let rows = life.broker.read(|db| db.machines(Which::After("", u32::MAX, None))).expect("machines");
        let told = &told.borrow().0;
        assert_eq!(rows.len(), told.len());
        for row in rows {
            let (name, state, counted) = told.get(&row.id).expect("told of");
            assert_eq!((name.as_str(), state.as_str()), (row.name.as_str(), row.state.word()), "{}", row.id);
            let done = tally.machines.borrow().get(&row.id).cloned().unwrap_or_default();
            assert_eq!((&done, row.revision), (counted, 1 + done.edits + done.renames), "{} {}", row.id, row.name);
            let count: u64 = row.description.as_str().parse().unwrap_or(0);
            assert_eq!(count, done.edits, "an update of {} was lost", row.name);
        }
        listener.abort();
    });
}
