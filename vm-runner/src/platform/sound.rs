//! The host's sound devices, as sound(4) lists them.

use skep_proto::{Dsp, SoundDevice, Text};

/// Most that are told of.
const MOST: usize = 16;

/// Reads the text of `/dev/sndstat`: a line like `pcm0: <Realtek ALC892 (Rear Analog)> (play/rec) default` for each device of the kernel's.
/// Other lines, of devices that programs serve too, are passed over.
pub fn parse(text: &str) -> Vec<SoundDevice> {
    text.lines().take_while(|line| !line.starts_with("Installed devices from userspace")).filter_map(device).take(MOST).collect()
}

fn device(line: &str) -> Option<SoundDevice> {
    let (number, rest) = line.strip_prefix("pcm")?.split_once(": <")?;
    let (description, modes) = rest.rsplit_once("> (")?;
    let (modes, _) = modes.split_once(')')?;
    let device: Dsp = format!("dsp{number}").parse().ok()?;
    let does = |what: &str| modes.split('/').any(|mode| mode == what);
    let sound = SoundDevice { device, description: Text::lossy(description), plays: does("play"), records: does("rec") };
    (sound.plays || sound.records).then_some(sound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_of_the_kernel_are_listed() {
        let text = "FreeBSD Audio Driver (64bit 2009061500/amd64)\nInstalled devices:\n\
            pcm0: <Realtek ALC892 (Rear Analog)> (play/rec) default\npcm1: <HDA <x> (y)> (play)\npcm2: <mic> (rec)\n\
            pcm3: <none> ()\npcm999: <far> (play)\npcmx: <x> (play)\nInstalled devices from userspace:\npcm7: <virtual> (play)\n";
        let of = |n, description: &str, plays, records| SoundDevice {
            device: Dsp(n),
            description: Text::lossy(description),
            plays,
            records,
        };
        let all =
            [of(0, "Realtek ALC892 (Rear Analog)", true, true), of(1, "HDA <x> (y)", true, false), of(2, "mic", false, true)];
        assert_eq!(parse(text), all);
        assert_eq!(parse("No devices installed.\n"), []);
        assert_eq!(parse(&"pcm1: <a> (play)\n".repeat(100)).len(), MOST);
    }
}
