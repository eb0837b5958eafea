//! A line that is held to a speed: a byte takes ten bits, start and stop included, as on a wire.

use skep_sys::alarm::Alarm;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// Time that a line which was quiet may have saved: what it passes on at once.
const SAVED: Duration = Duration::from_millis(50);

/// See the module. Each way has its own time.
pub struct Pace {
    /// How long a byte takes.
    byte: Duration,
    /// Time that was not used, from the guest and to it.
    saved: [Duration; 2],
    since: Instant,
    alarm: Alarm,
}

/// A way.
#[derive(Debug, Clone, Copy)]
pub enum Way {
    /// From the guest.
    Out,
    /// To it.
    In,
}

impl Pace {
    /// Of a line with so many bits a second.
    pub fn new(speed: u32) -> io::Result<Self> {
        let byte = Duration::from_secs(10) / speed.max(1);
        Ok(Self { byte, saved: [byte.max(SAVED); 2], since: Instant::now(), alarm: Alarm::new()? })
    }

    /// Bytes that may pass now.
    pub fn room(&mut self, way: Way) -> usize {
        let now = Instant::now();
        let passed = now.saturating_duration_since(self.since);
        self.since = now;
        for saved in &mut self.saved {
            *saved = saved.saturating_add(passed).min(self.byte.max(SAVED));
        }
        usize::try_from(self.saved(way).as_nanos() / self.byte.as_nanos().max(1)).unwrap_or(usize::MAX)
    }

    /// So many have passed.
    pub fn passed(&mut self, way: Way, bytes: usize) {
        let time = self.byte.saturating_mul(u32::try_from(bytes).unwrap_or(u32::MAX));
        let [out, back] = &mut self.saved;
        let saved = match way {
            Way::Out => out,
            Way::In => back,
        };
        *saved = saved.saturating_sub(time);
        if *saved < self.byte {
            // When there is room for a byte again, or for as many as were saved at most. If it fails, the line is read unpaced.
            let wait = self.byte.max(SAVED / 2);
            if self.alarm.set(wait).is_err() {
                *saved = self.byte;
            }
        }
    }

    /// Whether there was room for a byte when it was last asked.
    pub fn is_open(&self, way: Way) -> bool {
        self.saved(way) >= self.byte
    }

    /// The alarm has rung.
    pub fn rung(&mut self) {
        let _ = self.alarm.clear();
        self.room(Way::Out);
        // Either way may still be closed: the other one's time came first.
        if !(self.is_open(Way::Out) && self.is_open(Way::In)) && self.alarm.set(self.byte).is_err() {
            self.saved = [self.byte; 2];
        }
    }

    fn saved(&self, way: Way) -> Duration {
        let [out, back] = self.saved;
        match way {
            Way::Out => out,
            Way::In => back,
        }
    }
}

impl AsFd for Pace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.alarm.as_fd()
    }
}
