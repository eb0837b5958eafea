//! `skep vm stats`.

use super::Ctx;
use crate::error::Failure;
use crate::output::{Column, bytes};
use crate::view;
use skep_api::v1::{MachineStats, MachineStatsRequest, WatchMachineStatsRequest};
use skep_proto::Reason;
use std::time::Duration;

/// Shows one reading as a table; with an interval, what is used from reading to reading.
pub async fn run(ctx: &Ctx, machine: String, every: Option<Duration>) -> Result<(), Failure> {
    let mut api = ctx.api.machines();
    let Some(every) = every else {
        let stats = api.stats(MachineStatsRequest { machine }).await?.into_inner();
        if ctx.output.json {
            ctx.output.line(view::stats(&stats));
        } else {
            ctx.output.list(COUNTERS, counters(&stats).into_iter().map(|row| (serde_json::Value::Null, row)));
        }
        return Ok(());
    };
    let wrong = |_| Failure::new(Reason::InvalidValue, "machine", format_args!("--interval: {every:?} is too long"));
    let interval = Some(prost_types::Duration::try_from(every).map_err(wrong)?);
    let mut stream = api.watch_stats(WatchMachineStatsRequest { machine, interval }).await?.into_inner();
    let mut before: Option<MachineStats> = None;
    if !ctx.output.json {
        ctx.output.line(line(["TIME", "CPU", "MEMORY", "READ/s", "WRITE/s", "RECEIVED/s", "SENT/s"].map(String::from)));
    }
    while let Some(stats) = stream.message().await? {
        match (&before, ctx.output.json) {
            (_, true) => ctx.output.line(view::stats(&stats)),
            (Some(before), false) => ctx.output.line(line(used(before, &stats))),
            // Of one reading alone nothing can be said yet.
            (None, false) => {}
        }
        before = Some(stats);
    }
    Ok(())
}

const COUNTERS: &[Column] = &[Column::Left("OF"), Column::Left("COUNTER"), Column::Right("VALUE")];

fn counters(stats: &MachineStats) -> Vec<Vec<String>> {
    let cpu = view::nanoseconds(stats.cpu_time.as_ref());
    let mut rows = vec![("cpu".to_owned(), "time", format!("{}.{:03} s", cpu / 1_000_000_000, cpu / 1_000_000 % 1000))];
    if stats.memory_bytes > 0 {
        rows.push(("memory".into(), "used", bytes(stats.memory_bytes)));
    }
    for disk in &stats.disks {
        let of = || format!("disk {}", disk.slot);
        rows.push((of(), "read", bytes(disk.read_bytes)));
        rows.push((of(), "written", bytes(disk.write_bytes)));
        rows.push((of(), "reads", disk.read_ops.to_string()));
        rows.push((of(), "writes", disk.write_ops.to_string()));
    }
    for nic in &stats.nics {
        let of = || format!("nic {}", nic.name);
        rows.push((of(), "received", bytes(nic.rx_bytes)));
        rows.push((of(), "sent", bytes(nic.tx_bytes)));
        rows.push((of(), "frames received", nic.rx_packets.to_string()));
        rows.push((of(), "frames sent", nic.tx_packets.to_string()));
    }
    rows.into_iter().map(|(of, counter, value)| vec![of, counter.to_owned(), value]).collect()
}

fn line(columns: [String; 7]) -> String {
    let [time, cpu, memory, read, write, received, sent] = columns;
    format!("{time:<10}{cpu:>8}{memory:>12}{read:>12}{write:>12}{received:>12}{sent:>12}")
}

/// What was used between two readings.
fn used(before: &MachineStats, now: &MachineStats) -> [String; 7] {
    let at = |stats: &MachineStats| {
        let time = stats.read_time.unwrap_or_default();
        i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos)
    };
    let span = u128::try_from(at(now) - at(before)).unwrap_or(0).max(1);
    // After a restart of its hypervisor counters begin anew.
    let each = |of: fn(&MachineStats) -> u64, times: u128| u128::from(of(now).saturating_sub(of(before))) * times / span;
    let a_second = |of| bytes(u64::try_from(each(of, 1_000_000_000)).unwrap_or(u64::MAX));
    let tenths = each(|stats| view::nanoseconds(stats.cpu_time.as_ref()), 1000);
    let clock = view::time(now.read_time.as_ref());
    let clock = clock.as_str().and_then(|text| text.get(11..19)).unwrap_or_default().to_owned();
    [
        clock,
        format!("{}.{} %", tenths / 10, tenths % 10),
        bytes(now.memory_bytes),
        a_second(|stats| stats.disks.iter().map(|disk| disk.read_bytes).sum()),
        a_second(|stats| stats.disks.iter().map(|disk| disk.write_bytes).sum()),
        a_second(|stats| stats.nics.iter().map(|nic| nic.rx_bytes).sum()),
        a_second(|stats| stats.nics.iter().map(|nic| nic.tx_bytes).sum()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(seconds: i64, cpu: i64, written: u64) -> MachineStats {
        MachineStats {
            cpu_time: Some(prost_types::Duration { seconds: cpu, nanos: 500_000_000 }),
            read_time: Some(prost_types::Timestamp { seconds, nanos: 0 }),
            memory_bytes: 1 << 20,
            disks: vec![skep_api::v1::DiskStats { write_bytes: written, ..Default::default() }],
            nics: vec![],
        }
    }

    #[test]
    fn what_is_used_is_counted_between_readings() {
        let [time, cpu, memory, _, write, ..] = used(&reading(100, 1, 0), &reading(104, 3, 4096));
        assert_eq!((time.as_str(), cpu.as_str()), ("00:01:44", "50.0 %"));
        assert_eq!((memory, write), (bytes(1 << 20), bytes(1024)));
        // The hypervisor was restarted; and a clock that stands still divides by nothing.
        assert_eq!(used(&reading(100, 9, 9), &reading(104, 1, 0))[1], "0.0 %");
        used(&reading(100, 1, 0), &reading(100, 3, 4096));
    }
}
