//! The server's side. What comes is a hypervisor's, which may be its guest's by now. Pure.

use crate::{EXPORT_NAME, FLUSH, GOODBYE, GREETING, Geometry, MOST, OPTION, READ, REPLY, REQUEST, WRITE, error};

/// Bytes of an option of the handshake.
const LONGEST_OPTION: usize = 8 << 10;
/// Options in a handshake.
const OPTIONS: u32 = 32;

const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// To read.
    Read {
        /// Names it.
        handle: u64,
        /// From this byte on.
        at: u64,
        /// So many.
        length: u32,
    },
    /// To write.
    Write {
        /// Names it.
        handle: u64,
        /// From this byte on.
        at: u64,
        /// These.
        data: Vec<u8>,
        /// Onto the medium.
        now: bool,
    },
    /// To bring all that was written onto the medium.
    Flush {
        /// Names it.
        handle: u64,
    },
}

/// Why a client is served no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Over {
    /// It says so.
    #[error("it says goodbye")]
    Goodbye,
    /// It does not keep to the protocol.
    #[error("it does not speak NBD")]
    Strange,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Flags,
    Options,
    Requests,
}

/// A client.
#[derive(Debug)]
pub struct Client {
    came: Vec<u8>,
    at: usize,
    out: Vec<u8>,
    sent: usize,
    stage: Stage,
    options: u32,
    zeroes: bool,
    geometry: Geometry,
    read_only: bool,
}

impl Client {
    /// Greets one, which is told of this size.
    pub fn new(geometry: Geometry, read_only: bool) -> Self {
        let (came, out) = (Vec::new(), GREETING.to_vec());
        Self { came, at: 0, out, sent: 0, stage: Stage::Flags, options: 0, zeroes: true, geometry, read_only }
    }

    /// What it was told of.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// What is to be sent.
    pub fn pending(&self) -> &[u8] {
        self.out.get(self.sent..).unwrap_or_default()
    }

    /// So much of it was.
    pub fn sent(&mut self, bytes: usize) {
        self.sent += bytes;
        if self.sent >= self.out.len() {
            self.out.clear();
            self.sent = 0;
        }
    }

    /// Bytes came.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.at > 0 {
            self.came.drain(..self.at);
            self.at = 0;
        }
        self.came.extend_from_slice(bytes);
    }

    fn peek(&self, from: usize, length: usize) -> Option<&[u8]> {
        self.came.get(self.at.checked_add(from)?..self.at.checked_add(from)?.checked_add(length)?)
    }

    fn u32_at(&self, from: usize) -> Option<u32> {
        self.peek(from, 4)?.try_into().ok().map(u32::from_be_bytes)
    }

    fn u64_at(&self, from: usize) -> Option<u64> {
        self.peek(from, 8)?.try_into().ok().map(u64::from_be_bytes)
    }

    /// The next request that is to be done; what is refused at once is answered in here.
    pub fn asked(&mut self) -> Result<Option<Request>, Over> {
        loop {
            let again = match self.stage {
                Stage::Flags => self.flags()?,
                Stage::Options => self.option()?,
                Stage::Requests => match self.request()? {
                    Some(Some(request)) => return Ok(Some(request)),
                    Some(None) => true,
                    None => false,
                },
            };
            if !again {
                return Ok(None);
            }
        }
    }

    fn flags(&mut self) -> Result<bool, Over> {
        let Some(flags) = self.u32_at(0) else { return Ok(false) };
        self.at += 4;
        // Fixed newstyle is what all speak; no zeroes behind what is known anyway.
        if flags & !3 != 0 || flags & 1 == 0 {
            return Err(Over::Strange);
        }
        self.zeroes = flags & 2 == 0;
        self.stage = Stage::Options;
        Ok(true)
    }

    fn reply(&mut self, option: u32, kind: u32, data: &[u8]) {
        self.out.extend_from_slice(&OPTION_REPLY.to_be_bytes());
        self.out.extend_from_slice(&option.to_be_bytes());
        self.out.extend_from_slice(&kind.to_be_bytes());
        self.out.extend_from_slice(&u32::try_from(data.len()).unwrap_or(0).to_be_bytes());
        self.out.extend_from_slice(data);
    }

    /// Has flags; read-only; flush; writes onto the medium.
    fn export_flags(&self) -> u16 {
        1 | if self.read_only { 2 } else { 0 } | 4 | 8
    }

    fn option(&mut self) -> Result<bool, Over> {
        const ACK: u32 = 1;
        const INFO: u32 = 3;
        const UNSUPPORTED: u32 = 1 << 31 | 1;
        let (Some(magic), Some(option), Some(length)) = (self.peek(0, 8), self.u32_at(8), self.u32_at(12)) else {
            return Ok(false);
        };
        if magic != OPTION || length as usize > LONGEST_OPTION || self.options > OPTIONS {
            return Err(Over::Strange);
        }
        if self.peek(16, length as usize).is_none() {
            return Ok(false);
        }
        self.at += 16 + length as usize;
        self.options += 1;
        let size = self.geometry.size();
        match option {
            // No answer but what it is, and whatever its name.
            EXPORT_NAME => {
                self.out.extend_from_slice(&size.to_be_bytes());
                self.out.extend_from_slice(&self.export_flags().to_be_bytes());
                if self.zeroes {
                    self.out.extend_from_slice(&[0; 124]);
                }
                self.stage = Stage::Requests;
            }
            // Abort.
            2 => {
                self.reply(option, ACK, &[]);
                return Err(Over::Goodbye);
            }
            // Info, go.
            6 | 7 => {
                let export = [&[0, 0][..], &size.to_be_bytes(), &self.export_flags().to_be_bytes()].concat();
                self.reply(option, INFO, &export);
                let block = self.geometry.block;
                let blocks = [&[0, 3][..], &block.to_be_bytes(), &block.max(4096).to_be_bytes(), &MOST.to_be_bytes()].concat();
                self.reply(option, INFO, &blocks);
                self.reply(option, ACK, &[]);
                if option == 7 {
                    self.stage = Stage::Requests;
                }
            }
            _ => self.reply(option, UNSUPPORTED, &[]),
        }
        Ok(true)
    }

    /// `None`: it is not whole yet; a request that was refused is none.
    fn request(&mut self) -> Result<Option<Option<Request>>, Over> {
        let (Some(magic), Some(word), Some(handle)) = (self.u32_at(0), self.u32_at(4), self.u64_at(8)) else { return Ok(None) };
        let (Some(at), Some(length)) = (self.u64_at(16), self.u32_at(24)) else { return Ok(None) };
        let (flags, kind) = (word >> 16, (word & 0xffff) as u16);
        if magic != REQUEST {
            return Err(Over::Strange);
        }
        let block = u64::from(self.geometry.block);
        let fits = at.checked_add(length.into()).is_some_and(|end| end <= self.geometry.size());
        let good = fits && (1..=MOST).contains(&length) && at.is_multiple_of(block) && u64::from(length).is_multiple_of(block);
        let request = match kind {
            READ if good && flags == 0 => Request::Read { handle, at, length },
            WRITE => {
                if length > MOST {
                    // What follows cannot be told from requests.
                    return Err(Over::Strange);
                }
                let Some(data) = self.peek(28, length as usize) else { return Ok(None) };
                let data = data.to_vec();
                self.at += 28 + length as usize;
                if self.read_only || !good || flags > 1 {
                    self.answer(handle, if self.read_only { error::PERM } else { error::INVAL }, &[]);
                    return Ok(Some(None));
                }
                return Ok(Some(Some(Request::Write { handle, at, data, now: flags == 1 })));
            }
            GOODBYE => return Err(Over::Goodbye),
            FLUSH if length == 0 => Request::Flush { handle },
            _ => {
                self.at += 28;
                self.answer(handle, error::INVAL, &[]);
                return Ok(Some(None));
            }
        };
        self.at += 28;
        Ok(Some(Some(request)))
    }

    /// Answers one.
    pub fn answer(&mut self, handle: u64, error: u32, data: &[u8]) {
        self.out.extend_from_slice(&REPLY.to_be_bytes());
        self.out.extend_from_slice(&error.to_be_bytes());
        self.out.extend_from_slice(&handle.to_be_bytes());
        self.out.extend_from_slice(data);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    const GEOMETRY: Geometry = Geometry { blocks: 2048, block: 512 };

    fn option(number: u32, data: &[u8]) -> Vec<u8> {
        [OPTION, &number.to_be_bytes(), &u32::try_from(data.len()).unwrap().to_be_bytes(), data].concat()
    }

    fn request(flags: u16, kind: u16, at: u64, length: u32) -> Vec<u8> {
        let (flags, kind) = (flags.to_be_bytes(), kind.to_be_bytes());
        [&REQUEST.to_be_bytes()[..], &flags, &kind, &9u64.to_be_bytes(), &at.to_be_bytes(), &length.to_be_bytes()].concat()
    }

    fn greeted() -> Client {
        let mut client = Client::new(GEOMETRY, false);
        client.feed(&3u32.to_be_bytes());
        // Structured replies, then go: the empty name, block sizes wanted.
        client.feed(&option(8, &[]));
        client.feed(&option(7, &[0, 0, 0, 0, 0, 1, 0, 3]));
        assert_eq!(client.asked(), Ok(None));
        let out = client.pending().to_vec();
        client.sent(out.len());
        assert_eq!(&out[..18], GREETING);
        assert_eq!(out[18 + 12..18 + 16], (1u32 << 31 | 1).to_be_bytes());
        let export = &out[18 + 20 + 20..];
        assert_eq!((&export[2..10], &export[10..12]), (&(1u64 << 20).to_be_bytes()[..], &[0, 13][..]));
        client
    }

    #[test]
    fn a_client_is_told_what_there_is_and_asks() {
        let mut client = greeted();
        client.feed(&request(0, 0, 512, 1024));
        client.feed(&[request(1, 1, 0, 512), vec![7; 512], request(0, 3, 0, 0)].concat());
        assert_eq!(client.asked(), Ok(Some(Request::Read { handle: 9, at: 512, length: 1024 })));
        assert_eq!(client.asked(), Ok(Some(Request::Write { handle: 9, at: 0, data: vec![7; 512], now: true })));
        assert_eq!(client.asked(), Ok(Some(Request::Flush { handle: 9 })));
        client.answer(9, 0, &[1, 2]);
        assert_eq!(client.pending().len(), 18);
        client.feed(&request(0, 2, 0, 0));
        assert_eq!(client.asked(), Err(Over::Goodbye));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let mut client = greeted();
        // Beyond the end, around it, not whole blocks, too long, of no kind.
        for wrong in [
            request(0, 0, 1 << 20, 512),
            request(0, 0, u64::MAX, 512),
            request(0, 0, 1, 512),
            request(0, 0, 0, 5),
            request(0, 0, 0, MOST + 512),
            request(0, 4, 0, 512),
        ] {
            client.feed(&wrong);
            assert_eq!(client.asked(), Ok(None));
            assert_eq!(client.pending()[4..8], error::INVAL.to_be_bytes());
            client.sent(16);
        }
        client.feed(&request(0, 1, 0, MOST + 1));
        assert_eq!(client.asked(), Err(Over::Strange));
        let mut reader = Client::new(GEOMETRY, true);
        reader.feed(&[&1u32.to_be_bytes()[..], &option(1, &[]), &request(0, 1, 0, 512), &[7; 512]].concat());
        assert_eq!(reader.asked(), Ok(None));
        let end = reader.pending().len();
        assert_eq!(reader.pending()[end - 12..end - 8], error::PERM.to_be_bytes());
        let mut other = Client::new(GEOMETRY, false);
        other.feed(b"GET / HTTP/1.0\r\n");
        assert_eq!(other.asked(), Err(Over::Strange));
        // Nobody haggles for ever.
        let mut endless = Client::new(GEOMETRY, false);
        endless.feed(&1u32.to_be_bytes());
        let end = (0..1000).find_map(|_| {
            endless.feed(&option(3, &[]));
            endless.asked().err()
        });
        assert_eq!(end, Some(Over::Strange));
    }

    proptest! {
        #[test]
        fn whatever_a_client_sends_is_judged(bytes in proptest::collection::vec(any::<u8>(), 0..600), greet in any::<bool>()) {
            let mut client = if greet { greeted() } else { Client::new(GEOMETRY, false) };
            client.feed(&bytes);
            while let Ok(Some(_)) = client.asked() {}
        }
    }
}
