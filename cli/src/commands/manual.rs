//! What is printed from the definitions: manual pages, exit codes.

use crate::args::{self, Args};
use crate::error::Failure;
use crate::output::Output;
use clap::CommandFactory;
use serde_json::json;
use skep_proto::Reason;
use std::fs;
use std::path::Path;

/// Writes a manual page for each command.
pub fn man(dir: &Path, output: Output) -> Result<u8, Failure> {
    let failed = |e: &std::io::Error| Failure::io(dir.display(), "write manual pages", e);
    fs::create_dir_all(dir).map_err(|e| failed(&e))?;
    let mut command = Args::command();
    command.build();
    pages(&command, dir).map_err(|e| failed(&e))?;
    if output.json {
        output.line(json!({"directory": dir}));
    }
    Ok(0)
}

fn pages(command: &clap::Command, dir: &Path) -> std::io::Result<()> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).replace(' ', "-");
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).title(name.to_uppercase()).render(&mut page)?;
    fs::write(dir.join(format!("{name}.1")), page)?;
    command.get_subcommands().filter(|c| c.get_name() != "help").try_for_each(|c| pages(c, dir))
}

/// Prints the table of exit codes.
pub fn exit_codes(output: Output) -> Result<u8, Failure> {
    if output.json {
        for reason in Reason::ALL {
            let row = reason.row();
            output.line(json!({"exit": row.exit, "reason": row.name, "text": row.text, "advice": row.advice}));
        }
    } else {
        output.line(args::exit_codes().trim_end());
    }
    Ok(0)
}
