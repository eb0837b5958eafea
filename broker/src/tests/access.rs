//! Roles and groups: what each may ask, and what is there for whom.

use super::requests::{reason, text};
use super::samples::samples;
use super::suite::{Life, Session, Suite, nic_create};
use crate::db::users::Users;
use crate::policy::{Rights, User, permit};
use skep_ipc::aio::Port;
use skep_proto::broker::{self as proto, *};
use skep_proto::storage::DiskKind;
use skep_proto::wire::{self, Hello, Origin, ReplyHead, Welcome};
use skep_proto::{GroupId, Helper, OperationId, Reason, Refusal, Share, Text, TraceId, UpTo};
use std::collections::BTreeMap;

/// A session of somebody with this credential.
pub async fn open(life: &Life, credential: Credential) -> Result<Session, Refusal> {
    let mut session = Session(life.connect().await);
    session.ask_with(OpenSession { credential }, UpTo(vec![])).await.map(|_| session)
}

/// A user with a role, in a session by a token.
pub async fn user(life: &Life, name: &str, role: Option<(Option<&str>, Role)>) -> Session {
    let mut root = life.session().await;
    let user = text(name);
    root.ask(UserCreate { name: name.parse().expect("a name"), password: None, local_uid: None }).await.expect("made");
    if let Some((group, role)) = role {
        root.ask(RoleGrant { user: user.clone(), group: group.map(text), role }).await.expect("granted");
    }
    let made = root.ask(TokenCreate { name: text("t"), user: Some(user), seconds: 3600 }).await.expect("made");
    open(life, Credential::Token(made.token)).await.expect("a session")
}

/// A group with a machine that has a disk, a NIC and an ended operation.
pub async fn group(life: &Life, s: &mut Session, name: &str) -> OperationId {
    s.ask(GroupCreate { name: name.parse().expect("a name"), quota: Quota::default() }).await.expect("a group");
    let of = |what: &str| format!("{name}-{what}");
    let group = Some(text(name));
    let create =
        DiskCreate { name: of("disk").parse().expect("a name"), kind: DiskKind::Raw, size: 1 << 20, group: group.clone() };
    s.ask(create).await.expect("a disk");
    let settings = Settings {
        disks: Some(vec![DiskDraft {
            disk: text(&of("disk")),
            controller: Controller::Nvme,
            read_only: false,
            flags: DiskFlags::default(),
            on: None,
        }]),
        memory_mib: Some(64),
        ..Settings::default()
    };
    let machine = of("vm").parse().expect("a name");
    s.ask(MachineCreate { name: machine, settings, group: group.clone() }).await.expect("a machine");
    let machine = Some(text(&of("vm")));
    let nic = NicCreate {
        name: of("nic").parse().expect("a name"),
        switch: None,
        mac: None,
        machine,
        group: None,
        model: NicModel::VirtioNet,
        slot: None,
        address: None,
        rates: skep_proto::Rates::default(),
        isolated: false,
        forwards: Default::default(),
    };
    s.ask(nic).await.expect("a nic");
    let done = s.act(&of("vm"), Act::Start).await.expect("started");
    s.act(&of("vm"), Act::Kill).await.expect("killed");
    let _ = life;
    done.id
}

/// What the table says, in its own words.
fn allowed(rule: &Rule, host: Option<Role>, here: Option<Role>, elsewhere: Option<Role>) -> bool {
    match rule.on {
        _ if rule.role.is_none() => true,
        "the host" | "oneself, or the host" | "both groups" => host >= rule.role,
        "anything" => host.max(here).max(elsewhere) >= rule.role,
        _ => host.max(here) >= rule.role,
    }
}

#[test]
fn every_operation_is_allowed_to_whom_the_table_says() {
    let suite = Suite::new();
    suite.live(async |life: Life| {
        life.up().await;
        let mut root = life.session().await;
        let operation = group(&life, &mut root, "g").await;
        group(&life, &mut root, "h").await;
        user(&life, "other", None).await;
        let id = |groups: &[GroupView], name: &str| groups.iter().find(|g| g.name.as_str() == name).expect("there").id;
        let groups = root.ask(GroupList { after: None }).await.expect("a list").groups;
        let (g, h) = (id(&groups, "g"), id(&groups, "h"));
        let samples = samples(operation);
        let ops: Vec<&str> = proto::Broker::OPS.iter().map(|op| op.name).collect();
        let mut seen: Vec<&str> = samples.iter().map(|sample| proto::Broker::op(sample).name).collect();
        seen.push("OpenSession");
        seen.sort_unstable();
        let mut all = ops.clone();
        all.sort_unstable();
        assert_eq!(seen, all, "one sample of each");
        assert_eq!(RULES.len(), ops.len());
        let roles: Vec<Option<Role>> = [None].into_iter().chain(Role::ALL.map(Some)).collect();
        let mut tried = 0;
        for (host, here, elsewhere) in
            roles.iter().flat_map(|a| roles.iter().flat_map(|b| roles.iter().map(|c| (*a, *b, *c))).collect::<Vec<_>>())
        {
            let mut groups: BTreeMap<GroupId, Role> = BTreeMap::new();
            groups.extend(here.map(|role| (g, role)));
            groups.extend(elsewhere.map(|role| (h, role)));
            let user = User { name: Text::lossy("x"), id: None, rights: Rights { host, groups }, by_token: false, only: None };
            for sample in &samples {
                let name = proto::Broker::op(sample).name;
                let rule = RULES.iter().find(|rule| rule.op == name).expect("a row");
                let result = life.broker.read(|db| permit(db, &user, sample));
                let may = allowed(rule, host, here, elsewhere);
                assert_eq!(
                    result.is_ok(),
                    may,
                    "{name} with {host:?} on the host, {here:?} there, {elsewhere:?} elsewhere: {result:?}"
                );
                if let Err(refusal) = result {
                    let hidden = refusal.reason == Reason::NotFound;
                    assert!(hidden || refusal.reason == Reason::PermissionDenied, "{refusal}");
                    // What is his to see is refused openly; what is not, is not there.
                    let about_it = !matches!(rule.on, "the host" | "anything" | "oneself, or the host" | "both groups");
                    assert_eq!(hidden && about_it, about_it && host.max(here).is_none(), "{name}: {refusal}");
                }
                tried += 1;
            }
        }
        eprintln!("{tried} requests");
    });
}

/// Sends requests as they are; what each was refused with.
pub async fn raw(life: &Life, token: Text<128>, requests: Vec<BrokerRequest>) -> Vec<Option<Refusal>> {
    let (ours, theirs) = skep_sys::sock::seqpacket_pair().expect("pair");
    let broker = life.broker.clone();
    tokio::task::spawn_local(async move { crate::session::session(&broker, theirs).await });
    let port = Port::new(ours).expect("a port");
    let hello = Hello { protocol: Text::lossy("broker"), version: proto::Broker::VERSION };
    port.send(&wire::encode(&hello).expect("fits"), &[]).await.expect("sent");
    wire::decode::<Welcome>(&port.recv().await.expect("a welcome").bytes).expect("decodes").expect("welcome");
    let open = BrokerRequest::from(OpenSession { credential: Credential::Token(token) });
    let mut refusals = Vec::new();
    for (seq, request) in (1..).zip([open].into_iter().chain(requests)) {
        let origin = Origin { seq, trace: TraceId(1), user: Text::lossy("uid 0") };
        port.send(&wire::encode_request::<proto::Broker>(&origin, &request).expect("fits"), &[]).await.expect("sent");
        let bytes = port.recv().await.expect("an answer").bytes;
        let (head, rest) = postcard::take_from_bytes::<ReplyHead>(&bytes).expect("a head");
        assert_eq!(head.seq, seq);
        refusals.push(wire::decode::<Result<(), Refusal>>(rest).ok().and_then(Result::err));
    }
    refusals.remove(0);
    refusals
}

#[test]
fn who_has_no_role_is_refused_everything_and_changes_nothing() {
    let suite = Suite::new();
    suite.live(async |life: Life| {
        life.up().await;
        let mut root = life.session().await;
        let operation = group(&life, &mut root, "g").await;
        user(&life, "other", None).await;
        user(&life, "nobody", None).await;
        let create = TokenCreate { name: text("t2"), user: Some(text("nobody")), seconds: 60 };
        let token = root.ask(create).await.expect("made").token;
        let before = life.broker.read(|db| db.last_event()).expect("read");
        let samples = samples(operation);
        let refused = raw(&life, token, samples.clone()).await;
        for (sample, refusal) in samples.iter().zip(refused) {
            let name = proto::Broker::op(sample).name;
            match RULES.iter().find(|rule| rule.op == name).expect("a row").role {
                None => assert_eq!(refusal, None, "{name}"),
                Some(_) => assert!(refusal.is_some(), "{name} was done"),
            }
        }
        assert_eq!(life.broker.read(|db| db.last_event()).expect("read"), before, "something was written");
    });
}

#[test]
fn what_one_may_not_see_is_not_there() {
    let suite = Suite::new();
    suite.live(async |life: Life| {
        life.up().await;
        let mut root = life.session().await;
        let op = group(&life, &mut root, "g").await;
        group(&life, &mut root, "h").await;
        let mut alice = user(&life, "alice", Some((Some("h"), Role::Operator))).await;
        let (_, [events]) = alice.ask_with(EventWatch { after: Some(0), object: Text::default() }, []).await.expect("a watch");
        // Each answer about what is hidden is the one about what there is not, to the letter.
        let same = |hidden: Refusal, missing: Refusal| {
            let plain = missing.to_string().replace("missing", "g");
            assert_eq!((hidden.reason, hidden.to_string()), (Reason::NotFound, plain));
        };
        let hidden = alice.ask(MachineGet { machine: text("g-vm") }).await.expect_err("hidden");
        same(hidden, alice.ask(MachineGet { machine: text("missing-vm") }).await.expect_err("missing"));
        let hidden = alice.ask(DiskDelete { disk: text("g-disk") }).await.expect_err("hidden");
        same(hidden, alice.ask(DiskDelete { disk: text("missing-disk") }).await.expect_err("missing"));
        let with = |disk: &str| {
            let disks = Some(vec![DiskDraft {
                disk: text(disk),
                controller: Controller::Nvme,
                read_only: true,
                flags: DiskFlags::default(),
                on: None,
            }]);
            // Its name is taken, which is not said before the disk is looked for.
            let settings = Settings { disks, ..Settings::default() };
            MachineCreate { name: "h-vm".parse().expect("a name"), settings, group: Some(text("h")) }
        };
        let hidden = alice.ask(with("g-disk")).await.expect_err("hidden");
        assert_eq!(hidden.field.as_str(), "disks");
        same(hidden, alice.ask(with("missing-disk")).await.expect_err("missing"));
        assert_eq!(reason(alice.ask(OperationGet { id: op, wait: true }).await), Reason::NotFound);
        assert_eq!(
            reason(alice.ask(GroupAdd { group: text("g"), what: Moved::Machine(text("h-vm")) }).await),
            Reason::PermissionDenied
        );
        assert_eq!(reason(alice.ask(UserGet { user: Some(text("bob")) }).await), Reason::NotFound);
        assert_eq!(alice.ask(UserGet { user: None }).await.expect("oneself").name.as_str(), "alice");
        // Lists hold the rest.
        let names = |machines: Vec<MachineView>| machines.iter().map(|m| m.name.to_string()).collect::<Vec<_>>();
        assert_eq!(names(alice.ask(MachineList { after: None }).await.expect("a list").machines), ["h-vm"]);
        assert_eq!(names(root.ask(MachineList { after: None }).await.expect("a list").machines), ["g-vm", "h-vm"]);
        let disks = alice.ask(DiskList { after: None, iso: None, image: None }).await.expect("a list").disks;
        assert_eq!(disks.iter().map(|d| (d.name.as_str(), d.group.as_str())).collect::<Vec<_>>(), [("h-disk", "h")]);
        let nics = alice.ask(NicList { after: None }).await.expect("a list").nics;
        assert_eq!(nics.iter().map(|n| (n.name.as_str(), n.group.as_str())).collect::<Vec<_>>(), [("h-nic", "h")]);
        let groups = alice.ask(GroupList { after: None }).await.expect("a list").groups;
        assert_eq!(groups.iter().map(|g| (g.name.as_str(), g.used.machines)).collect::<Vec<_>>(), [("h", 1)]);
        let operations = alice.ask(OperationList { after: None }).await.expect("a list").operations;
        assert!(!operations.is_empty() && operations.iter().all(|op| op.object.as_str() == "machine h-vm"), "{operations:?}");
        // Events, from before and after.
        root.ask(MachineRename { machine: text("g-vm"), name: "g2".parse().expect("a name") }).await.expect("renamed");
        root.ask(MachineRename { machine: text("h-vm"), name: "h2".parse().expect("a name") }).await.expect("renamed");
        let port = Port::new(events).expect("a port");
        loop {
            let event = wire::decode::<EventView>(&port.recv().await.expect("an event").bytes).expect("decodes");
            assert!(event.name.as_str().starts_with('h') || event.detail.as_str().starts_with("machine h"), "{event:?}");
            if event.what.as_str() == "renamed" {
                break;
            }
        }
        // Whoever loses his role sees no more; the watch goes on for what he may see, which is nothing.
        root.ask(RoleRevoke { user: text("alice"), group: Some(text("h")) }).await.expect("revoked");
        assert_eq!(reason(alice.ask(MachineList { after: None }).await), Reason::PermissionDenied);
        assert_eq!(reason(alice.get("h2").await), Reason::NotFound);
        root.ask(UserDelete { user: text("alice") }).await.expect("deleted");
        root.ask(MachineRename { machine: text("h2"), name: "h3".parse().expect("a name") }).await.expect("renamed");
        assert!(port.recv().await.is_err(), "the watch ends with its user");
    });
}

#[test]
fn roles_are_given_where_one_is_an_administrator() {
    Suite::new().live(async |life: Life| {
        life.up().await;
        let mut root = life.session().await;
        group(&life, &mut root, "g").await;
        group(&life, &mut root, "h").await;
        let mut boss = user(&life, "boss", Some((Some("g"), Role::Admin))).await;
        let mut alice = user(&life, "alice", None).await;
        let grant = |group: Option<&str>, role| RoleGrant { user: text("alice"), group: group.map(text), role };
        assert_eq!(reason(boss.ask(grant(None, Role::Viewer)).await), Reason::PermissionDenied);
        assert_eq!(reason(boss.ask(grant(Some("h"), Role::Viewer)).await), Reason::NotFound);
        boss.ask(grant(Some("g"), Role::Viewer)).await.expect("granted");
        alice.get("g-vm").await.expect("seen");
        let refusal = alice.act("g-vm", Act::Start).await.expect_err("a viewer");
        assert_eq!(refusal.reason, Reason::PermissionDenied);
        assert!(refusal.to_string().contains("operator in group g is needed; yours is viewer"), "{refusal}");
        assert_eq!(reason(alice.ask(grant(Some("g"), Role::Admin)).await), Reason::PermissionDenied);
        root.ask(grant(Some("h"), Role::Operator)).await.expect("granted");
        let roles = async |s: &mut Session| {
            let roles = s.ask(RoleList { after: None }).await.expect("a list").roles;
            roles.iter().map(|r| format!("{} {} {}", r.user, r.group, r.role)).collect::<Vec<_>>()
        };
        assert_eq!(roles(&mut root).await, ["alice g viewer", "alice h operator", "boss g admin"]);
        assert_eq!(roles(&mut boss).await, ["alice g viewer", "boss g admin"]);
        assert_eq!(roles(&mut alice).await, ["alice g viewer", "alice h operator"]);
        let revoke = || RoleRevoke { user: text("alice"), group: Some(text("g")) };
        boss.ask(revoke()).await.expect("revoked");
        assert_eq!(reason(boss.ask(revoke()).await), Reason::NotFound);
        assert_eq!(reason(alice.get("g-vm").await), Reason::NotFound);
        // A viewer of the host sees all, and changes nothing.
        root.ask(grant(None, Role::Viewer)).await.expect("granted");
        assert_eq!(alice.ask(MachineList { after: None }).await.expect("a list").machines.len(), 2);
        assert_eq!(reason(alice.act("g-vm", Act::Start).await), Reason::PermissionDenied);
        assert_eq!(life.broker.read(|db| db.find_user("alice")).expect("read").map(|u| u.disabled), Some(false));
    });
}

#[test]
fn a_group_keeps_what_is_its() {
    let suite = Suite::new();
    suite.live(async |life: Life| {
        life.up().await;
        let mut root = life.session().await;
        group(&life, &mut root, "g").await;
        group(&life, &mut root, "h").await;
        let delete = |name: &str| GroupDelete { group: text(name) };
        assert_eq!(reason(root.ask(delete("g")).await), Reason::InUse);
        assert_eq!(reason(root.ask(delete("default")).await), Reason::WrongState);
        let add = |group: &str, what| GroupAdd { group: text(group), what };
        // A disk goes with its machine, unless another has it, too.
        assert_eq!(reason(root.ask(add("h", Moved::Disk(text("g-disk")))).await), Reason::InUse);
        root.ask(add("h", Moved::Machine(text("g-vm")))).await.expect("moved");
        let machine = root.get("g-vm").await.expect("there");
        let disk = root.ask(DiskGet { disk: text("g-disk") }).await.expect("there");
        let nics = root.ask(NicList { after: None }).await.expect("a list").nics;
        assert!(nics.iter().all(|nic| nic.group.as_str() == "h"));
        assert_eq!((machine.group.as_str(), disk.group.as_str()), ("h", "h"));
        // A NIC of one group does not go to a machine of another.
        root.nic("loose", None, None).await.expect("a nic");
        let refusal = root.ask(NicAttach { nic: text("loose"), machine: text("g-vm") }).await.expect_err("another group's");
        assert_eq!(refusal.reason, Reason::WrongState, "{refusal}");
        // An operator of one group takes no disks of another along when he deletes a machine.
        let mut alice = user(&life, "alice", Some((Some("h"), Role::Operator))).await;
        root.disk("shared").await.expect("a disk");
        let disks = ["g-disk", "shared"].map(|n| DiskDraft {
            disk: text(n),
            controller: Controller::Nvme,
            read_only: false,
            flags: DiskFlags::default(),
            on: None,
        });
        let settings = Settings { disks: Some(disks.into()), ..Settings::default() };
        root.ask(MachineSet { machine: text("g-vm"), settings, revision: 0 }).await.expect("set");
        let op = alice.ask(MachineDelete { machine: text("g-vm"), disks: true }).await.expect("begun");
        alice.done(op).await.expect("deleted");
        let disks = root.ask(DiskList { after: None, iso: None, image: None }).await.expect("a list").disks;
        assert_eq!(disks.iter().map(|d| d.name.as_str()).collect::<Vec<_>>(), ["h-disk", "shared"]);
        root.ask(GroupAdd { group: text("h"), what: Moved::Disk(text("shared")) }).await.expect("moved");
        alice.ask(DiskDelete { disk: text("shared") }).await.expect("his now");
        root.ask(delete("g")).await.expect("empty");
        assert_eq!(reason(root.ask(delete("g")).await), Reason::NotFound);
        suite.settled(&life.broker).await;
    });
}

#[test]
fn a_switch_is_open_to_whom_it_was_opened() {
    Suite::new().live(async |life: Life| {
        life.up().await;
        let mut root = life.session().await;
        group(&life, &mut root, "g").await;
        root.switch("lan", None).await.expect("a switch");
        let mut alice = user(&life, "alice", Some((Some("g"), Role::Operator))).await;
        let nic = |name: &str, machine: Option<&str>| nic_create(name, Some("lan"), machine, Some("g"));
        let refusal = alice.ask(nic("a", Some("g-vm"))).await.expect_err("closed");
        assert_eq!((refusal.reason, refusal.field.as_str()), (Reason::PermissionDenied, "switch"), "{refusal}");
        let open = |group: Option<&str>, open| SwitchOpen { switch: text("lan"), group: group.map(text), open };
        assert_eq!(reason(alice.ask(open(Some("g"), true)).await), Reason::PermissionDenied);
        let view = root.ask(open(Some("g"), true)).await.expect("opened");
        assert_eq!((view.open, view.groups.iter().map(Text::as_str).collect()), (false, vec!["g"]));
        alice.ask(nic("a", Some("g-vm"))).await.expect("open");
        alice.ask(nic("b", None)).await.expect("open");
        root.ask(open(Some("g"), false)).await.expect("closed");
        assert_eq!(reason(alice.ask(nic("c", None)).await), Reason::PermissionDenied);
        assert!(root.ask(open(None, true)).await.expect("opened").open);
        alice.ask(nic("c", None)).await.expect("open to all");
        root.ask(open(None, false)).await.expect("closed");
        root.ask(nic("d", None)).await.expect("the host's administrator");
    });
}

#[test]
fn what_is_the_host_s_is_given_by_nobody_of_a_group() {
    Suite::new().live(async |life: Life| {
        life.up().await;
        let mut root = life.session().await;
        group(&life, &mut root, "g").await;
        let mut operator = user(&life, "op", Some((Some("g"), Role::Operator))).await;
        let shares = |shares| Settings { shares: Some(shares), ..Settings::default() };
        let src = || vec![Share { name: "src".parse().expect("a name"), read_only: true }];
        let limits = |limits| Settings { limits, ..Settings::default() };
        let first = limits(LimitsDraft { priority: Some(-1), ..LimitsDraft::default() });
        let spared = limits(LimitsDraft { protect: Some(true), ..LimitsDraft::default() });
        let wired = limits(LimitsDraft { wired: Some(true), ..LimitsDraft::default() });
        let set = |settings| MachineSet { machine: text("g-vm"), settings, revision: 0 };
        for settings in [shares(src()), first, spared, wired] {
            assert_eq!(reason(operator.ask(set(settings)).await), Reason::PermissionDenied);
        }
        let last = limits(LimitsDraft { priority: Some(1), ..LimitsDraft::default() });
        operator.ask(set(last)).await.expect("to yield is everybody's");
        let copy =
            |name: &str| MachineClone { machine: text("g-vm"), name: name.parse().expect("a name"), snapshot: None, full: false };
        root.ask(set(shares(src()))).await.expect("set");
        let refusal = operator.ask(copy("c1")).await.expect_err("refused");
        assert_eq!((refusal.reason, refusal.field.as_str()), (Reason::PermissionDenied, "shares"));
        root.ask(set(shares(vec![]))).await.expect("set");
        let switch = root.switch("lan", None).await.expect("a switch");
        let nic = nic_create("g-lan", Some(switch.name.as_str()), Some("g-vm"), None);
        root.ask(nic).await.expect("a nic");
        let refusal = operator.ask(copy("c2")).await.expect_err("refused");
        assert_eq!((refusal.reason, refusal.field.as_str()), (Reason::PermissionDenied, "switch"));
        root.ask(SwitchOpen { switch: text("lan"), group: Some(text("g")), open: true }).await.expect("opened");
        operator.ask(copy("c3")).await.expect("all of it is the group's");
    });
}

#[test]
fn a_snapshot_gives_nothing_back_that_was_taken_since() {
    // Elsewhere only volumes have snapshots.
    if !crate::platform::LAYERS {
        return;
    }
    Suite::new().live(async |life: Life| {
        life.up().await;
        let mut root = life.session().await;
        group(&life, &mut root, "g").await;
        let mut operator = user(&life, "op", Some((Some("g"), Role::Operator))).await;
        let shares = |shares| Settings { shares: Some(shares), ..Settings::default() };
        let src = || vec![Share { name: "src".parse().expect("a name"), read_only: true }];
        let limits = |limits| Settings { limits, ..Settings::default() };
        let set = |settings| MachineSet { machine: text("g-vm"), settings, revision: 0 };
        let whole = |name: &str| WholeCreate { machine: text("g-vm"), name: name.parse().expect("a name") };
        let back = |name: &str| WholeRollBack { machine: text("g-vm"), snapshot: text(name) };
        root.ask(set(shares(src()))).await.expect("set");
        operator.ask(whole("shared")).await.expect("a snapshot");
        operator.ask(back("shared")).await.expect("it has it still");
        root.ask(set(shares(vec![]))).await.expect("set");
        let wired = |wired| limits(LimitsDraft { wired: Some(wired), ..LimitsDraft::default() });
        root.ask(set(wired(true))).await.expect("set");
        operator.ask(whole("wired")).await.expect("a snapshot");
        root.ask(set(wired(false))).await.expect("set");
        for (name, field) in [("shared", "shares"), ("wired", "limits")] {
            let refusal = operator.ask(back(name)).await.expect_err("refused");
            assert_eq!((refusal.reason, refusal.field.as_str()), (Reason::PermissionDenied, field));
        }
        operator.ask(whole("bare")).await.expect("a snapshot");
        root.ask(back("shared")).await.expect("an administrator may");
        operator.ask(back("bare")).await.expect("less than now");
        // What the group may have now bounds what returns.
        root.ask(set(Settings { cpus: Some(4), ..Settings::default() })).await.expect("set");
        operator.ask(whole("large")).await.expect("a snapshot");
        root.ask(set(Settings { cpus: Some(1), ..Settings::default() })).await.expect("set");
        root.ask(GroupQuota { group: text("g"), quota: Quota { cpus: 2, ..Quota::default() } }).await.expect("set");
        assert_eq!(reason(operator.ask(back("large")).await), Reason::QuotaReached);
        root.ask(GroupQuota { group: text("g"), quota: Quota::default() }).await.expect("set");
        for name in ["shared", "wired", "bare", "large"] {
            operator.ask(WholeDelete { machine: text("g-vm"), snapshot: text(name) }).await.expect("deleted");
        }
    });
}

#[test]
fn an_id_is_no_name_for_anything_else() {
    Suite::new().live(async |life: Life| {
        life.up().await;
        let mut s = life.session().await;
        let first = s.machine("first", &[]).await.expect("a machine");
        s.machine("second", &[]).await.expect("a machine");
        assert_eq!(reason(s.machine(&first.id.to_string(), &[]).await), Reason::AlreadyExists);
        let rename = MachineRename { machine: text("second"), name: first.id.to_string().parse().expect("a name") };
        assert_eq!(reason(s.ask(rename).await), Reason::AlreadyExists);
        let disk = s.disk("disk").await.expect("a disk");
        assert_eq!(reason(s.disk(&disk.id.to_string()).await), Reason::AlreadyExists);
        let nic = s.nic("nic", None, None).await.expect("a nic");
        assert_eq!(reason(s.nic(&nic.id.to_string(), None, None).await), Reason::AlreadyExists);
    });
}
