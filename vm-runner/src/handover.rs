//! What the spawner tells a program that it starts in a cell: arguments, and descriptors at fixed numbers.

use skep_proto::MachineId;
use skep_proto::cell::FdRole;
use std::os::fd::RawFd;

/// First argument of a runner.
pub const RUNNER: &str = "--runner";
/// The channel on which a started program says that it is ready, or why not: one record, [`READY`] or text.
pub const REPORT: RawFd = 3;
/// The bound socket that it serves on; it calls listen(2) itself, so that clients see its process id.
pub const LISTENER: RawFd = 4;
/// The first of the others, in the order of the arguments.
pub const FIRST: RawFd = 5;
/// The record that says that all went well.
pub const READY: &[u8] = b"ready";

/// A runner's arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunnerArgs {
    /// Its machine.
    pub machine: MachineId,
    /// What the descriptors from [`FIRST`] on are.
    pub roles: Vec<FdRole>,
    /// Whether the hypervisor may use `/dev/kvm`.
    pub kvm: bool,
    /// Bytes that a file of the hypervisor's may come to have.
    pub file_limit: u64,
    /// Whether the cell shares directories of the host.
    pub shares: bool,
    /// Numbers of its serial ports.
    pub serial: Vec<u8>,
    /// Slots of disks that are reached over a socket of the cell.
    pub remote: Vec<u8>,
}

impl RunnerArgs {
    /// As a command line, the program's name left out.
    pub fn to_args(&self) -> Vec<String> {
        let roles: Vec<String> = self.roles.iter().map(word).collect();
        let accelerator = if self.kvm { "kvm" } else { "tcg" };
        let shares = if self.shares { "shares" } else { "alone" };
        let limit = self.file_limit.to_string();
        let numbers = |list: &[u8]| list.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let first = [RUNNER.into(), self.machine.to_string(), roles.join(","), accelerator.into()];
        first.into_iter().chain([limit, shares.into(), numbers(&self.serial), numbers(&self.remote)]).collect()
    }

    /// From a command line, the program's name left out.
    pub fn parse(mut args: impl Iterator<Item = String>) -> Option<Self> {
        args.next().filter(|a| a == RUNNER)?;
        let machine = args.next()?.parse().ok()?;
        let roles = args.next()?.split(',').map(role).collect::<Option<_>>()?;
        let kvm = args.next()? == "kvm";
        let file_limit = args.next()?.parse().ok()?;
        let shares = args.next()? == "shares";
        let numbers =
            |text: String| text.split(',').filter(|n| !n.is_empty()).map(|n| n.parse().ok()).collect::<Option<Vec<u8>>>();
        let (serial, remote) = (numbers(args.next()?)?, numbers(args.next()?)?);
        args.next().is_none().then_some(Self { machine, roles, kvm, file_limit, shares, serial, remote })
    }
}

fn word(role: &FdRole) -> String {
    match role {
        FdRole::Config => "config".to_owned(),
        FdRole::Kernel => "kernel".to_owned(),
        FdRole::Initrd => "initrd".to_owned(),
        FdRole::Vars => "vars".to_owned(),
        FdRole::Log => "log".to_owned(),
        FdRole::Disk(slot) => format!("disk{slot}"),
        FdRole::Tap(slot) => format!("tap{slot}"),
    }
}

fn role(word: &str) -> Option<FdRole> {
    let slot = |name: &str| word.strip_prefix(name).and_then(|n| n.parse().ok());
    Some(match word {
        "config" => FdRole::Config,
        "kernel" => FdRole::Kernel,
        "initrd" => FdRole::Initrd,
        "vars" => FdRole::Vars,
        "log" => FdRole::Log,
        _ => slot("disk").map(FdRole::Disk).or_else(|| slot("tap").map(FdRole::Tap))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_come_back_as_they_went() {
        let roles =
            vec![FdRole::Config, FdRole::Kernel, FdRole::Initrd, FdRole::Vars, FdRole::Disk(7), FdRole::Tap(0), FdRole::Log];
        let machine = MachineId::from_u128(7);
        for numbers in [vec![], vec![1], vec![1, 4]] {
            let (serial, remote) = (numbers.clone(), numbers);
            let args =
                RunnerArgs { machine, roles: roles.clone(), kvm: false, file_limit: 1 << 40, shares: true, serial, remote };
            assert_eq!(RunnerArgs::parse(args.to_args().into_iter()), Some(args));
        }
    }
}
