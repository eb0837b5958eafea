//! Directories and sockets of a service, as an ordinary user's suite makes them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use skep_service::{Role, Start};
use skep_sys::sock;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::path::Path;

fn start(dir: &Path) -> Start {
    Start { state: dir.into(), run: dir.join("run"), instance: "ab12".parse().unwrap(), ids: None, extra: Default::default() }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_socket_is_its_peer_s_alone_and_replaces_a_stale_one() {
    let dir = tempfile::tempdir().unwrap();
    let start = start(dir.path());
    let path = start.run.join("storage-helper.sock");
    for _ in 0..2 {
        let listener = start.bind(Role::Storage, Role::Broker).unwrap();
        assert!(fs::symlink_metadata(&path).unwrap().file_type().is_socket());
        assert_eq!(mode(&path), 0o600);
        let client = sock::connect_seqpacket(&path).unwrap();
        let server = sock::accept(listener.as_fd()).unwrap();
        let (uid, pid) = (nix::unistd::geteuid().as_raw(), std::process::id() as i32);
        for end in [client.as_fd(), server.as_fd()] {
            let peer = sock::peer(end).unwrap();
            assert_eq!((peer.uid, peer.pid), (uid, pid));
        }
    }
}

#[test]
fn a_directory_in_a_socket_s_place_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let start = start(dir.path());
    let path = start.run.join("broker.sock");
    fs::create_dir_all(path.join("full")).unwrap();
    let error = start.bind(Role::Broker, Role::Frontend).unwrap_err().to_string();
    assert!(error.starts_with(&format!("bind {}: ", path.display())), "{error}");
}

#[test]
fn an_own_directory_gets_its_mode_and_is_no_link() {
    let dir = tempfile::tempdir().unwrap();
    let start = start(dir.path());
    let own = dir.path().join("a/b");
    for wanted in [0o700, 0o2710] {
        start.own_dir(&own, Role::Storage, wanted).unwrap();
        assert_eq!(mode(&own), wanted);
    }
    let link = dir.path().join("link");
    symlink("/etc", &link).unwrap();
    assert!(start.own_dir(&link, Role::Storage, 0o700).unwrap_err().to_string().starts_with("use "));
    assert_eq!(mode(Path::new("/etc")) & 0o755, 0o755);
    fs::write(dir.path().join("file"), "").unwrap();
    assert!(start.own_dir(&dir.path().join("file"), Role::Storage, 0o700).is_err());
}

#[test]
fn what_a_service_put_into_its_directory_is_used_with_its_rights() {
    let dir = tempfile::tempdir().unwrap();
    let mut start = start(dir.path());
    let ids = "broker=71000,api-frontend=71001,storage-helper=71002,net-helper=71003,vm-runner=71004,machines=72000";
    start.ids = nix::unistd::geteuid().is_root().then(|| skep_service::Ids::parse(ids).unwrap());
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
    let (own, secret) = (dir.path().join("own"), dir.path().join("secret"));
    start.own_dir(&own, Role::Frontend, 0o700).unwrap();
    fs::write(&secret, "root's").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    symlink(&secret, own.join("link")).unwrap();
    let before = nix::unistd::geteuid();
    let read = start.as_role(Role::Frontend, || Ok::<_, skep_service::StartError>(fs::read(own.join("link")).is_ok())).unwrap();
    assert_eq!(read, !before.is_root(), "root may not be led where the service may not go");
    assert_eq!(nix::unistd::geteuid(), before);
}
