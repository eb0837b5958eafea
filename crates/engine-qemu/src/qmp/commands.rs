//! Lines that we send, and what is read out of their answers. Each has an id, which its answer repeats, and ends with a newline.

use serde_json::{Value, json};

fn command(id: u64, name: &str, arguments: Value) -> String {
    let mut object = json!({ "execute": name, "id": id });
    if let (Some(object), false) = (object.as_object_mut(), arguments.is_null()) {
        object.insert("arguments".into(), arguments);
    }
    format!("{object}\n")
}

/// Leaves the greeting mode; the first command always.
pub fn capabilities(id: u64) -> String {
    command(id, "qmp_capabilities", Value::Null)
}
/// Lets the virtual CPUs run.
pub fn cont(id: u64) -> String {
    command(id, "cont", Value::Null)
}
/// Stops the virtual CPUs.
pub fn stop(id: u64) -> String {
    command(id, "stop", Value::Null)
}
/// Presses the reset button; under [`crate::ARGV`] QEMU ends.
pub fn system_reset(id: u64) -> String {
    command(id, "system_reset", Value::Null)
}
/// Presses the power button.
pub fn system_powerdown(id: u64) -> String {
    command(id, "system_powerdown", Value::Null)
}
/// Ends QEMU at once; what the guest has written is kept.
pub fn quit(id: u64) -> String {
    command(id, "quit", Value::Null)
}
/// Takes the medium out of a CD drive, whether the guest has locked it or not.
pub fn eject(id: u64, slot: u8) -> String {
    command(id, "eject", json!({ "id": device_id(&disk_id(slot)), "force": true }))
}
/// Pulls a NIC's cable, or plugs it in.
pub fn set_link(id: u64, slot: u8, up: bool) -> String {
    command(id, "set_link", json!({ "name": nic_id(slot), "up": up }))
}
/// Holds a disk to rates, from now on.
pub fn limit_disk(id: u64, slot: u8, rates: skep_machine::DiskRates) -> String {
    let many = |rate: Option<u64>| rate.unwrap_or(0);
    let both = json!({
        "device": disk_id(slot), "bps": 0, "iops": 0, "bps_rd": many(rates.read_bps), "bps_wr": many(rates.write_bps),
        "iops_rd": many(rates.read_iops), "iops_wr": many(rates.write_iops),
    });
    command(id, "block_set_io_throttle", both)
}
/// Gives a disk another size in bytes, and its guest that to see.
pub fn resize_disk(id: u64, slot: u8, size: u64) -> String {
    command(id, "block_resize", json!({ "device": disk_id(slot), "size": size }))
}
/// Asks for the state of the machine.
pub fn query_status(id: u64) -> String {
    command(id, "query-status", Value::Null)
}
/// Asks for the counters that [`block_stats`] reads.
pub fn query_block_stats(id: u64) -> String {
    command(id, "query-blockstats", Value::Null)
}
/// Asks for the threads of the virtual CPUs, which [`cpu_threads`] reads.
pub fn query_cpus(id: u64) -> String {
    command(id, "query-cpus-fast", Value::Null)
}
/// Names the descriptor that is sent along (`SCM_RIGHTS`, with the first byte of this line).
pub fn getfd(id: u64, name: &str) -> String {
    command(id, "getfd", json!({ "fdname": name }))
}
/// Makes the descriptor given by [`getfd`], one end of a stream socket pair, a connection to the screen.
pub fn add_vnc_client(id: u64, name: &str) -> String {
    command(id, "add_client", json!({ "protocol": "vnc", "fdname": name }))
}
/// Makes the descriptor given by [`getfd`] the other side of a serial port whose peer is gone.
pub fn replace_serial(id: u64, port: u8, name: &str) -> String {
    let socket = json!({ "addr": { "type": "fd", "data": { "str": name } }, "server": false });
    command(id, "chardev-change", json!({ "id": serial_id(port), "backend": { "type": "socket", "data": socket } }))
}

/// Asks for what [`channel`] reads.
pub fn query_chardevs(id: u64) -> String {
    command(id, "query-chardev", Value::Null)
}
/// Makes the descriptor given by [`getfd`] the host's end of a channel, whose former one is gone.
pub fn connect_channel(id: u64, port: u8, name: &str) -> String {
    let socket = json!({ "addr": { "type": "fd", "data": { "str": name } }, "server": false });
    command(id, "chardev-change", json!({ "id": channel_id(port), "backend": { "type": "socket", "data": socket } }))
}

/// What QEMU calls a channel's character device.
pub fn channel_id(port: u8) -> String {
    format!("channel{port}")
}
/// Reads the answer to [`query_chardevs`]: whether somebody is at the host's end of a channel; `None`: there is no such channel.
pub fn channel(answer: &Value, port: u8) -> Option<bool> {
    let id = channel_id(port);
    let is_it = |entry: &&Value| entry.get("label").and_then(Value::as_str) == Some(&id);
    let file = answer.as_array()?.iter().find(is_it)?.get("filename").and_then(Value::as_str)?;
    // What it begins with, and what a socket becomes whose peer is gone (chardev/char-socket.c).
    Some(file != "null" && !file.starts_with("disconnected:"))
}

/// What QEMU calls the character device of a debugger's connection: a new one for each, for it takes the former one down only when it
/// has the new one.
fn gdb_id(number: u64) -> String {
    format!("gdb{number}")
}
/// Makes the descriptor given by [`getfd`] a character device, for [`serve_gdb`].
pub fn add_gdb_line(id: u64, number: u64, name: &str) -> String {
    let socket = json!({ "addr": { "type": "fd", "data": { "str": name } }, "server": false });
    command(id, "chardev-add", json!({ "id": gdb_id(number), "backend": { "type": "socket", "data": socket } }))
}
/// Serves a debugger there: the guest stands still from then on. There is no such command but this, whose answer is text for people.
pub fn serve_gdb(id: u64, number: u64) -> String {
    let line = format!("gdbserver chardev:{}", gdb_id(number));
    command(id, "human-monitor-command", json!({ "command-line": line }))
}
/// Takes down what [`add_gdb_line`] made, where [`serve_gdb`] failed.
pub fn remove_gdb_line(id: u64, number: u64) -> String {
    command(id, "chardev-remove", json!({ "id": gdb_id(number) }))
}
/// Reads the answer to [`query_chardevs`]: whether a debugger is connected.
pub fn has_gdb(answer: &Value) -> bool {
    let text = |entry: &Value, key| entry.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let is_one = |entry: &Value| text(entry, "label").strip_prefix("gdb").is_some_and(|n| n.parse::<u64>().is_ok());
    answer.as_array().into_iter().flatten().any(|entry| is_one(entry) && !text(entry, "filename").starts_with("disconnected:"))
}

/// What QEMU calls the device in front of a disk.
pub fn device_id(disk: &str) -> String {
    format!("dev-{disk}")
}
/// What QEMU calls the disk in a slot.
pub fn disk_id(slot: u8) -> String {
    format!("disk{slot}")
}
/// What QEMU calls the file of the disk in a slot that stands on so many layers.
pub fn node_id(slot: u8, layers: usize) -> String {
    format!("disk{slot}-{layers}")
}
/// What QEMU calls the NIC in a slot.
pub fn nic_id(slot: u8) -> String {
    format!("net{slot}")
}
/// The set that holds the descriptor of such a file that came while QEMU runs.
fn layer_set(slot: u8, at: u8) -> u32 {
    2000 + u32::from(slot) * 256 + u32::from(at)
}
/// Takes the descriptor that is sent along as a file for the disk in a slot that will stand on `at` layers.
pub fn add_layer_fd(id: u64, slot: u8, at: u8) -> String {
    command(id, "add-fd", json!({ "fdset-id": layer_set(slot, at) }))
}
/// Takes back what [`add_layer_fd`] gave.
pub fn remove_layer_fd(id: u64, slot: u8, at: u8) -> String {
    command(id, "remove-fd", json!({ "fdset-id": layer_set(slot, at) }))
}
/// Opens that file, which nothing uses yet. As in the configuration, nothing that it says of what is under it is followed.
pub fn add_layer(id: u64, slot: u8, at: u8, no_cache: bool) -> String {
    let cache = json!({ "direct": no_cache, "no-flush": false });
    let name = format!("/dev/fdset/{}", layer_set(slot, at));
    let file = json!({ "driver": "file", "filename": name, "locking": "off", "auto-read-only": false, "cache": cache });
    let node = json!({
        "driver": "qcow2", "node-name": node_id(slot, at.into()), "backing": null, "read-only": false, "auto-read-only": false,
        "discard": "unmap", "cache": cache, "file": file,
    });
    command(id, "blockdev-add", node)
}
/// Closes it.
pub fn remove_layer(id: u64, slot: u8, at: u8) -> String {
    command(id, "blockdev-del", json!({ "node-name": node_id(slot, at.into()) }))
}
/// Puts such files upon those that disks are in, all at one moment.
pub fn switch_disks(id: u64, disks: &[(u8, u8)]) -> String {
    let one = |(slot, at): &(u8, u8)| {
        let (old, new) = (node_id(*slot, usize::from(at.saturating_sub(1))), node_id(*slot, usize::from(*at)));
        json!({ "type": "blockdev-snapshot", "data": { "node": old, "overlay": new } })
    };
    command(id, "transaction", json!({ "actions": disks.iter().map(one).collect::<Vec<_>>() }))
}
/// What QEMU calls a serial port's character device.
pub fn serial_id(port: u8) -> String {
    format!("com{}", u16::from(port) + 1)
}
/// The slot of a disk that QEMU names.
pub(super) fn disk_slot(id: &str) -> Option<u8> {
    id.strip_prefix("disk").filter(|n| !n.starts_with('+')).and_then(|n| n.parse().ok())
}

/// Counters of one disk since QEMU's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BlockStats {
    /// Slot.
    pub slot: u8,
    /// Bytes that the guest read.
    pub read_bytes: u64,
    /// Bytes that the guest wrote.
    pub write_bytes: u64,
    /// Reads.
    pub read_ops: u64,
    /// Writes.
    pub write_ops: u64,
}

/// Reads the answer to [`query_cpus`]: the thread of each virtual CPU, by its number. What is not understood is left out.
pub fn cpu_threads(answer: &Value) -> std::collections::BTreeMap<u16, i32> {
    let number = |entry: &Value, key: &str| entry.get(key).and_then(Value::as_u64);
    let thread = |entry: &Value| {
        let thread = i32::try_from(number(entry, "thread-id")?).ok().filter(|thread| *thread > 0)?;
        Some((u16::try_from(number(entry, "cpu-index")?).ok()?, thread))
    };
    answer.as_array().into_iter().flatten().filter_map(thread).collect()
}

/// Reads the answer to [`query_block_stats`]: our disks, each once, by slot. What is not understood is left out.
pub fn block_stats(answer: &Value) -> Vec<BlockStats> {
    let mut disks = std::collections::BTreeMap::new();
    for entry in answer.as_array().into_iter().flatten() {
        let Some(slot) = entry.get("device").and_then(Value::as_str).and_then(disk_slot) else {
            continue;
        };
        if slot >= skep_machine::limits::DISKS {
            continue;
        }
        let count = |key| entry.get("stats").and_then(|s| s.get(key)).and_then(Value::as_u64).unwrap_or(0);
        disks.insert(
            slot,
            BlockStats {
                slot,
                read_bytes: count("rd_bytes"),
                write_bytes: count("wr_bytes"),
                read_ops: count("rd_operations"),
                write_ops: count("wr_operations"),
            },
        );
    }
    disks.into_values().collect()
}
