//! Who may ask what: one row an operation. The broker holds every request against it before anything is done; an operation without
//! a row does not compile.

use super::*;
use crate::OperationId;

/// On what a role is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum On<'a> {
    /// The host: a role on it, not in a group.
    Host,
    /// Anything: a role anywhere. Lists then hold what the user may see.
    Any,
    /// A group; none: the one that is there from the start.
    Group(Option<&'a Ref>),
    /// The group of a machine.
    Machine(&'a Ref),
    /// The group of a disk that this field names.
    Disk(&'a Ref, &'static str),
    /// The same, of a disk that is only read: for that a viewer's role is enough.
    Read(&'a Ref, &'static str),
    /// The group of a NIC.
    Nic(&'a Ref),
    /// A switch that a NIC of this group or machine is to be connected to: it must be open to that group, or the role be the host's.
    Switch(&'a Ref, Option<&'a Ref>, Option<&'a Ref>),
    /// The same, of a NIC that is there; no name: none.
    NicsSwitch(&'a Ref, &'a Ref),
    /// The group that an operation works in.
    Operation(OperationId),
    /// A user: oneself, or the role on the host. None: oneself.
    User(Option<&'a Ref>),
}

/// A row of the table, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// The operation.
    pub op: &'static str,
    /// The least role that may ask it; none: everybody who has shown who he is.
    pub role: Option<Role>,
    /// On what.
    pub on: &'static str,
}

/// What a request needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needs<'a> {
    /// The least role.
    pub role: Option<Role>,
    /// On each of these.
    pub on: Vec<On<'a>>,
}

macro_rules! rules {
    ($($op:ident: $role:expr, $on:literal, $call:pat => $needs:expr;)*) => {
        /// The table.
        pub const RULES: &[Rule] = &[$(Rule { op: stringify!($op), role: $role, on: $on },)*];

        /// What this request needs, after the table.
        pub fn needs(request: &BrokerRequest) -> Needs<'_> {
            match request { $(BrokerRequest::$op($call) => Needs { role: $role, on: $needs },)* }
        }
    };
}

const SELF: Option<Role> = None;
const VIEWER: Option<Role> = Some(Role::Viewer);
const OPERATOR: Option<Role> = Some(Role::Operator);
const ADMIN: Option<Role> = Some(Role::Admin);

rules! {
    OpenSession: SELF, "whoever has a valid credential", _ => vec![];
    RequestKey: SELF, "whoever has a session", _ => vec![];
    CallTold: SELF, "whoever has a session, and the frontend for whoever has none", _ => vec![];
    HostShow: VIEWER, "anything", _ => vec![On::Any];
    HostLog: ADMIN, "the host", _ => vec![On::Host];
    HostRest: ADMIN, "the host", _ => vec![On::Host];
    TokenCreate: ADMIN, "oneself, or the host", c => vec![On::User(c.user.as_ref())];
    TokenList: ADMIN, "oneself, or the host", c => vec![On::User(c.user.as_ref())];
    TokenDelete: ADMIN, "oneself, or the host", c => vec![On::User(c.user.as_ref())];
    MachineCreate: OPERATOR, "the group; disks' groups; the host for shares and for what goes before others", c => and_disks(On::Group(c.group.as_ref()), &c.settings);
    MachineGet: VIEWER, "the machine's group", c => vec![On::Machine(&c.machine)];
    MachineList: VIEWER, "anything", _ => vec![On::Any];
    MachineSet: OPERATOR, "the machine's group; disks' groups; the host for shares and for what goes before others", c => and_disks(On::Machine(&c.machine), &c.settings);
    MachineRename: OPERATOR, "the machine's group", c => vec![On::Machine(&c.machine)];
    MachineAct: OPERATOR, "the machine's group", c => vec![On::Machine(&c.machine)];
    MachineEject: OPERATOR, "the machine's group", c => vec![On::Machine(&c.machine)];
    MachineLaunch: OPERATOR, "the group; the image's group; the switch, which must be open to it; the host for shares and for what goes before others", c => launched(c);
    WholeCreate: OPERATOR, "the groups of the machine and its disks", c => vec![On::Machine(&c.machine)];
    WholeList: VIEWER, "the machine's group", c => vec![On::Machine(&c.machine)];
    WholeRollBack: OPERATOR, "the groups of the machine and its disks", c => vec![On::Machine(&c.machine)];
    WholeRename: OPERATOR, "the machine's group", c => vec![On::Machine(&c.machine)];
    WholeDelete: OPERATOR, "the machine's group", c => vec![On::Machine(&c.machine)];
    MachineClone: OPERATOR, "the machine's group; what its settings would need", c => vec![On::Machine(&c.machine)];
    MachineDelete: OPERATOR, "the machine's group", c => vec![On::Machine(&c.machine)];
    MachineConsole: OPERATOR, "the machine's group", c => vec![On::Machine(&c.machine)];
    MachineScreen: OPERATOR, "the machine's group", c => vec![On::Machine(&c.machine)];
    MachineChannel: OPERATOR, "the machine's group", c => vec![On::Machine(&c.machine)];
    MachineGdb: OPERATOR, "the machine's group", c => vec![On::Machine(&c.machine)];
    MachineLog: VIEWER, "the machine's group", c => vec![On::Machine(&c.machine)];
    MachineStats: VIEWER, "the machine's group", c => vec![On::Machine(&c.machine)];
    StatsWatch: VIEWER, "the machine's group", c => vec![On::Machine(&c.machine)];
    MetricsGet: VIEWER, "the host", _ => vec![On::Host];
    FirmwareList: VIEWER, "the machine's group", c => vec![On::Machine(&c.machine)];
    FirmwareGet: VIEWER, "the machine's group", c => vec![On::Machine(&c.machine)];
    FirmwareEdit: OPERATOR, "the machine's group", c => vec![On::Machine(&c.machine)];
    DiskCreate: OPERATOR, "the group", c => vec![On::Group(c.group.as_ref())];
    IscsiCreate: OPERATOR, "the group", c => vec![On::Group(c.group.as_ref())];
    DiskImport: OPERATOR, "the group", c => vec![On::Group(c.group.as_ref())];
    DiskFetch: OPERATOR, "the group", c => vec![On::Group(c.import.group.as_ref())];
    DiskClone: OPERATOR, "the disk's group", c => vec![On::Disk(&c.disk, "")];
    DiskResize: OPERATOR, "the disk's group", c => vec![On::Disk(&c.disk, "")];
    DiskSet: OPERATOR, "the disk's group", c => vec![On::Disk(&c.disk, "")];
    DiskWipe: OPERATOR, "the disk's group", c => vec![On::Disk(&c.disk, "")];
    DiskExport: OPERATOR, "the disk's group", c => vec![On::Disk(&c.disk, "")];
    DiskGet: VIEWER, "the disk's group", c => vec![On::Disk(&c.disk, "")];
    DiskList: VIEWER, "anything", _ => vec![On::Any];
    DiskDelete: OPERATOR, "the disk's group", c => vec![On::Disk(&c.disk, "")];
    SnapshotCreate: OPERATOR, "the disk's group", c => vec![On::Disk(&c.disk, "")];
    SnapshotList: VIEWER, "the disk's group", c => vec![On::Disk(&c.disk, "")];
    SnapshotRollBack: OPERATOR, "the disk's group", c => vec![On::Disk(&c.disk, "")];
    SnapshotRename: OPERATOR, "the disk's group", c => vec![On::Disk(&c.disk, "")];
    SnapshotDelete: OPERATOR, "the disk's group", c => vec![On::Disk(&c.disk, "")];
    SwitchCreate: ADMIN, "the host", _ => vec![On::Host];
    SwitchList: VIEWER, "anything", _ => vec![On::Any];
    SwitchGet: VIEWER, "anything", _ => vec![On::Any];
    SwitchSet: ADMIN, "the host", _ => vec![On::Host];
    SwitchDelete: ADMIN, "the host", _ => vec![On::Host];
    SwitchOpen: ADMIN, "the host", _ => vec![On::Host];
    NicCreate: OPERATOR, "the group, or the machine's; the switch is open to it; with forwards, the host", c => nic(c);
    NicAttach: OPERATOR, "the groups of both", c => vec![On::Nic(&c.nic), On::Machine(&c.machine)];
    NicDetach: OPERATOR, "the NIC's group", c => vec![On::Nic(&c.nic)];
    NicGet: VIEWER, "the NIC's group", c => vec![On::Nic(&c.nic)];
    NicSet: OPERATOR, "the NIC's group; the switch is open to it; with forwards, the host", c => nic_set(c);
    NicClone: OPERATOR, "the NIC's group; its switch is open to it", c => vec![On::Nic(&c.nic)];
    NicList: VIEWER, "anything", _ => vec![On::Any];
    NicDelete: OPERATOR, "the NIC's group", c => vec![On::Nic(&c.nic)];
    OperationGet: VIEWER, "the group that it works in", c => vec![On::Operation(c.id)];
    OperationList: VIEWER, "anything", _ => vec![On::Any];
    OperationCancel: OPERATOR, "the group that it works in", c => vec![On::Operation(c.id)];
    EventWatch: VIEWER, "anything", _ => vec![On::Any];
    UserCreate: ADMIN, "the host", _ => vec![On::Host];
    UserGet: ADMIN, "oneself, or the host", c => vec![On::User(c.user.as_ref())];
    UserList: ADMIN, "the host", _ => vec![On::Host];
    UserRename: ADMIN, "the host", _ => vec![On::Host];
    UserDisable: ADMIN, "the host", _ => vec![On::Host];
    UserPassword: ADMIN, "oneself, or the host", c => vec![On::User(c.user.as_ref())];
    UserDelete: ADMIN, "the host", _ => vec![On::Host];
    GroupCreate: ADMIN, "the host", _ => vec![On::Host];
    GroupList: VIEWER, "anything", _ => vec![On::Any];
    GroupRename: ADMIN, "the host", _ => vec![On::Host];
    GroupQuota: ADMIN, "the host", _ => vec![On::Host];
    GroupAdd: ADMIN, "both groups", c => vec![moved(&c.what), On::Group(Some(&c.group))];
    GroupDelete: ADMIN, "the host", _ => vec![On::Host];
    RoleGrant: ADMIN, "the group, or the host", c => vec![role(c.group.as_ref())];
    RoleRevoke: ADMIN, "the group, or the host", c => vec![role(c.group.as_ref())];
    RoleList: SELF, "one's own, and where one is admin", _ => vec![];
}

/// A machine's group, and those of the disks that it is to have. Directories that the host shares belong to no group.
fn and_disks<'a>(first: On<'a>, settings: &'a Settings) -> Vec<On<'a>> {
    let mut on = vec![first];
    for draft in settings.disks.iter().flatten() {
        let reads = draft.read_only || draft.controller.is_cd();
        on.push(if reads { On::Read(&draft.disk, "disks") } else { On::Disk(&draft.disk, "disks") });
    }
    if let Some(BootDraft::Direct { kernel, initrd, .. }) = &settings.boot {
        on.push(On::Read(kernel, "boot.kernel"));
        on.extend(initrd.as_ref().map(|initrd| On::Read(initrd, "boot.initrd")));
    }
    let limits = &settings.limits;
    // What goes before all others of the host, or is not any group's.
    let before = limits.priority.is_some_and(|nice| nice < 0) || limits.protect == Some(true) || limits.wired == Some(true);
    if before || settings.shares.as_ref().is_some_and(|shares| !shares.is_empty()) {
        on.push(On::Host);
    }
    on
}

fn launched(c: &MachineLaunch) -> Vec<On<'_>> {
    // The switch is held against the group where it is found, for it may not be there yet.
    let mut on = and_disks(On::Group(c.group.as_ref()), &c.settings);
    on.push(On::Read(&c.image, "image"));
    on
}

fn nic(c: &NicCreate) -> Vec<On<'_>> {
    let of = c.machine.as_ref().map_or(On::Group(c.group.as_ref()), On::Machine);
    let switch = c.switch.as_ref().map(|switch| On::Switch(switch, c.group.as_ref(), c.machine.as_ref()));
    // Its ports are the host's.
    let ports = (!c.forwards.is_empty()).then_some(On::Host);
    [Some(of), switch, ports].into_iter().flatten().collect()
}

fn nic_set(c: &NicSet) -> Vec<On<'_>> {
    let switch = c.switch.as_ref().map(|switch| On::NicsSwitch(switch, &c.nic));
    let ports = c.forwards.as_ref().is_some_and(|forwards| !forwards.is_empty()).then_some(On::Host);
    [Some(On::Nic(&c.nic)), switch, ports].into_iter().flatten().collect()
}

fn moved(what: &Moved) -> On<'_> {
    match what {
        Moved::Machine(machine) => On::Machine(machine),
        Moved::Disk(disk) => On::Disk(disk, ""),
    }
}

fn role(group: Option<&Ref>) -> On<'_> {
    group.map_or(On::Host, |group| On::Group(Some(group)))
}
