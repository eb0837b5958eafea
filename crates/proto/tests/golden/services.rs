//! guest-services.

use super::{Golden, every, parse};
use skep_proto::services::*;
use skep_proto::{MachineId, NicId};

const NIC: NicId = NicId::from_u128(5);

#[test]
fn bytes_of_guest_services_never_change() {
    let mut golden = Golden::new("guest-services");
    let subnet = Subnet {
        prefix: 24,
        router: Some(parse("10.90.0.1")),
        domain: parse("lan"),
        mtu: 1500,
        v6: Some(parse("fd12:3456:789a:1::/64")),
    };
    let port = AddPort {
        nic: NIC,
        machine: MachineId::from_u128(9),
        mac: [0x52, 0x54, 0, 1, 2, 3],
        address: parse("10.90.0.7"),
        host: parse("web1"),
        subnet,
        document: true,
    };
    golden.call(port, Done {});
    golden.call(RemovePort { nic: NIC }, Done {});
    golden.call(SetResolvers {}, Done {});
    let port = Port {
        nic: NIC,
        address: parse("10.90.0.7"),
        address6: Some(parse("fd12::7")),
        leased: true,
        home: false,
        frames: 300,
        refused: 1 << 33,
    };
    golden.call(ListPorts { after: Some(NIC) }, PortPage { ports: vec![port] });
    golden.call(Watch {}, Done {});
    golden.covers::<Services>();
    every!(golden, ServiceEvent { Leased(_) => ServiceEvent::Leased(NIC); Home(_) => ServiceEvent::Home(NIC); });
    let document = Document {
        instance: parse("i-0123"),
        host: parse("web1"),
        keys: vec!["ssh-ed25519 AAAA me".into()],
        user_data: b"#cloud-config\n".to_vec(),
        vendor_data: vec![0xff],
        network: "version: 2\n".into(),
    };
    golden.value("Document", &document);
    assert_eq!(Document::decode(&document.encode().unwrap()), Ok(document.clone()));
    let long = Document { user_data: vec![0; MAX_DOCUMENT], ..document };
    assert!(long.encode().is_err());
    golden.check();
}
