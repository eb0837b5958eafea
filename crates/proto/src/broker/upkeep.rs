//! What is done with a machine when its host comes up or goes down, and when it ends by itself.

use serde::{Deserialize, Serialize};

/// When a machine that came to its end though nobody asked for it is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Restart {
    /// Never.
    #[default]
    Never,
    /// When it failed: its guest panicked, its hypervisor or its host ended.
    OnFailure,
    /// When it powered itself off, too.
    Always,
}

/// What is done with a machine when its host comes up or goes down, and when it ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upkeep {
    /// Whether it starts with the host.
    pub autostart: bool,
    /// Its turn among those that do, 0 to 9,999: the lowest first; when the host goes down, the highest first.
    pub order: u16,
    /// Seconds from its start to the next one's turn, 0 to 3,600.
    pub delay_s: u16,
    /// Whether it is started again.
    pub restart: Restart,
    /// Seconds that its guest has to power itself off, 1 to 86,400.
    pub stop_timeout_s: u32,
}

impl Default for Upkeep {
    fn default() -> Self {
        Self { autostart: false, order: 0, delay_s: 0, restart: Restart::Never, stop_timeout_s: 120 }
    }
}

/// Changes of [`Upkeep`]; `None`: the default (create) or as it is (set).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct UpkeepDraft {
    /// See [`Upkeep::autostart`].
    pub autostart: Option<bool>,
    /// See [`Upkeep::order`].
    pub order: Option<u16>,
    /// See [`Upkeep::delay_s`].
    pub delay_s: Option<u16>,
    /// See [`Upkeep::restart`].
    pub restart: Option<Restart>,
    /// See [`Upkeep::stop_timeout_s`].
    pub stop_timeout_s: Option<u32>,
}
