//! The files that the hypervisor reads at its start, copied from memory files into the cell's own `/run`.

use crate::platform::{Engine, Kit};
use skep_proto::cell::FdRole;
use skep_proto::{Reason, Refusal};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

/// Most bytes of a configuration.
const CONFIG: u64 = 256 << 10;

/// Writes them anew.
pub fn write(kit: &Kit) -> Result<(), Refusal> {
    let roles = [FdRole::Config, FdRole::Kernel, FdRole::Initrd];
    for (role, path) in roles.into_iter().zip(Engine::FILES) {
        let Some((_, source)) = kit.fds.iter().find(|(r, _)| *r == role) else { continue };
        let failed = |e: io::Error| {
            let refusal = Refusal::io(path, "write it into the cell", &e);
            if refusal.reason == Reason::NoSpace { Refusal { reason: Reason::TooLarge, ..refusal } } else { refusal }
        };
        let source = File::from(source.try_clone().map_err(failed)?);
        let most = if role == FdRole::Config { CONFIG } else { u64::MAX };
        copy(&source, path, most).map_err(failed)?;
    }
    Ok(())
}

/// By position: the source's offset is shared with whoever else holds it.
fn copy(source: &File, path: &str, most: u64) -> io::Result<()> {
    let mut target = File::create(path)?;
    let mut buffer = vec![0; 64 << 10];
    let mut at = 0;
    loop {
        match source.read_at(&mut buffer, at)? {
            0 => return Ok(()),
            n => {
                at += n as u64;
                if at > most {
                    return Err(io::Error::from(io::ErrorKind::FileTooLarge));
                }
                target.write_all(buffer.get(..n).unwrap_or_default())?;
            }
        }
    }
}
