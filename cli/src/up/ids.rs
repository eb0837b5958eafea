//! The uids of a suite that root started.

/// First uid, unless another is given.
pub const BASE: u32 = 71_000;
/// How many uids: 1,000 for the services' block, 1,000 for machines (two each).
pub const UIDS: u32 = 2_000;

/// What `--ids` of every service says.
pub fn flag(base: u32) -> String {
    let services = ["broker", "api-frontend", "storage-helper", "net-helper", "vm-runner"];
    let mut parts: Vec<String> = services.iter().zip(base..).map(|(name, uid)| format!("{name}={uid}")).collect();
    parts.push(format!("machines={}", base.saturating_add(1_000)));
    parts.join(",")
}

#[cfg(test)]
mod tests {
    #[test]
    fn services_understand_it() {
        let ids = skep_service::Ids::parse(&super::flag(super::BASE)).expect("valid");
        assert_eq!((ids.of(skep_service::Role::Broker), ids.machines()), (71_000, 72_000));
    }
}
