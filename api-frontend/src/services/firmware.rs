//! Variables of machines' UEFI firmware.

use super::{Answer, Api, Call};
use crate::convert::{self, firmware};
use skep_api::v1::firmware_server::Firmware;
use skep_api::v1::{
    BootState, DeleteVariableRequest, GetVariableRequest, ListVariablesRequest, ListVariablesResponse, ResetFirmwareRequest,
    SetBootNextRequest, SetBootOrderRequest, SetVariableRequest, Variable,
};
use skep_proto::broker::{FirmwareChange, FirmwareEdit, FirmwareGet, FirmwareList, Ref, VarState};
use skep_proto::vars::{MAX_DATA, MAX_ENTRIES};
use skep_proto::{Reason, Refusal, VarName};
use tonic::Request;

/// Most bytes of a variable's data that are read; the firmware's own bounds are below.
const MAX_READ: usize = 1 << 20;

fn machine(name: &str) -> Result<Ref, Refusal> {
    convert::named("machine", "machine", name)
}

#[tonic::async_trait]
impl Firmware for Api {
    async fn list_variables(&self, request: Request<ListVariablesRequest>) -> Answer<ListVariablesResponse> {
        let (call, request) = self.enter("Firmware.ListVariables", request)?;
        call.run(async {
            let machine = machine(&request.machine)?;
            let page = call.pages(
                "variable",
                request.page_size,
                &request.page_token,
                |after| FirmwareList { machine: machine.clone(), after },
                |page| page.vars,
                |v: &VarState| &v.name,
            );
            let (got, next_page_token) = page.await?;
            let variables = got.into_iter().map(|state| firmware::variable(state, Vec::new())).collect();
            Ok(ListVariablesResponse { variables, next_page_token })
        })
        .await
    }

    async fn get_variable(&self, request: Request<GetVariableRequest>) -> Answer<Variable> {
        let (call, request) = self.enter("Firmware.GetVariable", request)?;
        call.run(async { read(&call, machine(&request.machine)?, firmware::name(&request.name)?).await }).await
    }

    async fn set_variable(&self, request: Request<SetVariableRequest>) -> Answer<Variable> {
        let (call, request) = self.enter("Firmware.SetVariable", request)?;
        call.run(async {
            let (machine, name) = (machine(&request.machine)?, firmware::name(&request.name)?);
            let data = request.data.to_vec();
            if data.len() > MAX_DATA {
                let note = format_args!("{} bytes; at most {MAX_DATA} are permitted", data.len());
                return Err(Refusal::new(Reason::TooLarge, format_args!("variable {name}")).field("data").note(note));
            }
            let change = FirmwareChange::Set { name: name.clone(), attributes: request.attributes, data };
            call.act(FirmwareEdit { machine: machine.clone(), change }).await?;
            read(&call, machine, name).await
        })
        .await
    }

    async fn delete_variable(&self, request: Request<DeleteVariableRequest>) -> Answer<()> {
        let (call, request) = self.enter("Firmware.DeleteVariable", request)?;
        call.run(async {
            let change = FirmwareChange::Delete(firmware::name(&request.name)?);
            call.act(FirmwareEdit { machine: machine(&request.machine)?, change }).await.map(drop)
        })
        .await
    }

    async fn set_boot_order(&self, request: Request<SetBootOrderRequest>) -> Answer<BootState> {
        let (call, request) = self.enter("Firmware.SetBootOrder", request)?;
        call.run(async {
            convert::at_most("boot order", "entries", &request.entries, MAX_ENTRIES)?;
            let entries = request.entries.iter().map(|text| firmware::choice("entries", text)).collect::<Result<_, _>>()?;
            let change = FirmwareChange::Order(entries);
            Ok(firmware::boot(&call.act(FirmwareEdit { machine: machine(&request.machine)?, change }).await?.0))
        })
        .await
    }

    async fn set_boot_next(&self, request: Request<SetBootNextRequest>) -> Answer<BootState> {
        let (call, request) = self.enter("Firmware.SetBootNext", request)?;
        call.run(async {
            let entry = if request.entry.is_empty() { None } else { Some(firmware::choice("entry", &request.entry)?) };
            let change = FirmwareChange::Next(entry);
            Ok(firmware::boot(&call.act(FirmwareEdit { machine: machine(&request.machine)?, change }).await?.0))
        })
        .await
    }

    async fn reset(&self, request: Request<ResetFirmwareRequest>) -> Answer<()> {
        let (call, request) = self.enter("Firmware.Reset", request)?;
        call.run(async {
            let machine = machine(&request.machine)?;
            call.act(FirmwareEdit { machine, change: FirmwareChange::Reset }).await.map(drop)
        })
        .await
    }
}

/// A variable with all of its data, which comes in pieces.
async fn read(call: &Call, machine: Ref, name: VarName) -> Result<Variable, Refusal> {
    let mut data: Vec<u8> = Vec::new();
    loop {
        let from = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let (piece, []) = call.read(FirmwareGet { machine: machine.clone(), name: name.clone(), from }).await?;
        data.extend(&piece.data);
        if piece.data.is_empty() || data.len() >= usize::try_from(piece.var.size).unwrap_or(usize::MAX) || data.len() > MAX_READ {
            return Ok(firmware::variable(piece.var, data));
        }
    }
}
