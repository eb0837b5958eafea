//! Images from addresses: what the broker does for whoever fetches them, and what becomes of it.

use super::requests::{reason, text};
use super::suite::{Life, Session, Suite};
use skep_proto::broker::*;
use skep_proto::fetch::{FetchSays, FetchTold};
use skep_proto::storage::{DiskKind, Packing, SourceFormat};
use skep_proto::{Reason, Refusal, Text, UpTo, upload, wire};
use skep_sys::msg;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

/// The only ones that it takes.
const KEYS: &[u8] = b"keys";

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
    let (FetchTold::Begin(order), fds) = hear()? else { return None };
    if order.signed {
        let mut keys = Vec::new();
        File::from(fds.into_iter().nth(1)?).read_to_end(&mut keys).ok()?;
        if keys != KEYS {
            return say(&FetchSays::Done(Err(Refusal::new(Reason::BadSignature, "server"))));
        }
    }
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

fn draft(name: &str, url: &str) -> DiskFetch {
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
    DiskFetch { import, url: url.parse().expect("a text"), sums: None, signed: false, signature: None }
}

/// Begins one, with the host's certificates.
pub async fn fetch(s: &mut Session, name: &str, url: &str) -> Result<OperationView, Refusal> {
    begun(s, draft(name, url), &[b""]).await
}

/// Begins one with what comes along.
async fn begun(s: &mut Session, fetch: DiskFetch, along: &[&[u8]]) -> Result<OperationView, Refusal> {
    let (view, UpTo(pipes)) = s.ask_with(fetch, []).await?;
    assert_eq!(pipes.len(), along.len());
    for (pipe, bytes) in pipes.into_iter().zip(along) {
        let mut pipe = File::from(pipe);
        if !bytes.is_empty() {
            pipe.write_all(&upload::header(bytes.len()).expect("short")).expect("written");
            pipe.write_all(bytes).expect("written");
        }
        pipe.write_all(&upload::END).expect("written");
    }
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

#[test]
fn keys_go_to_what_fetches_what_is_signed_and_to_no_other_fetch() {
    let suite = Suite::new();
    suite.live(async |life: Life| {
        life.up().await;
        let mut s = life.session().await;
        let list = || Some("https://example.org/SUMS".parse().expect("a text"));
        let draft = |name| DiskFetch { signed: true, sums: list(), ..draft(name, "https://example.org/a.img") };
        let op = begun(&mut s, draft("signed"), &[b"", KEYS]).await.expect("begun");
        s.done(op).await.expect("fetched");
        // Without a list it is the image that is signed.
        let own = |name| DiskFetch { sums: None, signature: list(), ..draft(name) };
        let op = begun(&mut s, own("itself"), &[b"", KEYS]).await.expect("begun");
        s.done(op).await.expect("fetched");
        let op = begun(&mut s, own("other"), &[b"", b"others"]).await.expect("begun");
        assert_eq!(reason(s.done(op).await), Reason::BadSignature);
        let op = begun(&mut s, draft("other"), &[b"certificates", b"others"]).await.expect("begun");
        assert_eq!(reason(s.done(op).await), Reason::BadSignature);
        let many = vec![0; skep_proto::fetch::MAX_KEYS];
        let op = s.ask_with(draft("other"), []).await.map(|(op, UpTo(pipes))| {
            let [mut roots, mut keys] = <[OwnedFd; 2]>::try_from(pipes).expect("two").map(File::from);
            roots.write_all(&upload::END).expect("written");
            // More than may come; nobody reads it to its end.
            std::thread::spawn(move || {
                for _ in 0..2 {
                    let _ = keys.write_all(&upload::header(many.len()).expect("short")).and_then(|()| keys.write_all(&many));
                }
            });
            op
        });
        let ended = s.done(op.expect("begun")).await;
        assert_eq!(ended.expect_err("refused").field.as_str(), "signed_by");
        // Neither without a list or a signature, nor a signature without keys.
        for (fetch, field) in [
            (DiskFetch { sums: None, ..draft("other") }, "signature_url"),
            (DiskFetch { signed: false, signature: list(), ..draft("other") }, "signed_by"),
        ] {
            let refusal = s.ask_with(fetch, []).await.map(|_| ()).expect_err("refused");
            assert_eq!((refusal.reason, refusal.field.as_str()), (Reason::InvalidValue, field));
        }
        suite.settled(&life.broker).await;
        assert_eq!(suite.world.lock().fetchers, []);
    });
}
