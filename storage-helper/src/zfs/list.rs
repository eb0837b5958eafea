//! Lists of names and values, as the kernel packs them (libnvpair(3), "native" encoding). What comes back is read as hostile.

/// A value. Kinds that are not needed here are read over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// There, and that is all.
    Flag,
    /// 32 bits.
    Small(i32),
    /// 64 bits.
    Number(u64),
    /// Text.
    Text(String),
    /// A list.
    List(List),
    /// Something else, by the number of its kind.
    Other(u32),
}

/// A list, in its order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct List(Vec<(String, Value)>);

/// Why bytes are no list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a packed list: {0}")]
pub struct BadList(&'static str);

/// Most lists within each other. The kernel's answers have three.
const DEPTH: usize = 8;

/// Numbers of kinds.
const FLAG: u32 = 1;
const SMALL: u32 = 5;
const NUMBER: u32 = 8;
const TEXT: u32 = 9;
const LIST: u32 = 19;
const LISTS: u32 = 20;
/// `NV_UNIQUE_NAME`
const UNIQUE: u32 = 1;
/// Bytes of a pair before its name.
const FIXED: usize = 16;
/// Bytes of the head of a list within a list.
const HEAD: usize = 24;

impl List {
    /// With one more.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: Value) -> Self {
        self.0.push((name.into(), value));
        self
    }

    /// The value of this name; the first, if there are several.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// The list of this name.
    pub fn list(&self, name: &str) -> Option<&List> {
        match self.get(name) {
            Some(Value::List(list)) => Some(list),
            _ => None,
        }
    }

    /// The number of this name.
    pub fn number(&self, name: &str) -> Option<u64> {
        match self.get(name) {
            Some(Value::Number(number)) => Some(*number),
            _ => None,
        }
    }

    /// The text of this name.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.get(name) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// Packs it. `None`: a name or text that cannot be packed (it holds a NUL, or is longer than any of ours).
    pub fn pack(&self) -> Option<Vec<u8>> {
        // Native, little-endian; version 0.
        let mut bytes = vec![0, 1, 0, 0];
        bytes.extend(0u32.to_le_bytes());
        bytes.extend(UNIQUE.to_le_bytes());
        self.pack_pairs(&mut bytes)?;
        Some(bytes)
    }

    fn pack_pairs(&self, bytes: &mut Vec<u8>) -> Option<()> {
        for (name, value) in &self.0 {
            let (kind, plain): (u32, Vec<u8>) = match value {
                Value::Flag => (FLAG, Vec::new()),
                Value::Small(number) => (SMALL, number.to_le_bytes().into()),
                Value::Number(number) => (NUMBER, number.to_le_bytes().into()),
                Value::Text(text) if !text.contains('\0') => (TEXT, [text.as_bytes(), &[0]].concat()),
                Value::List(_) => {
                    let mut head = vec![0; HEAD];
                    head.get_mut(4..8)?.copy_from_slice(&UNIQUE.to_le_bytes());
                    (LIST, head)
                }
                Value::Text(_) | Value::Other(_) => return None,
            };
            if name.contains('\0') {
                return None;
            }
            let named = (FIXED + name.len() + 1).next_multiple_of(8);
            let size = named + plain.len().next_multiple_of(8);
            let start = bytes.len();
            bytes.extend(i32::try_from(size).ok()?.to_le_bytes());
            bytes.extend(i16::try_from(name.len() + 1).ok()?.to_le_bytes());
            bytes.extend([0; 2]);
            bytes.extend(u32::from(kind != FLAG).to_le_bytes());
            bytes.extend(kind.to_le_bytes());
            bytes.extend(name.as_bytes());
            bytes.resize(start + named, 0);
            bytes.extend(plain);
            bytes.resize(start + size, 0);
            if let Value::List(list) = value {
                list.pack_pairs(bytes)?;
            }
        }
        bytes.extend([0; 4]);
        Some(())
    }

    /// Reads packed bytes; what stands behind the list is not looked at.
    pub fn unpack(bytes: &[u8]) -> Result<Self, BadList> {
        if bytes.get(..2) != Some(&[0, 1]) {
            return Err(BadList("its encoding is not the kernel's own"));
        }
        let mut rest = bytes.get(4..).ok_or(BadList("it is short"))?;
        if word(&mut rest)? != 0 {
            return Err(BadList("its version is unknown"));
        }
        word(&mut rest)?;
        pairs(&mut rest, 0)
    }
}

/// Takes so many bytes.
fn take<'a>(rest: &mut &'a [u8], n: usize) -> Result<&'a [u8], BadList> {
    let (taken, behind) = rest.split_at_checked(n).ok_or(BadList("it is short"))?;
    *rest = behind;
    Ok(taken)
}

fn word(rest: &mut &[u8]) -> Result<u32, BadList> {
    let bytes = take(rest, 4)?;
    bytes.try_into().map(u32::from_le_bytes).map_err(|_| BadList("it is short"))
}

/// Text up to its NUL, which must be there.
fn text(bytes: &[u8]) -> Result<String, BadList> {
    let end = bytes.iter().position(|byte| *byte == 0).ok_or(BadList("a text has no end"))?;
    // Names of datasets are ASCII; a property of somebody else may hold anything.
    Ok(String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned())
}

fn pairs(rest: &mut &[u8], depth: usize) -> Result<List, BadList> {
    if depth > DEPTH {
        return Err(BadList("it is too deep"));
    }
    let mut list = List::default();
    loop {
        let size = word(rest)? as usize;
        if size == 0 {
            return Ok(list);
        }
        let mut pair = take(rest, size.checked_sub(4).ok_or(BadList("a pair is short"))?)?;
        let name_size = take(&mut pair, 2)?.try_into().map(u16::from_le_bytes).map_err(|_| BadList("a pair is short"))?;
        take(&mut pair, 2)?;
        let (count, kind) = (word(&mut pair)?, word(&mut pair)?);
        let named = (FIXED + usize::from(name_size)).next_multiple_of(8) - FIXED;
        let mut value = pair;
        let name = take(&mut value, named)?;
        let name = text(name.get(..usize::from(name_size)).unwrap_or_default())?;
        let value = match kind {
            FLAG => Value::Flag,
            SMALL => Value::Small(word(&mut value)?.cast_signed()),
            NUMBER => {
                let bytes = take(&mut value, 8)?;
                Value::Number(bytes.try_into().map(u64::from_le_bytes).map_err(|_| BadList("a number is short"))?)
            }
            TEXT => Value::Text(text(value)?),
            // Lists stand behind their pairs.
            LIST => Value::List(pairs(rest, depth + 1)?),
            LISTS => {
                // Each takes some bytes, so their number ends with those.
                for _ in 0..count {
                    pairs(rest, depth + 1)?;
                }
                Value::Other(kind)
            }
            other => Value::Other(other),
        };
        list.0.push((name, value));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use proptest::prelude::*;

    fn sample() -> List {
        let inner = List::default().with("value", Value::Text("ab".into())).with("source", Value::Text("pool/x".into()));
        List::default()
            .with("type", Value::Small(3))
            .with("volsize", Value::Number(1 << 40))
            .with("skep:id", Value::List(inner))
            .with("defer", Value::Flag)
    }

    /// As nvlist_pack(3) of FreeBSD 13 packs it.
    #[test]
    fn a_list_is_packed_as_the_kernel_does() {
        let packed = List::default().with("type", Value::Small(3)).with("p", Value::List(List::default())).pack().unwrap();
        let expected: &[&[u8]] = &[
            &[0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0],
            // 16 fixed, "type\0" to 24, 4 to 8.
            &[32, 0, 0, 0, 5, 0, 0, 0, 1, 0, 0, 0, 5, 0, 0, 0],
            b"type\0\0\0\0",
            &[3, 0, 0, 0, 0, 0, 0, 0],
            &[48, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 19, 0, 0, 0],
            b"p\0\0\0\0\0\0\0",
            &[0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0; 4],
            &[0; 4],
        ];
        assert_eq!(packed, expected.concat());
    }

    #[test]
    fn what_is_packed_is_read_again() {
        let packed = sample().pack().unwrap();
        assert_eq!(List::unpack(&packed).unwrap(), sample());
        let list = List::unpack(&packed).unwrap();
        assert_eq!((list.number("volsize"), list.text("volsize"), list.number("absent")), (Some(1 << 40), None, None));
        assert_eq!(list.list("skep:id").unwrap().text("source"), Some("pool/x"));
        assert_eq!(List::default().with("a\0b", Value::Flag).pack(), None);
        assert_eq!(List::default().with("a", Value::Text("a\0b".into())).pack(), None);
    }

    #[test]
    fn every_cut_is_noticed() {
        let packed = sample().pack().unwrap();
        for end in 0..packed.len() {
            assert!(List::unpack(&packed[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn lists_without_end_are_refused() {
        let mut deep = List::default();
        for _ in 0..=DEPTH + 1 {
            deep = List::default().with("l", Value::List(deep));
        }
        assert_eq!(List::unpack(&deep.pack().unwrap()), Err(BadList("it is too deep")));
        // 2^32 lists in a few bytes.
        let mut many = List::default().with("l", Value::List(List::default())).pack().unwrap();
        many[12 + 12] = 20;
        many[12 + 8..12 + 12].copy_from_slice(&[0xff; 4]);
        assert_eq!(List::unpack(&many), Err(BadList("it is short")));
        for (at, byte) in [(0, 1), (1, 0), (4, 1)] {
            let mut wrong = sample().pack().unwrap();
            wrong[at] = byte;
            assert!(List::unpack(&wrong).is_err());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..400), valid in any::<bool>()) {
            if valid && bytes.len() >= 8 {
                bytes[..8].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
            }
            let _ = List::unpack(&bytes);
        }

        #[test]
        fn any_change_of_a_list_is_read_or_refused(at in 0usize..200, byte in any::<u8>()) {
            let mut packed = sample().pack().unwrap();
            let at = at % packed.len();
            packed[at] = byte;
            let _ = List::unpack(&packed);
        }
    }
}
