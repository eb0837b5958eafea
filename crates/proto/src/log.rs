//! Whose logs there are.

use serde::{Deserialize, Serialize};

/// A service that has a log. From [`ServiceName::Console`] on: all of a kind have one, which the spawner keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceName {
    /// broker
    Broker,
    /// api-frontend
    Frontend,
    /// storage-helper
    Storage,
    /// net-helper
    Net,
    /// vm-runner, the spawner
    Spawner,
    /// console-proxies
    Console,
    /// guest-services
    GuestServices,
    /// image-fetchers
    Fetcher,
    /// iscsi-initiators
    Initiator,
    /// disk-servers (FreeBSD)
    DiskServer,
}

impl ServiceName {
    /// All.
    pub const ALL: [ServiceName; 10] = [
        ServiceName::Broker,
        ServiceName::Frontend,
        ServiceName::Storage,
        ServiceName::Net,
        ServiceName::Spawner,
        ServiceName::Console,
        ServiceName::GuestServices,
        ServiceName::Fetcher,
        ServiceName::Initiator,
        ServiceName::DiskServer,
    ];

    /// As users say it, and as its file is called.
    pub const fn word(self) -> &'static str {
        match self {
            ServiceName::Broker => "broker",
            ServiceName::Frontend => "api-frontend",
            ServiceName::Storage => "storage-helper",
            ServiceName::Net => "net-helper",
            ServiceName::Spawner => "vm-runner",
            ServiceName::Console => "console-proxy",
            ServiceName::GuestServices => "guest-services",
            ServiceName::Fetcher => "image-fetcher",
            ServiceName::Initiator => "iscsi-initiator",
            ServiceName::DiskServer => "disk-server",
        }
    }
}
