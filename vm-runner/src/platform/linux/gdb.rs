//! A debugger, joined to a running QEMU.

use super::qemu::Engine;
use skep_engine_qemu::qmp;
use skep_proto::{Reason, Refusal};
use skep_sys::sock;
use std::os::fd::{AsFd, OwnedFd};

impl Engine {
    /// Joins a debugger, and returns its end. QEMU stops the guest.
    pub fn connect_gdb(&mut self) -> Result<OwnedFd, Refusal> {
        let chardevs = self.call("gdb", &[], qmp::query_chardevs)?;
        if qmp::has_gdb(&chardevs) {
            return Err(Refusal::new(Reason::InUse, "gdb").note("another debugger is connected"));
        }
        let (ours, theirs) = sock::stream_pair().map_err(|e| Refusal::io("gdb", "make a socket pair", &e))?;
        let number = self.next_id();
        self.call("gdb", &[theirs.as_fd()], |id| qmp::getfd(id, "gdb"))?;
        self.call("gdb", &[], |id| qmp::add_gdb_line(id, number, "gdb"))?;
        // It stops the guest itself, but tells a second debugger so before he asked, who takes it for the answer to his first question.
        let ran = self.call("gdb", &[], qmp::query_status)?.get("running").and_then(|r| r.as_bool()) == Some(true);
        self.call("gdb", &[], qmp::stop)?;
        let said = self.call("gdb", &[], |id| qmp::serve_gdb(id, number))?;
        // It answers with what it would tell a person: nothing, if all went well.
        let said = said.as_str().unwrap_or_default().trim();
        if !said.is_empty() && said != "Disabled gdbserver" && !said.starts_with("Waiting for gdb connection") {
            let _ = self.call("gdb", &[], |id| qmp::remove_gdb_line(id, number));
            if ran {
                let _ = self.call("gdb", &[], qmp::cont);
            }
            return Err(Refusal::new(Reason::HypervisorFailed, "gdb").note(said));
        }
        Ok(ours)
    }
}
