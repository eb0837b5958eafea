//! What a guest is told at its first boot, in the form of cloud-init's NoCloud: as files, and as a disk that holds them. Pure.
//!
//! Source: cloud-init's documentation, "NoCloud" and "Networking config version 2".
#![forbid(unsafe_code)]

use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions};
use serde_json::json;
use skep_proto::services::{ADDRESS, Document};
use std::io::{self, Cursor, Write};

/// Bytes of a seed: what a small FAT takes with the largest document.
pub const SIZE: usize = 1 << 20;
/// The label by which guests find it.
const LABEL: [u8; 11] = *b"CIDATA     ";

/// `meta-data`. JSON, which is YAML too, so that nothing that is in it can become anything else.
pub fn meta_data(document: &Document) -> String {
    let Document { instance, host, keys, .. } = document;
    json!({ "instance-id": instance.as_str(), "local-hostname": host.as_str(), "public-keys": keys }).to_string()
}

/// `network-config` for the NICs with these hardware addresses: each asks by DHCP.
pub fn network(macs: &[[u8; 6]]) -> String {
    let nics = macs.iter().enumerate().map(|(number, mac)| {
        let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
        (format!("nic{number}"), json!({ "match": { "macaddress": mac }, "dhcp4": true }))
    });
    let nics: serde_json::Map<_, _> = nics.collect();
    json!({ "version": 2, "ethernets": nics }).to_string()
}

/// `vendor-data` by which a guest says that it has done all that it was told. The user's own data goes before it.
pub fn phone_home() -> Vec<u8> {
    let home = json!({ "url": format!("http://{ADDRESS}/phone-home"), "post": ["instance_id"], "tries": 5 });
    format!("#cloud-config\n{}\n", json!({ "phone_home": home })).into_bytes()
}

/// A disk that holds all of it.
pub fn disk(document: &Document) -> io::Result<Vec<u8>> {
    let meta = meta_data(document);
    let mut files =
        vec![("meta-data", meta.as_bytes()), ("user-data", &document.user_data), ("vendor-data", &document.vendor_data)];
    if !document.network.is_empty() {
        files.push(("network-config", document.network.as_bytes()));
    }
    volume(LABEL, &files)
}

/// A disk of [`SIZE`] bytes that is one FAT volume with this label, padded with spaces, and these files.
pub fn volume(label: [u8; 11], contents: &[(&str, &[u8])]) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; SIZE];
    let options = FormatVolumeOptions::new().fat_type(FatType::Fat12).volume_label(label).volume_id(0x534b_4550);
    fatfs::format_volume(Cursor::new(&mut bytes), options)?;
    {
        let files = FileSystem::new(Cursor::new(&mut bytes), FsOptions::new())?;
        let root = files.root_dir();
        for (name, text) in contents {
            root.create_file(name)?.write_all(text)?;
        }
        drop(root);
        files.unmount()?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use skep_proto::Text;
    use std::io::Read;

    fn document() -> Document {
        Document {
            instance: Text::lossy("8f2c"),
            host: Text::lossy("web1"),
            keys: vec!["ssh-ed25519 AAAA \"me\": - x\n".into()],
            user_data: vec![b'#'; 200 << 10],
            vendor_data: phone_home(),
            network: network(&[[2, 0, 0, 1, 2, 0xab]]),
        }
    }

    #[test]
    fn a_seed_holds_what_the_guest_is_told() {
        let mut bytes = disk(&document()).unwrap();
        assert_eq!(bytes.len(), SIZE);
        let files = FileSystem::new(Cursor::new(&mut bytes), FsOptions::new()).unwrap();
        assert_eq!(files.volume_label_as_bytes(), b"CIDATA");
        let read = |name: &str| {
            let mut text = Vec::new();
            files.root_dir().open_file(name).unwrap().read_to_end(&mut text).unwrap();
            text
        };
        assert_eq!(read("user-data"), document().user_data);
        let meta: serde_json::Value = serde_json::from_slice(&read("meta-data")).unwrap();
        // What is in a key cannot leave it.
        assert_eq!(meta["public-keys"][0], document().keys[0]);
        assert_eq!(meta["local-hostname"], "web1");
        let network: serde_json::Value = serde_json::from_slice(&read("network-config")).unwrap();
        assert_eq!(network["ethernets"]["nic0"]["match"]["macaddress"], "02:00:00:01:02:ab");
        assert!(read("vendor-data").starts_with(b"#cloud-config\n"));
    }

    #[test]
    fn the_same_document_makes_the_same_bytes() {
        assert!(disk(&document()).unwrap() == disk(&document()).unwrap());
        let mut large = document();
        large.user_data = vec![0; SIZE];
        assert!(disk(&large).is_err());
    }
}
