//! QMP, QEMU's control protocol (docs/interop/qmp-spec.txt): one JSON object a line, both ways.
//!
//! What QEMU says is hostile input: a guest that has taken it over speaks here. Lines are bounded, unknown events and fields are
//! passed over, anything else is an error that ends the talk, never the process.

mod commands;
mod parse;

pub use commands::{
    BlockStats, add_gdb_line, add_layer, add_layer_fd, add_vnc_client, block_stats, capabilities, channel, channel_id,
    connect_channel, cont, cpu_threads, device_id, disk_id, eject, getfd, has_gdb, limit_disk, nic_id, node_id,
    query_block_stats, query_chardevs, query_cpus, query_status, quit, remove_gdb_line, remove_layer, remove_layer_fd,
    replace_serial, resize_disk, serial_id, serve_gdb, set_link, stop, switch_disks, system_powerdown, system_reset,
};
pub use parse::{Bad, Event, LONGEST_LINE, Line, Reader, Reason, Reply, parse};
