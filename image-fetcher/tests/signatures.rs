//! Signatures that GnuPG and signify make on this host, as vendors do.
#![forbid(unsafe_code)]
#![allow(clippy::expect_used)]

use skep_image_fetcher::signature::{Keys, Unusable, Wrong};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

const LIST: &[u8] = b"SHA256 (a.img) = 00\n- dashed, and with spaces behind it  \n\n--- BEGIN\n";
const DAY: u64 = 86400;

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// What is said of something that comes piece by piece: begun and ended so many seconds ago.
fn comes(keys: &Keys, signature: &[u8], bytes: &[u8], begun: u64, ended: u64) -> Result<(), Wrong> {
    let mut coming = keys.coming(signature, now() - begun)?;
    bytes.chunks(7).for_each(|piece| coming.update(piece));
    coming.finish(now() - ended)
}

/// GnuPG with a home of its own, which ends with it.
struct Gpg(TempDir);

impl Gpg {
    /// None, and said so: it is not installed.
    fn new(test: &str) -> Option<Self> {
        // Its agent's socket has a name of at most 107 bytes.
        let gpg = Self(tempfile::Builder::new().prefix("gpg").tempdir_in("/tmp").expect("a directory"));
        // One that was only unpacked does not find its agent.
        for (program, args) in [("gpg", &["--version"][..]), ("gpgconf", &["--launch", "gpg-agent"])] {
            let mut command = Command::new(program);
            let status = command.env("GNUPGHOME", gpg.0.path()).args(args).stdout(Stdio::null()).status();
            if !status.is_ok_and(|status| status.success()) {
                println!("SKIP {test}: gpg (Debian: gnupg) is not installed");
                return None;
            }
        }
        fs::write(gpg.path("list"), LIST).expect("written");
        Some(gpg)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs it, at a time that is so many seconds ago.
    fn run(&self, ago: u64, args: &[&str]) -> Vec<u8> {
        let time = format!("{}!", now() - ago);
        let output = Command::new("gpg")
            .env("GNUPGHOME", self.0.path())
            .args(["--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase=", "--faked-system-time", &time])
            .args(args)
            .output()
            .expect("gpg runs");
        assert!(output.status.success(), "gpg {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// Makes a key. It lasts as said: `never`, `5d`.
    fn make(&self, ago: u64, user: &str, kind: &str, lasts: &str) {
        self.run(ago, &["--quick-gen-key", user, kind, "sign", lasts]);
    }

    fn fingerprint(&self, user: &str) -> String {
        let list = String::from_utf8(self.run(0, &["--list-keys", "--with-colons", user])).expect("text");
        let line = list.lines().find(|line| line.starts_with("fpr:")).expect("a key");
        line.split(':').nth(9).expect("a fingerprint").to_owned()
    }

    fn keys(&self, users: &[&str]) -> Keys {
        let text = Keys::parse(&self.run(0, &[&["--armor", "--export"], users].concat()), now()).expect("keys");
        let bytes = self.run(0, &[&["--export"], users].concat());
        assert_eq!(format!("{text:?}"), format!("{:?}", Keys::parse(&bytes, now()).expect("keys")));
        text
    }

    fn sign(&self, ago: u64, user: &str, args: &[&str]) -> Vec<u8> {
        let list = self.path("list");
        self.run(ago, &[&["--local-user", user, "--output", "-"], args, &["--detach-sign", &list.to_string_lossy()]].concat())
    }
}

impl Drop for Gpg {
    fn drop(&mut self) {
        let _ = Command::new("gpgconf").env("GNUPGHOME", self.0.path()).args(["--kill", "all"]).status();
    }
}

#[test]
fn what_gnupg_signed_is_taken() {
    let Some(gpg) = Gpg::new("what_gnupg_signed_is_taken") else { return };
    for (user, kind) in [("rsa@skep.test", "rsa3072"), ("ed@skep.test", "ed25519"), ("other@skep.test", "ed25519")] {
        gpg.make(30 * DAY, user, kind, "never");
    }
    // A key of both kinds, which signs with a subkey that lasts a day more.
    gpg.run(30 * DAY, &["--quick-gen-key", "sub@skep.test", "rsa2048", "cert", "never"]);
    gpg.run(30 * DAY, &["--quick-add-key", &gpg.fingerprint("sub@skep.test"), "ed25519", "sign", "31d"]);
    gpg.run(30 * DAY, &["--quick-add-key", &gpg.fingerprint("sub@skep.test"), "rsa2048", "encr", "never"]);
    let (keys, other) = (gpg.keys(&["rsa@skep.test", "ed@skep.test", "sub@skep.test"]), gpg.keys(&["other@skep.test"]));
    for user in ["rsa@skep.test", "ed@skep.test", "sub@skep.test"] {
        for hash in ["SHA256", "SHA384", "SHA512"] {
            for armour in ["--armor", "--no-armor"] {
                let signature = gpg.sign(5, user, &[armour, "--digest-algo", hash]);
                assert_eq!(keys.detached(&signature, LIST, now()), Ok(()), "{user} {hash}");
                let changed = [LIST, b" "].concat();
                if armour == "--armor" {
                    assert_eq!(comes(&keys, &signature, LIST, 0, 0), Ok(()), "{user} {hash}");
                    assert!(matches!(comes(&keys, &signature, &changed, 0, 0), Err(Wrong::Differs(_))));
                }
                assert!(matches!(keys.detached(&signature, &changed, now()), Err(Wrong::Differs(_))));
                assert!(matches!(other.detached(&signature, LIST, now()), Err(Wrong::OtherKey(_))));
                assert!(matches!(other.coming(&signature, now()).map(drop), Err(Wrong::OtherKey(_))));
            }
        }
        let text = gpg.sign(5, user, &["--textmode"]);
        assert_eq!(keys.coming(&text, now()).map(drop), Err(Wrong::Kind(1)));
        // Signed text comes out as it went in but for white space at the ends of lines.
        let list = gpg.path("list");
        let signed = gpg.run(5, &["--local-user", user, "--output", "-", "--clearsign", &list.to_string_lossy()]);
        let taken = keys.inline(&signed, now()).expect("signed");
        assert_eq!(String::from_utf8_lossy(&taken), String::from_utf8_lossy(LIST).replace("  \n", "\n"));
        assert!(matches!(other.inline(&signed, now()), Err(Wrong::OtherKey(_))));
        let changed = String::from_utf8(signed).expect("text").replacen("= 00", "= 01", 1);
        assert!(matches!(keys.inline(changed.as_bytes(), now()), Err(Wrong::Differs(_))));
    }
    // Of several signatures one of a key that was given is enough.
    let list = gpg.path("list");
    let users = ["--local-user", "other@skep.test", "--local-user", "ed@skep.test", "--output", "-", "--detach-sign"];
    let both = gpg.run(5, &[&users[..], &[&list.to_string_lossy()]].concat());
    assert_eq!((keys.detached(&both, LIST, now()), other.detached(&both, LIST, now())), (Ok(()), Ok(())));
    assert_eq!((comes(&keys, &both, LIST, 0, 0), comes(&other, &both, LIST, 0, 0)), (Ok(()), Ok(())));
    // The subkey ends before its key.
    let signature = gpg.sign(5, "sub@skep.test", &[]);
    assert!(matches!(keys.detached(&signature, LIST, now() + DAY), Err(Wrong::Key(_, Unusable::Expired(_)))));
}

#[test]
fn keys_and_signatures_that_ended_are_refused() {
    let Some(gpg) = Gpg::new("keys_and_signatures_that_ended_are_refused") else { return };
    for (user, kind) in [("rsa@skep.test", "rsa2048"), ("ed@skep.test", "ed25519")] {
        gpg.make(30 * DAY, user, kind, "5d");
        let signature = gpg.sign(26 * DAY, user, &[]);
        let why = gpg.keys(&[user]).detached(&signature, LIST, now());
        assert_eq!(why, Err(Wrong::Key(gpg.fingerprint(user), Unusable::Expired(25))));
        assert_eq!(gpg.keys(&[user]).coming(&signature, now()).map(drop), why);
        // Its owner lets it last longer; both of his words are in the file.
        gpg.run(26 * DAY, &["--quick-set-expire", &gpg.fingerprint(user), "never"]);
        let keys = gpg.keys(&[user]);
        assert_eq!(keys.detached(&signature, LIST, now()), Ok(()));
        // The signature has an end of its own.
        let short = gpg.sign(5 * DAY, user, &["--default-sig-expire", "2d"]);
        assert_eq!(keys.detached(&short, LIST, now()), Err(Wrong::Expired(gpg.fingerprint(user), 3)));
        assert_eq!(keys.detached(&short, LIST, now() - 4 * DAY), Ok(()));
        // An image may come for a long time: it must hold at both ends of that.
        let expired = || Err(Wrong::Expired(gpg.fingerprint(user), 3));
        assert_eq!(keys.coming(&short, now()).map(drop), expired());
        assert_eq!(comes(&keys, &short, LIST, 4 * DAY, 4 * DAY), Ok(()));
        assert_eq!(comes(&keys, &short, LIST, 4 * DAY, 0), expired());
        // What is to come has not been signed.
        assert_eq!(keys.detached(&short, LIST, now() - 6 * DAY), Err(Wrong::Early(gpg.fingerprint(user))));
        // And its owner may take it back.
        let revocation = gpg.path(&format!("openpgp-revocs.d/{}.rev", gpg.fingerprint(user)));
        let text = fs::read_to_string(revocation).expect("gpg writes one with each key").replace(":-----BEGIN", "-----BEGIN");
        fs::write(gpg.path("revocation"), text).expect("written");
        gpg.run(0, &["--import", &gpg.path("revocation").to_string_lossy()]);
        let why = gpg.keys(&[user]).detached(&signature, LIST, now());
        assert_eq!(why, Err(Wrong::Key(gpg.fingerprint(user), Unusable::Revoked)));
        assert_eq!(gpg.keys(&[user]).coming(&signature, now()).map(drop), why);
    }
}

#[test]
fn what_is_weak_or_unknown_is_refused() {
    let Some(gpg) = Gpg::new("what_is_weak_or_unknown_is_refused") else { return };
    for (user, kind) in [("good@skep.test", "rsa2048"), ("short@skep.test", "rsa1024"), ("dsa@skep.test", "dsa2048")] {
        gpg.make(DAY, user, kind, "never");
    }
    let keys = gpg.keys(&["good@skep.test", "short@skep.test", "dsa@skep.test"]);
    let refused = |signature: &[u8]| {
        let why = keys.detached(signature, LIST, now()).expect_err("refused");
        assert_eq!(keys.coming(signature, now()).map(drop), Err(why.clone()));
        why
    };
    assert_eq!(refused(&gpg.sign(0, "good@skep.test", &["--digest-algo", "SHA1"])), Wrong::Method("SHA-1".to_owned()));
    assert!(matches!(refused(&gpg.sign(0, "short@skep.test", &[])), Wrong::Key(_, Unusable::Method(_))));
    assert!(matches!(refused(&gpg.sign(0, "dsa@skep.test", &[])), Wrong::Method(_)));
    // A key of old, whose word about itself is of SHA-1, is as good as the Ubuntu project's; until it says that it ended.
    let old = ["--cert-digest-algo", "SHA1", "--quick-gen-key", "old@skep.test", "rsa2048", "sign"];
    gpg.run(30 * DAY, &[&old[..], &["9d"]].concat());
    let signature = gpg.sign(25 * DAY, "old@skep.test", &[]);
    let keys = gpg.keys(&["old@skep.test"]);
    assert!(matches!(keys.detached(&signature, LIST, now()), Err(Wrong::Key(_, Unusable::Expired(21)))));
    assert_eq!(keys.detached(&signature, LIST, now() - 22 * DAY), Ok(()));
    // Secret keys are nobody's business here.
    let secret = ["--export-secret-keys", "good@skep.test"];
    assert_eq!(Keys::parse(&gpg.run(0, &secret), now()).expect_err("refused"), Wrong::Secret);
    assert_eq!(Keys::parse(&gpg.run(0, &[&["--armor"], &secret[..]].concat()), now()).expect_err("refused"), Wrong::Secret);
}

#[test]
fn what_signify_signed_is_taken() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("list"), LIST).expect("written");
    let run = |args: &[&str]| {
        let program = ["signify-openbsd", "signify"].into_iter().find_map(|program| {
            let mut command = Command::new(program);
            let status = command.current_dir(dir.path()).args(args).stdout(Stdio::null()).status().ok()?;
            // Without its libraries it is as good as absent.
            (status.code() != Some(127)).then_some(status)
        });
        program.map(|status| assert!(status.success(), "signify {args:?}"))
    };
    if run(&["-G", "-n", "-p", "a.pub", "-s", "a.sec"]).is_none() {
        println!("SKIP what_signify_signed_is_taken: signify (Debian: signify-openbsd) is not installed");
        return;
    }
    for args in [
        &["-G", "-n", "-p", "b.pub", "-s", "b.sec"][..],
        &["-S", "-s", "a.sec", "-m", "list", "-x", "list.sig"],
        &["-S", "-e", "-s", "a.sec", "-m", "list", "-x", "SHA256.sig"],
    ] {
        run(args).expect("there");
    }
    let read = |name: &str| fs::read(dir.path().join(name)).expect("a file");
    let keys = |name: &str| Keys::parse(&read(name), now()).expect("a key");
    assert_eq!(keys("a.pub").detached(&read("list.sig"), LIST, now()), Ok(()));
    assert_eq!(keys("a.pub").inline(&read("SHA256.sig"), now()).expect("signed"), LIST);
    assert!(matches!(keys("b.pub").detached(&read("list.sig"), LIST, now()), Err(Wrong::OtherKey(_))));
    assert!(matches!(keys("a.pub").detached(&read("list.sig"), b"x", now()), Err(Wrong::Differs(_))));
    assert_eq!(keys("a.pub").coming(&read("list.sig"), now()).map(drop), Err(Wrong::AllAtOnce));
    assert!(Keys::parse(&read("a.sec"), now()).is_err());
}
