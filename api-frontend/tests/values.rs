//! What is said of wrong values: the field, the value and the limit.
#![allow(clippy::expect_used)]

use skep_api::v1;
use skep_api_frontend::convert::machine::set;

#[test]
fn a_wrong_setting_is_named_with_its_value_and_its_limit() {
    let none = v1::MachineSettings::default;
    let limits = |limits| v1::MachineSettings { limits: Some(limits), ..none() };
    let upkeep = |upkeep| v1::MachineSettings { upkeep: Some(upkeep), ..none() };
    const LIST: &str = "a list of CPUs is numbers from 0 to 1023 and ranges of them: 0-1,3";
    const PINS: &str = "0 to 63 and 0 to 1023, each virtual one once";
    const SHARE: &str = "a share's name has 1 to 31 of the characters a-z, A-Z, 0-9, '.', '_', '-'";
    let wrong: Vec<(v1::MachineSettings, &str, &[&str])> = vec![
        (v1::MachineSettings { cpus: Some(65), ..none() }, "cpus", &["65 is not 1 to 64"]),
        (v1::MachineSettings { cpus: Some(0), ..none() }, "cpus", &["0 is not 1 to 64"]),
        (v1::MachineSettings { memory_mib: Some(15), ..none() }, "memory_mib", &["15 is not 16 to 1048576"]),
        (v1::MachineSettings { boot: Some(v1::Boot { kind: None }), ..none() }, "boot", &["uefi, direct, loader or bios"]),
        (v1::MachineSettings { acceleration: Some(9), ..none() }, "acceleration", &["9 is none of 1 (Auto), 2 (Tcg), 3 (Kvm)"]),
        (
            v1::MachineSettings { description: Some("\u{7}".into()), ..none() },
            "description",
            &["a text of at most 256 bytes without control characters", "not \"\\u{7}\""],
        ),
        (limits(v1::MachineLimits { cpus: Some("1-".into()), ..Default::default() }), "limits.cpus", &[LIST, "not \"1-\""]),
        (limits(v1::MachineLimits { pins: Some("1".into()), ..Default::default() }), "limits.pins", &[PINS, "not \"1\""]),
        (limits(v1::MachineLimits { priority: Some(256), ..Default::default() }), "limits.priority", &["256 is not -20 to 19"]),
        (limits(v1::MachineLimits { priority: Some(20), ..Default::default() }), "limits.priority", &["20 is not -20 to 19"]),
        (upkeep(v1::MachineUpkeep { order: Some(10_000), ..Default::default() }), "upkeep.order", &["10000 is not 0 to 9999"]),
        (
            upkeep(v1::MachineUpkeep { delay_seconds: Some(u32::MAX), ..Default::default() }),
            "upkeep.delay_seconds",
            &["4294967295 is not 0 to 3600"],
        ),
        (
            upkeep(v1::MachineUpkeep { restart: Some(-1), ..Default::default() }),
            "upkeep.restart",
            &["-1 is none of 1 (Never), 2 (OnFailure), 3 (Always)"],
        ),
        (v1::MachineSettings { channels: vec!["a".into(); 5], ..none() }, "channels", &["5 of them; at most 4"]),
        (
            v1::MachineSettings { channels: vec!["a".repeat(64)], ..none() },
            "channels",
            &["a text of at most 63 bytes", "aaaa\"… (64 bytes)"],
        ),
        (v1::MachineSettings { shares: vec![v1::Share::default(); 5], ..none() }, "shares", &["5 of them; at most 4"]),
        (v1::MachineSettings { disks: vec![v1::DiskAttachment::default(); 9], ..none() }, "disks", &["9 of them; at most 8"]),
        (
            v1::MachineSettings {
                disks: vec![v1::DiskAttachment { disk: "d".into(), controller: 7, ..Default::default() }],
                ..none()
            },
            "disks.controller",
            &["7 is none of 1 (VirtioBlk), 2 (Nvme), 3 (Ahci), 4 (AhciCd), 5 (VirtioScsi), 6 (VirtioScsiCd)"],
        ),
    ];
    let names = ["", "/etc", "../a", ".", "a b", "a\n", &"a".repeat(32)];
    let shares = names.map(|name| vec![v1::Share { name: name.into(), read_only: true }]);
    let shares = shares.map(|shares| v1::MachineSettings { shares, ..none() });
    let wrong = wrong.into_iter().chain(shares.map(|settings| (settings, "shares", &[SHARE, "not \""][..])));
    for (settings, field, says) in wrong {
        let request = v1::UpdateMachineRequest { machine: "web1".into(), settings: Some(settings), ..Default::default() };
        let refusal = set(request).expect_err(field);
        assert_eq!(refusal.field.as_str(), format!("settings.{field}"));
        assert!(says.iter().all(|said| refusal.note.as_str().contains(said)), "{says:?}: {refusal}");
    }
}
