//! Made-up facts: what the kernel of either host could say.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use super::process;
use crate::Options;
use crate::facts::{Confinement, Facts, FreeBsd, Jail, Kind, Linux, Mount, NodeRule, Open, Reach};
use crate::find::Subject;
use crate::report::{Process, Verdict};
use skep_rights::{Namespace, Process as Table, console, fetcher, frontend, hypervisor, initiator, net, services, storage};
use skep_service::Ids;

const IDS: &str = "broker=61901,api-frontend=61902,storage-helper=61903,net-helper=61904,vm-runner=61905,machines=62000";

fn options() -> Options {
    let ids = Some(Ids::parse(IDS).unwrap());
    Options { state: "/state".into(), run: "/run/skep".into(), instance: "test".parse().unwrap(), ids, only: None }
}

/// A hypervisor as it should be.
fn hypervisor_facts(uid: u32, namespace: u64) -> Facts {
    let all =
        [Namespace::User, Namespace::Mount, Namespace::Pid, Namespace::Net, Namespace::Ipc, Namespace::Uts, Namespace::Cgroup];
    let root =
        Mount { root: "/state/cell/root".into(), point: "/".into(), filesystem: "ext4".into(), read_only: true, plain: false };
    let linux = Linux {
        no_new_privs: true,
        seccomp: 2,
        filters: 3,
        namespaces: all.map(|which| (which, namespace, 1)).to_vec(),
        mounts: vec![root],
        ..Linux::default()
    };
    Facts {
        pid: 7,
        uids: vec![uid; 4],
        gids: vec![uid; 4],
        threads: 5,
        confinement: Confinement::Linux(linux),
        reach: Reach { interfaces: Some(vec!["lo".into()]), addresses: Vec::new() },
        ..Facts::default()
    }
}

fn judge(table: &'static Table, facts: &Facts, others: &[&Facts]) -> Process {
    let subject = Subject { table, name: table.name.into(), machine: None, pid: facts.pid, notes: Vec::new() };
    process(&subject, facts, others, &options())
}

/// The lines that differ, and what of them.
fn differences(process: &Process) -> Vec<(String, String)> {
    let of = |line: &crate::Line| match &line.verdict {
        Verdict::Differs { what } => Some((line.line.clone(), what.clone())),
        _ => None,
    };
    process.lines.iter().filter_map(of).collect()
}

fn difference(process: &Process, line: &str) -> String {
    let all = differences(process);
    all.iter().find(|(name, _)| name == line).unwrap_or_else(|| panic!("{line} does not differ: {all:?}")).1.clone()
}

#[test]
fn a_hypervisor_as_it_should_be_differs_in_nothing() {
    let (facts, other) = (hypervisor_facts(62_006, 5), hypervisor_facts(62_008, 6));
    assert_eq!(differences(&judge(&hypervisor::TABLE, &facts, &[&other])), []);
}

#[test]
fn uids_and_namespaces_are_not_shared_between_machines() {
    let (facts, other) = (hypervisor_facts(62_006, 5), hypervisor_facts(62_006, 5));
    let judged = judge(&hypervisor::TABLE, &facts, &[&other]);
    assert_eq!(difference(&judged, "uid"), "uid 62006 is another process's, too");
    assert!(difference(&judged, "namespaces").contains("net namespace is another process's, too"));
}

#[test]
fn a_hypervisor_has_no_services_and_no_proxys_uid() {
    for uid in [0, 61_903, 62_007] {
        assert!(difference(&judge(&hypervisor::TABLE, &hypervisor_facts(uid, 5), &[]), "uid").contains("not one of a machine's"));
    }
    let proxy = judge(&console::TABLE, &hypervisor_facts(62_007, 5), &[]);
    assert!(!differences(&proxy).iter().any(|(line, _)| line == "uid"));
    assert_eq!(difference(&proxy, "threads"), "it has 5 threads");
}

#[test]
fn guest_services_have_a_switch_s_uid_and_packet_sockets() {
    let holding = |uid, kinds: &[Kind]| {
        let open = kinds.iter().zip(3..).map(|(kind, number)| Open {
            number,
            kind: kind.clone(),
            shown: format!("{kind:?}"),
            rights: None,
            others: None,
        });
        Facts { descriptors: open.collect(), threads: 1, ..hypervisor_facts(uid, 5) }
    };
    let frames = [Kind::Packet, Kind::Device("/dev/bpf".into()), Kind::Inet("UDP".into()), Kind::Event];
    assert_eq!(differences(&judge(&services::TABLE, &holding(66_000, &frames), &[])), []);
    for uid in [62_000, 62_001, 65_999, 66_064] {
        assert!(difference(&judge(&services::TABLE, &holding(uid, &frames), &[]), "uid").contains("not one of a switch's"));
    }
    let sockets = [Kind::Inet("TCP".into()), Kind::Inet("UDP".into())];
    assert_eq!(differences(&judge(&fetcher::TABLE, &holding(66_064, &sockets), &[])), []);
    for uid in [66_063, 66_072] {
        assert!(difference(&judge(&fetcher::TABLE, &holding(uid, &sockets), &[]), "uid").contains("not one of a fetch's"));
    }
    let sockets = [Kind::Inet("TCP".into()), Kind::Unix { path: None, listens: true }];
    assert_eq!(differences(&judge(&initiator::TABLE, &holding(66_072, &sockets), &[])), []);
    for uid in [66_071, 66_080] {
        assert!(difference(&judge(&initiator::TABLE, &holding(uid, &sockets), &[]), "uid").contains("not one of a iSCSI disk's"));
    }
    let others = holding(66_000, &[Kind::Device("/dev/bpf0".into()), Kind::Device("/dev/mem".into())]);
    assert!(difference(&judge(&services::TABLE, &others, &[]), "descriptors").contains("/dev/mem"));
    // Nobody else has any.
    assert!(difference(&judge(&console::TABLE, &holding(62_007, &frames[..1]), &[]), "descriptors").contains("Packet"));
}

#[test]
fn a_group_of_the_hosts_is_found() {
    let mut facts = hypervisor_facts(62_006, 5);
    facts.groups = vec![27];
    assert!(difference(&judge(&hypervisor::TABLE, &facts, &[]), "uid").contains("27"));
}

#[test]
fn addresses_and_interfaces_are_found() {
    let mut facts = hypervisor_facts(62_006, 5);
    facts.reach = Reach { interfaces: Some(vec!["lo".into(), "sit0".into(), "eth0".into()]), addresses: vec!["10.0.0.2".into()] };
    assert_eq!(difference(&judge(&hypervisor::TABLE, &facts, &[]), "network"), "interfaces eth0; addresses 10.0.0.2");
}

#[test]
fn what_can_be_written_in_a_cell_is_memory_or_a_device() {
    let mut facts = hypervisor_facts(62_006, 5);
    let Confinement::Linux(linux) = &mut facts.confinement else { panic!() };
    let mount = |root: &str, point: &str, filesystem: &str| Mount {
        root: root.into(),
        point: point.into(),
        filesystem: filesystem.into(),
        read_only: false,
        plain: point.starts_with("/share"),
    };
    linux.mounts.push(mount("/srv/out", "/share/0", "ext4"));
    linux.mounts.extend([mount("/", "/run", "tmpfs"), mount("/null", "/dev/null", "devtmpfs")]);
    assert_eq!(differences(&judge(&hypervisor::TABLE, &facts, &[])), []);
    let Confinement::Linux(linux) = &mut facts.confinement else { panic!() };
    linux.mounts.push(mount("/etc", "/run/etc", "ext4"));
    linux.mounts.push(mount("/", "/", "ext4"));
    linux.mounts.push(Mount { plain: false, ..mount("/srv", "/share/3", "ext4") });
    linux.mounts.push(mount("/srv", "/share/4", "ext4"));
    let found = difference(&judge(&hypervisor::TABLE, &facts, &[]), "root");
    let shares = "/share/3: programs, devices or set-user-id files of it can be used";
    assert_eq!(
        found,
        format!(
            "its root can be written; {shares}; /run/etc can be written (/etc of ext4); /share/4 can be written (/srv of ext4)"
        )
    );
}

#[test]
fn on_freebsd_capability_mode_rights_and_jails_are_judged() {
    let open = |rights| Open {
        number: 3,
        kind: Kind::Directory("/state/disks".into()),
        shown: "/state/disks".into(),
        rights,
        others: None,
    };
    let mut facts = Facts {
        uids: vec![61_903; 3],
        gids: vec![61_903; 3],
        threads: 1,
        descriptors: vec![open(Some([0x0200_0000_0000_0001, 0x0400_0000_0000_0000]))],
        confinement: Confinement::FreeBsd(FreeBsd { capability_mode: true, jail: None }),
        ..Facts::default()
    };
    assert_eq!(differences(&judge(&storage::TABLE, &facts, &[])), []);
    // MAC_SET is in no table.
    facts.descriptors = vec![open(Some([0x0200_0000_0000_0001, 0x0400_0000_0000_0002]))];
    facts.confinement = Confinement::FreeBsd(FreeBsd::default());
    let judged = judge(&storage::TABLE, &facts, &[]);
    assert!(difference(&judged, "descriptors").ends_with("has rights beyond those of disks: MAC_SET"));
    assert_eq!(difference(&judged, "capsicum"), "it is not in capability mode");
    let jail = Jail {
        path: "/".into(),
        ip4: 2,
        children: 3,
        securelevel: -1,
        enforce_statfs: 1,
        allowed: ["mount", "suser", "vmm"].map(Into::into).into(),
        ..cell()
    };
    facts.uids = vec![62_006; 3];
    facts.confinement = Confinement::FreeBsd(FreeBsd { capability_mode: false, jail: Some(jail) });
    let found = difference(&judge(&hypervisor::TABLE, &facts, &[]), "jail");
    let want = "the jail has addresses; the jail may have 3 jails of its own; the jail's root is the host's; \
                the jail has securelevel -1, not 3; the jail sees the host's mounts; the jail is allowed mount";
    assert_eq!(found, want);
}

/// A machine's jail as it should be.
fn cell() -> Jail {
    let mark = NodeRule { pattern: "skep/0123/cell".into(), hides: true, ..NodeRule::default() };
    let mut nodes = vec![mark, NodeRule { hides: true, ..NodeRule::default() }];
    nodes.extend(hypervisor::NODES.iter().map(|node| NodeRule {
        pattern: node.pattern.into(),
        shows: true,
        owner: node.owned.then_some((62_006, 0o660)),
        ..NodeRule::default()
    }));
    Jail {
        id: 3,
        name: "skep-test-m".into(),
        path: "/run/skep/cells/m".into(),
        securelevel: 3,
        enforce_statfs: 2,
        allowed: ["reserved_ports", "set_hostname", "suser", "unprivileged_proc_debug", "vmm"].map(Into::into).into(),
        limits: Some(vec!["jail:skep-test-m:maxproc:deny=130".into(), "jail:skep-test-m:nthr:deny=130".into()]),
        nodes: Some(nodes),
        mounts: Some(vec![
            jails_mount("nullfs", "/state/cell/root", "/", true),
            jails_mount("devfs", "devfs", "/dev", false),
            jails_mount("fdescfs", "fdescfs", "/dev/fd", false),
            jails_mount("tmpfs", "tmpfs", "/run", false),
            jails_mount("tmpfs", "tmpfs", "/tmp", false),
        ]),
        ..Jail::default()
    }
}

fn jails_mount(filesystem: &str, root: &str, point: &str, read_only: bool) -> Mount {
    let plain = point.starts_with("/share");
    Mount { root: root.into(), point: point.into(), filesystem: filesystem.into(), read_only, plain }
}

fn in_jail(table: &'static Table, uid: u32, jail: Jail) -> Process {
    let confinement = Confinement::FreeBsd(FreeBsd { capability_mode: true, jail: Some(jail) });
    let reach = Reach { interfaces: Some(Vec::new()), ..Reach::default() };
    judge(
        table,
        &Facts { pid: 7, uids: vec![uid; 3], gids: vec![uid; 3], threads: 1, confinement, reach, ..Facts::default() },
        &[],
    )
}

#[test]
fn on_freebsd_a_cell_as_it_should_be_differs_in_nothing() {
    assert_eq!(differences(&in_jail(&hypervisor::TABLE, 62_006, cell())), []);
    // A console-proxy's has no limits, no devices, and no right over instances.
    let proxy = in_jail(&console::TABLE, 62_007, Jail { nodes: Some(Vec::new()), limits: Some(Vec::new()), ..cell() });
    assert_eq!(difference(&proxy, "jail"), "the jail is allowed vmm");
    assert!(!proxy.lines.iter().any(|line| ["limits", "devices"].contains(&line.line.as_str())));
    assert!(difference(&proxy, "root").starts_with("/dev is devfs of devfs; /dev/fd is"));
    let mut own = Jail { allowed: Vec::new(), ..cell() };
    own.mounts.as_mut().unwrap().truncate(1);
    assert_eq!(differences(&in_jail(&console::TABLE, 62_007, own)), []);
}

#[test]
fn on_freebsd_rules_of_a_cell_are_judged() {
    let limits = |rules: &[&str]| {
        let rules = rules.iter().map(ToString::to_string).collect();
        in_jail(&hypervisor::TABLE, 62_006, Jail { limits: Some(rules), ..cell() })
    };
    let (tasks, threads) = ("jail:skep-test-m:maxproc:deny=130", "jail:skep-test-m:nthr:deny=130");
    let throttled = limits(&[tasks, threads, "jail:skep-test-m:readbps:throttle=1048576"]);
    assert_eq!(differences(&throttled), []);
    assert_eq!(difference(&limits(&[]), "limits"), "no rule limits maxproc; no rule limits nthr");
    for rule in [
        "jail:skep-test-m:vmemoryuse:log=1",
        "jail:skep-test-m:vmemoryuse:sigkill=1",
        "jail:skep-test-m:vmemoryuse:deny=1/process",
        "jail:skep-test-other:vmemoryuse:deny=1",
        "user:root:maxproc:deny=1",
    ] {
        assert_eq!(difference(&limits(&[tasks, threads, rule]), "limits"), format!("rule {rule}"));
    }
    let uncounted = in_jail(&hypervisor::TABLE, 62_006, Jail { limits: None, nodes: None, ..cell() });
    assert_eq!(differences(&uncounted), []);
    assert_eq!(uncounted.lines.iter().filter(|line| matches!(line.verdict, Verdict::Weaker { .. })).count(), 2);
}

#[test]
fn on_freebsd_mounts_of_a_cell_are_judged() {
    let with = |more: Mount| {
        let mut jail = cell();
        jail.mounts.as_mut().unwrap().push(more);
        in_jail(&hypervisor::TABLE_SHARES, 62_006, jail)
    };
    let shared = with(jails_mount("nullfs", "/srv/in", "/share/0", true));
    assert_eq!(differences(&shared), []);
    assert!(shared.to_string().contains("shared read-only: /share/0"), "{shared}");
    let foreign = |more: Mount| difference(&with(more), "root");
    // What is read-only is as much the host's.
    assert_eq!(foreign(jails_mount("nullfs", "/etc", "/etc", true)), "/etc is nullfs of /etc");
    assert_eq!(foreign(jails_mount("nullfs", "/", "/dev", false)), "/dev is nullfs of /");
    assert_eq!(foreign(jails_mount("ufs", "/dev/ada0p2", "/share/4", true)), "/share/4 is ufs of /dev/ada0p2");
    assert_eq!(foreign(jails_mount("nullfs", "/state/cell/root", "/", false)), "its root can be written");
    let bare = Mount { plain: false, ..jails_mount("nullfs", "/srv/in", "/share/1", true) };
    assert!(foreign(bare).contains("/share/1: programs, devices or set-user-id files"));
    let unseen = in_jail(&hypervisor::TABLE, 62_006, Jail { mounts: None, ..cell() });
    assert_eq!(unseen.lines.iter().filter(|line| line.line == "root" && !line.verdict.differs()).count(), 1);
}

#[test]
fn only_cells_with_shares_have_open_files_of_theirs() {
    let open = |kind| Open { number: 40, kind, shown: "x".into(), rights: None, others: None };
    let judged = |table: &'static Table, kind: &Kind| {
        let mut facts = holding(62_006, vec![open(kind.clone())]);
        facts.confinement = Confinement::FreeBsd(FreeBsd { capability_mode: true, jail: Some(cell()) });
        differences(&judge(table, &facts, &[])).iter().any(|(line, _)| line == "descriptors")
    };
    for kind in [Kind::Directory("/share/0".into()), Kind::Unix { path: None, listens: false }] {
        assert!(judged(&hypervisor::TABLE, &Kind::Directory("/share/0".into())));
        assert!(!judged(&hypervisor::TABLE_SHARES, &kind));
    }
}

#[test]
fn on_freebsd_a_device_too_many_is_found() {
    let with = |edit: &dyn Fn(&mut Vec<NodeRule>)| {
        let mut jail = cell();
        edit(jail.nodes.as_mut().unwrap());
        difference(&in_jail(&hypervisor::TABLE, 62_006, jail), "devices")
    };
    let shows = |pattern: &str| NodeRule { pattern: pattern.into(), shows: true, ..NodeRule::default() };
    assert_eq!(with(&|rules| rules.push(shows("mem"))), "mem is shown");
    assert_eq!(with(&|rules| rules.push(shows(""))), "everything is shown");
    assert_eq!(with(&|rules| rules.push(NodeRule { other: true, ..shows("vmm") })), "rule for vmm does more than show or hide");
    let somebodys = |pattern: &str, uid, mode| NodeRule { owner: Some((uid, mode)), ..shows(pattern) };
    assert_eq!(with(&|rules| rules.push(somebodys("vmm/*", 62_008, 0o660))), "vmm/* is uid 62008's with mode 660");
    assert_eq!(with(&|rules| rules.push(somebodys("vmm/*", 62_006, 0o666))), "vmm/* is uid 62006's with mode 666");
    assert_eq!(with(&|rules| rules.push(somebodys("null", 62_006, 0o660))), "null is uid 62006's with mode 660");
}

#[test]
fn what_dead_cells_left_differs() {
    assert!(!super::left_over(&[]).verdict.differs());
    let left = super::left_over(&["vmm instance sktest0".into(), "rule jail:skep-test-m:nthr:deny=1".into()]);
    assert!(
        left.verdict
            == Verdict::of(vec!["left over: vmm instance sktest0".into(), "left over: rule jail:skep-test-m:nthr:deny=1".into()])
    );
}

#[test]
fn on_freebsd_the_frontend_s_jail_has_addresses_when_it_listens_on_them() {
    let jail = Jail {
        id: 1,
        name: "skep_api_frontend_tcp".into(),
        path: "/jail".into(),
        ip4: 2,
        ip6: 2,
        enforce_statfs: 2,
        ..Jail::default()
    };
    let mut facts = Facts {
        uids: vec![61_902; 3],
        gids: vec![61_902; 3],
        threads: 1,
        confinement: Confinement::FreeBsd(FreeBsd { capability_mode: true, jail: Some(jail) }),
        ..Facts::default()
    };
    assert_eq!(difference(&judge(&frontend::TABLE, &facts, &[]), "jail"), "the jail has addresses");
    let rights = Some([0x0200_0000_0000_0001, 0x0400_0000_0000_0000]);
    facts.descriptors = vec![Open { number: 5, kind: Kind::Inet("IPv4".into()), shown: "inet".into(), rights, others: None }];
    assert_eq!(differences(&judge(&frontend::TABLE, &facts, &[])), []);
    // No table but the frontend's knows such a socket.
    let found = difference(&judge(&storage::TABLE, &facts, &[]), "jail");
    assert_eq!(found, "the jail has addresses");
}

#[test]
fn a_service_s_group_may_have_another_number_than_its_user() {
    let ids = Ids::parse(&IDS.replace("61903", "61903:700")).unwrap();
    let judged = |gid| {
        let confinement = Confinement::FreeBsd(FreeBsd { capability_mode: true, jail: None });
        let facts = Facts { uids: vec![61_903; 3], gids: vec![gid; 3], threads: 1, confinement, ..Facts::default() };
        let subject = Subject { table: &storage::TABLE, name: "x".into(), machine: None, pid: 1, notes: Vec::new() };
        differences(&process(&subject, &facts, &[], &Options { ids: Some(ids.clone()), ..options() }))
    };
    assert_eq!(judged(700), []);
    assert_eq!(judged(61_903).first().map(|(line, _)| line.as_str()), Some("uid"));
}

/// A service of FreeBSD's with these descriptors.
fn holding(uid: u32, descriptors: Vec<Open>) -> Facts {
    Facts {
        uids: vec![uid; 3],
        gids: vec![uid; 3],
        threads: 1,
        ancestors: vec![20, 10, 1],
        descriptors,
        confinement: Confinement::FreeBsd(FreeBsd { capability_mode: true, jail: None }),
        ..Facts::default()
    }
}

#[test]
fn a_pipe_is_standard_only_if_it_leads_to_who_started_the_process() {
    let pipe = |number, others: Option<Vec<i32>>| Open { number, kind: Kind::Pipe, shown: "pipe".into(), rights: None, others };
    let judged = |number, others| judge(&storage::TABLE, &holding(61_903, vec![pipe(number, others)]), &[]);
    for good in [vec![20], vec![10, 20]] {
        let judged = judged(2, Some(good));
        assert_eq!(differences(&judged), []);
        assert_eq!((judged.descriptors[0].line.as_deref(), judged.descriptors[0].unconfirmed), (Some("standard"), None));
    }
    // Whoever held it has gone, or may not be seen.
    let unseen = judged(1, Some(Vec::new()));
    assert_eq!(differences(&unseen), []);
    assert!(unseen.to_string().contains("standard; declared, not confirmed: nobody is seen at its other end"), "{unseen}");
    // storage-helper has one line for a pipe, of another kind of use: the word to the supervisor. A second one has none.
    for (number, others) in [(2, Some(vec![77])), (2, Some(vec![20, 77])), (2, None), (0, Some(vec![20]))] {
        let facts = holding(61_903, vec![pipe(number, others.clone()), pipe(9, None)]);
        let judged = judge(&storage::TABLE, &facts, &[]);
        assert!(difference(&judged, "descriptors").contains("one more than the table allows of: ready"), "{number} {others:?}");
    }
    // The standard three of a machine's processes are given by the spawner: none of them is a pipe to anybody's parent.
    let judged = judge(&console::TABLE, &holding(62_007, vec![pipe(2, Some(vec![20]))]), &[]);
    assert!(difference(&judged, "descriptors").contains("descriptor 2 (pipe) is not in the table"));
}

#[test]
fn what_the_kernel_does_not_name_is_declared_and_not_confirmed() {
    let unknown = |number, bits: u64| Open {
        number,
        kind: Kind::Unknown,
        shown: "unknown".into(),
        rights: Some([0x0200_0000_0000_0000 | bits, 0x0400_0000_0000_0000]),
        others: None,
    };
    // READ and WRITE, which a connection has.
    let judged = judge(&storage::TABLE, &holding(61_903, vec![unknown(9, 3)]), &[]);
    assert_eq!(judged.descriptors[0].line.as_deref(), Some("connection"));
    let line = judged.lines.iter().find(|line| line.line == "descriptor connection").unwrap();
    let why = "declared, not confirmed, for 9: the kernel does not say what it is".to_owned();
    assert_eq!(line.verdict, Verdict::Weaker { why });
    assert!(judged.to_string().contains("connection; declared, not confirmed: the kernel does not say what it is"), "{judged}");
    // It is none of what a process has one of: the sender holds sockets of that kind only.
    let judged = judge(&net::OUTSIDE, &holding(0, vec![unknown(9, 3)]), &[]);
    assert!(difference(&judged, "descriptors").contains("is not in the table"));
}

#[test]
fn a_socket_of_netgraph_is_no_netlink() {
    let socket = |kind| Open { number: 9, kind, shown: "socket".into(), rights: None, others: None };
    for (table, kind, fits) in [
        (&net::OUTSIDE, Kind::Netgraph, true),
        (&net::OUTSIDE, Kind::Netlink, false),
        (&net::TABLE, Kind::Netlink, true),
        (&net::TABLE, Kind::Netgraph, false),
    ] {
        let judged = judge(table, &holding(0, vec![socket(kind.clone())]), &[]);
        assert_eq!(judged.descriptors[0].line.is_some(), fits, "{} {kind:?}", table.name);
    }
}
