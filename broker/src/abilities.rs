//! What this host can do for machines: what its hypervisor is known for, and what spawner and kernel say of this one.

use crate::broker::Broker;
use crate::db::Who;
use crate::helpers::PATIENCE;
use crate::parts::setting;
use crate::spec::Spec;
use crate::{platform, probe};
use skep_machine::{Ability, HostCapabilities, Hypervisor, Limit, MachineSpec, Unsupported};
use skep_proto::cell::FacilitiesState;
use skep_proto::{MachineId, Reason, Refusal};
use tokio::time::timeout;

/// Together.
fn host(broker: &Broker, found: &FacilitiesState) -> HostCapabilities {
    let mut host = platform::capabilities(u32::try_from(broker.facts.memory >> 20).unwrap_or(u32::MAX));
    host.uefi = found.uefi;
    host.shares &= found.can_share;
    host.limits.extend(found.limits.iter().filter_map(|name| Limit::named(name.as_str())));
    if let Some(cpus) = found.cpus {
        host.cpus = cpus;
        host.cpus_why = platform::CPUS_WHY.to_owned();
    }
    host.screen = platform::screen(&broker.facts).or(host.screen);
    host.keyboards.retain(|name| found.keyboards.iter().any(|there| there.as_str() == name));
    for (name, why) in &found.lacks {
        if let Some(ability) = Ability::named(name.as_str()) {
            host.take(ability, why.as_str());
        }
    }
    host
}

impl Broker {
    /// What the host can do. Whoever asks at the suite's start waits until a boot has shown whether KVM works.
    pub async fn host(&self, who: &Who) -> Result<HostCapabilities, Refusal> {
        let mut host = host(self, &self.facilities(who).await?);
        if platform::HYPERVISOR == Hypervisor::Qemu && !host.lacks.contains_key(&Ability::Kvm) {
            match self.kvm().await {
                Some(Ok(())) => host.give(Ability::Kvm),
                Some(Err(why)) => host.take(Ability::Kvm, &why),
                None => {}
            }
        }
        Ok(host)
    }

    /// Whether KVM works, or why not, as soon as that is known; none: it does not come to be known.
    pub async fn kvm(&self) -> Option<Result<(), String>> {
        let mut kvm = self.kvm.subscribe();
        timeout(PATIENCE, kvm.wait_for(Option::is_some)).await.ok()?.ok()?.clone()
    }

    /// Finds out whether KVM works.
    pub async fn try_kvm(&self) {
        self.kvm.send_replace(None);
        let found = probe::kvm(self).await;
        match &found {
            Ok(()) => self.info(Who::broker().trace, format_args!("KVM: a guest was run by it")),
            Err(why) => self.info(Who::broker().trace, format_args!("KVM is not used: {why}")),
        }
        self.kvm.send_replace(Some(found));
    }

    /// The same, if it is to be had without waiting for a spawner that is away: what only its start can refuse then, that refuses.
    pub async fn host_now(&self, who: &Who) -> Option<HostCapabilities> {
        if self.cells.is_up() { self.host(who).await.ok() } else { None }
    }

    /// Refuses a machine that this host cannot run. What was refused by what was found out earlier is found out once more: by now a module may
    /// be loaded.
    pub async fn can_run(&self, who: &Who, object: &str, model: &MachineSpec) -> Result<HostCapabilities, Refusal> {
        let host = self.host(who).await?;
        if host.check(model).is_ok() {
            return Ok(host);
        }
        self.forget_facilities();
        let host = self.host(who).await?;
        host.check(model).map_err(|wrong| unsupported(object, &wrong))?;
        Ok(host)
    }
}

fn unsupported(object: &str, wrong: &Unsupported) -> Refusal {
    Refusal::new(Reason::Unsupported, object).field(setting(&wrong.field)).note(wrong)
}

/// Refuses settings that are beyond what a machine of this host can have, as far as they were not so before: the rest of what a host cannot do
/// is refused when the machine starts, for what is missing by then.
pub fn fits(host: Option<&HostCapabilities>, object: &str, id: MachineId, old: Option<&Spec>, new: &Spec) -> Result<(), Refusal> {
    let Some(host) = host else { return Ok(()) };
    let Err(wrong) = host.fits(&new.model(id)?) else { return Ok(()) };
    let before = old.map(|old| old.model(id)).transpose()?.and_then(|old| host.fits(&old).err());
    if before.as_ref() == Some(&wrong) { Ok(()) } else { Err(unsupported(object, &wrong)) }
}
