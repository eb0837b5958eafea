//! Device paths (UEFI specification, chapter 10): where a boot entry leads to.

use crate::bytes::{array, u16_at, u32_at, u64_at, units};
use crate::guid::Guid;
use crate::text;
use std::net::Ipv4Addr;

/// Nodes of a path that are printed, and bytes of a node that has no name here.
const NODES: usize = 24;
const UNKNOWN: usize = 16;
/// Letters of a file's name that are printed.
const LETTERS: usize = 200;
/// `PNP0A03` and `PNP0A08`: the root of a PCI bus.
const PCI_ROOT: [u32; 2] = [0x0a03_41d0, 0x0a08_41d0];

fn node(kind: u8, sub: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len() + 4).unwrap_or(u16::MAX);
    [&[kind, sub], &length.to_le_bytes()[..], body].concat()
}

/// The beginning of all paths to what is on PCI bus 0: the function of a device there.
pub fn pci(device: u8, function: u8) -> Vec<u8> {
    let [root, _] = PCI_ROOT;
    let root = [root.to_le_bytes(), [0; 4]].concat();
    [node(2, 1, &root), node(1, 1, &[function, device])].concat()
}

/// Goes on from a SCSI controller: target and logical unit.
pub fn scsi(target: u16, unit: u16) -> Vec<u8> {
    node(3, 2, &[target.to_le_bytes(), unit.to_le_bytes()].concat())
}

/// Goes on from an AHCI controller, to whatever is at this port.
pub fn sata(port: u16) -> Vec<u8> {
    let mut whole = node(3, 18, &[port.to_le_bytes(), [0; 2], [0; 2]].concat());
    whole.truncate(6);
    whole
}

/// A path as the firmware's shell writes it: `PciRoot(0x0)/Pci(0x8,0x0)/HD(1,GPT,…)/\EFI\BOOT\BOOTX64.EFI`.
pub fn text(path: &[u8]) -> String {
    let mut out = String::new();
    let mut rest = path;
    for _ in 0..NODES {
        let Some((kind, sub, length)) = (|| Some((*rest.first()?, *rest.get(1)?, usize::from(u16_at(rest, 2)?))))() else {
            return out;
        };
        let Some(body) = rest.get(4..length) else {
            out.push_str(" (cut off)");
            return out;
        };
        rest = rest.get(length..).unwrap_or_default();
        match (kind, sub) {
            (0x7f, 0xff) => return out,
            // Another path to the same.
            (0x7f, 0x01) => out.push_str(", "),
            _ => {
                if !out.is_empty() && !out.ends_with(' ') {
                    out.push('/');
                }
                out.push_str(&known(kind, sub, body).unwrap_or_else(|| unknown(kind, sub, body)));
            }
        }
    }
    out + "/…"
}

fn unknown(kind: u8, sub: u8, body: &[u8]) -> String {
    format!("Path({kind},{sub},{})", text::hex(body, UNKNOWN))
}

/// The nodes that virtual machines have; none: another one, or one of a wrong length.
fn known(kind: u8, sub: u8, body: &[u8]) -> Option<String> {
    let guid = |at| array(body, at).map(Guid);
    Some(match (kind, sub) {
        (1, 1) => format!("Pci({:#x},{:#x})", body.get(1)?, body.first()?),
        (1, 4) => format!("VenHw({})", guid(0)?),
        (2, 1) => match (u32_at(body, 0)?, u32_at(body, 4)?) {
            (id, uid) if PCI_ROOT.contains(&id) => format!("PciRoot({uid:#x})"),
            (id, uid) => format!("Acpi({id:#010x},{uid:#x})"),
        },
        (3, 1) => format!("Ata({},{},{})", body.first()?, body.get(1)?, u16_at(body, 2)?),
        (3, 2) => format!("Scsi({:#x},{:#x})", u16_at(body, 0)?, u16_at(body, 2)?),
        (3, 5) => format!("USB({:#x},{:#x})", body.first()?, body.get(1)?),
        (3, 10) => format!("VenMsg({})", guid(0)?),
        (3, 11) => {
            let address: [u8; 6] = array(body, 0)?;
            format!("MAC({})", text::hex(&address, 6))
        }
        (3, 12) => format!("IPv4({})", Ipv4Addr::from(array::<4>(body, 4)?)),
        (3, 13) => "IPv6()".to_owned(),
        (3, 18) => format!("Sata({:#x},{:#x},{:#x})", u16_at(body, 0)?, u16_at(body, 2)?, u16_at(body, 4)?),
        (3, 23) => format!("NVMe({:#x},{:016x})", u32_at(body, 0)?, u64_at(body, 4)?.swap_bytes()),
        (3, 24) => {
            let plain = |byte: &u8| byte.is_ascii_graphic();
            let uri: String = body.iter().take(LETTERS).take_while(|byte| plain(byte)).map(|byte| char::from(*byte)).collect();
            format!("Uri({uri})")
        }
        (4, 1) => partition(body)?,
        (4, 2) => format!("CDROM({:#x},{:#x},{:#x})", u32_at(body, 0)?, u64_at(body, 4)?, u64_at(body, 12)?),
        (4, 4) => {
            let letters = units(body).take_while(|unit| *unit != 0).take(LETTERS);
            text::description(letters).replace("\\u{5c}", "\\")
        }
        (4, 6) => format!("FvFile({})", guid(0)?),
        (4, 7) => format!("Fv({})", guid(0)?),
        _ => return None,
    })
}

fn partition(body: &[u8]) -> Option<String> {
    let (number, start, size) = (u32_at(body, 0)?, u64_at(body, 4)?, u64_at(body, 12)?);
    let (signature, kind) = (array::<16>(body, 20)?, *body.get(37)?);
    let which = match kind {
        1 => format!("MBR,{:#010x}", u32_at(&signature, 0)?),
        2 => format!("GPT,{}", Guid(signature)),
        _ => text::hex(&signature, UNKNOWN),
    };
    Some(format!("HD({number},{which},{start:#x},{size:#x})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_printed_as_the_firmware_does() {
        let end = node(0x7f, 0xff, &[]);
        let name: Vec<u8> = "\\EFI\\BOOT\\BOOTX64.EFI\0".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let file = [pci(8, 0), node(4, 4, &name), end.clone()].concat();
        assert_eq!(text(&file), "PciRoot(0x0)/Pci(0x8,0x0)/\\EFI\\BOOT\\BOOTX64.EFI");
        assert_eq!(text(&[pci(6, 0), scsi(2, 0), end.clone()].concat()), "PciRoot(0x0)/Pci(0x6,0x0)/Scsi(0x2,0x0)");
        let sata_disk = node(3, 18, &[1, 0, 0xff, 0xff, 0, 0]);
        assert!(sata_disk.starts_with(&sata(1)) && !sata_disk.starts_with(&sata(0)));
        assert_eq!(text(&sata_disk), "Sata(0x1,0xffff,0x0)");
        assert_eq!(text(&node(3, 99, &[1, 2, 3])), "Path(3,99,010203)");
        assert_eq!(text(&node(1, 1, &[])), "Path(1,1,)");
        assert_eq!(text(&[4, 4, 3, 0]), " (cut off)");
        assert_eq!(text(&[4, 4, 0xff, 0xff]), " (cut off)");
        assert!(text(&node(1, 1, &[0, 1]).repeat(100)).ends_with("/…"));
    }
}
