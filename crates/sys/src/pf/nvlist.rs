//! Lists of named values as the kernel of FreeBSD takes and gives them (nvlist_pack(9), sys/contrib/libnv): pure.

/// `NVLIST_HEADER_MAGIC`.
const MAGIC: u8 = 0x6c;
/// `struct nvlist_header`: magic, version, flags, descriptors, size; packed.
const LIST: usize = 19;
/// `struct nvpair_header`: type, size of the name, size of the data, items; packed.
const PAIR: usize = 19;

const BOOL: u8 = 2;
const NUMBER: u8 = 3;
const STRING: u8 = 4;
const NVLIST: u8 = 5;
const BINARY: u8 = 7;
const NUMBERS: u8 = 9;
const NVLISTS: u8 = 11;
const NEXT: u8 = 254;
const UP: u8 = 255;

/// A list under way. Names and texts end at their first NUL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List {
    bytes: Vec<u8>,
    /// Where headers of lists begin: each says how much there is after it, of everything.
    headers: Vec<usize>,
}

impl Default for List {
    fn default() -> Self {
        Self { bytes: header(), headers: vec![0] }
    }
}

fn header() -> Vec<u8> {
    let mut bytes = vec![MAGIC];
    bytes.resize(LIST, 0);
    bytes
}

/// Up to the first NUL, and one NUL.
fn text(text: &str) -> Vec<u8> {
    text.bytes().take_while(|byte| *byte != 0).chain([0]).collect()
}

impl List {
    fn pair(mut self, kind: u8, name: &str, items: usize, data: &[u8]) -> Self {
        let name = text(name);
        self.bytes.push(kind);
        self.bytes.extend((name.len() as u16).to_le_bytes());
        self.bytes.extend((data.len() as u64).to_le_bytes());
        self.bytes.extend((items as u64).to_le_bytes());
        self.bytes.extend(name);
        self.bytes.extend(data);
        self
    }

    /// With a number; what is signed comes as its two's complement.
    #[must_use]
    pub fn number(self, name: &str, number: u64) -> Self {
        self.pair(NUMBER, name, 0, &number.to_le_bytes())
    }

    /// With some numbers, at least one.
    #[must_use]
    pub fn numbers(self, name: &str, numbers: &[u64]) -> Self {
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        self.pair(NUMBERS, name, numbers.len(), &bytes)
    }

    /// With a text.
    #[must_use]
    pub fn text(self, name: &str, value: &str) -> Self {
        self.pair(STRING, name, 0, &text(value))
    }

    /// With a truth value.
    #[must_use]
    pub fn flag(self, name: &str, on: bool) -> Self {
        self.pair(BOOL, name, 0, &[on.into()])
    }

    /// With bytes, at least one.
    #[must_use]
    pub fn bytes(self, name: &str, bytes: &[u8]) -> Self {
        self.pair(BINARY, name, 0, bytes)
    }

    /// With a list.
    #[must_use]
    pub fn list(self, name: &str, list: Self) -> Self {
        let Self { bytes: mut inner, headers } = list;
        inner.push(UP);
        inner.extend(1u16.to_le_bytes());
        inner.resize(inner.len() + 17, 0);
        let begin = self.bytes.len() + PAIR + text(name).len();
        let mut whole = self.pair(NVLIST, name, 0, &inner);
        whole.headers.extend(headers.into_iter().map(|header| begin + header));
        whole
    }

    /// With an array of lists, at least one.
    #[must_use]
    pub fn lists(self, name: &str, lists: Vec<Self>) -> Self {
        // The pair of an array says nothing of its bytes.
        let mut whole = self.pair(NVLISTS, name, lists.len(), &[]);
        for list in lists {
            let begin = whole.bytes.len();
            whole.headers.extend(list.headers.into_iter().map(|header| begin + header));
            whole.bytes.extend(list.bytes);
            whole.bytes.push(NEXT);
            whole.bytes.extend(1u16.to_le_bytes());
            whole.bytes.resize(whole.bytes.len() + 17, 0);
        }
        whole
    }

    /// As the kernel takes it.
    pub fn pack(self) -> Vec<u8> {
        let Self { mut bytes, headers } = self;
        let whole = bytes.len();
        for at in headers {
            let after = (whole.saturating_sub(at + LIST) as u64).to_le_bytes();
            if let Some(size) = bytes.get_mut(at + LIST - 8..at + LIST) {
                size.copy_from_slice(&after);
            }
        }
        bytes
    }
}

/// Shows every value of a packed list that is no list: names of the lists that it is in and its own, its type and bytes. None at last: the
/// list is cut, or lies.
fn each<'b>(packed: &'b [u8], mut show: impl FnMut(&[&'b [u8]], u8, &'b [u8])) -> Option<()> {
    /// Deeper than any that is given.
    const DEEPEST: usize = 16;
    let mut rest = packed.get(LIST..)?;
    // Of each list that we are in, its name, and how many follow it in its array.
    let (mut names, mut within): (Vec<&[u8]>, Vec<u64>) = Default::default();
    while !rest.is_empty() {
        let word = |at: usize| Some(u64::from_le_bytes(*rest.get(at..)?.first_chunk()?));
        let (kind, name) = (*rest.first()?, usize::from(u16::from_le_bytes(*rest.get(1..)?.first_chunk()?)));
        let (size, items) = (usize::try_from(word(3)?).ok()?, word(11)?);
        let data = rest.get(PAIR.checked_add(name)?..)?;
        let called = rest.get(PAIR..(PAIR + name).checked_sub(1)?)?;
        match kind {
            NVLIST | NVLISTS => {
                if within.len() >= DEEPEST {
                    return None;
                }
                names.push(called);
                within.push(if kind == NVLISTS { items.checked_sub(1)? } else { 0 });
                rest = data.get(LIST..)?;
            }
            NEXT if *within.last()? > 0 => {
                within.last_mut().map(|more| *more -= 1)?;
                rest = data.get(LIST..)?;
            }
            UP | NEXT => {
                names.pop();
                within.pop()?;
                rest = data;
            }
            _ => {
                let (value, next) = data.split_at_checked(size)?;
                names.push(called);
                show(&names, kind, value);
                names.pop();
                rest = next;
            }
        }
    }
    Some(())
}

/// What a packed list has by a name, not looking into lists within it: its type and bytes.
fn find<'b>(packed: &'b [u8], wanted: &str) -> Option<(u8, &'b [u8])> {
    let mut found = None;
    let _ = each(packed, |names, kind, value| {
        if found.is_none() && names == [wanted.as_bytes()] {
            found = Some((kind, value));
        }
    });
    found
}

/// Bytes of a packed list.
pub fn find_bytes<'b>(packed: &'b [u8], name: &str) -> Option<&'b [u8]> {
    find(packed, name).filter(|(kind, _)| *kind == BINARY).map(|(_, value)| value)
}

/// A number of a packed list.
pub fn find_number(packed: &[u8], name: &str) -> Option<u64> {
    let (kind, value) = find(packed, name)?;
    value.try_into().ok().filter(|_| kind == NUMBER).map(u64::from_le_bytes)
}

/// Bytes called `name` of every list in the array `lists` of a packed list.
pub fn all_bytes<'b>(packed: &'b [u8], lists: &str, name: &str) -> Vec<&'b [u8]> {
    let mut found = Vec::new();
    let _ = each(packed, |names, kind, value| {
        if kind == BINARY && names == [lists.as_bytes(), name.as_bytes()] {
            found.push(value);
        }
    });
    found
}

/// A text of a packed list.
pub fn find_text(packed: &[u8], name: &str) -> Option<String> {
    let (kind, value) = find(packed, name)?;
    let text = value.split(|byte| *byte == 0).next().unwrap_or_default();
    (kind == STRING).then(|| String::from_utf8_lossy(text).into_owned())
}

/// A truth value of a packed list.
pub fn find_bool(packed: &[u8], name: &str) -> Option<bool> {
    let (kind, value) = find(packed, name)?;
    (kind == BOOL).then_some(value.first() != Some(&0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written down by hand from the layout.
    #[test]
    fn a_list_is_packed_as_the_kernel_unpacks_it() {
        let packed = List::default().number("nr", 0x0102).text("a", "xy").pack();
        let header = [0x6c, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 54, 0, 0, 0, 0, 0, 0, 0];
        let number = [3, 3, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, b'n', b'r', 0, 2, 1, 0, 0, 0, 0, 0, 0];
        let text = [4, 2, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, b'a', 0, b'x', b'y', 0];
        assert_eq!(packed, [&header[..], &number, &text].concat());
    }

    /// Each header within says how much there is to the end of everything, as nvlist_unpack_header holds it to.
    #[test]
    fn every_header_says_what_is_left() {
        let inner = List::default().list("deep", List::default().bytes("b", &[1, 2])).number("n", 7);
        let packed = List::default().list("in", inner).numbers("two", &[1, 2]).pack();
        let at = |at: usize| usize::try_from(u64::from_le_bytes(packed[at + 11..at + 19].try_into().unwrap())).unwrap();
        assert_eq!(at(0), packed.len() - 19);
        let first = 19 + 19 + 3;
        assert_eq!((packed[first], at(first)), (0x6c, packed.len() - first - 19));
        let second = first + 19 + 19 + 5;
        assert_eq!((packed[second], at(second)), (0x6c, packed.len() - second - 19));
        // What a pair says of its list: that one, and what ends it.
        let said = usize::try_from(u64::from_le_bytes(packed[second - 21..second - 13].try_into().unwrap())).unwrap();
        assert_eq!(packed[second + said - 20], UP);
    }

    #[test]
    fn what_is_within_is_not_found_without() {
        let inner = List::default().text("call", "within").list("more", List::default().text("call", "deep"));
        let packed = List::default().number("nr", 1).list("rule", inner).text("call", "skep/*").pack();
        assert_eq!(find_text(&packed, "call").as_deref(), Some("skep/*"));
        assert_eq!(find_text(&packed, "nr"), None);
        assert_eq!(find_bool(&packed, "call"), None);
        let mut array = header();
        let pair = |kind: u8, name: &str, items: u64, size: u64| {
            let mut bytes = vec![kind];
            bytes.extend((name.len() as u16 + 1).to_le_bytes());
            bytes.extend(size.to_le_bytes());
            bytes.extend(items.to_le_bytes());
            bytes.extend(name.bytes().chain([0]));
            bytes
        };
        array.extend(pair(NVLISTS, "all", 2, 0));
        for _ in 0..2 {
            array.extend(header());
            array.extend(pair(BOOL, "on", 0, 1));
            array.push(0);
            array.extend(pair(NEXT, "", 0, 0));
        }
        array.extend(pair(BOOL, "on", 0, 1));
        array.push(1);
        assert_eq!(find_bool(&array, "on"), Some(true));
    }

    /// As wg(4) is asked for another end.
    #[test]
    fn arrays_of_lists_are_packed_and_found() {
        let inside = || List::default().bytes("ipv6", &[7; 16]).number("cidr", 128);
        let peer = |key| List::default().bytes("public-key", &[key; 32]).lists("allowed-ips", vec![inside()]);
        let packed =
            List::default().number("listen-port", 51_820).lists("peers", vec![peer(1), peer(2)]).bytes("key", &[3]).pack();
        assert_eq!(find_number(&packed, "listen-port"), Some(51_820));
        assert_eq!(all_bytes(&packed, "peers", "public-key"), [[1; 32], [2; 32]]);
        assert_eq!((find_bytes(&packed, "key"), find_bytes(&packed, "public-key")), (Some(&[3][..]), None));
        // Of the array: type, name, no size, two; then a header that says how much is left of everything.
        let at = LIST + PAIR + 12 + 8;
        assert_eq!(packed[at..at + PAIR + 6], [&[11, 6, 0][..], &[0; 8], &[2, 0, 0, 0, 0, 0, 0, 0], b"peers\0"].concat());
        let first = at + PAIR + 6;
        let left = (packed.len() - first - LIST) as u64;
        assert_eq!((packed[first], &packed[first + 11..first + 19]), (MAGIC, &left.to_le_bytes()[..]));
        for end in 0..packed.len() {
            assert_eq!(find_bytes(&packed[..end], "key"), None);
        }
    }

    #[test]
    fn a_list_that_is_cut_or_lies_is_no_harm() {
        let inner = List::default().text("a", "b");
        let packed = List::default().list("rule", inner).text("call", "skep/*").pack();
        for end in 0..packed.len() {
            assert_eq!(find_text(&packed[..end], "call"), None);
        }
        for at in 0..packed.len() {
            for byte in [0, 1, 0x7f, 0xfe, 0xff] {
                let mut other = packed.clone();
                other[at] = byte;
                let _ = find_text(&other, "call");
            }
        }
        assert_eq!(find_text(&[UP; 200], "call"), None);
        assert_eq!(find_text(&[NVLIST; 4000], "call"), None);
    }
}
