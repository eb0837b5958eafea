//! Images from addresses: what the broker does for whoever fetches them, and what becomes of it.

use super::requests::{reason, text};
use super::suite::{Life, Session, Suite};
use skep_proto::broker::*;
use skep_proto::fetch::{FetchSays, FetchTold};
use skep_proto::storage::{DiskKind, Packing, SourceFormat};
use skep_proto::{Reason, Refusal, Text, UpTo, upload, wire};
use skep_sys::msg;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

/// In image-fetcher's place. What it does stands in the address: `.../missing` is not there, `.../dies` breaks off.
pub fn fetcher(channel: OwnedFd) {
    std::thread::spawn(move || {
        // Whatever is cut off here ends it. Its cell is swept by the broker.
        let _ = serve(&channel);
    });
}

fn serve(channel: &OwnedFd) -> Option<()> {
    let say = |says: &FetchSays| msg::send(channel.as_fd(), &wire::encode(says).ok()?, &[], None).ok();
    let hear = || {
        let record = msg::recv(channel.as_fd(), 8000, 16, None).ok()?;
        Some((wire::decode::<FetchTold>(&record.bytes).ok()?, record.fds))
    };
    let (FetchTold::Begin(order), _) = hear()? else { return None };
    if order.url.as_str().ends_with("/missing") {
        return say(&FetchSays::Done(Err(Refusal::new(Reason::NotFound, "server").note("404"))));
    }
    say(&FetchSays::Connect { address: [192, 0, 2, 1].into(), port: 443 })?;
    let (FetchTold::Connected, _) = hear()? else { return None };
    say(&FetchSays::Found { length: 5000 })?;
    let (FetchTold::Go, fds) = hear()? else { return None };
    let mut pipe = File::from(fds.into_iter().next()?);
    pipe.write_all(&upload::header(5000)?).ok()?;
    if order.url.as_str().ends_with("/dies") {
        return None;
    }
    pipe.write_all(&[7; 5000]).ok()?;
    pipe.write_all(&upload::END).ok()?;
    say(&FetchSays::Done(Ok(())))
}

/// Begins one, with the host's certificates.
pub async fn fetch(s: &mut Session, name: &str, url: &str) -> Result<OperationView, Refusal> {
    let import = DiskImport {
        name: name.parse().expect("a name"),
        kind: DiskKind::Raw,
        format: SourceFormat::Detect,
        packing: Packing::Detect,
        expect: 0,
        sha256: None,
        group: None,
        iso: false,
        image: Some(ImageFacts::default()),
        description: Text::default(),
    };
    let fetch = DiskFetch { import, url: url.parse().expect("a text"), sums: None };
    let (view, UpTo(pipe)) = s.ask_with(fetch, []).await?;
    File::from(pipe.into_iter().next().expect("a pipe")).write_all(&upload::END).expect("written");
    Ok(view)
}

#[test]
fn an_address_fills_a_disk_or_leaves_nothing() {
    let suite = Suite::new();
    suite.live(async |life: Life| {
        life.up().await;
        let mut s = life.session().await;
        let url = "https://example.org/images/a.img";
        let op = fetch(&mut s, "image", url).await.expect("begun");
        s.done(op).await.expect("fetched");
        let disk = s.ask(DiskGet { disk: text("image") }).await.expect("there");
        assert_eq!((disk.size, disk.image.expect("an image").source.as_str()), (5000, url));
        for (end, why) in [("missing", Reason::NotFound), ("dies", Reason::Unavailable)] {
            let op = fetch(&mut s, "other", &format!("https://example.org/{end}")).await.expect("begun");
            assert_eq!(reason(s.done(op).await), why, "{end}");
            assert_eq!(reason(s.ask(DiskGet { disk: text("other") }).await), Reason::NotFound);
        }
        // One that is cancelled before it began.
        let op = fetch(&mut s, "other", url).await.expect("begun");
        s.ask(OperationCancel { id: op.id }).await.expect("asked");
        let ended = s.done(op).await;
        assert!(ended.is_ok() || reason(ended) == Reason::Cancelled);
        suite.settled(&life.broker).await;
        assert_eq!(suite.world.lock().fetchers, []);
    });
}
