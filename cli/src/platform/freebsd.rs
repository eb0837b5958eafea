//! FreeBSD.

use super::{Check, Found, first_file};
use skep_proto::InstanceId;
use skep_sys::freebsd::{devfs, has_module, has_sysctl, jail};
use std::ffi::CStr;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

/// STATE of root's suite.
pub const STATE: &str = "/var/db/skep";
/// Where packages put the file of [`crate::installed`].
pub const CONF: &str = "/usr/local/etc/skep/skep.conf";

/// Who runs an installed suite.
pub const MANAGED: &str = "`service skep_broker status`";

/// The command that makes the user of a service.
pub fn make_user(name: &str) -> String {
    format!("`pw useradd {name} -d /nonexistent -s /usr/sbin/nologin`")
}

/// Puts this process into a jail, for good.
pub fn enter_jail(name: &str) -> io::Result<()> {
    let id = jail::find(name)?.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "there is no such jail"))?;
    jail::attach(id)
}

/// What services cannot take away themselves when the suite ends: their directory of mount points, and the devfs that showed
/// storage-helper its volumes. It stays while machines run on that may hold some of them: an attempt to unmount it would fail, but have
/// the kernel forget its directories, and with them the names of what is held.
pub fn clear(run: &Path, instance: InstanceId) {
    let cells = run.join("cells");
    for spare in std::fs::read_dir(&cells).into_iter().flatten().filter_map(Result::ok) {
        if spare.file_name().to_string_lossy().starts_with(skep_service::SPARE) {
            let _ = std::fs::remove_dir(spare.path());
        }
    }
    // The spawner's mount points; it is not empty while machines run on.
    match std::fs::remove_dir(cells) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return,
        _ => {}
    }
    let _ = devfs::hide(&run.join("volumes"), &devfs::Mark::new(instance, "volumes"));
}

/// What machines need of this host.
pub fn checks(prefixes: &[&Path], root: bool) -> Vec<Check> {
    let is = |ok: bool, otherwise: Found| if ok { Found::Ok } else { otherwise };
    let file = |path: &str, otherwise: Found| is(first_file(prefixes, &[path]).is_some(), otherwise);
    let knows = |name: &CStr, otherwise: Found| is(has_sysctl(name), otherwise);
    let who = if root { "yes" } else { "jails and vmm(4) need a suite that root started" };
    let capsicum = knows(c"kern.features.security_capability_mode", Found::Missing);
    vec![
        Check::new("root", is(root, Found::Missing), who, "start the suite as root"),
        Check::new(
            "hypervisor",
            file(skep_cellroot::HYPERVISOR, Found::Missing),
            skep_cellroot::HYPERVISOR,
            "install the base system's bhyve",
        ),
        Check::new("UEFI firmware", file(skep_cellroot::UEFI, Found::Weaker), skep_cellroot::UEFI, "pkg install edk2-bhyve"),
        module("hypervisor's module", c"vmm", Found::Missing),
        Check::new("capability mode", capsicum, "kern.features", "boot a kernel with options CAPABILITY_MODE"),
        file_system("roots of cells", c"nullfs"),
        file_system("descriptors in cells", c"fdescfs"),
        file_system("memory in cells", c"tmpfs"),
        module("taps", c"if_tuntap", Found::Weaker),
        module("bridges", c"if_bridge", Found::Weaker),
        module("pairs", c"if_epair", Found::Weaker),
        module("bridges of netgraph", c"ng_bridge", Found::Weaker),
        module("tunnels", c"if_vxlan", Found::Weaker),
        module("frames of taps", c"ng_ether", Found::Weaker),
        module("guests kept apart", c"ng_bpf", Found::Weaker),
        subnets(),
        Check::new(
            "QCOW2 disks",
            is(Path::new("/dev/ggctl").exists(), Found::Weaker),
            "geom_gate(4)",
            "kldload geom_gate; sysrc kld_list+=geom_gate",
        ),
        Check::new(
            "ZFS volumes",
            is(Path::new("/dev/zfs").exists(), Found::Weaker),
            "/dev/zfs",
            "kldload zfs; `skep up --zfs-dataset POOL/NAME`",
        ),
        Check::new(
            "limits",
            is(skep_sys::freebsd::rctl::usage("user:0").is_ok(), Found::Weaker),
            "rctl(8): kern.racct.enable",
            "echo kern.racct.enable=1 >>/boot/loader.conf; reboot",
        ),
    ]
}

/// What keeps switches that are subnets apart.
fn subnets() -> Check {
    use skep_sys::freebsd::pf::{Main, is_on, main};
    let check = |found, detail: &str, mend: &str| Check::new("subnets", found, detail, mend);
    let open = std::fs::File::options().read(true).open("/dev/pf");
    let pf = match open {
        Ok(pf) => pf,
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            return check(Found::Weaker, "only root sees what pf(4) does", "ask as root");
        }
        Err(_) => return check(Found::Weaker, "pf(4) is not loaded", "kldload pf; sysrc kld_list+=pf"),
    };
    let off = "pf(4) has rules and is off";
    match main(pf.as_fd(), "skep/*") {
        Ok(Main::Empty) => check(Found::Ok, "pf(4) has no rules but skep's", ""),
        Ok(Main::Calls { .. }) if is_on(pf.as_fd()).is_ok_and(|on| !on) => {
            check(Found::Weaker, off, "service pf enable; service pf start")
        }
        Ok(Main::Calls { .. }) => check(Found::Ok, "pf(4) calls the rules of skep", ""),
        Ok(Main::Others) => check(
            Found::Weaker,
            "pf(4) has rules that do not call skep's",
            "add to /etc/pf.conf: nat-anchor \"skep/*\" | rdr-anchor \"skep/*\" | anchor \"skep/*\", each a line among its kind; service pf reload",
        ),
        Err(error) => check(Found::Weaker, &format!("pf(4) does not say what its rules are: {error}"), "report it"),
    }
}

/// A module of the kernel, and what loads it now and at each boot.
fn module(name: &'static str, module: &CStr, otherwise: Found) -> Check {
    let file = module.to_string_lossy();
    let found = if has_module(module) { Found::Ok } else { otherwise };
    Check::new(name, found, format_args!("{file}(4)"), &format!("kldload {file}; echo '{file}_load=\"YES\"' >>/boot/loader.conf"))
}

/// A file system, whose module the kernel loads by itself at the first mount if it is there.
fn file_system(name: &'static str, module: &CStr) -> Check {
    let file = module.to_string_lossy();
    let there = ["/boot/kernel", "/boot/modules"].iter().any(|dir| Path::new(dir).join(format!("{file}.ko")).exists());
    let found = if there || has_module(module) { Found::Ok } else { Found::Missing };
    Check::new(name, found, format_args!("{file}(5)"), &format!("put {file}.ko into /boot/modules, or build it into the kernel"))
}
