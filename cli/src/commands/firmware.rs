//! `skep vm firmware`.

use super::Ctx;
use super::pages::pages;
use crate::args::{DataArgs, FirmwareCommand};
use crate::error::Failure;
use crate::view;
use serde_json::json;
use skep_api::v1::{
    BootState, DeleteVariableRequest, GetVariableRequest, ListVariablesRequest, ResetFirmwareRequest, SetBootNextRequest,
    SetBootOrderRequest, SetVariableRequest,
};
use skep_proto::Reason;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

/// Bytes of a file that are read, at most: a little more than a variable may get, so that the answer says what is too much.
const MOST: u64 = 64 << 10;

/// Runs one.
pub async fn run(ctx: Ctx, command: FirmwareCommand) -> Result<u8, Failure> {
    let mut api = ctx.api.firmware();
    match command {
        FirmwareCommand::List { machine } => {
            let all = pages!(api.list_variables, variables, ListVariablesRequest { machine: machine.clone() });
            ctx.output.list(view::VARIABLES, all.iter().map(|v| (view::variable(v), view::variable_row(v))));
        }
        FirmwareCommand::Show { machine, variable, file } => {
            let got = api.get_variable(GetVariableRequest { machine, name: variable }).await?.into_inner();
            match file {
                Some(file) => write(&file, &got.data)?,
                None => ctx.output.object(&view::variable_with_data(&got)),
            }
        }
        FirmwareCommand::Set { machine, variable, data, attributes } => {
            let data = given(&variable, &data)?.into();
            let set = api.set_variable(SetVariableRequest { machine, name: variable, attributes, data }).await?.into_inner();
            ctx.made(&view::variable(&set), "variable", "set");
        }
        FirmwareCommand::Delete { machine, variable } => {
            api.delete_variable(DeleteVariableRequest { machine, name: variable.clone() }).await?;
            ctx.gone("variable", &variable);
        }
        FirmwareCommand::BootOrder { machine, entries } => {
            let request = SetBootOrderRequest { machine: machine.clone(), entries };
            boot(&ctx, &machine, &api.set_boot_order(request).await?.into_inner());
        }
        FirmwareCommand::BootNext { machine, entry, none: _ } => {
            let request = SetBootNextRequest { machine: machine.clone(), entry: entry.unwrap_or_default() };
            boot(&ctx, &machine, &api.set_boot_next(request).await?.into_inner());
        }
        FirmwareCommand::Reset { machine } => {
            api.reset(ResetFirmwareRequest { machine: machine.clone() }).await?;
            if ctx.output.json {
                ctx.output.line(json!({"reset": machine}));
            } else {
                ctx.output.remark(format_args!("machine {machine}: its firmware's variables are those of a new one"));
            }
        }
    }
    Ok(0)
}

fn boot(ctx: &Ctx, machine: &str, state: &BootState) {
    if ctx.output.json {
        return ctx.output.line(json!({"order": state.order, "next": state.next}));
    }
    if !state.order.is_empty() {
        ctx.output.remark(format_args!("machine {machine}: boots {}", state.order.join(", ")));
    }
    if !state.next.is_empty() {
        ctx.output.remark(format_args!("machine {machine}: first, once: {}", state.next));
    }
}

/// The data that was typed, or is in a file.
fn given(variable: &str, args: &DataArgs) -> Result<Vec<u8>, Failure> {
    if let Some(path) = &args.file {
        let failed = |what: &str, e: &std::io::Error| Failure::io(format_args!("file {}", path.display()), what, e);
        let source: Box<dyn Read> = match path == Path::new("-") {
            true => Box::new(std::io::stdin()),
            false => Box::new(File::open(path).map_err(|e| failed("open", &e))?),
        };
        let mut data = Vec::new();
        source.take(MOST).read_to_end(&mut data).map_err(|e| failed("read", &e))?;
        return Ok(data);
    }
    let text = args.hex.as_deref().unwrap_or_default();
    bytes(text).ok_or_else(|| {
        let note = "--hex: two hexadecimal digits for each byte are expected";
        Failure::new(Reason::InvalidValue, format_args!("variable {variable}"), note)
    })
}

/// Bytes of hexadecimal digits; spaces, colons and line ends may stand between them.
fn bytes(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u32> =
        text.chars().filter(|c| !c.is_whitespace() && *c != ':').map(|c| c.to_digit(16)).collect::<Option<_>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| u8::try_from(high << 4 | low).ok()).collect()).flatten()
}

fn write(path: &Path, data: &[u8]) -> Result<(), Failure> {
    let written = match path == Path::new("-") {
        true => std::io::stdout().write_all(data),
        false => std::fs::write(path, data),
    };
    written.map_err(|e| Failure::io(format_args!("file {}", path.display()), "write", &e))
}

#[cfg(test)]
mod tests {
    #[test]
    fn bytes_are_typed_as_digits() {
        assert_eq!(super::bytes("00 fF:1\n0"), Some(vec![0, 0xff, 0x10]));
        assert_eq!((super::bytes("123"), super::bytes("0x12"), super::bytes("")), (None, None, Some(vec![])));
    }
}
