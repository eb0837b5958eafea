//! What all tasks of the broker share. One thread: a `RefCell` is borrowed within one statement and never across an `await`.

use crate::actor::Post;
use crate::db::{Change, Db, Fault, Who};
use crate::helpers::Line;
use crate::login::Logins;
use crate::operations::Live;
use crate::platform::{Facts, RunDir};
use crate::rates::Rates;
use crate::strangers::Strangers;
use skep_proto::broker::CallTold;
use skep_proto::cell::{Cell, Facilities, FacilitiesState};
use skep_proto::net::Net;
use skep_proto::storage::Storage;
use skep_proto::{DiskId, GroupId, InstanceId, MachineId, Op, OperationId, Reason, Refusal, Text, TraceId};
use skep_service::Journal;
use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{Mutex, Semaphore, watch};

/// The broker.
pub struct Broker {
    /// Marks what this suite owns on the host.
    pub instance: InstanceId,
    /// Where the sockets are.
    pub run: RunDir,
    /// The uid that may do everything beside root: who started the suite.
    pub owner: u32,
    /// The frontend's socket: local clients are connected to it.
    pub door: PathBuf,
    /// About the host.
    pub facts: Facts,
    /// storage-helper.
    pub storage: Line<Storage>,
    /// net-helper.
    pub net: Line<Net>,
    /// The spawner.
    pub cells: Line<Cell>,
    /// Operations at work.
    pub operations: RefCell<HashMap<OperationId, Rc<Live>>>,
    /// Machines that something was asked of.
    pub actors: RefCell<HashMap<MachineId, Post>>,
    /// Switches whose guests are served.
    pub serving: RefCell<crate::served::All>,
    /// Held by whoever connects or moves a NIC of a machine that may run: one at a time.
    pub moves: tokio::sync::Mutex<()>,
    /// Disks that jobs read or write: not to be started, resized or deleted.
    pub held: RefCell<Vec<DiskId>>,
    /// Images that are being fetched.
    pub fetches: crate::requests::fetch::Slots,
    /// Certificates of authorities that this host trusts (PEM).
    pub roots: Vec<u8>,
    turns: RefCell<HashMap<MachineId, Rc<Mutex<()>>>>,
    /// Bytes that disks of groups are about to grow by.
    pub growing: RefCell<Vec<(GroupId, u64)>>,
    /// Passwords under way.
    pub logins: Logins,
    /// How often users called.
    pub rates: RefCell<Rates>,
    /// What is recorded of those who are nobody.
    strangers: RefCell<Strangers>,
    /// Places for watches of counters.
    pub stats_watches: Arc<Semaphore>,
    /// Whether the frontend may ask for metrics in nobody's name.
    pub metrics: bool,
    db: RefCell<Db>,
    journal: Rc<RefCell<Journal>>,
    news: watch::Sender<u64>,
    facilities: RefCell<Option<FacilitiesState>>,
    /// One at a time, so that who comes second finds the answer.
    asking: tokio::sync::Mutex<()>,
    /// Whether KVM works here, or why not; none: that is being found out.
    pub kvm: watch::Sender<Option<Result<(), String>>>,
}

/// What main hands over.
pub struct Setup {
    /// See [`Broker`].
    pub instance: InstanceId,
    /// See [`Broker`].
    pub run: RunDir,
    /// See [`Broker`].
    pub owner: u32,
    /// See [`Broker`].
    pub door: PathBuf,
    /// See [`Broker`].
    pub facts: Facts,
    /// See [`Broker`].
    pub metrics: bool,
    /// Open and migrated.
    pub db: Db,
    /// The log.
    pub journal: Journal,
}

impl Broker {
    /// Begins to connect to the helpers. Must run on a `LocalSet`.
    pub fn start(setup: Setup) -> Result<Rc<Self>, Fault> {
        let Setup { instance, run, owner, door, facts, metrics, db, journal } = setup;
        let journal = Rc::new(RefCell::new(journal));
        let note = || {
            let journal = journal.clone();
            move |what: String| journal.borrow_mut().info(None, format_args!("{what}"))
        };
        let (news, _) = watch::channel(db.last_event()?);
        Ok(Rc::new(Self {
            storage: Line::start(run.clone(), note()),
            net: Line::start(run.clone(), note()),
            cells: Line::start(run.clone(), note()),
            operations: RefCell::default(),
            actors: RefCell::default(),
            serving: RefCell::default(),
            moves: tokio::sync::Mutex::default(),
            held: RefCell::default(),
            fetches: Default::default(),
            roots: facts.roots.clone(),
            turns: RefCell::default(),
            growing: RefCell::default(),
            logins: Logins::default(),
            rates: RefCell::default(),
            strangers: RefCell::default(),
            stats_watches: Arc::new(crate::requests::stats::places()),
            metrics,
            facilities: RefCell::default(),
            asking: tokio::sync::Mutex::default(),
            kvm: watch::Sender::new(None),
            db: RefCell::new(db),
            instance,
            run,
            owner,
            door,
            facts,
            journal,
            news,
        }))
    }

    /// Reads from the database.
    pub fn read<T>(&self, act: impl FnOnce(&Db) -> T) -> T {
        act(&self.db.borrow())
    }

    /// Changes the database in the name of `who`, and wakes whoever watches events.
    pub fn change<T, E: From<Fault>>(&self, who: &Who, act: impl FnOnce(&Change<'_>) -> Result<T, E>) -> Result<T, E> {
        let mut db = self.db.borrow_mut();
        let value = db.change(who, act)?;
        self.news.send_replace(db.last_event()?);
        Ok(value)
    }

    /// Follows the newest event's token.
    pub fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// How many follow it.
    pub fn news_watchers(&self) -> usize {
        self.news.receiver_count()
    }

    /// A line of the log.
    pub fn info(&self, trace: TraceId, what: fmt::Arguments<'_>) {
        self.journal.borrow_mut().info(Some(trace), what);
    }

    /// A line of the record of calls: who asked what, about what, with what outcome.
    pub fn called(&self, who: &Who, op: &'static Op, about: &str, result: Result<(), &Refusal>) {
        self.say_what_was_left_out();
        self.journal.borrow_mut().called(who.trace, &who.user, op, about, result);
    }

    /// The same of somebody who turned out to be nobody, as far as there is room for such.
    pub fn turned_away(&self, trace: TraceId, op: &'static Op, about: &str, from: &str, refusal: &Refusal) {
        if self.strangers.borrow_mut().take(from, Instant::now()) {
            self.called(&Who { trace, user: Text::default(), once: None }, op, about, Err(refusal));
        }
    }

    /// A line of the same record: of a call that the frontend has answered, as it says. Of strangers as far as there is room for such.
    pub fn told(&self, who: &Who, is_known: bool, told: &CallTold) {
        let CallTold { method, from, reason, note, untold } = told;
        let mut strangers = self.strangers.borrow_mut();
        strangers.leave_out((*untold).into());
        if !is_known && !strangers.take(from.as_str(), Instant::now()) {
            return;
        }
        drop(strangers);
        self.say_what_was_left_out();
        let note = if note.as_str().is_empty() { String::new() } else { format!(": {note}") };
        let about = format!("api-frontend says of {from}: {method}{note}");
        self.journal.borrow_mut().told(who.trace, &who.user, crate::strangers::op(), &about, *reason);
    }

    /// Calls that have no line.
    pub fn leave_out(&self, count: u64) {
        self.strangers.borrow_mut().leave_out(count);
    }

    fn say_what_was_left_out(&self) {
        if let Some(count) = self.strangers.borrow_mut().due(Instant::now()) {
            let about = format!("{count} calls before this one, of nobody or untold by api-frontend, have no line");
            let (user, op) = (Text::lossy(crate::policy::NOBODY), crate::strangers::op());
            self.journal.borrow_mut().told(TraceId::default(), &user, op, &about, None);
        }
    }

    /// Tells the supervisor that sessions are served.
    pub fn serves(&self) {
        self.journal.borrow_mut().serves();
    }

    /// A line of the log about what should not be.
    pub fn warn(&self, trace: TraceId, what: fmt::Arguments<'_>) {
        self.journal.borrow_mut().warn(Some(trace), what);
    }

    /// What the spawner found this host to give a cell. Asked once for each life of the spawner.
    pub async fn facilities(&self, who: &Who) -> Result<FacilitiesState, Refusal> {
        let _turn = self.asking.lock().await;
        if let Some(known) = &*self.facilities.borrow() {
            return Ok(known.clone());
        }
        let (state, []) = self.cells.call(who, Facilities {}).await?;
        self.facilities.replace(Some(state.clone()));
        Ok(state)
    }

    /// The spawner was restarted: it may find something else.
    pub fn forget_facilities(&self) {
        self.facilities.replace(None);
    }

    /// Keeps disks from being started, resized or deleted as long as the guard lives.
    pub fn hold(self: &Rc<Self>, disks: Vec<DiskId>) -> Hold {
        self.held.borrow_mut().extend(&disks);
        Hold { broker: self.clone(), disks }
    }

    /// Whoever makes a machine's cell, or tells its runner about files and settings, waits for its turn.
    pub fn turn(&self, machine: MachineId) -> Rc<Mutex<()>> {
        let mut turns = self.turns.borrow_mut();
        // Those that nobody has are made anew.
        turns.retain(|_, turn| Rc::strong_count(turn) > 1);
        turns.entry(machine).or_default().clone()
    }

    /// Refuses a disk that a job is at.
    pub fn free(&self, disk: DiskId, name: &str) -> Result<(), Refusal> {
        let held = self.held.borrow().contains(&disk);
        let refusal = || Refusal::new(Reason::InUse, format_args!("disk {name}")).note("it is being copied or filled");
        if held { Err(refusal()) } else { Ok(()) }
    }
}

/// See [`Broker::hold`].
pub struct Hold {
    broker: Rc<Broker>,
    disks: Vec<DiskId>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut held = self.broker.held.borrow_mut();
        for disk in &self.disks {
            if let Some(at) = held.iter().position(|d| d == disk) {
                held.swap_remove(at);
            }
        }
    }
}
