//! Why QEMU ended. Its exit code says nothing (0 for a reboot, a power-off and a panic alike), so its events count first; they are never
//! lost: the socket holds them after QEMU is gone. Read it to its end before judging.

use crate::qmp::{Event, Reason};
use skep_machine::{Ended, Exit};

/// What one run of QEMU has said so far, as far as it matters to its end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct History {
    panicked: bool,
    shutdown: Option<Reason>,
}

impl History {
    /// Takes note of an event.
    pub fn note(&mut self, event: Event) {
        match event {
            Event::Panicked => self.panicked = true,
            // The first one counts: what follows it is our own clean-up.
            Event::Shutdown(reason) if self.shutdown.is_none() => self.shutdown = Some(reason),
            _ => {}
        }
    }
    /// The verdict, when QEMU is gone and its socket is read to the end.
    pub fn ended(&self, exit: Exit) -> Ended {
        match self.shutdown {
            Some(Reason::GuestPanic) => Ended::Panic,
            // A guest told to reboot after its panic (panic=N) has panicked all the same, if it said so.
            Some(Reason::GuestReboot | Reason::GuestPowerOff) if self.panicked => Ended::Panic,
            Some(Reason::GuestReboot) => Ended::GuestReboot,
            Some(Reason::GuestPowerOff) => Ended::GuestPowerOff,
            Some(Reason::Quit | Reason::Signal) => Ended::HostStop,
            Some(Reason::Reset) => Ended::Reset,
            Some(Reason::Other) | None => Ended::Crash(exit),
        }
    }
}
