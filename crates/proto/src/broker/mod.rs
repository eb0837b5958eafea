//! The broker's sessions: what a frontend may ask in the name of one client connection.
//!
//! The first request on a connection is [`OpenSession`]; everything after it is done in the name of who that turned out to be.
//! Long work is answered with an operation; streams are answered with a descriptor. Lists come in pages that fit a record.

mod access;
mod devices;
mod disk;
mod event;
mod firmware;
mod launch;
mod machine;
mod network;
mod rules;
mod session;
mod stats;
mod stream;
mod upkeep;
mod whole;

pub use crate::vars::{VarPage, VarPiece, VarState, VarsEdited};
pub use access::*;
pub use devices::*;
pub use disk::*;
pub use event::*;
pub use firmware::*;
pub use launch::*;
pub use machine::*;
pub use network::*;
pub use rules::*;
pub use session::*;
pub use stats::*;
pub use stream::*;
pub use upkeep::*;
pub use whole::*;

pub use crate::storage::{LogOpened, ServiceName};
use crate::{NoFds, OneFd, UpTo, protocol::protocol};

protocol! {
    /// The protocol of the broker; its only client is api-frontend.
    Broker = "broker", version 27, oldest 27, BrokerRequest {
        0 OpenSession [UpTo<1>] => SessionState [NoFds];
        1 HostShow [NoFds] => HostView [NoFds];
        2 TokenCreate [NoFds] => TokenMade [NoFds];
        3 MachineCreate [NoFds] => MachineView [NoFds];
        4 MachineGet [NoFds] => MachineView [NoFds];
        5 MachineList [NoFds] => MachinePage [NoFds];
        6 MachineSet [NoFds] => MachineEdited [NoFds];
        7 MachineRename [NoFds] => MachineView [NoFds];
        8 MachineAct [NoFds] => OperationView [NoFds];
        9 MachineClone [NoFds] => OperationView [NoFds];
        10 MachineDelete [NoFds] => OperationView [NoFds];
        11 MachineConsole [NoFds] => ConsoleAttached [OneFd];
        12 MachineScreen [NoFds] => Done [OneFd];
        13 MachineLog [NoFds] => LogOpened [UpTo<3>];
        14 MachineStats [NoFds] => StatsView [NoFds];
        15 DiskCreate [NoFds] => DiskView [NoFds];
        16 DiskImport [NoFds] => OperationView [UpTo<1>];
        17 DiskClone [NoFds] => OperationView [NoFds];
        18 DiskResize [NoFds] => DiskView [NoFds];
        19 DiskGet [NoFds] => DiskView [NoFds];
        20 DiskList [NoFds] => DiskPage [NoFds];
        21 DiskDelete [NoFds] => Done [NoFds];
        22 SwitchCreate [NoFds] => SwitchView [NoFds];
        23 SwitchList [NoFds] => SwitchPage [NoFds];
        24 SwitchDelete [NoFds] => Done [NoFds];
        25 NicCreate [NoFds] => NicView [NoFds];
        26 NicAttach [NoFds] => NicView [NoFds];
        27 NicDetach [NoFds] => NicView [NoFds];
        28 NicList [NoFds] => NicPage [NoFds];
        29 NicDelete [NoFds] => Done [NoFds];
        30 OperationGet [NoFds] => OperationView [NoFds];
        31 OperationList [NoFds] => OperationPage [NoFds];
        32 OperationCancel [NoFds] => OperationView [NoFds];
        33 EventWatch [NoFds] => Done [OneFd];
        34 HostRest [NoFds] => Done [NoFds];
        35 SnapshotCreate [NoFds] => SnapshotView [NoFds];
        36 SnapshotList [NoFds] => SnapshotPage [NoFds];
        37 SnapshotRollBack [NoFds] => DiskView [NoFds];
        38 SnapshotDelete [NoFds] => Done [NoFds];
        39 MachineChannel [NoFds] => Done [OneFd];
        40 FirmwareList [NoFds] => VarPage [NoFds];
        41 FirmwareGet [NoFds] => VarPiece [NoFds];
        42 FirmwareEdit [NoFds] => VarsEdited [NoFds];
        43 TokenList [NoFds] => TokenPage [NoFds];
        44 TokenDelete [NoFds] => Done [NoFds];
        45 UserCreate [NoFds] => UserView [NoFds];
        46 UserGet [NoFds] => UserView [NoFds];
        47 UserList [NoFds] => UserPage [NoFds];
        48 UserDisable [NoFds] => UserView [NoFds];
        49 UserPassword [NoFds] => Done [NoFds];
        50 UserDelete [NoFds] => Done [NoFds];
        51 GroupCreate [NoFds] => GroupView [NoFds];
        52 GroupList [NoFds] => GroupPage [NoFds];
        53 GroupQuota [NoFds] => GroupView [NoFds];
        54 GroupAdd [NoFds] => Done [NoFds];
        55 GroupDelete [NoFds] => Done [NoFds];
        56 RoleGrant [NoFds] => Done [NoFds];
        57 RoleRevoke [NoFds] => Done [NoFds];
        58 RoleList [NoFds] => RolePage [NoFds];
        59 SwitchOpen [NoFds] => SwitchView [NoFds];
        60 MachineEject [NoFds] => MachineView [NoFds];
        61 NicSet [NoFds] => NicView [NoFds];
        62 DiskSet [NoFds] => DiskView [NoFds];
        63 DiskWipe [NoFds] => DiskView [NoFds];
        64 SwitchGet [NoFds] => SwitchView [NoFds];
        65 SwitchSet [NoFds] => SwitchView [NoFds];
        66 NicGet [NoFds] => NicView [NoFds];
        67 NicClone [NoFds] => NicView [NoFds];
        68 StatsWatch [NoFds] => Done [OneFd];
        69 MetricsGet [NoFds] => MetricsPage [NoFds];
        70 HostLog [NoFds] => LogOpened [UpTo<3>];
        71 RequestKey [NoFds] => Done [NoFds];
        72 MachineLaunch [NoFds] => OperationView [UpTo<1>];
        73 MachineGdb [NoFds] => Done [OneFd];
        74 DiskExport [NoFds] => DiskView [OneFd];
        75 DiskFetch [NoFds] => OperationView [UpTo<2>];
        76 WholeCreate [NoFds] => WholeView [NoFds];
        77 WholeList [NoFds] => WholePage [NoFds];
        78 WholeRollBack [NoFds] => MachineView [NoFds];
        79 WholeDelete [NoFds] => Done [NoFds];
        80 IscsiCreate [NoFds] => DiskView [NoFds];
        81 GroupRename [NoFds] => GroupView [NoFds];
        82 UserRename [NoFds] => UserView [NoFds];
        83 SnapshotRename [NoFds] => SnapshotView [NoFds];
        84 WholeRename [NoFds] => WholeView [NoFds];
        85 CallTold [NoFds] => Done [NoFds];
    }
}
