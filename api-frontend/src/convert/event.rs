//! Operations, events, the host.

use super::{strings, time};
use skep_api::v1;
use skep_proto::Refusal;
use skep_proto::broker::{EventView, HostView, OperationState, OperationView};

/// An operation.
pub fn operation(view: OperationView) -> v1::Operation {
    let (state, failure) = match &view.state {
        OperationState::Running => (v1::OperationState::Running, None),
        OperationState::Done => (v1::OperationState::Done, None),
        OperationState::Failed(refusal) => (v1::OperationState::Failed, Some(failure(refusal))),
    };
    let (progress_done, progress_total) = view.progress;
    v1::Operation {
        id: view.id.to_string(),
        kind: view.kind.to_string(),
        object: view.object.to_string(),
        user: view.user.to_string(),
        trace: view.trace.to_string(),
        state: state.into(),
        progress_done,
        progress_total,
        start_time: time(view.started_ns),
        end_time: time(view.ended_ns),
        failure,
    }
}

fn failure(refusal: &Refusal) -> v1::Failure {
    let row = refusal.reason.row();
    v1::Failure {
        reason: row.name.to_owned(),
        object: refusal.object.to_string(),
        field: refusal.field.to_string(),
        note: refusal.note.to_string(),
        errno: refusal.errno,
        message: refusal.to_string(),
        advice: row.advice.to_owned(),
    }
}

/// An event.
pub fn event(view: EventView) -> v1::Event {
    v1::Event {
        token: view.token,
        time: time(view.time_ns),
        object: view.object.to_string(),
        id: view.id.to_string(),
        name: view.name.to_string(),
        what: view.what.to_string(),
        detail: view.detail.to_string(),
        trace: view.trace.to_string(),
        user: view.user.to_string(),
    }
}

fn interface(uplink: &skep_proto::broker::Uplink) -> v1::HostInterface {
    v1::HostInterface {
        name: uplink.name.to_string(),
        up: uplink.up,
        mtu: uplink.mtu,
        bridge: uplink.bridge.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}

fn sound_device(device: &skep_proto::SoundDevice) -> v1::SoundDevice {
    v1::SoundDevice {
        name: device.device.to_string(),
        description: device.description.to_string(),
        plays: device.plays,
        records: device.records,
    }
}

/// The host.
pub fn host_info(view: HostView) -> v1::HostInfo {
    let (space_bytes, space_free_bytes) = view.space;
    v1::HostInfo {
        version: view.version.to_string(),
        instance: view.instance.to_string(),
        system: view.system.to_string(),
        hypervisor: view.hypervisor.to_string(),
        uefi: view.uefi,
        cpus: view.cpus,
        memory_bytes: view.memory,
        space_bytes,
        space_free_bytes,
        reflink: view.reflink,
        limits: strings(&view.limits),
        weaker: strings(&view.weaker),
        shares: view.shares.iter().map(ToString::to_string).collect(),
        helpers: strings(&view.helpers),
        abilities: strings(&view.abilities),
        inabilities: strings(&view.inabilities),
        keyboards: strings(&view.keyboards),
        uplinks: view.uplinks.iter().map(interface).collect(),
        wireguard_key: view.wireguard_key.map(|key| key.to_string()).unwrap_or_default(),
        sound_devices: view.sound.iter().map(sound_device).collect(),
        machine_cpus: view.machine_cpus.into(),
        screen_width: view.screen.map_or(0, |(width, _)| width.into()),
        screen_height: view.screen.map_or(0, |(_, height)| height.into()),
        // The frontend's own.
        certificate: String::new(),
    }
}
