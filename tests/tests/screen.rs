//! What QEMU's screen and keyboard are to who looks at it, and to the guest.
#![cfg(target_os = "linux")]

use anyhow::{Result, ensure};
use skep_tests::viewer::Viewer;
use skep_tests::{Mode, Suite, guest, is_root};

#[test]
fn a_viewer_sees_the_size_that_was_said_and_types_by_the_layout_that_was_said() -> Result<()> {
    let suite = Suite::start(if is_root() { Mode::Root } else { Mode::User })?;
    suite.ok(&["disk", "import", "root", &guest()?.join("disk.img").to_string_lossy()])?;
    // No usual one: the firmware's own is 1280x800, the one by default 1024x768. The guest has no driver of its own and leaves it so.
    let screen = ["--screen-size", "1152x864", "--keyboard", "de", "--tablet", "off"];
    suite.ok(&[&["vm", "create", "m", "--memory", "256M", "--disk", "root"], &screen[..]].concat())?;
    suite.ok(&["vm", "start", "m"])?;
    let mut viewer = Viewer::join(&suite, "m")?;
    viewer.sees((1152, 864))?;
    suite.expect("m", "skep-guest ready")?;
    let again = Viewer::join(&suite, "m")?;
    ensure!(again.size == (1152, 864), "another size once the guest is up: {:?}", again.size);
    again.leave();

    // On a German keyboard `z` is where the American one has `y`, whose key is the guest's number 21, and `y` where that has `z`, 44.
    let keyboard = "cd /sys/class/input; for e in event*; do read -r n <$e/device/name; case $n in AT*) k=/dev/input/$e;; esac; done; exec 5<$k; echo reads-$((6*7))";
    suite.guest_runs("m", keyboard, "reads-42")?;
    for (key, number) in [('z', 21), ('y', 44)] {
        viewer.types(key.into())?;
        // Of a key's two strokes each has three events of 24 bytes; the second event's code is at 42.
        let read = "echo key:$(dd bs=24 count=6 <&5 2>/dev/null | od -A n -t u2 -j 42 -N 2)";
        suite.guest_runs("m", read, &format!("key: {number}"))?;
    }
    viewer.leave();
    suite.ok(&["vm", "kill", "m"])?;
    suite.finish()
}
