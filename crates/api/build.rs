//! Compiles `proto/skep/v1` to Rust, and keeps its descriptors for gRPC reflection. Needs no protoc.

use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = [
        "machines",
        "boot",
        "devices",
        "limits",
        "firmware",
        "disks",
        "switches",
        "nics",
        "operations",
        "events",
        "host",
        "users",
        "groups",
        "stats",
    ];
    let files = files.map(|name| format!("skep/v1/{name}.proto"));
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true).open_files(files)?;
    let described = compiler.file_descriptor_set();
    // Clients that reflect need names and types, not comments.
    fs::write(out.join("skep.v1.bin"), compiler.include_source_info(false).encode_file_descriptor_set())?;
    tonic_prost_build::configure().bytes(".").compile_fds(described)?;
    Ok(())
}
