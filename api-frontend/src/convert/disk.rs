//! Disks.

use super::{invalid, known, maybe_named, not, strings, time, value, within};
use skep_api::v1;
use skep_proto::broker::{
    DiskCreate, DiskFetch, DiskImport, DiskRatesDraft, DiskView, ImageFacts, IscsiCreate, SnapshotView, WholeView,
};
use skep_proto::iscsi::Chap;
use skep_proto::storage::{DiskKind, Packing, SourceFormat};
use skep_proto::{Refusal, Text};

/// A disk.
pub fn disk(view: DiskView) -> v1::Disk {
    let kind = match view.kind {
        DiskKind::Raw => v1::DiskKind::Raw,
        DiskKind::Qcow2 => v1::DiskKind::Qcow2,
        DiskKind::Zvol => v1::DiskKind::Zvol,
        DiskKind::Iscsi => v1::DiskKind::Iscsi,
    };
    v1::Disk {
        id: view.id.to_string(),
        name: view.name.to_string(),
        kind: kind.into(),
        size_bytes: view.size,
        allocated_bytes: view.allocated,
        sha256: view.sha256.to_string(),
        machines: strings(&view.machines),
        create_time: time(view.created_ns),
        group: view.group.to_string(),
        description: view.description.to_string(),
        iso: view.iso,
        image: view.image.map(|facts| v1::ImageFacts {
            source: facts.source.to_string(),
            os: facts.os.to_string(),
            user: facts.user.to_string(),
            min_disk_bytes: facts.min_disk,
            min_memory_mib: facts.min_memory,
        }),
        rates: Some(v1::DiskRates {
            read_bps: Some(view.rates.read_bps),
            write_bps: Some(view.rates.write_bps),
            read_iops: Some(view.rates.read_iops),
            write_iops: Some(view.rates.write_iops),
        }),
        iscsi: view.iscsi.map(|iscsi| v1::IscsiDisk {
            portal: iscsi.portal.to_string(),
            target: iscsi.target.to_string(),
            lun: iscsi.lun.into(),
            chap_user: iscsi.user.to_string(),
            initiator: iscsi.initiator.to_string(),
        }),
    }
}

/// Rates to be changed.
pub fn rates(given: Option<&v1::DiskRates>) -> DiskRatesDraft {
    let v1::DiskRates { read_bps, write_bps, read_iops, write_iops } = given.copied().unwrap_or_default();
    DiskRatesDraft { read_bps, write_bps, read_iops, write_iops }
}

/// What is known of an image, if it is said.
pub fn facts(facts: Option<&v1::ImageFacts>) -> Result<Option<ImageFacts>, Refusal> {
    let Some(facts) = facts else { return Ok(None) };
    Ok(Some(ImageFacts {
        source: value("image", "image.source", &facts.source)?,
        os: value("image", "image.os", &facts.os)?,
        user: value("image", "image.user", &facts.user)?,
        min_disk: facts.min_disk_bytes,
        min_memory: facts.min_memory_mib,
    }))
}

/// A snapshot of a disk.
pub fn snapshot(view: SnapshotView) -> v1::Snapshot {
    v1::Snapshot {
        id: view.id.to_string(),
        name: view.name.to_string(),
        size_bytes: view.size,
        used_bytes: view.used,
        create_time: time(view.created_ns),
    }
}

/// A snapshot of a machine.
pub fn whole(view: WholeView) -> v1::MachineSnapshot {
    v1::MachineSnapshot {
        id: view.id.to_string(),
        name: view.name.to_string(),
        disks: view.disks.iter().map(ToString::to_string).collect(),
        used_bytes: view.used,
        create_time: time(view.created_ns),
    }
}

fn kind(number: i32) -> Result<DiskKind, Refusal> {
    Ok(match known("disk", "kind", number)? {
        v1::DiskKind::Unspecified | v1::DiskKind::Raw => DiskKind::Raw,
        v1::DiskKind::Qcow2 => DiskKind::Qcow2,
        v1::DiskKind::Zvol => DiskKind::Zvol,
        v1::DiskKind::Iscsi => return Err(invalid("disk", "kind", "what it is of is said with `iscsi`")),
    })
}

/// What to create.
pub fn create(request: &v1::CreateDiskRequest) -> Result<DiskCreate, Refusal> {
    let name = value("disk", "name", &request.name)?;
    if request.size_bytes == 0 || !request.size_bytes.is_multiple_of(512) {
        let note = format_args!("{} is no multiple of 512, from 512 on", request.size_bytes);
        return Err(invalid(&format!("disk {name}"), "size_bytes", note));
    }
    let group = maybe_named("disk", "group", &request.group)?;
    Ok(DiskCreate { name, kind: kind(request.kind)?, size: request.size_bytes, group })
}

/// Which logical unit to make a disk of.
pub fn iscsi(request: v1::CreateDiskRequest, disk: v1::IscsiDisk) -> Result<IscsiCreate, Refusal> {
    let name = value("disk", "name", &request.name)?;
    let object = format!("disk {name}");
    if request.size_bytes != 0 {
        return Err(invalid(&object, "size_bytes", "the target says how large it is"));
    }
    let group = maybe_named("disk", "group", &request.group)?;
    let lun = within(&object, "iscsi.lun", disk.lun, &(0..=16_383))?;
    let chap = match (disk.chap_user.is_empty(), request.chap_secret.is_empty()) {
        (true, true) => None,
        (false, false) => {
            let secret = super::access::secret("chap_secret", request.chap_secret)?;
            Some(Chap { user: value(&object, "iscsi.chap_user", &disk.chap_user)?, secret })
        }
        _ => return Err(invalid(&object, "iscsi.chap_user", "CHAP takes a user and a secret")),
    };
    let (portal, target) = (value(&object, "iscsi.portal", &disk.portal)?, value(&object, "iscsi.target", &disk.target)?);
    Ok(IscsiCreate { name, portal, target, lun: u16::try_from(lun).unwrap_or(u16::MAX), chap, group })
}

/// What to import. Refusals name the fields as a client has them, in its request's header.
pub fn import(header: &v1::ImportDiskHeader) -> Result<DiskImport, Refusal> {
    import_of(header).map_err(|mut refusal| {
        refusal.field = Text::lossy(&format!("header.{}", refusal.field));
        refusal
    })
}

fn import_of(header: &v1::ImportDiskHeader) -> Result<DiskImport, Refusal> {
    let format = match known("disk", "format", header.format)? {
        v1::ImageFormat::Unspecified => SourceFormat::Detect,
        v1::ImageFormat::Raw => SourceFormat::Raw,
        v1::ImageFormat::Qcow2 => SourceFormat::Qcow2,
        v1::ImageFormat::Vmdk => SourceFormat::Vmdk,
        v1::ImageFormat::Vhd => SourceFormat::Vhd,
        v1::ImageFormat::Vhdx => SourceFormat::Vhdx,
    };
    let packing = match known("disk", "packing", header.packing)? {
        v1::Packing::Unspecified => Packing::Detect,
        v1::Packing::None => Packing::None,
        v1::Packing::Gzip => Packing::Gzip,
        v1::Packing::Xz => Packing::Xz,
        v1::Packing::Zstd => Packing::Zstd,
        v1::Packing::Bzip2 => Packing::Bzip2,
    };
    let sha256 = if header.sha256.is_empty() { None } else { Some(digest(&header.sha256)?) };
    let name = value("disk", "name", &header.name)?;
    let group = maybe_named("disk", "group", &header.group)?;
    Ok(DiskImport {
        name,
        kind: kind(header.kind)?,
        format,
        packing,
        expect: header.expect_bytes,
        sha256,
        group,
        iso: header.iso,
        image: facts(header.image.as_ref())?,
        description: value("disk", "description", &header.description)?,
    })
}

/// What to fetch.
pub fn fetch(request: &v1::FetchDiskRequest) -> Result<DiskFetch, Refusal> {
    let header = request.header.as_ref().ok_or_else(|| invalid("disk", "header", "it is missing"))?;
    let https = |field: &str, text: &str| match text.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://")) {
        true => value("disk", field, text),
        false => Err(invalid("disk", field, not("https:// is expected", text))),
    };
    let sums = if request.sums_url.is_empty() { None } else { Some(https("sums_url", &request.sums_url)?) };
    let signature = if request.signature_url.is_empty() { None } else { Some(https("signature_url", &request.signature_url)?) };
    let signed = !request.signed_by.is_empty();
    Ok(DiskFetch { import: import(header)?, url: https("url", &request.url)?, sums, signed, signature })
}

fn digest(text: &str) -> Result<[u8; 32], Refusal> {
    let wrong = || invalid("disk", "sha256", not("64 hexadecimal digits are expected", text));
    let digits: Vec<u8> = text.chars().map_while(|c| c.to_digit(16)).map_while(|d| u8::try_from(d).ok()).collect();
    if digits.len() != 64 || text.len() != 64 {
        return Err(wrong());
    }
    let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect();
    bytes.try_into().map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_has_64_digits() {
        let text = "00ff".repeat(16);
        assert_eq!(digest(&text).expect("valid")[..4], [0, 255, 0, 255]);
        for wrong in [&text[1..], &text.replace("00", "0g"), &text.replace("00", "0é"), &(text.clone() + "0")] {
            let refusal = digest(wrong).expect_err("refused");
            assert_eq!(refusal.field.as_str(), "sha256");
            assert!(refusal.note.as_str().starts_with("64 hexadecimal digits are expected, not \"0"), "{refusal}");
        }
    }

    #[test]
    fn a_wrong_name_or_size_is_named() {
        let with = |name: &str, size_bytes, kind, field: &str, says: &str| {
            let request = v1::CreateDiskRequest { name: name.into(), size_bytes, kind, ..Default::default() };
            let refusal = create(&request).expect_err(field);
            assert_eq!(refusal.field.as_str(), field);
            assert!(refusal.note.as_str().contains(says), "{says}: {refusal}");
        };
        with("../etc", 512, 0, "name", "a disk name has 1 to 63 of the characters a-z, A-Z, 0-9");
        with("../etc", 512, 0, "name", "not \"../etc\"");
        with("web1", 511, 0, "size_bytes", "511 is no multiple of 512, from 512 on");
        with("web1", 0, 0, "size_bytes", "0 is no multiple of 512, from 512 on");
        with("web1", 512, 77, "kind", "77 is none of 1 (Raw), 2 (Qcow2), 3 (Zvol), 4 (Iscsi)");
    }
}
