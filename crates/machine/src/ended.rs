//! Why a hypervisor ended: one verdict for both.

/// What `waitpid` said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It ended itself with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

/// Why a run of a hypervisor ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The guest rebooted.
    GuestReboot,
    /// The guest powered off, by itself or asked by the power button.
    GuestPowerOff,
    /// We told it to stop.
    HostStop,
    /// We pressed the reset button.
    Reset,
    /// The guest crashed: its kernel said so, or its processor gave up.
    Panic,
    /// It ended by itself, without a reason that it told; its last words are on its standard error.
    Crash(Exit),
}
