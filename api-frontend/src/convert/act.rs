//! What is done with machines, and how refusals name their settings.

use super::invalid;
use skep_api::v1;
use skep_proto::broker::{Act, Stop};
use skep_proto::{Refusal, Text};

/// Settings, as the first parts of the paths of their fields.
const SETTINGS: [&str; 24] = [
    "cpus",
    "memory_mib",
    "boot",
    "acceleration",
    "screen",
    "disks",
    "cpu_percent",
    "description",
    "limits",
    "sound",
    "sound_out",
    "sound_in",
    "tpm",
    "channels",
    "upkeep",
    "shares",
    "screen_properties",
    "board",
    "fw_cfg",
    "places",
    "serial",
    "gdb",
    "controllers",
    "topology",
];

/// The broker names settings as such; in a client's request they are in `settings`.
pub fn of_settings(mut refusal: Refusal) -> Refusal {
    if refusal.field.as_str().split('.').next().is_some_and(|first| SETTINGS.contains(&first)) {
        refusal.field = Text::lossy(&format!("settings.{}", refusal.field));
    }
    refusal
}

/// Most milliseconds that a guest is given to power itself off.
const STOP_MS: u32 = 86_400_000;

/// An act, with what the request says of how it is done: only a stop can be told.
pub fn act(act: Act, request: &v1::MachineActRequest) -> Result<Act, Refusal> {
    let Act::Stop(_) = act else {
        let said = [("timeout", request.timeout.is_some()), ("force", request.force)].into_iter().find(|(_, said)| *said);
        return match said {
            Some((field, _)) => Err(invalid("machine", field, "only a stop has one")),
            None => Ok(act),
        };
    };
    let milliseconds = |given: &prost_types::Duration| {
        let (seconds, nanos) = (given.seconds, i64::from(given.nanos));
        let ms =
            (0..1_000_000_000).contains(&nanos).then(|| seconds.checked_mul(1_000)?.checked_add(nanos / 1_000_000)).flatten();
        let ms = ms.filter(|_| nanos % 1_000_000 == 0).and_then(|ms| u32::try_from(ms).ok()).filter(|ms| *ms <= STOP_MS);
        let note = || format!("{seconds} s and {nanos} ns are not 0 to 86400 seconds, to the millisecond");
        ms.ok_or_else(|| invalid("machine", "timeout", note()))
    };
    Ok(Act::Stop(Stop { timeout_ms: request.timeout.as_ref().map(milliseconds).transpose()?, force: request.force }))
}
