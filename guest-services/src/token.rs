//! Session tokens (IMDSv2): their expiry, signed. Nothing is kept of them, and a restart ends them: clients then ask for another.

use crate::Now;
use sha2::{Digest, Sha256};
use skep_proto::NicId;

/// Seconds that one may live.
pub const LONGEST: u64 = 21_600;

/// What they are signed with.
#[derive(Clone)]
pub struct Key([u8; 32]);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    /// From random bytes.
    pub fn new(random: &mut dyn FnMut() -> u64) -> Self {
        let mut key = [0; 32];
        for part in key.chunks_mut(8) {
            part.copy_from_slice(&random().to_ne_bytes());
        }
        Self(key)
    }

    /// Half of a hash over parts of fixed lengths.
    fn sign(&self, nic: NicId, until: u64) -> [u8; 16] {
        let hash = Sha256::new().chain_update(self.0).chain_update(nic.to_string()).chain_update(until.to_be_bytes()).finalize();
        let mut half = [0; 16];
        half.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
        half
    }

    /// One for a NIC.
    pub fn make(&self, nic: NicId, now: Now, seconds: u64) -> String {
        let until = now.as_secs().saturating_add(seconds);
        let bytes = until.to_be_bytes().into_iter().chain(self.sign(nic, until));
        bytes.map(|byte| format!("{byte:02x}")).collect()
    }

    /// Whether it is the NIC's, and still lives.
    pub fn check(&self, nic: NicId, now: Now, token: &[u8]) -> bool {
        let digit = |c: &u8| char::from(*c).to_digit(16).and_then(|n| u8::try_from(n).ok());
        let pair = |pair: &[u8]| match pair {
            [high, low] => Some(digit(high)? << 4 | digit(low)?),
            _ => None,
        };
        let bytes: Option<Vec<u8>> = if token.len() == 48 { token.chunks(2).map(pair).collect() } else { None };
        let Some((until, signature)) = bytes.as_deref().and_then(<[u8]>::split_first_chunk::<8>) else { return false };
        let until = u64::from_be_bytes(*until);
        // Every byte is looked at, however early one differs.
        let differs = self.sign(nic, until).iter().zip(signature).fold(0, |all, (a, b)| all | (a ^ b));
        differs == 0 && until > now.as_secs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_token_is_one_nic_s_and_ends() {
        let mut n = 0;
        let key = Key::new(&mut || {
            n += 1;
            n
        });
        let (nic, at) = (NicId::from_u128(1), Duration::from_secs(100));
        let token = key.make(nic, at, 60);
        assert!(key.check(nic, at, token.as_bytes()) && key.check(nic, at + Duration::from_secs(59), token.as_bytes()));
        assert!(!key.check(nic, at + Duration::from_secs(60), token.as_bytes()));
        assert!(!key.check(NicId::from_u128(2), at, token.as_bytes()));
        for wrong in ["", "00", &token[1..], &token.replace(&token[10..11], "g"), &"0".repeat(48), &format!("{token}00")] {
            assert!(!key.check(nic, at, wrong.as_bytes()), "{wrong}");
        }
        assert!(!Key::new(&mut || 0).check(nic, at, token.as_bytes()));
    }
}
