//! Prometheus's text format 0.0.4: <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use skep_proto::broker::{MachineMetrics, NicStats, StatsView};
use skep_proto::runner::DiskStats;
use std::fmt::{self, Display, Write};

/// A page of it.
#[derive(Default)]
struct Page(String);

impl Page {
    fn line(&mut self, line: fmt::Arguments<'_>) {
        // A String takes everything.
        let _ = self.0.write_fmt(line);
        self.0.push('\n');
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    fn sample(&mut self, name: &str, machine: &MachineMetrics, more: &[(&str, &dyn Display)], value: impl Display) {
        self.0.push_str(name);
        let own: [(&str, &dyn Display); 2] = [("machine", &machine.name), ("group", &machine.group)];
        for (number, (label, text)) in own.iter().chain(more).enumerate() {
            let text = text.to_string().replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n");
            let before = if number == 0 { '{' } else { ',' };
            let _ = write!(self.0, "{before}{label}=\"{text}\"");
        }
        self.line(format_args!("}} {value}"));
    }

    /// One value of each machine that has it.
    fn each<V: Display>(
        &mut self, machines: &[MachineMetrics], name: &str, kind: &str, help: &str, value: impl Fn(&MachineMetrics) -> Option<V>,
    ) {
        self.family(name, kind, help);
        for machine in machines {
            if let Some(value) = value(machine) {
                self.sample(name, machine, &[], value);
            }
        }
    }

    fn disks(&mut self, machines: &[MachineMetrics], name: &str, help: &str, value: fn(&DiskStats) -> u64) {
        self.family(name, "counter", help);
        for machine in machines {
            for disk in machine.stats.iter().flat_map(|stats| &stats.disks) {
                self.sample(name, machine, &[("slot", &disk.slot)], value(disk));
            }
        }
    }

    fn nics(&mut self, machines: &[MachineMetrics], name: &str, help: &str, value: fn(&NicStats) -> u64) {
        self.family(name, "counter", help);
        for machine in machines {
            for nic in machine.stats.iter().flat_map(|stats| &stats.nics) {
                self.sample(name, machine, &[("nic", &nic.name)], value(nic));
            }
        }
    }
}

/// Nanoseconds, in seconds.
struct Seconds(u64);

impl Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}

/// All of them.
pub fn page(machines: &[MachineMetrics]) -> String {
    let mut page = Page::default();
    page.family("skep_build_info", "gauge", "Version of the suite.");
    page.line(format_args!("skep_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION")));
    page.family("skep_machine_info", "gauge", "Id of the machine, which never changes.");
    for machine in machines {
        page.sample("skep_machine_info", machine, &[("id", &machine.id)], 1);
    }
    page.family("skep_machine_state", "gauge", "What the machine is doing: 1 for that state; of others there is no sample.");
    for machine in machines {
        page.sample("skep_machine_state", machine, &[("state", &machine.state.word())], 1);
    }
    let started = |m: &MachineMetrics| u64::try_from(m.started_ns).ok().filter(|ns| *ns > 0 && m.stats.is_some()).map(Seconds);
    page.each(machines, "skep_machine_start_time_seconds", "gauge", "When its hypervisor was started, since 1970.", started);
    page.each(machines, "skep_machine_cpus", "gauge", "Virtual CPUs.", |m| Some(m.cpus));
    let memory = |m: &MachineMetrics| Some(m.memory_mib.saturating_mul(1 << 20));
    page.each(machines, "skep_machine_memory_size_bytes", "gauge", "Memory that its guest has.", memory);
    let stats = |m: &MachineMetrics, value: fn(&StatsView) -> u64| m.stats.as_ref().map(value);
    let used = |m: &MachineMetrics| stats(m, |s| s.memory).filter(|bytes| *bytes > 0);
    page.each(machines, "skep_machine_memory_used_bytes", "gauge", "Memory that its cell takes of the host.", used);
    let cpu = |m: &MachineMetrics| stats(m, |s| s.cpu_ns).map(Seconds);
    page.each(machines, "skep_machine_cpu_seconds_total", "counter", "CPU time of its cell since its start.", cpu);
    page.disks(machines, "skep_machine_disk_read_bytes_total", "Bytes that its guest read.", |d| d.read_bytes);
    page.disks(machines, "skep_machine_disk_written_bytes_total", "Bytes that its guest wrote.", |d| d.write_bytes);
    page.disks(machines, "skep_machine_disk_reads_total", "Reads by its guest.", |d| d.read_ops);
    page.disks(machines, "skep_machine_disk_writes_total", "Writes by its guest.", |d| d.write_ops);
    page.nics(machines, "skep_machine_network_receive_bytes_total", "Bytes that its guest received.", |n| n.rx_bytes);
    page.nics(machines, "skep_machine_network_receive_packets_total", "Frames that its guest received.", |n| n.rx_packets);
    page.nics(machines, "skep_machine_network_transmit_bytes_total", "Bytes that its guest sent.", |n| n.tx_bytes);
    page.nics(machines, "skep_machine_network_transmit_packets_total", "Frames that its guest sent.", |n| n.tx_packets);
    page.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use skep_proto::broker::MachineState;
    use skep_proto::{MachineId, NicId, Text};

    fn machine() -> MachineMetrics {
        let disks = vec![DiskStats { slot: 1, read_bytes: 2, write_bytes: 3, read_ops: 4, write_ops: 5 }];
        let name = Text::lossy("web1-1");
        let nic = NicStats { id: NicId::from_u128(9), name, rx_bytes: 6, rx_packets: 7, tx_bytes: 8, tx_packets: 9 };
        let stats = StatsView { read_ns: 1, cpu_ns: 1_500_000_000, memory: 10, disks, nics: vec![nic] };
        MachineMetrics {
            id: MachineId::from_u128(5),
            name: "web1".parse().expect("a name"),
            group: Text::lossy("shop"),
            state: MachineState::Running,
            cpus: 2,
            memory_mib: 1,
            started_ns: 2_000_000_001,
            stats: Some(stats),
        }
    }

    #[test]
    fn every_family_has_help_type_and_samples() {
        let stopped =
            MachineMetrics { state: MachineState::Stopped, stats: None, name: "db".parse().expect("a name"), ..machine() };
        let page = page(&[machine(), stopped]);
        for line in [
            r#"skep_machine_info{machine="web1",group="shop",id="00000000-0000-0000-0000-000000000005"} 1"#,
            r#"skep_machine_state{machine="db",group="shop",state="stopped"} 1"#,
            r#"skep_machine_start_time_seconds{machine="web1",group="shop"} 2.000000001"#,
            r#"skep_machine_memory_size_bytes{machine="web1",group="shop"} 1048576"#,
            r#"skep_machine_cpu_seconds_total{machine="web1",group="shop"} 1.500000000"#,
            r#"skep_machine_disk_written_bytes_total{machine="web1",group="shop",slot="1"} 3"#,
            r#"skep_machine_network_transmit_packets_total{machine="web1",group="shop",nic="web1-1"} 9"#,
        ] {
            assert!(page.lines().any(|l| l == line), "{line} is missing in\n{page}");
        }
        assert!(!page.contains(r#"cpu_seconds_total{machine="db""#), "{page}");
        let mut family = String::new();
        for line in page.lines() {
            match line.strip_prefix("# HELP ").or_else(|| line.strip_prefix("# TYPE ")) {
                Some(rest) => family = rest.split(' ').next().expect("a name").to_owned(),
                None => assert_eq!(line.split('{').next(), Some(family.as_str()), "{line}"),
            }
        }
        assert!(page.ends_with('\n'));
    }

    #[test]
    fn a_label_cannot_break_out() {
        let hostile = MachineMetrics { group: Text::lossy("a\"} 1\nb\\"), stats: None, ..machine() };
        let page = page(&[hostile]);
        // A text holds no line feed in the first place.
        assert!(page.contains(r#"skep_machine_cpus{machine="web1",group="a\"} 1 b\\"} 2"#), "{page}");
    }
}
