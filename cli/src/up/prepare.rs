//! Before the services start: directories, the instance's mark, uids, the root of the cells.

use super::supervisor::DATASET;
use super::{Options, Places, UpError, step};
use nix::unistd::{Uid, geteuid};
use skep_proto::{IfName, InstanceId};
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Longest path of a UNIX socket below RUN: `console/UUID.sock` in `sun_path` (unix(7): 107 bytes; unix(4) of FreeBSD: 103).
const LONGEST_RUN: usize = 103 - "/console/00000000-0000-0000-0000-000000000000.sock".len();

/// What the services are started with.
#[derive(Debug)]
pub struct Prepared {
    /// Marks what this suite owns on the host.
    pub instance: InstanceId,
    /// `--ids`, if root starts them.
    pub ids: Option<String>,
    /// The dataset of ZFS volumes, if there is one.
    pub dataset: Option<String>,
    /// The host's interfaces that switches may have, between commas.
    pub uplinks: String,
    /// Networks inside that images may be fetched from, between commas.
    pub fetch_from: String,
    /// Networks that portals of iSCSI targets may be in, between commas.
    pub iscsi_portals: String,
    /// Directories that machines may share, with their names, between commas.
    pub shares: String,
    /// Where the services' programs are.
    pub programs: PathBuf,
}

/// The services, helpers first.
pub const SERVICES: [&str; 5] = ["storage-helper", "net-helper", "vm-runner", "broker", "api-frontend"];

impl Prepared {
    /// What [`prepare`] has left in STATE.
    pub fn load(places: &Places) -> Result<Self, UpError> {
        let read = |name: &str| {
            let path = places.state.join(name);
            fs::read_to_string(&path).map(|text| text.trim().to_owned()).map_err(step(format!("read {}", path.display())))
        };
        let wrong = |e| step(places.state.join("instance").display())(io::Error::other(format!("{e}")));
        let instance = read("instance")?.parse().map_err(wrong)?;
        let ids = if geteuid().is_root() { Some(read("ids")?) } else { None };
        Ok(Self {
            instance,
            ids,
            dataset: dataset(places)?,
            uplinks: uplinks(&places.state, None)?,
            fetch_from: networks(&places.state, FETCH_FROM, None)?,
            iscsi_portals: networks(&places.state, ISCSI_PORTALS, None)?,
            shares: shares(places, None)?,
            programs: programs()?,
        })
    }

    /// A service's program and its flags, whoever starts it.
    pub fn command(&self, places: &Places, service: &str, options: &Options) -> (PathBuf, Vec<String>) {
        let path = |p: &Path| p.to_string_lossy().into_owned();
        let mut args = vec!["--state".into(), path(&places.state), "--run".into(), path(&places.run)];
        args.extend(["--instance".into(), self.instance.to_string()]);
        args.extend(self.ids.iter().flat_map(|ids| ["--ids".to_owned(), ids.clone()]));
        match (service, &options.listen, options.dataset.as_ref().or(self.dataset.as_ref())) {
            ("api-frontend", Some(address), _) => args.extend(["--listen".into(), address.clone()]),
            ("storage-helper", _, Some(dataset)) => args.extend(["--zfs-dataset".into(), dataset.clone()]),
            _ => {}
        }
        // The broker believes the frontend that it asks for metrics only where they are served.
        if let Some(address) = options.metrics.as_ref().filter(|_| ["broker", "api-frontend"].contains(&service)) {
            args.extend(["--metrics".into(), address.clone()]);
        }
        if service == "net-helper" {
            args.extend(["--resolvers".to_owned(), resolvers()]);
        }
        if service == "net-helper" && !self.uplinks.is_empty() {
            args.extend(["--uplinks".to_owned(), self.uplinks.clone()]);
        }
        if service == "net-helper" && !self.fetch_from.is_empty() {
            args.extend(["--fetch-from".to_owned(), self.fetch_from.clone()]);
        }
        if service == "net-helper" && !self.iscsi_portals.is_empty() {
            args.extend(["--iscsi-portals".to_owned(), self.iscsi_portals.clone()]);
        }
        if service == "vm-runner" && !self.shares.is_empty() {
            args.extend(["--shares".to_owned(), self.shares.clone()]);
        }
        (self.programs.join(format!("skep-{service}")), args)
    }
}

/// Makes what is missing and checks what is there. Uplinks and shares that are `given` are those from now on.
pub fn prepare(places: &Places, given: &Options) -> Result<Prepared, UpError> {
    if places.run.as_os_str().len() > LONGEST_RUN {
        let error = io::Error::other(format!("a path of at most {LONGEST_RUN} bytes is needed; set SKEP_RUN"));
        return Err(step(places.run.display())(error));
    }
    let umask = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let result = directories(places);
    nix::sys::stat::umask(umask);
    result?;
    let instance = instance(&places.state)?;
    let ids = match &places.installed {
        _ if !geteuid().is_root() => None,
        Some(installed) => Some(installed.ids(&SERVICES)?),
        None => Some(ids(instance)),
    };
    if let Some(ids) = &ids {
        keep_ids(&places.state.join("ids"), ids)?;
        // Administrators elsewhere read them through storage-helper, whoever writes them here.
        let parsed = skep_service::Ids::parse(ids).map_err(|why| step("ids")(io::Error::other(why)))?;
        for service in SERVICES {
            let made = skep_service::make(&places.state.join("logs"), service, parsed.group_of(skep_service::Role::Storage));
            made.map_err(step(format!("make the log of {service}")))?;
        }
    }
    // A line that was taken out of the file takes its interfaces, or its directories, back.
    let installed = places.installed.as_ref();
    let uplinks = uplinks(&places.state, given.uplinks.as_deref().or(installed.map(|i| i.uplinks.as_deref().unwrap_or("none"))))?;
    let from = given.fetch_from.as_deref().or(installed.map(|i| i.fetch_from.as_deref().unwrap_or("none")));
    let fetch_from = networks(&places.state, FETCH_FROM, from)?;
    let portals = given.iscsi_portals.as_deref().or(installed.map(|i| i.iscsi_portals.as_deref().unwrap_or("none")));
    let iscsi_portals = networks(&places.state, ISCSI_PORTALS, portals)?;
    let shares = shares(places, given.shares.as_deref().or(installed.map(|i| i.shares.as_deref().unwrap_or("none"))))?;
    let programs = programs()?;
    let prefixes = std::env::var_os("SKEP_PKG").map(PathBuf::from).unwrap_or_else(|| places.state.join("pkg"));
    if prefixes.is_dir() {
        // Whoever may put links there would have us copy what only we may read.
        own(&prefixes)?;
    }
    let config = skep_cellroot::Config {
        state: places.state.clone(),
        prefixes: if prefixes.is_dir() { vec![prefixes] } else { Vec::new() },
        programs: programs.clone(),
    };
    skep_cellroot::prepare(&config)?;
    let dataset = dataset(places)?;
    if places.installed.is_some() {
        // Not to be found again by a suite that is started otherwise in this STATE.
        forget(&places.state.join(DATASET))?;
    }
    Ok(Prepared { instance, ids, dataset, uplinks, fetch_from, iscsi_portals, shares, programs })
}

/// The dataset of ZFS volumes: of an installed suite what the file says, and nothing else; otherwise as remembered.
pub fn dataset(places: &Places) -> Result<Option<String>, UpError> {
    if let Some(installed) = &places.installed {
        return Ok(installed.dataset.clone());
    }
    let path = places.state.join(DATASET);
    match fs::read_to_string(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        text => Ok(Some(text.map_err(step(format!("read {}", path.display())))?.trim().to_owned())),
    }
}

fn forget(path: &Path) -> Result<(), UpError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(step(format!("remove {}", path.display()))(e)),
        _ => Ok(()),
    }
}

fn directories(places: &Places) -> Result<(), UpError> {
    for path in [&places.state, &places.run, &places.state.join("logs")] {
        let make = fs::DirBuilder::new().recursive(true).mode(0o711).create(path);
        make.map_err(step(format!("make {}", path.display())))?;
    }
    for path in [&places.state, &places.run] {
        own(path)?;
        if geteuid().is_root() {
            passable(path)?;
        }
        // Services with uids of their own must get through.
        let mode = fs::Permissions::from_mode(if geteuid().is_root() { 0o711 } else { 0o700 });
        fs::set_permissions(path, mode).map_err(step(format!("chmod {}", path.display())))?;
    }
    Ok(())
}

/// Services with uids of their own must get to it.
fn passable(path: &Path) -> Result<(), UpError> {
    for above in path.ancestors().skip(1) {
        let meta = fs::metadata(above).map_err(step(format!("look at {}", above.display())))?;
        if meta.mode() & 0o001 == 0 {
            let what = format!("{} lets nobody but its owner through, and the services have uids of their own", above.display());
            let mend = format!("chmod o+x {}, or choose another place (SKEP_STATE, SKEP_RUN)", above.display());
            return Err(step(path.display())(io::Error::other(format!("{what}; {mend}"))));
        }
    }
    Ok(())
}

/// A directory that somebody else made may hold anything.
fn own(path: &Path) -> Result<(), UpError> {
    let meta = fs::symlink_metadata(path).map_err(step(format!("look at {}", path.display())))?;
    if meta.is_dir() && Uid::from_raw(meta.uid()) == geteuid() {
        return Ok(());
    }
    Err(step(path.display())(io::Error::other(format!("it must be a directory of uid {}", geteuid()))))
}

/// The mark, made at the first start and never changed.
fn instance(state: &Path) -> Result<InstanceId, UpError> {
    let path = state.join("instance");
    match fs::read_to_string(&path) {
        Ok(text) => {
            let wrong = |e| step(path.display())(io::Error::other(format!("{e}; four of a-z0-9 are expected")));
            text.trim().parse().map_err(wrong)
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let instance = InstanceId::random();
            let part = state.join("instance.part");
            let write = fs::write(&part, format!("{instance}\n")).and_then(|()| fs::rename(&part, &path));
            write.map_err(step(format!("write {}", path.display())))?;
            Ok(instance)
        }
        Err(e) => Err(step(format!("read {}", path.display()))(e)),
    }
}

/// Writes `STATE/ids`. The files in STATE belong to the services' uids, so these do not change behind their back.
fn keep_ids(path: &Path, ids: &str) -> Result<(), UpError> {
    let services = |text: &str| text.trim().split(',').filter(|p| !p.starts_with("machines=")).collect::<Vec<_>>().join(",");
    match fs::read_to_string(path) {
        Ok(old) if old.trim() == ids => return Ok(()),
        Ok(old) if services(&old) != services(ids) => {
            let why = format!(
                "the services' files here belong to other uids ({}) than they have now ({}); change their owners and remove this file",
                services(&old),
                services(ids)
            );
            return Err(step(path.display())(io::Error::other(why)));
        }
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(step(format!("read {}", path.display()))(e)),
        _ => {}
    }
    let part = path.with_extension("part");
    let write = fs::write(&part, format!("{ids}\n")).and_then(|()| fs::rename(&part, path));
    write.map_err(step(format!("write {}", path.display())))
}

/// Whom this host asks for names (resolv.conf(5)): addresses between commas, as they are at the helper's start.
fn resolvers() -> String {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let servers = text.lines().filter_map(|line| line.trim_start().strip_prefix("nameserver"));
    // An address with a zone names an interface of the host's: such a resolver is left out.
    let addresses = servers.filter_map(|rest| rest.split_whitespace().next()?.parse::<std::net::IpAddr>().ok());
    addresses.take(3).map(|address| address.to_string()).collect::<Vec<_>>().join(",")
}

/// The uplinks, kept beside the instance's mark: a file of whoever starts the suite, which no service can write to.
fn uplinks(state: &Path, given: Option<&str>) -> Result<String, UpError> {
    let path = state.join("uplinks");
    let text = kept(&path, given)?;
    let names = text.trim().split(',').map(str::trim).filter(|name| !name.is_empty() && *name != "none");
    let wrong = |name: &str, e: String| step(format!("uplink {name}"))(io::Error::other(e));
    let names = names.map(|name| name.parse::<IfName>().map(|n| n.to_string()).map_err(|e| wrong(name, e.to_string())));
    let names = names.collect::<Result<Vec<_>, _>>()?.join(",");
    if given.is_some() {
        fs::write(&path, format!("{names}\n")).map_err(step(format!("write {}", path.display())))?;
    }
    Ok(names)
}

/// Files of STATE: networks that images may be fetched from, and that portals of iSCSI targets may be in.
const FETCH_FROM: &str = "fetch-from";
const ISCSI_PORTALS: &str = "iscsi-portals";

/// Such networks, kept likewise.
fn networks(state: &Path, name: &str, given: Option<&str>) -> Result<String, UpError> {
    let path = state.join(name);
    let text = kept(&path, given)?;
    let networks = text.trim().split(',').map(str::trim).filter(|network| !network.is_empty() && *network != "none");
    let networks = networks.map(|network| {
        let (address, prefix) = network.split_once('/').unwrap_or((network, "0"));
        let good = address.parse::<std::net::IpAddr>().is_ok() && prefix.parse::<u8>().is_ok_and(|prefix| prefix <= 128);
        let wrong = || step(format!("network {network}"))(io::Error::other("an address is expected, or ADDRESS/BITS"));
        if good { Ok(network) } else { Err(wrong()) }
    });
    let networks = networks.collect::<Result<Vec<_>, _>>()?.join(",");
    if given.is_some() {
        fs::write(&path, format!("{networks}\n")).map_err(step(format!("write {}", path.display())))?;
    }
    Ok(networks)
}

/// What is given, else what was the last time; at first nothing.
fn kept(path: &Path, given: Option<&str>) -> Result<String, UpError> {
    match given.map_or_else(|| fs::read_to_string(path), |text| Ok(text.to_owned())) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        text => text.map_err(step(format!("read {}", path.display()))),
    }
}

/// The directories that machines may share, kept likewise.
fn shares(places: &Places, given: Option<&str>) -> Result<String, UpError> {
    let path = places.state.join("shares");
    let all = skep_service::shares(&kept(&path, given)?, &[&places.state, &places.run]);
    let text = skep_service::shares_text(&all.map_err(|why| step("shares")(io::Error::other(why)))?);
    if given.is_some() {
        fs::write(&path, format!("{text}\n")).map_err(step(format!("write {}", path.display())))?;
    }
    Ok(text)
}

/// Uids of a suite's block, and those of it that are before the machines'.
const BLOCK: u32 = 4096;
const BEFORE: u32 = 16;
// Beyond its block would be those of another suite's services.
const _: () = assert!(BEFORE + skep_service::UIDS <= BLOCK);

/// A block of 4,096 uids above 1,000,000, chosen by the instance, so that two suites on a host do not share theirs.
fn ids(instance: InstanceId) -> String {
    let hash = instance.to_string().bytes().fold(0u32, |h, c| h.wrapping_mul(37).wrapping_add(u32::from(c)));
    let base = 1_000_000 + hash % 4000 * BLOCK;
    let services = ["broker", "api-frontend", "storage-helper", "net-helper", "vm-runner"];
    let services = services.iter().zip(base..).map(|(name, id)| format!("{name}={id}"));
    services.chain([format!("machines={}", base + BEFORE)]).collect::<Vec<_>>().join(",")
}

/// Beside this program, or in `../libexec/skep`.
pub fn programs() -> Result<PathBuf, UpError> {
    let own = std::env::current_exe().map_err(step("own path"))?;
    let beside = own.parent().unwrap_or(Path::new("/")).to_owned();
    let libexec = beside.join("../libexec/skep");
    for dir in [&beside, &libexec] {
        if dir.join("skep-broker").exists() {
            return dir.canonicalize().map_err(step(dir.display()));
        }
    }
    let error = io::Error::other("skep-broker is neither beside skep nor in ../libexec/skep");
    Err(step(beside.display())(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line that was taken out of the file ends the dataset's use, whatever was remembered before.
    #[test]
    fn what_the_file_no_longer_says_is_not_remembered() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = dir.path().to_owned();
        fs::write(state.join(DATASET), "zroot/old\n").expect("written");
        let places = |text: &str, installed: bool| {
            let conf = crate::installed::Installed::parse(text).expect("valid");
            Places { state: state.clone(), run: state.join("run"), installed: installed.then_some(conf), by_default: false }
        };
        assert_eq!(dataset(&places("", false)).expect("read").as_deref(), Some("zroot/old"));
        assert_eq!(dataset(&places("dataset = zroot/skep", true)).expect("read").as_deref(), Some("zroot/skep"));
        assert_eq!(dataset(&places("", true)).expect("read"), None);
        let prepared = |places: &Places| Prepared {
            instance: "ab12".parse().expect("an id"),
            ids: None,
            dataset: dataset(places).expect("read"),
            uplinks: String::new(),
            fetch_from: String::new(),
            iscsi_portals: String::new(),
            shares: String::new(),
            programs: "/".into(),
        };
        let flags = |text: &str| {
            let places = places(text, true);
            prepared(&places).command(&places, "storage-helper", &Options::default()).1
        };
        assert!(flags("dataset = zroot/skep").ends_with(&["--zfs-dataset".to_owned(), "zroot/skep".to_owned()]));
        assert!(!flags("").contains(&"--zfs-dataset".to_owned()));
        for _ in 0..2 {
            forget(&state.join(DATASET)).expect("removed");
        }
        assert_eq!(dataset(&places("", false)).expect("read"), None);
    }
}
