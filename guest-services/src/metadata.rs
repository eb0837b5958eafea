//! What a guest finds at which path: the words of EC2, OpenStack and NoCloud for the same few things.

use crate::port::Identity;
use serde_json::json;
use skep_proto::services::{ADDRESS, Document};
use std::rc::Rc;

/// Bytes of an answer; those of a document are not copied for each connection.
pub type Body = Rc<[u8]>;

/// What a port is told about itself.
#[derive(Debug)]
pub struct Content {
    instance: String,
    host: String,
    full: String,
    keys: Vec<String>,
    user_data: Body,
    vendor_data: Body,
    network: String,
    address: String,
    mac: String,
    block: String,
    mtu: u16,
}

/// An answer: its type and its bytes.
pub type Found = (&'static str, Body);

const TEXT: &str = "text/plain";
const JSON: &str = "application/json";
const BYTES: &str = "application/octet-stream";
const YAML: &str = "application/yaml";

/// Dates of OpenStack's format that we speak.
const OPENSTACK: [&str; 2] = ["2018-08-27", "latest"];

impl Content {
    /// From what the broker gave.
    pub fn new(identity: &Identity, document: Document) -> Self {
        let [a, b, c, d, e, f] = identity.mac;
        let host = document.host.as_str().to_owned();
        let domain = identity.subnet.domain.as_str();
        Self {
            instance: document.instance.as_str().to_owned(),
            full: format!("{host}.{domain}"),
            host,
            keys: document.keys,
            user_data: document.user_data.into(),
            vendor_data: document.vendor_data.into(),
            network: document.network,
            address: identity.address.to_string(),
            mac: format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}"),
            block: format!("{}/{}", identity.address & identity.mask(), identity.subnet.prefix),
            mtu: identity.subnet.mtu,
        }
    }

    /// What is at a path; it has no query and begins with a slash.
    pub fn get(&self, path: &str) -> Option<Found> {
        let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let first = if parts.is_empty() { None } else { Some(parts.remove(0)) };
        match (first, parts.as_slice()) {
            (None, _) => text("1.0\n2009-04-04\nlatest"),
            (Some("openstack"), rest) => self.openstack(rest),
            (Some("nocloud"), [name]) => self.nocloud(name),
            (Some(version), rest) if is_version(version) => self.ec2(rest),
            _ => None,
        }
    }

    fn ec2(&self, path: &[&str]) -> Option<Found> {
        match path {
            [] => text("meta-data\nuser-data"),
            ["user-data"] => given(BYTES, &self.user_data),
            ["meta-data", rest @ ..] => text(&self.ec2_value(rest)?),
            _ => None,
        }
    }

    fn ec2_value(&self, path: &[&str]) -> Option<String> {
        let keys = if self.keys.is_empty() { "" } else { "\npublic-keys/" };
        let key = |number: &str| self.keys.get(number.parse::<usize>().ok()?);
        Some(match path {
            [] => format!("hostname\ninstance-id\nlocal-hostname\nlocal-ipv4\nmac\nnetwork/{keys}"),
            ["instance-id"] => self.instance.clone(),
            ["hostname" | "local-hostname"] => self.full.clone(),
            ["local-ipv4"] => self.address.clone(),
            ["mac"] => self.mac.clone(),
            ["public-keys"] if !self.keys.is_empty() => {
                (0..self.keys.len()).map(|number| format!("{number}=key-{number}")).collect::<Vec<_>>().join("\n")
            }
            ["public-keys", number] => key(number).map(|_| "openssh-key".to_owned())?,
            ["public-keys", number, "openssh-key"] => format!("{}\n", key(number)?),
            ["network"] => "interfaces/".into(),
            ["network", "interfaces"] => "macs/".into(),
            ["network", "interfaces", "macs"] => format!("{}/", self.mac),
            ["network", "interfaces", "macs", mac, rest @ ..] if *mac == self.mac => match rest {
                [] => "device-number\nlocal-hostname\nlocal-ipv4s\nmac\nsubnet-ipv4-cidr-block".into(),
                ["device-number"] => "0".into(),
                ["local-hostname"] => self.full.clone(),
                ["local-ipv4s"] => self.address.clone(),
                ["mac"] => self.mac.clone(),
                ["subnet-ipv4-cidr-block"] => self.block.clone(),
                _ => return None,
            },
            _ => return None,
        })
    }

    fn openstack(&self, path: &[&str]) -> Option<Found> {
        match path {
            [] => text(&OPENSTACK.join("\n")),
            [version] if OPENSTACK.contains(version) => text("meta_data.json\nnetwork_data.json\nuser_data\nvendor_data.json"),
            [version, name] if OPENSTACK.contains(version) => match *name {
                "meta_data.json" => {
                    let names = (0..).map(|number| format!("key-{number}"));
                    let named: serde_json::Map<_, _> = names.zip(self.keys.iter().map(|key| json!(key))).collect();
                    let listed = named.iter().map(|(name, key)| json!({ "name": name, "type": "ssh", "data": key }));
                    json(&json!({
                        "uuid": self.instance, "name": self.host, "hostname": self.full, "launch_index": 0,
                        "keys": listed.collect::<Vec<_>>(), "public_keys": named,
                    }))
                }
                "network_data.json" => json(&json!({
                    "links": [{ "id": "nic0", "type": "phy", "ethernet_mac_address": self.mac, "mtu": self.mtu }],
                    "networks": [{ "id": "network0", "type": "ipv4_dhcp", "link": "nic0", "network_id": "network0" }],
                    "services": [{ "type": "dns", "address": ADDRESS.to_string() }],
                })),
                "user_data" => given(BYTES, &self.user_data),
                "vendor_data.json" => match serde_json::from_slice::<serde_json::Value>(&self.vendor_data) {
                    Ok(_) => Some((JSON, self.vendor_data.clone())),
                    // cloud-init's word for what is for it.
                    Err(_) => match std::str::from_utf8(&self.vendor_data) {
                        Ok("") => json(&json!({})),
                        Ok(words) => json(&json!({ "cloud-init": words })),
                        Err(_) => None,
                    },
                },
                _ => None,
            },
            _ => None,
        }
    }

    /// cloud-init asks for all four; empty ones are there.
    fn nocloud(&self, name: &str) -> Option<Found> {
        match name {
            "meta-data" => {
                // A string of JSON is one of YAML.
                let quoted = |text: &str| json!(text).to_string();
                let mut all = format!("instance-id: {}\nlocal-hostname: {}\n", quoted(&self.instance), quoted(&self.host));
                if !self.keys.is_empty() {
                    all.push_str("public-keys:\n");
                    self.keys.iter().for_each(|key| all.push_str(&format!("- {}\n", quoted(key))));
                }
                Some((YAML, all.into_bytes().into()))
            }
            "user-data" => Some((BYTES, self.user_data.clone())),
            "vendor-data" => Some((BYTES, self.vendor_data.clone())),
            "network-config" => given(YAML, self.network.as_bytes()),
            _ => None,
        }
    }
}

/// Something that is not there if it is empty.
fn given(kind: &'static str, bytes: &(impl AsRef<[u8]> + ?Sized)) -> Option<Found> {
    let bytes = bytes.as_ref();
    (!bytes.is_empty()).then(|| (kind, bytes.into()))
}

fn text(text: &str) -> Option<Found> {
    Some((TEXT, text.as_bytes().into()))
}

fn json(value: &serde_json::Value) -> Option<Found> {
    Some((JSON, value.to_string().into_bytes().into()))
}

/// `latest`, `1.0`, or a date: all are answered alike.
fn is_version(text: &str) -> bool {
    let date = |text: &str| {
        text.len() == 10
            && text.bytes().enumerate().all(|(at, c)| if at == 4 || at == 7 { c == b'-' } else { c.is_ascii_digit() })
    };
    text == "latest" || text == "1.0" || date(text)
}
