//! A runner. Machines outlive upgrades: these bytes are spoken between builds.

use super::{Golden, every, parse};
use skep_proto::runner::*;

#[test]
fn bytes_of_a_runner_never_change() {
    let mut golden = Golden::new("runner");
    golden.call(Status {}, RunnerState { phase: Phase::Running, starts: 2, last_end: Some(End::Reboot) });
    golden.call(Start {}, Done {});
    golden.call(PowerButton {}, Done {});
    golden.call(Kill {}, Done {});
    golden.call(Reset {}, Done {});
    golden.call(Pause {}, Done {});
    golden.call(Resume {}, Done {});
    golden.call(Configure {}, Done {});
    golden.call(TakeSerial {}, Done {});
    golden.call(ConnectScreen {}, Done {});
    let disk = DiskStats { slot: 1, read_bytes: 4096, write_bytes: 1 << 33, read_ops: 2, write_ops: 3 };
    golden.call(Stats {}, StatsState { cpu_ns: 1 << 40, disks: vec![disk] });
    golden.call(Watch {}, Done {});
    golden.call(Leave {}, Done {});
    golden.call(ConnectChannel { port: 3 }, Done {});
    golden.call(Eject { slot: 2 }, Done {});
    golden.call(TakePort { port: 2 }, Done {});
    golden.call(TakeDoor { slot: 3 }, Done {});
    golden.call(ConnectGdb {}, Done {});
    golden.call(KeepLayers { layers: vec![LayerPlace { slot: 1, at: 2 }] }, Done {});
    golden.call(SetLink { slot: 1, up: false }, Done {});
    let next = DiskSwitch { slot: 1, top: skep_proto::DiskId::from_u128(7), at: 3, no_cache: true };
    golden.call(SwitchDisks { disks: vec![next] }, Done {});
    let rates = skep_proto::DiskRates { read_bps: 1 << 20, write_bps: 0, read_iops: 100, write_iops: 10 };
    golden.call(LimitDisk { slot: 1, rates }, Done {});
    golden.call(GrowDisk { slot: 1, size: 2 << 30, most: 3 << 30 }, Done {});
    golden.covers::<Runner>();
    every!(golden, Phase {
        Ready {} => Phase::Ready; Starting {} => Phase::Starting; Running {} => Phase::Running; Paused {} => Phase::Paused;
        Ended {} => Phase::Ended;
    });
    every!(golden, End {
        PowerOff {} => End::PowerOff; Reboot {} => End::Reboot; Reset {} => End::Reset; Killed {} => End::Killed; Panic {} => End::Panic;
        Crash { .. } => End::Crash { code: 139, words: parse("could not open it") };
        RebootLoop {} => End::RebootLoop;
    });
    every!(golden, RunnerEvent { Phase(_) => RunnerEvent::Phase(Phase::Paused); Ended(_) => RunnerEvent::Ended(End::PowerOff); });
    golden.check();
}
