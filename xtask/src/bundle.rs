//! One directory with everything that a bare FreeBSD host needs to try skep: programs, tests, and the script that runs them.
//!
//! Made on Linux it is cross-compiled (scripts/freebsd-cross), on FreeBSD built as usual. It needs no network, package or toolchain
//! where it runs.

use crate::root;
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const TARGET: &str = "x86_64-unknown-freebsd";

/// How far cargo optimises what is tested, unless who asks for the bundle says otherwise.
const OPTIMISED: &str = "CARGO_PROFILE_DEV_OPT_LEVEL";

/// Packages whose tests ask the kernel. Those of the others are the same on every host, and run where they are built.
const TESTED: &[&str] = &[
    "skep-sys",
    "skep-ipc",
    "skep-sandbox",
    "skep-service",
    "skep-cellroot",
    "skep-audit",
    "skep-net-helper",
    "skep-storage-helper",
    "skep-console-proxy",
    "skep-guest-services",
    "skep-image-fetcher",
    "skep-iscsi-initiator",
    "skep-vm-runner",
    "skep-broker",
    "skep-api-frontend",
    "skep",
    "skep-tests",
];

/// Files of the tree that go along, by their place.
const FILES: &[&str] = &[
    "run",
    "scripts/guest",
    "scripts/guest-freebsd",
    "scripts/guest-init",
    "scripts/state.sh",
    "docs/devices.md",
    "docs/escape-freebsd.md",
    "LICENSE",
    "README.md",
];

/// Those that are installed, of which a test says that they are good.
const TEMPLATES: &str = "packaging/templates";
/// Of their vendors.
const KEYS: &str = "packaging/templates/keys";

/// Something that cargo built.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Built {
    Program(String, PathBuf),
    Test { package: String, name: String, path: PathBuf },
}

/// Makes the directory, which must not be there or be empty. With `release`, its programs are optimised, as those of an installation
/// are: slower to build, and what the benchmarks need.
pub fn make(dir: &Path, release: bool) -> Result<()> {
    let empty = fs::read_dir(dir).map(|mut list| list.next().is_none()).unwrap_or(true);
    ensure!(empty, "{}: it is not empty", dir.display());
    let optimised: &[&str] = if release { &["--release"] } else { &[] };
    let programs = build(&[&["build", "--bins", "--workspace"], optimised].concat())?;
    let mut tests = vec!["test", "--no-run", "--bins", "--lib", "--tests", "--examples"];
    for package in TESTED {
        tests.extend(["-p", package]);
    }
    let tests = build(&tests)?;
    for part in ["bin", "tests", "examples", "scripts", "docs", TEMPLATES, KEYS] {
        fs::create_dir_all(dir.join(part)).with_context(|| dir.display().to_string())?;
    }
    for built in programs {
        if let Built::Program(name, path) = built
            && name != "xtask"
        {
            copy(&path, &dir.join("bin").join(name))?;
        }
    }
    let mut list = BTreeMap::new();
    for built in tests {
        match built {
            Built::Test { package, name, path } => {
                let file = if package == name { package.clone() } else { format!("{package}::{name}") };
                copy(&path, &dir.join("tests").join(&file))?;
                list.insert(file, package);
            }
            Built::Program(..) => {}
        }
    }
    ensure!(!list.is_empty(), "cargo built no tests");
    for file in FILES {
        copy(&root().join(file), &dir.join(file))?;
    }
    for place in [TEMPLATES, KEYS] {
        for file in fs::read_dir(root().join(place))? {
            let file = Path::new(place).join(file?.file_name());
            if root().join(&file).is_file() {
                copy(&root().join(&file), &dir.join(&file))?;
            }
        }
    }
    let compiler = if std::env::consts::OS == "freebsd" { "cc".into() } else { root().join("target/freebsd-cross/bin/cc") };
    let probe = Command::new(compiler).arg("-o").arg(dir.join("probe")).arg(root().join("tests/probe/freebsd.c")).status()?;
    ensure!(probe.success(), "tests/probe/freebsd.c does not compile");
    copy(&root().join("packaging/freebsd/run-tests"), &dir.join("run-tests"))?;
    check(dir)
}

/// That nothing is missing, by looking at what is there.
fn check(dir: &Path) -> Result<()> {
    for program in [
        "skep",
        "skep-broker",
        "skep-vm-runner",
        "skep-net-helper",
        "skep-storage-helper",
        "skep-console-proxy",
        "skep-guest-services",
        "skep-image-fetcher",
        "skep-iscsi-initiator",
        "skep-disk-server",
    ] {
        let bytes = fs::read(dir.join("bin").join(program)).with_context(|| program.to_owned())?;
        // The interpreter's name tells a FreeBSD program.
        let interpreter = b"/libexec/ld-elf.so.1";
        ensure!(bytes.windows(interpreter.len()).any(|w| w == interpreter), "{program} is not a FreeBSD program");
    }
    let tests: Vec<String> =
        fs::read_dir(dir.join("tests"))?.map(|e| Ok(e?.file_name().to_string_lossy().into_owned())).collect::<Result<_>>()?;
    for package in TESTED {
        let there = tests.iter().any(|t| t.split("::").next() == Some(package));
        ensure!(there, "the bundle has no test of {package}");
    }
    println!(
        "{}: {} programs, {} test programs; copy it to a FreeBSD host and run run-tests there as root",
        dir.display(),
        fs::read_dir(dir.join("bin"))?.count(),
        tests.len()
    );
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).map(drop).with_context(|| format!("{} to {}", from.display(), to.display()))
}

/// Runs cargo for FreeBSD; what it built.
fn build(arguments: &[&str]) -> Result<Vec<Built>> {
    let mut cargo = if std::env::consts::OS == "freebsd" {
        Command::new("cargo")
    } else {
        // The environment of the cross-compiler is a shell's.
        let script = "scripts/freebsd-cross && . target/freebsd-cross/env && exec cargo \"$@\" --target \"$target\"";
        let mut shell = Command::new("sh");
        shell.args(["-euc", script, "cargo"]).env("target", TARGET);
        shell
    };
    cargo.args(arguments).args(["--locked", "--message-format", "json-render-diagnostics"]);
    // An emulated host takes half as long for tests that are a little optimised.
    if std::env::var_os(OPTIMISED).is_none() {
        cargo.env(OPTIMISED, "1");
    }
    let output = cargo.current_dir(root()).stderr(Stdio::inherit()).output().context("cargo")?;
    if !output.status.success() {
        bail!("cargo {}: {}", arguments.join(" "), output.status);
    }
    let mut built: Vec<Built> = String::from_utf8(output.stdout)?.lines().filter_map(artifact).collect();
    built.sort();
    Ok(built)
}

/// An executable, from one of cargo's messages.
fn artifact(line: &str) -> Option<Built> {
    let message: serde_json::Value = serde_json::from_str(line).ok()?;
    let path = PathBuf::from(message.pointer("/executable")?.as_str()?);
    let name = message.pointer("/target/name")?.as_str()?.to_owned();
    if message.pointer("/profile/test")? != true {
        return Some(Built::Program(name, path));
    }
    // `…/tests#skep-tests@0.1.0`, or `…/skep-tests#0.1.0` where the folder is named alike.
    let id = message.pointer("/package_id")?.as_str()?;
    let (place, version) = id.rsplit_once('#')?;
    let package = version.split_once('@').map_or_else(|| place.rsplit('/').next().unwrap_or(place), |(name, _)| name);
    Some(Built::Test { package: package.to_owned(), name, path })
}
