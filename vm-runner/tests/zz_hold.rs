#[macro_use]
mod support;
use support::Machine;
#[test]
fn hold() {
    let mut spawner = spawner!("hold");
    let machine = Machine::new("");
    let (_r, mut t) = machine.boot(&mut spawner);
    t.until("skep-guest ready");
    std::fs::write("/tmp/skep/hold.pid", spawner.pid().to_string()).unwrap();
    while !std::path::Path::new("/tmp/skep/hold.stop").exists() { std::thread::sleep(std::time::Duration::from_millis(200)); }
    std::fs::remove_file("/tmp/skep/hold.stop").unwrap();
}
