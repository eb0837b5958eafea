//! Images from addresses: fetched by a process of its own, from a server with the faults that servers have.

use anyhow::{Context, Result, ensure};
use skep_tests::https::{self, Https, Page, noise};
use skep_tests::platform::end;
use skep_tests::{Mode, Suite, is_root};
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

/// One whose administrator lets images come from this host.
fn suite() -> Result<Suite> {
    let suite = Suite::prepare(if is_root() { Mode::Root } else { Mode::User })?;
    suite.ok(&["up", "--fetch-from", "127.0.0.1"])?;
    Ok(suite)
}

fn sum(program: &str, bytes: &[u8], suite: &Suite) -> Result<String> {
    let file = suite.dir().join("to-sum");
    std::fs::write(&file, bytes)?;
    let output = match Command::new(program).arg(&file).output() {
        // FreeBSD before 14 has them by other names.
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Command::new(program.trim_end_matches("sum")).arg("-q").arg(&file).output()?
        }
        output => output?,
    };
    Ok(String::from_utf8(output.stdout)?.split_whitespace().next().context("no sum")?.to_owned())
}

fn holds(suite: &Suite, name: &str, bytes: &[u8]) -> Result<bool> {
    let file = suite.dir().join(format!("{name}.out"));
    suite.ok(&["disk", "export", name, &file.to_string_lossy()])?;
    Ok(std::fs::read(file)? == bytes)
}

fn nothing_is_left(suite: &Suite) -> Result<()> {
    ensure!(suite.json(&["disk", "list"])?.is_empty(), "a disk is left");
    let left: Vec<_> = std::fs::read_dir(suite.state.join("disks"))?.flatten().map(|e| e.file_name()).collect();
    ensure!(left.is_empty(), "{left:?}");
    let sockets: Vec<_> = std::fs::read_dir(suite.run.join("console"))?.flatten().map(|e| e.file_name()).collect();
    ensure!(sockets.is_empty() && suite.pids("image-fetcher")?.is_empty(), "a process is left, or its socket: {sockets:?}");
    Ok(())
}

#[test]
fn an_image_is_fetched_from_an_address() -> Result<()> {
    let suite = suite()?;
    let (server, ca) = https::start(suite.dir())?;
    let bytes = noise(6 << 20);
    server.put("/images/a.img", Page::File(bytes.clone()));
    server.put("/latest", Page::Moved("/images/a.img?x=1".into()));
    server.put("/images/a.img?x=1", Page::Moved(server.url("/images/a.img")));
    server.put("/chunked", Page::Chunked(bytes.clone()));
    let import = |name: &str, path: &str, more: &[&str]| {
        let url = server.url(path);
        suite.ok(&[&["image", "import", name, &url, "--ca", &ca][..], more].concat())
    };
    let sha256 = sum("sha256sum", &bytes, &suite)?;
    import("plain", "/images/a.img", &["--sha256", &sha256, "--os", "Some 1"])?;
    let image = suite.json(&["image", "show", "plain"])?;
    ensure!(
        image[0]["image"]["source"] == server.url("/images/a.img").as_str() && image[0]["sha256"] == sha256.as_str(),
        "{image:?}"
    );
    let log = suite.ok(&["log", "image-fetcher", "--since", "1h"])?;
    let said = format!(" image-fetcher info disk {}: ", image[0]["id"].as_str().context("no id")?);
    ensure!(log.contains(&format!("{said}fetches from")) && log.contains(&format!("{said}all of it has come")), "{log}");
    import("moved", "/latest", &[])?;
    import("chunked", "/chunked", &[])?;
    ensure!(
        holds(&suite, "plain", &bytes)? && holds(&suite, "moved", &bytes)? && holds(&suite, "chunked", &bytes)?,
        "other bytes"
    );

    // Lists of checksums, of the address that was said.
    let sha512 = sum("sha512sum", &bytes, &suite)?;
    let lists =
        [format!("{sha256}  a.img\n"), format!("{sha512}  other\n{sha512} *a.img\n"), format!("SHA256 (a.img) = {sha256}\n")];
    for (number, list) in lists.iter().enumerate() {
        server.put("/SUMS", Page::File(Arc::new(list.clone().into_bytes())));
        import(&format!("summed{number}"), "/images/a.img", &["--sums", &server.url("/SUMS")])?;
    }
    // Packed, it is unpacked; as an ISO image it is not.
    let gzip = suite.dir().join("a.img.gz");
    std::fs::write(suite.dir().join("a.img"), &bytes[..])?;
    ensure!(Command::new("gzip").arg(suite.dir().join("a.img")).status()?.success(), "gzip");
    server.put("/a.img.gz", Page::File(Arc::new(std::fs::read(&gzip)?)));
    import("packed", "/a.img.gz", &[])?;
    ensure!(holds(&suite, "packed", &bytes)?, "other bytes");
    for image in suite.json(&["image", "list"])? {
        suite.ok(&["image", "delete", image["name"].as_str().context("no name")?])?;
    }
    nothing_is_left(&suite)?;
    suite.finish()
}

#[test]
fn a_fetch_goes_on_after_breaks() -> Result<()> {
    let suite = suite()?;
    let (server, ca) = https::start(suite.dir())?;
    let bytes = noise(5 << 20);
    server.put("/breaks", Page::Breaking(bytes.clone(), 2_000_000));
    suite.ok(&["disk", "import", "none", "/dev/null"]).err().context("nothing was imported")?;
    suite.ok(&["image", "import", "whole", &server.url("/breaks"), "--ca", &ca])?;
    ensure!(holds(&suite, "whole", &bytes)?, "other bytes");
    let asked = server.asked("/breaks");
    ensure!(asked.len() == 3 && asked[0] == 0 && asked[1] > 0 && asked[2] > asked[1], "{asked:?}");
    suite.ok(&["image", "delete", "whole"])?;
    // What changed meanwhile is not put together.
    server.put("/changes", Page::Changing);
    let (_, message) = suite.fails(&["image", "import", "mixed", &server.url("/changes"), "--ca", &ca])?;
    ensure!(message.contains("it is another file"), "{message}");
    // Nor is it tried for ever.
    server.put("/never", Page::Breaking(bytes, 0));
    let (_, message) = suite.fails(&["image", "import", "never", &server.url("/never"), "--ca", &ca])?;
    ensure!(message.contains("it broke off after 0 bytes"), "{message}");
    nothing_is_left(&suite)?;
    suite.finish()
}

#[test]
fn what_cannot_be_fetched_is_refused_with_the_reason_and_leaves_nothing() -> Result<()> {
    let suite = suite()?;
    let (server, ca) = https::start(suite.dir())?;
    let bytes = noise(100_000);
    server.put("/a.img", Page::File(bytes.clone()));
    server.put("/SUMS", Page::File(Arc::new(format!("{}  a.img\n", "0".repeat(64)).into_bytes())));
    server.put("/empty", Page::File(Arc::new(Vec::new())));
    server.put("/down", Page::Moved("http://127.0.0.1/a.img".into()));
    server.put("/inside", Page::Moved("https://169.254.169.254/latest/meta-data".into()));
    server.put("/loop", Page::Moved("/loop".into()));
    let port = server.url("").rsplit(':').next().context("no port")?.to_owned();
    let trusted = ["--ca", ca.as_str()];
    let refused = |url: &str, more: &[&str], why: &str| -> Result<()> {
        let (_, message) = suite.fails(&[&["image", "import", "a", url][..], more].concat())?;
        ensure!(message.contains(why), "{url}: {message}");
        nothing_is_left(&suite)
    };
    refused(&server.url("/none"), &trusted, "404 Not Found")?;
    refused(&server.url("/a.img"), &["--ca", &ca, "--sums", &server.url("/SUMS")], "its checksum is not that of the list")?;
    refused(&server.url("/a.img"), &["--ca", &ca, "--sums", &server.url("/a.img")], "a list of checksums is text")?;
    refused(&server.url("/a.img"), &["--ca", &ca, "--sha256", &"0".repeat(64)], "SHA-256 of the stream is")?;
    refused(&server.url("/empty"), &trusted, "the stream is empty")?;
    refused(&server.url("/down"), &trusted, "https:// is expected")?;
    refused(&server.url("/loop"), &trusted, "redirections")?;
    refused("http://127.0.0.1/a.img", &[], "https:// is expected")?;
    // Nobody is trusted whom neither the host nor --ca names, nor under another name.
    // A host may know no authority at all.
    let known = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];
    let untrusted = if known.iter().any(|bundle| Path::new(bundle).exists()) { "TLS: " } else { "trusts no authority" };
    refused(&server.url("/a.img"), &[], untrusted)?;
    refused(&format!("https://127.0.0.2:{port}/a.img"), &trusted, "127.0.0.2: it is the loopback")?;
    // Inside, whoever leads there.
    for address in ["10.0.0.1", "[::1]", "[::ffff:10.0.0.1]", "192.168.0.1", "169.254.169.254", "0.0.0.0"] {
        refused(&format!("https://{address}/a.img"), &trusted, "images come from public addresses")?;
    }
    refused(&server.url("/inside"), &trusted, "it is link-local")?;
    // What is no image of the format that was said.
    refused(&server.url("/a.img"), &["--ca", &ca, "--format", "qcow2"], "the stream is not QCOW2")?;
    suite.finish()
}

/// Made by GnuPG and signify, of `noise(102_400)` as a.img and of a MiB of zeros, packed: data/signed.
macro_rules! signed {
    ($name:literal) => {
        include_bytes!(concat!("../data/signed/", $name))
    };
}

#[test]
fn a_list_counts_if_one_of_the_keys_that_were_given_signed_it() -> Result<()> {
    let suite = suite()?;
    let (server, ca) = https::start(suite.dir())?;
    let put = |path: &str, bytes: &[u8]| server.put(path, Page::File(Arc::new(bytes.to_vec())));
    let key = |name: &str, bytes: &[u8]| -> Result<String> {
        let path = suite.dir().join(name);
        std::fs::write(&path, bytes)?;
        Ok(path.to_string_lossy().into_owned())
    };
    let openpgp = key("openpgp.key", signed!("openpgp.key"))?;
    let other = key("other.key", signed!("other.key"))?;
    let signify = key("signify.key", signed!("signify.key"))?;
    let none = key("none.key", b"no key\n")?;
    server.put("/a.img", Page::File(noise(102_400)));
    for (path, bytes) in [
        ("/SHA256", &signed!("SHA256")[..]),
        ("/SHA256.gpg", signed!("SHA256.gpg")),
        ("/SHA256.asc", signed!("SHA256.asc")),
        ("/SHA256.sig", signed!("SHA256.sig")),
        ("/changed", &[signed!("SHA256"), &b"\n"[..]].concat()),
        ("/cut", &signed!("SHA256.gpg")[..100]),
    ] {
        put(path, bytes);
    }
    let args = |name: &str, list: &str, signature: Option<&str>, key: &str| {
        let (url, list) = (server.url("/a.img"), server.url(list));
        let mut args: Vec<String> =
            ["image", "import", name, &url, "--ca", &ca, "--sums", &list, "--signed-by", key].map(str::to_owned).into();
        args.extend(signature.into_iter().flat_map(|path| ["--signature".to_owned(), server.url(path)]));
        args
    };
    // Wrongly signed it is refused for what is wrong, before a byte of it is asked for.
    for (list, signature, key, why) in [
        ("/SHA256", Some("/SHA256.gpg"), &other, "which is none of those that were given"),
        ("/SHA256", Some("/SHA256.gpg"), &signify, "which is none of those that were given"),
        ("/changed", Some("/SHA256.gpg"), &openpgp, "what came is not what key"),
        ("/SHA256", Some("/cut"), &openpgp, "it is not made of whole packets"),
        ("/SHA256", Some("/SHA256"), &openpgp, "it is no signature that is understood"),
        ("/SHA256", Some("/none"), &openpgp, "404 Not Found"),
        ("/SHA256", None, &openpgp, "it carries no signature of its own"),
        ("/SHA256.asc", None, &other, "which is none of those that were given"),
        ("/SHA256.sig", None, &openpgp, "which is none of those that were given"),
        ("/SHA256", Some("/SHA256.gpg"), &none, "it is no file of public keys that is understood"),
    ] {
        let args = args("refused", list, signature, key);
        let (_, message) = suite.fails(&args.iter().map(String::as_str).collect::<Vec<_>>())?;
        ensure!(message.contains(why), "{list}, {signature:?}, {key}: {message}");
        nothing_is_left(&suite)?;
    }
    ensure!(server.asked("/a.img").is_empty(), "the image was asked for");
    for (name, list, signature, key) in [
        ("detached", "/SHA256", Some("/SHA256.gpg"), &openpgp),
        ("text", "/SHA256.asc", None, &openpgp),
        ("signify", "/SHA256.sig", None, &signify),
    ] {
        let args = args(name, list, signature, key);
        suite.ok(&args.iter().map(String::as_str).collect::<Vec<_>>())?;
        ensure!(holds(&suite, name, &noise(102_400))?, "{name}: other bytes");
    }
    // Disks and ISO images come as images do.
    for what in ["disk", "iso"] {
        let mut args = args(&format!("other-{what}"), "/SHA256.sig", None, &openpgp);
        what.clone_into(&mut args[0]);
        let (_, message) = suite.fails(&args.iter().map(String::as_str).collect::<Vec<_>>())?;
        ensure!(message.contains("none of those that were given"), "{what}: {message}");
        signify.clone_into(args.last_mut().context("no key")?);
        suite.ok(&args.iter().map(String::as_str).collect::<Vec<_>>())?;
    }
    // A list that is signed says what an image must be.
    server.put("/a.img", Page::File(noise(99_999)));
    let args = args("other", "/SHA256", Some("/SHA256.gpg"), &openpgp);
    let (_, message) = suite.fails(&args.iter().map(String::as_str).collect::<Vec<_>>())?;
    ensure!(message.contains("its checksum is not that of the list"), "{message}");
    suite.finish()
}

#[test]
fn an_image_counts_if_one_of_the_keys_that_were_given_signed_it() -> Result<()> {
    let suite = suite()?;
    let (server, ca) = https::start(suite.dir())?;
    let key = |name: &str, bytes: &[u8]| -> Result<String> {
        let path = suite.dir().join(name);
        std::fs::write(&path, bytes)?;
        Ok(path.to_string_lossy().into_owned())
    };
    let (good, other) = (key("image.key", signed!("image.key"))?, key("other.key", signed!("other.key"))?);
    let signify = key("signify.key", signed!("signify.key"))?;
    let image = noise(102_400);
    let changed = |change: fn(&mut Vec<u8>)| {
        let mut bytes = image.to_vec();
        change(&mut bytes);
        Arc::new(bytes)
    };
    let longer = changed(|bytes| bytes.push(0));
    let shorter = changed(|bytes| bytes.truncate(bytes.len() - 1));
    let turned = changed(|bytes| bytes.iter_mut().last().into_iter().for_each(|byte| *byte ^= 1));
    for (path, page) in [
        ("/a.img", Page::File(image.clone())),
        ("/chunked", Page::Chunked(image.clone())),
        ("/breaks", Page::Breaking(image.clone(), 30_000)),
        ("/longer", Page::File(longer)),
        ("/shorter", Page::File(shorter.clone())),
        ("/shorter-chunked", Page::Chunked(shorter)),
        ("/turned", Page::Breaking(turned, 102_399)),
        ("/zeros.gz", Page::File(Arc::new(signed!("zeros.gz").to_vec()))),
        ("/zeros.gz.asc", Page::File(Arc::new(signed!("zeros.gz.asc").to_vec()))),
        ("/a.img.asc", Page::File(Arc::new(signed!("a.img.asc").to_vec()))),
        ("/expired.asc", Page::File(Arc::new(signed!("a.img.expired.asc").to_vec()))),
        ("/a.img.sig", Page::File(Arc::new(signed!("SHA256.sig").to_vec()))),
        ("/long.asc", Page::File(noise(70_000))),
        ("/SHA256", Page::File(Arc::new(signed!("SHA256").to_vec()))),
    ] {
        server.put(path, page);
    }
    let args = |name: &str, path: &str, signature: Option<&str>, key: &str| {
        let mut args: Vec<String> =
            ["image", "import", name, &server.url(path), "--ca", &ca, "--signed-by", key].map(str::to_owned).into();
        args.extend(signature.into_iter().flat_map(|path| ["--signature".to_owned(), server.url(path)]));
        args
    };
    let refused = |args: &[String], why: &str| -> Result<()> {
        let (_, message) = suite.fails(&args.iter().map(String::as_str).collect::<Vec<_>>())?;
        ensure!(message.contains(why), "{args:?}: {message}");
        nothing_is_left(&suite)
    };
    // What cannot count, whatever comes, is refused before a byte of it is asked for.
    for (signature, key, why) in [
        (Some("/a.img.asc"), &other, "which is none of those that were given"),
        (Some("/a.img.asc"), &signify, "which is none of those that were given"),
        (Some("/expired.asc"), &good, "has signed held until"),
        (Some("/a.img.sig"), &signify, "it is signify's"),
        (Some("/SHA256"), &good, "it is no signature that is understood"),
        (Some("/long.asc"), &good, "more than 65536 bytes"),
        (Some("/none"), &good, "404 Not Found"),
        (None, &good, "neither is named"),
    ] {
        refused(&args("refused", "/a.img", signature, key), why)?;
    }
    ensure!(server.asked("/a.img").is_empty(), "the image was asked for");
    // With a list it is that which is signed.
    let with_list = [args("refused", "/a.img", Some("/a.img.asc"), &good), vec!["--sums".to_owned(), server.url("/SHA256")]];
    refused(&with_list.concat(), "what came is not what key")?;
    ensure!(server.asked("/a.img").is_empty(), "the image was asked for");
    // The rest when all of it has come: one of another image, longer, shorter, with another last bit, which comes by itself after a break.
    for path in ["/zeros.gz", "/longer", "/shorter", "/shorter-chunked", "/turned"] {
        refused(&args("refused", path, Some("/a.img.asc"), &good), "what came is not what key")?;
    }
    ensure!(server.asked("/turned").len() == 2, "it did not break off");
    for path in ["/a.img", "/chunked", "/breaks"] {
        let name = path.trim_start_matches('/');
        suite.ok(&args(name, path, Some("/a.img.asc"), &good).iter().map(String::as_str).collect::<Vec<_>>())?;
        ensure!(holds(&suite, name, &image)?, "{path}: other bytes");
    }
    ensure!(server.asked("/breaks").len() == 4, "it did not break off");
    // Packed, it is signed as it is there.
    suite.ok(&args("zeros", "/zeros.gz", Some("/zeros.gz.asc"), &good).iter().map(String::as_str).collect::<Vec<_>>())?;
    ensure!(holds(&suite, "zeros", &vec![0; 1 << 20])?, "other bytes");
    // An ISO image likewise; and of a file nothing of this can be said.
    let mut iso = args("netinst", "/longer", Some("/a.img.asc"), &good);
    "iso".clone_into(&mut iso[0]);
    let run = |args: &[String]| suite.fails(&args.iter().map(String::as_str).collect::<Vec<_>>());
    ensure!(run(&iso)?.1.contains("what came is not what key"), "an ISO image");
    iso[3] = server.url("/a.img");
    suite.ok(&iso.iter().map(String::as_str).collect::<Vec<_>>())?;
    "/dev/null".clone_into(&mut iso[3]);
    ensure!(run(&iso)?.1.contains("they are about what comes from an address"), "a file");
    suite.finish()
}

fn begin(suite: &Suite, server: &Https, ca: &str, name: &str) -> Result<std::process::Child> {
    Ok(suite.command(&["image", "import", name, &server.url("/held"), "--ca", ca]).spawn()?)
}

#[test]
fn a_fetch_that_loses_a_process_on_its_way_fails_and_leaves_nothing() -> Result<()> {
    let suite = suite()?;
    let (server, ca) = https::start(suite.dir())?;
    server.put("/held", Page::Held(noise(8 << 20), 6 << 20));
    for (turn, dies) in ["image-fetcher", "storage-helper", "broker", "vm-runner", "net-helper", "cancelled"].iter().enumerate() {
        let mut import = begin(&suite, &server, &ca, dies)?;
        server.wait_held(turn + 1);
        if turn == 0 {
            let audit = suite.skep(&["audit"])?;
            ensure!(audit.status.success(), "{}", String::from_utf8_lossy(&audit.stdout));
            let text = String::from_utf8_lossy(&audit.stdout).into_owned();
            ensure!(text.contains("image-fetcher"), "the audit does not know it: {text}");
        }
        let operations = suite.json(&["op", "list"])?;
        let object = format!("disk {dies}");
        let id = operations.iter().find(|op| op["object"] == object.as_str()).and_then(|op| op["id"].as_str());
        let id = id.context("no operation")?.to_owned();
        match *dies {
            "cancelled" => drop(suite.ok(&["op", "cancel", &id])?),
            _ => end(suite.pids(dies)?[0])?,
        }
        // Neither the spawner nor net-helper is needed for what has begun: it goes on, and is cancelled here.
        if ["vm-runner", "net-helper"].contains(dies) {
            suite.up()?;
            ensure!(suite.pids("image-fetcher")?.len() == 1, "{dies}: the fetch did not go on");
            suite.ok(&["op", "cancel", &id])?;
        }
        suite.up()?;
        ensure!(!import.wait()?.success(), "{dies}: the import succeeded");
        suite.fails(&["op", "show", &id, "--wait"])?;
        nothing_is_left(&suite).with_context(|| (*dies).to_owned())?;
    }
    suite.finish()
}

/// On FreeBSD what is left would be the mounts of its jail, which nobody removes when no suite runs.
#[test]
fn a_suite_that_goes_down_breaks_off_what_is_fetched() -> Result<()> {
    let suite = suite()?;
    let (server, ca) = https::start(suite.dir())?;
    server.put("/held", Page::Held(noise(8 << 20), 6 << 20));
    let mut import = begin(&suite, &server, &ca, "web")?;
    server.wait_held(1);
    suite.ok(&["down"])?;
    ensure!(!import.wait()?.success(), "the import succeeded");
    let cells = suite.run.join("cells");
    ensure!(!cells.exists(), "a cell is left in {}", cells.display());
    suite.up()?;
    nothing_is_left(&suite)?;
    suite.finish()
}
