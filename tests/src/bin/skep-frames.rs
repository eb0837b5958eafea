//! Inside a test guest: `skep-frames INTERFACE FILE [TIMES]` sends the frames of FILE, a line of hexadecimal digits each.
#![forbid(unsafe_code)]

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use skep_tests::platform::packet_socket;
use std::os::fd::AsFd;

fn bytes(line: &str) -> Result<Vec<u8>> {
    ensure!(line.is_ascii() && line.len().is_multiple_of(2), "half a byte");
    let pairs = (0..line.len()).step_by(2);
    pairs.map(|at| u8::from_str_radix(&line[at..at + 2], 16).with_context(|| line.to_owned())).collect()
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [interface, file, times @ ..] = &args[..] else { bail!("skep-frames INTERFACE FILE [TIMES]") };
    let times: u32 = times.first().map_or(Ok(1), |times| times.parse())?;
    let frames = std::fs::read_to_string(file)?.lines().map(bytes).collect::<Result<Vec<_>>>()?;
    let socket = packet_socket(interface)?;
    let (mut sent, mut refused) = (0, 0);
    for frame in (0..times).flat_map(|_| &frames) {
        loop {
            match nix::unistd::write(&socket, frame) {
                Ok(_) => sent += 1,
                Err(Errno::EAGAIN | Errno::ENOBUFS) => {
                    poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)], PollTimeout::NONE)?;
                    continue;
                }
                // Too short or too long for the guest's own kernel.
                Err(Errno::EINVAL | Errno::EMSGSIZE) => refused += 1,
                Err(error) => return Err(error.into()),
            }
            break;
        }
    }
    println!("{file}: sent-{sent} refused-{refused}");
    Ok(())
}
