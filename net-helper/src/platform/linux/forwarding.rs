//! Whether the host forwards packets.

use super::{Host, HostError, rules};
use skep_proto::InstanceId;

/// Whether the host forwards packets of IPv4 (networking/ip-sysctl.rst of the kernel).
const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

/// Has the host do so while any switch of any suite needs it, and as it was afterwards.
pub fn bring(host: &mut Host, instance: InstanceId) -> Result<(), HostError> {
    const STEP: &str = "forward packets (net.ipv4.ip_forward)";
    if host.filter.is_none() {
        return Ok(());
    }
    let tables = host.tables()?;
    // Whoever's: another suite may have found it so.
    let needed = tables.iter().filter_map(|table| rules::bridge_of(table)).any(|(_, out)| out);
    let forwards = std::fs::read_to_string(FORWARD).map_err(HostError::step(STEP))?.trim() != "0";
    if needed && !forwards {
        // First what sees to it that nobody else's packets are forwarded because ours are.
        host.filter()?.all(rules::only_ours(instance)).map_err(HostError::step("keep others' packets back (nf_tables)"))?;
        std::fs::write(FORWARD, "1").map_err(HostError::step(STEP))?;
    }
    // Whichever suite made it so: the last one takes it back.
    let markers: Vec<&String> = tables.iter().filter(|table| rules::is_marker(table)).collect();
    if !needed && !markers.is_empty() {
        std::fs::write(FORWARD, "0").map_err(HostError::step(STEP))?;
        let gone = markers.into_iter().flat_map(|marker| rules::none(marker)).collect();
        host.filter()?.all(gone).map_err(HostError::step("take back a rule (nf_tables)"))?;
    }
    Ok(())
}
