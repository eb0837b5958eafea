//! Ports of the host's that lead to guests.
#![cfg(target_os = "linux")]

use anyhow::{Result, ensure};
use skep_tests::beyond::{Beyond, run};
use skep_tests::{Mode, Suite, is_root, skip};

/// What a guest's server says to whoever comes from beyond, and to the host itself.
fn asked(beyond: &Beyond, port: u16) -> Result<[String; 2]> {
    let get = format!("busybox wget -qO- http://{}:{port}/", beyond.host);
    Ok([beyond.run(&get)?, run(&get)?])
}

#[test]
fn a_port_of_the_host_leads_to_a_guest_from_outside() -> Result<()> {
    if !is_root() {
        skip!("switches need root");
    }
    let suite = Suite::start(Mode::Root)?;
    let beyond = Beyond::new(&suite)?;
    suite.import_guest()?;
    suite.ok(&["switch", "create", "net", "--kind", "nat"])?;
    // The host's own are not given away, and one port leads to one guest.
    let listener = std::net::TcpListener::bind((beyond.host.as_str(), 0))?;
    let heard = listener.local_addr()?.port();
    let (code, message) = suite.fails(&["nic", "create", "web1", "--switch", "net", "--forward", &format!("{heard}:80")])?;
    ensure!(code == 5 && message.contains("the host listens on it") && message.contains(&beyond.host), "{code}: {message}");
    ensure!(suite.json(&["nic", "list"])?.is_empty(), "a refused NIC stayed");
    for name in ["web1", "web2"] {
        suite.define(name, &[])?;
        suite.ok(&["nic", "create", name, "--switch", "net", "--machine", name])?;
        suite.boot(name)?;
        suite.guest_runs(name, "udhcpc -i eth0 -q -n -f >/dev/null && echo l''eased", "leased")?;
        suite.guest_runs(
            name,
            &format!("mkdir -p /w && echo this is {name} >/w/index.html && httpd -p 80 -h /w && echo s''erves"),
            "serves",
        )?;
    }
    // Ports that nobody listens on: they are given back here.
    let free = || Ok::<_, anyhow::Error>(std::net::TcpListener::bind(("0.0.0.0", 0))?.local_addr()?.port());
    let (one, two) = (free()?, free()?);
    ensure!(asked(&beyond, one).is_err(), "somebody answers already");
    suite.ok(&["nic", "set", "web1", "--forward", &format!("{one}:80"), "--forward", &format!("{}:{two}:80", beyond.host)])?;
    let shown = suite.json(&["nic", "show", "web1"])?;
    ensure!(
        shown[0]["forwards"] == serde_json::json!([format!("{one}:80/tcp"), format!("{}:{two}:80/tcp", beyond.host)]),
        "{shown:?}"
    );
    for port in [one, two] {
        ensure!(asked(&beyond, port)?.iter().all(|said| said == "this is web1\n"), "{port}");
    }
    let (code, message) = suite.fails(&["nic", "set", "web2", "--forward", &format!("{one}:80")])?;
    ensure!(code == 5 && message.contains("leads to nic web1"), "{code}: {message}");
    // net-helper's end changes nothing, for those who are connected and for those who come.
    let helper = suite.pids("net-helper")?;
    skep_tests::platform::end(helper[0])?;
    ensure!(asked(&beyond, one)?.iter().all(|said| said == "this is web1\n"));
    // To another guest, while both run.
    suite.ok(&["nic", "set", "web1", "--forward", "none"])?;
    ensure!(asked(&beyond, one).is_err() && asked(&beyond, two).is_err(), "a port leads on that leads nowhere");
    suite.ok(&["nic", "set", "web2", "--forward", &format!("{one}:80")])?;
    ensure!(asked(&beyond, one)?.iter().all(|said| said == "this is web2\n"));
    let audit = suite.skep(&["audit"])?;
    ensure!(audit.status.success(), "{}", String::from_utf8_lossy(&audit.stdout));
    // It ends with its NIC.
    suite.ok(&["vm", "kill", "web2"])?;
    suite.ok(&["vm", "delete", "web2"])?;
    suite.ok(&["nic", "delete", "web2"])?;
    ensure!(asked(&beyond, one).is_err());
    suite.ok(&["vm", "kill", "web1"])?;
    drop(beyond);
    suite.finish()
}
