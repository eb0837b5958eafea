//! One task per machine: takes everything that concerns its life from one queue, steps the pure [`Life`], writes the outcome, and
//! starts what is to be done. Whatever takes time is a task of its own that posts its result into the same queue.

mod settings;
mod stop;

use crate::broker::Broker;
use crate::cell;
use crate::consoles;
use crate::db::disks::Stage;
use crate::db::machines::{MachineRow, Machines};
use crate::db::stops::StopRow;
use crate::db::{Change, Who};
use crate::disk_servers;
use crate::life::{Effect, Input, Life, word};
use crate::operations::Operation;
use crate::remote;
use crate::requests::whole::not_returning;
use crate::served;
use crate::spec::Spec;
use crate::upkeep::{Pauses, again};
use skep_ipc::aio::Port;
use skep_proto::broker::{Act, MachineState, OperationView, Stop};
use skep_proto::{MachineId, OperationId, Reason, Refusal};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// How long a hypervisor has to die.
const KILL: Duration = Duration::from_secs(5);

/// A machine's queue.
pub type Post = mpsc::UnboundedSender<Msg>;

/// What is put into it.
pub enum Msg {
    /// The broker before was waiting for its guest's end: so does this one.
    Waits(Operation, StopRow),
    /// A user asks.
    Act(Act, Who, oneshot::Sender<Result<OperationView, Refusal>>),
    /// A user cancels this operation.
    Cancel(OperationId),
    /// The time for this operation has passed.
    Late(OperationId),
    /// The result of the work with this number.
    Work(u64, Input),
    /// The runner of this cell says something; it is listened to again when the last part is dropped.
    Runner(u64, Input, oneshot::Sender<()>),
    /// The runner's events arrive here from now on.
    Watch(u64, Port),
    /// The host was asked after the broker's start; with a living runner, its events.
    Found(Input, Option<Port>),
    /// The settings were changed.
    Changed(Who),
    /// The runner took this over for its next start of the hypervisor.
    Configured(u64, Box<Spec>),
    /// The pause with this number is over: start it again.
    Again(u64),
    /// The machine was deleted.
    End,
}

/// A task that ends with its owner.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Actor {
    broker: Rc<Broker>,
    id: MachineId,
    post: Post,
    life: Life,
    slot: Option<u16>,
    who: Who,
    operation: Option<Operation>,
    /// Until when its guest may take to power itself off, in wall-clock time (ns since 1970): it outlives this process.
    deadline_ns: i64,
    /// What the hypervisor is configured with at its next start, if that differs.
    next: Option<Spec>,
    number: u64,
    work: Option<Task>,
    clock: Option<Task>,
    cell: u64,
    /// Its user wants it to run.
    wanted: bool,
    pauses: Pauses,
    /// Waits until it is started again; the number of the pause.
    pause: (u64, Option<Task>),
    /// A console-proxy's, then the one that listens to the runner; none: there is no cell that is known to live.
    keepers: Vec<Task>,
}

impl Broker {
    /// The queue of a machine; its task is begun when it is first needed.
    pub fn actor(self: &Rc<Self>, machine: &MachineRow) -> Post {
        if let Some(post) = self.actors.borrow().get(&machine.id) {
            return post.clone();
        }
        let (post, queue) = mpsc::unbounded_channel();
        let actor = Actor {
            broker: self.clone(),
            id: machine.id,
            post: post.clone(),
            life: Life::load(machine.state, machine.note.clone(), machine.slot.is_some()),
            slot: machine.slot,
            who: Who::broker(),
            operation: None,
            deadline_ns: 0,
            next: None,
            number: 0,
            work: None,
            clock: None,
            cell: 0,
            wanted: machine.wanted,
            pauses: Pauses::default(),
            pause: (0, None),
            keepers: Vec::new(),
        };
        tokio::task::spawn_local(actor.run(queue));
        self.actors.borrow_mut().insert(machine.id, post.clone());
        post
    }
}

impl Actor {
    async fn run(mut self, mut queue: mpsc::UnboundedReceiver<Msg>) {
        while let Some(message) = queue.recv().await {
            match message {
                Msg::Waits(operation, stop) => self.wait_on(operation, &stop),
                Msg::Act(act, who, reply) => {
                    self.pauses = Pauses::default();
                    drop(reply.send(self.act(act, &who)));
                }
                Msg::Again(number) if number == self.pause.0 => self.start_again(),
                Msg::Cancel(id) if self.is_at(id) => drop(self.step(Input::Cancel)),
                Msg::Late(id) if self.is_at(id) => drop(self.step(Input::Late)),
                Msg::Work(number, input) if number == self.number => {
                    let made = input == Input::Made(Ok(()));
                    drop(self.step(input));
                    if made {
                        self.eject_once();
                        self.catch_up();
                    }
                }
                Msg::Runner(cell, input, heard) if cell == self.cell => {
                    let _ = self.step(input);
                    drop(heard);
                }
                Msg::Watch(number, port) if number == self.number => self.keep(port),
                Msg::Found(input, port) => {
                    let alive = matches!(&input, Input::Found(crate::life::Found::Alive(_)));
                    drop(self.step(input));
                    if let (true, Some(port)) = (alive, port) {
                        self.keep(port);
                        // The broker before may have gone between its start and this.
                        self.eject_once();
                        self.configure(Who::broker());
                    }
                }
                Msg::Changed(who) => self.configure(who),
                Msg::Configured(cell, spec) if cell == self.cell => self.next = Some(*spec),
                Msg::End => return,
                Msg::Again(_) => {}
                // Late news of what was given up.
                Msg::Cancel(_) | Msg::Late(_) | Msg::Work(..) | Msg::Runner(..) | Msg::Watch(..) | Msg::Configured(..) => {}
            }
        }
    }

    fn is_at(&self, id: OperationId) -> bool {
        self.operation.as_ref().is_some_and(|op| op.id() == id)
    }

    /// A user asks: refused at once, or an operation.
    fn act(&mut self, act: Act, who: &Who) -> Result<OperationView, Refusal> {
        let machine = self.broker.read(|db| db.machine(self.id))?;
        let machine = machine.filter(|m| m.stage == Stage::Ready).ok_or_else(|| Refusal::new(Reason::NotFound, self.id))?;
        let object = format!("machine {}", machine.name);
        let mut life = self.life.clone();
        let effects = life.step(Input::Ask(act)).map_err(|(reason, note)| Refusal::new(reason, &object).note(note))?;
        let slot = self.slot;
        let deadline_ns = stop::deadline(act, machine.upkeep);
        let wanted = match act {
            Act::Start => Some(true),
            Act::Stop(_) | Act::Kill => Some(false),
            Act::Reboot | Act::Reset | Act::Pause | Act::Resume => None,
        };
        let (slot, mut operation) = Operation::begin(&self.broker, who, machine.group, word(act), &object, |change, id| {
            let slot = if act == Act::Start { Some(admit(&self.broker, change, &machine)?) } else { slot };
            record(change, &machine, &self.life, &life, slot)?;
            if let Some(wanted) = wanted {
                change.set_machine_wanted(machine.id, wanted)?;
            }
            if let Act::Stop(Stop { force, .. }) = act {
                change.put_stop(machine.id, &StopRow { operation: id, deadline_ns, force })?;
            }
            Ok(slot)
        })?;
        self.wanted = wanted.unwrap_or(self.wanted);
        // Whoever acts decides anew.
        self.pause = (self.pause.0 + 1, None);
        let view = operation.view();
        if matches!(act, Act::Stop(_)) {
            operation.outlives_the_broker();
        }
        self.hear_cancel(&operation);
        (self.life, self.slot, self.who, self.deadline_ns) = (life, slot, who.clone(), deadline_ns);
        let overtaken = self.operation.replace(operation);
        // What an accepted act finishes is the one that it overtakes.
        for effect in effects.into_iter().filter(|effect| !matches!(effect, Effect::Finish(_))) {
            self.perform(effect);
        }
        if let Some(overtaken) = overtaken {
            overtaken.finish(Err(Refusal::new(Reason::Cancelled, &object).note(format_args!("overtaken by {}", word(act)))));
        }
        Ok(view)
    }

    /// Something happened.
    fn step(&mut self, input: Input) -> Result<(), (Reason, String)> {
        let mut life = self.life.clone();
        let effects = life.step(input)?;
        if life != self.life {
            if !life.cell {
                self.slot = None;
            }
            let written = self.broker.read(|db| db.machine(self.id)).map_err(Refusal::from).and_then(|machine| match machine {
                Some(machine) => self.broker.change(&self.who, |change| record(change, &machine, &self.life, &life, self.slot)),
                None => Ok(()),
            });
            // The host is as it is; the row is set right with the next step, or at the next start.
            if let Err(refusal) = written {
                self.broker.warn(self.who.trace, format_args!("machine {}: {refusal}", self.id));
            }
            self.life = life;
            if self.slot.is_none() {
                served::poke_all(&self.broker);
            }
        }
        let refused = effects.iter().any(|e| matches!(e, Effect::Finish(Err(_)))) && self.life.state == MachineState::Stopped;
        for effect in effects {
            self.perform(effect);
        }
        if refused {
            // A start that the host cannot do, or that its user has cancelled, is not tried again.
            self.give_up();
        }
        self.rest();
        Ok(())
    }

    /// When it is at rest against its user's will, it waits for its next start, or is no longer wanted.
    fn rest(&mut self) {
        let life = &self.life;
        if !self.wanted || self.pause.1.is_some() || life.busy.is_some() || life.cell || !life.known {
            return;
        }
        let Ok(Some(machine)) = self.broker.read(|db| db.machine(self.id)) else { return };
        if !again(machine.upkeep.restart, life.state) {
            return self.give_up();
        }
        let ran = skep_service::now_ns().saturating_sub(machine.started_ns);
        let pause = self.pauses.next(Duration::from_nanos(u64::try_from(ran).unwrap_or(0)));
        let number = self.pause.0 + 1;
        let post = self.post.clone();
        let waits = Task(tokio::task::spawn_local(async move {
            tokio::time::sleep(pause).await;
            let _ = post.send(Msg::Again(number));
        }));
        self.pause = (number, Some(waits));
        self.tell(&machine, &format!("again in {} s", pause.as_secs()));
    }

    /// Tells whoever watches about its next start.
    fn tell(&self, machine: &MachineRow, text: &str) {
        let told = self.broker.change(&Who::broker(), |change| {
            Ok::<_, Refusal>(change.event("machine", self.id, &machine.name, "restart", text)?)
        });
        if let Err(refusal) = told {
            self.broker.warn(Who::broker().trace, format_args!("machine {}: {refusal}", self.id));
        }
    }

    /// The pause is over; its user may have changed his mind about such machines meanwhile.
    fn start_again(&mut self) {
        self.pause.1 = None;
        let machine = self.broker.read(|db| db.machine(self.id)).ok().flatten();
        let Some(machine) = machine else { return };
        if !again(machine.upkeep.restart, self.life.state) {
            self.give_up();
            return self.tell(&machine, "not any more");
        }
        if let Err(refusal) = self.act(Act::Start, &Who::broker()) {
            self.broker.warn(Who::broker().trace, format_args!("machine {}: {refusal}", self.id));
            self.rest();
        }
    }

    /// It stays as it is until somebody starts it.
    fn give_up(&mut self) {
        if !std::mem::replace(&mut self.wanted, false) {
            return;
        }
        let written = self.broker.change(&Who::broker(), |change| Ok::<_, Refusal>(change.set_machine_wanted(self.id, false)?));
        if let Err(refusal) = written {
            self.broker.warn(Who::broker().trace, format_args!("machine {}: {refusal}", self.id));
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Drop => {
                self.number += 1;
                (self.work, self.clock) = (None, None);
            }
            Effect::Make => {
                self.forget_cell();
                let (broker, who, id, post) = (self.broker.clone(), self.who.clone(), self.id, self.post.clone());
                let number = self.number + 1;
                self.work(async move {
                    let watch = |port| drop(post.send(Msg::Watch(number, port)));
                    Input::Made(cell::make(&broker, &who, id, watch).await)
                });
            }
            Effect::Tell(act) => {
                let patience = if act == Act::Kill { KILL } else { stop::left(self.deadline_ns) };
                if let (Act::Stop(_) | Act::Reboot | Act::Kill, Some(operation)) = (act, &self.operation) {
                    let (post, id) = (self.post.clone(), operation.id());
                    self.clock = Some(Task(tokio::task::spawn_local(async move {
                        tokio::time::sleep(patience).await;
                        let _ = post.send(Msg::Late(id));
                    })));
                }
                let (broker, who, id) = (self.broker.clone(), self.who.clone(), self.id);
                self.work(async move { Input::Told(cell::tell(&broker, &who, id, act).await) });
            }
            Effect::Clear { kill } => {
                let listening = self.keepers.pop();
                self.forget_cell();
                let (broker, who, id) = (self.broker.clone(), self.who.clone(), self.id);
                self.work(async move {
                    // Listening ends when the runner does.
                    let ended = async move {
                        if let Some(mut listening) = listening {
                            let _ = (&mut listening.0).await;
                        }
                    };
                    Input::Cleared(cell::clear(&broker, &who, id, kill, ended).await)
                });
            }
            Effect::Restarted => self.restarted(),
            Effect::Finish(result) => {
                self.clock = None;
                if let Some(operation) = self.operation.take() {
                    operation.finish(result);
                }
                self.who = Who::broker();
            }
        }
    }

    fn work(&mut self, work: impl Future<Output = Input> + 'static) {
        self.number += 1;
        let (number, post) = (self.number, self.post.clone());
        self.work = Some(Task(tokio::task::spawn_local(async move {
            let input = work.await;
            let _ = post.send(Msg::Work(number, input));
        })));
    }

    fn forget_cell(&mut self) {
        self.cell += 1;
        self.next = None;
        self.keepers.clear();
    }

    /// Listens to a runner, and keeps a console-proxy alive beside it.
    fn keep(&mut self, port: Port) {
        let (broker, id, post, cell) = (self.broker.clone(), self.id, self.post.clone(), self.cell);
        let console = Task(tokio::task::spawn_local(consoles::keep(self.broker.clone(), id)));
        let listening = Task(tokio::task::spawn_local(async move {
            let tell = async |input| {
                let (heard, waits) = oneshot::channel();
                let _ = post.send(Msg::Runner(cell, input, heard));
                let _ = waits.await;
            };
            cell::listen(&broker, id, port, tell).await;
        }));
        let remote = remote::keepers(&self.broker, self.id).into_iter().map(tokio::task::spawn_local);
        let disks = disk_servers::keepers(&self.broker, self.id).into_iter().map(tokio::task::spawn_local);
        let disks = remote.chain(disks).map(Task);
        // Listening is the last: whoever clears the cell away waits for its end.
        self.keepers = [console].into_iter().chain(disks).chain([listening]).collect();
    }
}

/// Writes a step, and the event if users can see it.
fn record(change: &Change<'_>, machine: &MachineRow, old: &Life, new: &Life, slot: Option<u16>) -> Result<(), Refusal> {
    change.set_machine_state(machine.id, new.state, &new.note, slot)?;
    // At its end the operation takes this along; what is given up before is not taken up again.
    if new.cell && !matches!(new.busy, Some(Act::Stop(_))) {
        change.forget_stop(machine.id)?;
    }
    if (old.state, &old.note) != (new.state, &new.note) {
        let colon = if new.note.is_empty() { "" } else { ": " };
        change.event("machine", machine.id, &machine.name, "state", format_args!("{}{colon}{}", new.state.word(), new.note))?;
    }
    Ok(())
}

/// Lets a machine start: its disks are free, and it gets a slot.
fn admit(broker: &Broker, change: &Change<'_>, machine: &MachineRow) -> Result<u16, Refusal> {
    cell::check_disks(broker, change, machine)?;
    not_returning(change, machine)?;
    let full = || Refusal::new(Reason::LimitReached, format_args!("machine {}", machine.name)).note("too many machines run");
    match machine.slot {
        Some(slot) => Ok(slot),
        None => change.free_slot(machine.id, cell::SLOTS)?.ok_or_else(full),
    }
}
