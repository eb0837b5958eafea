//! Images that are taken in: from a file, or from an address.

use super::{Ctx, disk};
use crate::args::FetchArgs;
use crate::error::Failure;
use crate::operation::{self, Interrupt};
use crate::view;
use skep_api::v1::{FetchDiskRequest, ImportDiskHeader};
use skep_proto::{Reason, Refusal};
use std::path::{Path, PathBuf};

/// Bytes of certificates or of keys, at most.
const MOST: u64 = 256 << 10;

/// Takes one in, to its end.
pub async fn take_in(ctx: &Ctx, header: ImportDiskHeader, file: &Path, from: &FetchArgs) -> Result<(), Failure> {
    let what = if header.iso { "iso" } else { header.image.as_ref().map_or("disk", |_| "image") };
    let name = header.name.clone();
    let address = file.to_str().filter(|text| text.contains("://"));
    let begun = match address {
        Some(url) => fetch(ctx, header, url, from).await?,
        None if from.sums.is_some() || from.ca.is_some() || from.signed_by.is_some() => {
            let refusal = Refusal::new(Reason::InvalidValue, file.display());
            return Err(refusal.field("--sums, --signed-by, --ca").note("they are about what comes from an address").into());
        }
        None => disk::import(ctx, header, disk::Origin::File(file)).await?,
    };
    let ended = operation::finish(&ctx.api, ctx.output, begun, Interrupt::Cancels).await?;
    if ctx.output.json {
        ctx.output.line(view::operation(&ended));
    } else {
        ctx.output.remark(format_args!("{what} {name}: imported"));
    }
    Ok(())
}

async fn fetch(ctx: &Ctx, header: ImportDiskHeader, url: &str, from: &FetchArgs) -> Result<skep_api::v1::Operation, Failure> {
    if from.signed_by.is_some() && from.sums.is_none() && from.signature.is_none() {
        let note = "what is signed is the list of --sums or, without one, the file itself, by the signature of --signature; neither is named";
        return Err(Refusal::new(Reason::InvalidValue, url).field("--signed-by").note(note).into());
    }
    let read = |path: &Option<PathBuf>, option| path.as_deref().map_or(Ok(Vec::new()), |path| read(path, option));
    let (certificates, keys) = (read(&from.ca, "--ca")?, read(&from.signed_by, "--signed-by")?);
    if from.signed_by.is_some() && keys.is_empty() {
        return Err(Refusal::new(Reason::InvalidValue, url).field("--signed-by").note("the file is empty").into());
    }
    let request = FetchDiskRequest {
        header: Some(header),
        url: url.to_owned(),
        sums_url: from.sums.clone().unwrap_or_default(),
        ca_certificates: certificates.into(),
        signature_url: from.signature.clone().unwrap_or_default(),
        signed_by: keys.into(),
    };
    let begun = ctx.make(|api, request_id| {
        let mut request = request.clone();
        if let Some(header) = &mut request.header {
            header.request_id = request_id;
        }
        async move { api.disks().fetch(request).await }
    });
    begun.await
}

fn read(path: &Path, option: &str) -> Result<Vec<u8>, Failure> {
    let failed = |e: &std::io::Error| Failure::io(format_args!("file {}", path.display()), "read", e);
    if std::fs::metadata(path).map_err(|e| failed(&e))?.len() > MOST {
        let refusal = Refusal::new(Reason::TooLarge, format_args!("file {}", path.display()));
        return Err(refusal.field(option).note(format_args!("at most {MOST} bytes are sent")).into());
    }
    std::fs::read(path).map_err(|e| failed(&e))
}
