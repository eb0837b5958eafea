//! Why bhyve ended.

use crate::BhyveRelease;
use skep_machine::{Ended, Exit};

/// The verdict of bhyve(8)'s exit status. It is not to be believed alone: without iasl in the cell, or with a configuration read at its
/// end, 13.2 starts a guest that panics and reboots at once, which is 0 as well. So quick ends are counted by the runner.
/// A running machine that somebody destroys gives 1 on 13 and 4 on 15.
pub fn ended(exit: Exit, release: BhyveRelease, destroyed_by_us: bool) -> Ended {
    match exit {
        Exit::Code(1) if destroyed_by_us && release < BhyveRelease::V15 => Ended::HostStop,
        Exit::Code(4) if destroyed_by_us => Ended::HostStop,
        Exit::Code(0) => Ended::GuestReboot,
        // 2: the guest halted all its CPUs.
        Exit::Code(1 | 2) => Ended::GuestPowerOff,
        // Triple fault.
        Exit::Code(3) => Ended::Panic,
        // Suspended by us.
        Exit::Code(5) => Ended::HostStop,
        // SIGTERM is the power button once the guest has enabled ACPI; before that it ends bhyve.
        Exit::Signal(15) => Ended::HostStop,
        other => Ended::Crash(other),
    }
}
