//! Counters.

use super::{invalid, named, time};
use prost_types::Duration;
use skep_api::v1;
use skep_proto::Refusal;
use skep_proto::broker::{INTERVALS, StatsView, StatsWatch};
use skep_proto::runner::DiskStats;

/// Between two readings, if nothing is said.
const INTERVAL_MS: u32 = 2_000;

/// `WatchStats`.
pub fn watch(request: &v1::WatchMachineStatsRequest) -> Result<StatsWatch, Refusal> {
    let machine = named("machine", "machine", &request.machine)?;
    let interval_ms = request.interval.as_ref().map_or(Some(INTERVAL_MS), milliseconds);
    let interval_ms = interval_ms.filter(|ms| INTERVALS.contains(ms));
    let given = request.interval.unwrap_or_default();
    let note = format_args!("{} s and {} ns are not 1 s to 1 h in whole milliseconds", given.seconds, given.nanos).to_string();
    let wrong = || invalid("machine", "interval", note);
    Ok(StatsWatch { interval_ms: interval_ms.ok_or_else(wrong)?, machine })
}

fn milliseconds(given: &Duration) -> Option<u32> {
    let nanos = u32::try_from(given.nanos).ok().filter(|nanos| *nanos < 1_000_000_000 && nanos % 1_000_000 == 0)?;
    u32::try_from(given.seconds).ok()?.checked_mul(1000)?.checked_add(nanos / 1_000_000)
}

/// A reading.
pub fn stats(view: StatsView) -> v1::MachineStats {
    let seconds = i64::try_from(view.cpu_ns / 1_000_000_000).unwrap_or(i64::MAX);
    let nanos = i32::try_from(view.cpu_ns % 1_000_000_000).unwrap_or(0);
    let disk = |disk: &DiskStats| v1::DiskStats {
        slot: disk.slot.into(),
        read_bytes: disk.read_bytes,
        write_bytes: disk.write_bytes,
        read_ops: disk.read_ops,
        write_ops: disk.write_ops,
    };
    v1::MachineStats {
        cpu_time: Some(Duration { seconds, nanos }),
        memory_bytes: view.memory,
        disks: view.disks.iter().map(disk).collect(),
        nics: view
            .nics
            .into_iter()
            .map(|nic| v1::NicStats {
                id: nic.id.to_string(),
                name: nic.name.to_string(),
                rx_bytes: nic.rx_bytes,
                rx_packets: nic.rx_packets,
                tx_bytes: nic.tx_bytes,
                tx_packets: nic.tx_packets,
            })
            .collect(),
        read_time: time(view.read_ns),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_has_bounds() {
        let ask = |interval| watch(&v1::WatchMachineStatsRequest { machine: "web1".into(), interval }).map(|w| w.interval_ms);
        let of = |seconds, nanos| ask(Some(Duration { seconds, nanos })).map_err(|refusal| refusal.field.to_string());
        assert_eq!((ask(None), of(1, 0), of(3600, 0)), (Ok(2000), Ok(1000), Ok(3_600_000)));
        assert_eq!(of(1, 500_000_000), Ok(1500));
        let wrong = [(0, 0), (0, 999_000_000), (3600, 1_000_000), (-1, 0), (i64::MAX, 0), (2, -1), (2, 1), (2, 1_000_000_000)];
        for (seconds, nanos) in wrong {
            assert_eq!(of(seconds, nanos), Err("interval".into()), "{seconds} {nanos}");
            let refusal = ask(Some(Duration { seconds, nanos })).expect_err("refused");
            let says = format!("{seconds} s and {nanos} ns are not 1 s to 1 h in whole milliseconds");
            assert_eq!(refusal.note.as_str(), says);
        }
    }
}
