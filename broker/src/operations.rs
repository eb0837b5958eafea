//! Long work: how far it is, waiting for it, cancelling it.

use crate::broker::Broker;
use crate::db::machines::Machines;
use crate::db::{Fault, Who};
use skep_proto::broker::{MachineState, OperationState, OperationView};
use skep_proto::{GroupId, OperationId, Reason, Refusal, Text};
use std::collections::HashMap;
use std::fmt::Display;
use std::rc::Rc;
use tokio::sync::watch;

/// An operation at work, as everybody may look at it.
pub struct Live {
    view: watch::Sender<OperationView>,
    cancel: watch::Sender<bool>,
}

/// An operation at work, as whoever does it holds it. Dropped unfinished, it has failed.
pub struct Operation {
    broker: Rc<Broker>,
    live: Rc<Live>,
    who: Who,
    told: u64,
    /// When the broker ends, it is not over.
    lasts: bool,
    over: bool,
}

impl Operation {
    /// Begins one in a group, in the change that `act` makes.
    pub fn begin<T>(
        broker: &Rc<Broker>, who: &Who, group: GroupId, kind: &str, object: impl Display,
        act: impl FnOnce(&crate::db::Change<'_>, OperationId) -> Result<T, Refusal>,
    ) -> Result<(T, Self), Refusal> {
        let view = OperationView {
            id: OperationId::random(),
            kind: Text::lossy(kind),
            object: Text::lossy(&object.to_string()),
            user: who.user.clone(),
            trace: who.trace,
            state: OperationState::Running,
            progress: (0, 0),
            started_ns: skep_service::now_ns(),
            ended_ns: 0,
        };
        let value = broker.change(who, |change| {
            let value = act(change, view.id)?;
            change.begin_operation(&view, group)?;
            change.made(view.id)?;
            Ok::<_, Refusal>(value)
        })?;
        Ok((value, Self::live(broker, view, who.clone())))
    }

    /// Goes on with one that the broker before was at.
    pub fn resume(broker: &Rc<Broker>, view: OperationView) -> Self {
        let who = Who { trace: view.trace, user: view.user.clone(), once: None };
        let mut operation = Self::live(broker, view, who);
        operation.lasts = true;
        operation
    }

    fn live(broker: &Rc<Broker>, view: OperationView, who: Who) -> Self {
        let id = view.id;
        let live = Rc::new(Live { view: watch::channel(view).0, cancel: watch::channel(false).0 });
        broker.operations.borrow_mut().insert(id, live.clone());
        Self { broker: broker.clone(), live, who, told: 0, lasts: false, over: false }
    }

    /// The next broker goes on with it: its row says what is waited for.
    pub fn outlives_the_broker(&mut self) {
        self.lasts = true;
    }

    /// As it is now.
    pub fn view(&self) -> OperationView {
        self.live.view.borrow().clone()
    }

    /// Its id.
    pub fn id(&self) -> OperationId {
        self.live.view.borrow().id
    }

    /// In whose name.
    pub fn who(&self) -> &Who {
        &self.who
    }

    /// Waits until somebody cancels it (true), or it is over (false).
    pub fn cancelled(&self) -> impl Future<Output = bool> + use<> {
        let mut cancel = self.live.cancel.subscribe();
        async move { cancel.wait_for(|c| *c).await.is_ok() }
    }

    /// How far it is. An event for each percent.
    pub fn progress(&mut self, done: u64, total: u64) {
        self.live.view.send_modify(|view| view.progress = (done, total));
        let percent = done.saturating_mul(100).checked_div(total).unwrap_or(0);
        if percent > self.told {
            self.told = percent;
            let view = self.view();
            let told = self.broker.change(&self.who, |change| {
                change.event("operation", view.id, &view.kind, "progress", format_args!("{}: {done} of {total}", view.object))
            });
            self.noted(told);
        }
    }

    /// It has ended. A refusal that names no object gets the operation's.
    pub fn finish(mut self, result: Result<(), Refusal>) {
        self.end(result);
    }

    fn end(&mut self, result: Result<(), Refusal>) {
        self.over = true;
        let mut view = self.view();
        view.ended_ns = skep_service::now_ns();
        view.state = match result {
            Ok(()) => {
                view.progress.0 = view.progress.1;
                OperationState::Done
            }
            Err(mut refusal) => {
                if refusal.object.as_str().is_empty() {
                    refusal.object = view.object.clone();
                }
                OperationState::Failed(refusal)
            }
        };
        let outcome = match &view.state {
            OperationState::Failed(refusal) => refusal.to_string(),
            _ => "done".into(),
        };
        self.broker.info(self.who.trace, format_args!("{} of {} for {}: {outcome}", view.kind, view.object, self.who.user));
        let written = self.broker.change(&self.who, |change| change.end_operation(&view));
        self.noted(written);
        self.broker.operations.borrow_mut().remove(&view.id);
        self.live.view.send_replace(view);
    }

    /// An operation goes on where its row could not be written: whoever waits is told all the same.
    fn noted(&self, result: Result<(), Fault>) {
        if let Err(fault) = result {
            self.broker.warn(self.who.trace, format_args!("database: {fault}"));
        }
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        if !self.over && !self.lasts {
            self.end(Err(Refusal::new(Reason::Unavailable, "").note("it was interrupted")));
        }
    }
}

impl Broker {
    /// One operation, as it is now.
    pub fn operation(&self, id: OperationId) -> Result<OperationView, Refusal> {
        if let Some(live) = self.operations.borrow().get(&id) {
            return Ok(live.view.borrow().clone());
        }
        self.read(|db| db.operation(id))?.ok_or_else(|| Refusal::new(Reason::NotFound, format_args!("operation {id}")))
    }

    /// Waits until it has ended.
    pub async fn operation_ended(&self, id: OperationId) -> Result<OperationView, Refusal> {
        let live = self.operations.borrow().get(&id).map(|live| live.view.subscribe());
        if let Some(mut view) = live {
            // An error: dropped, after its end was written.
            let _ = view.wait_for(|view| view.state != OperationState::Running).await;
        }
        self.operation(id)
    }

    /// Asks one to end early.
    pub fn cancel_operation(&self, id: OperationId) -> Result<OperationView, Refusal> {
        let view = self.operation(id)?;
        match self.operations.borrow().get(&id) {
            Some(live) => drop(live.cancel.send_replace(true)),
            None => return Err(Refusal::new(Reason::WrongState, format_args!("operation {id}")).note("it has ended")),
        }
        Ok(view)
    }

    /// Operations as rows, with the progress of those at work.
    pub fn operations_after(&self, after: Option<OperationId>, seen: Option<&str>) -> Result<Vec<OperationView>, Refusal> {
        let mut views = self.read(|db| db.operations(after, seen))?;
        let live = self.operations.borrow();
        for view in &mut views {
            if let Some(live) = live.get(&view.id) {
                *view = live.view.borrow().clone();
            }
        }
        Ok(views)
    }

    /// At start: what an earlier broker was at has ended with it, but for the waits for guests that power themselves off.
    pub fn settle_operations(&self) -> Result<(), Fault> {
        let who = Who::broker();
        let left = self.read(|db| db.operations_at_work())?;
        let waits: HashMap<_, _> =
            self.read(|db| db.stops())?.into_iter().map(|(machine, stop)| (stop.operation, machine)).collect();
        self.change(&who, |change| {
            for mut view in left {
                let machine = waits.get(&view.id).map(|machine| change.machine(*machine)).transpose()?.flatten();
                view.state = match machine {
                    Some(machine) if machine.slot.is_some() => continue,
                    // The broker before had written the end of the run, not of the operation.
                    Some(machine) if machine.state == MachineState::Stopped => OperationState::Done,
                    Some(machine) => {
                        OperationState::Failed(Refusal::new(Reason::HypervisorFailed, &view.object).note(machine.note))
                    }
                    None => {
                        let note = "interrupted by a restart of the broker";
                        OperationState::Failed(Refusal::new(Reason::Unavailable, &view.object).note(note))
                    }
                };
                view.ended_ns = skep_service::now_ns();
                change.end_operation(&view)?;
            }
            Ok(())
        })
    }
}
