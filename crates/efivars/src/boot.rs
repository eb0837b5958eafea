//! What is booted: entries (`Boot0001`), their order (`BootOrder`), and the one that goes first once (`BootNext`).

use crate::bytes::{u16_at, u32_at, units};
use crate::guid::Guid;
use crate::record::Variable;
use crate::store::{Change, Store};
use crate::{path, text};

/// The order of entries.
pub const ORDER: &str = "BootOrder";
/// The entry of the next start.
pub const NEXT: &str = "BootNext";
/// Whether the firmware considers an entry by itself.
const ACTIVE: u32 = 1;
/// Bytes of other data that are described.
const SHOWN: usize = 16;

/// A boot entry (`EFI_LOAD_OPTION`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its number.
    pub number: u16,
    /// Whether it is tried in its turn.
    pub active: bool,
    /// For people.
    pub description: String,
    /// Where it leads to: a device path. See [`path`].
    pub path: Vec<u8>,
}

/// Why an entry cannot be chosen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Choice {
    /// It is not there.
    #[error("there is no entry {0:04X}")]
    NoEntry(u16),
    /// It is named twice.
    #[error("entry {0:04X} is named twice")]
    Twice(u16),
    /// The store cannot be changed so.
    #[error(transparent)]
    Change(#[from] Change),
}

/// The number in a name like `Boot0001`.
fn number(name: &str) -> Option<u16> {
    let digits = ["Boot", "Driver", "SysPrep"].iter().find_map(|kind| name.strip_prefix(kind))?;
    let upper = |c: u8| c.is_ascii_digit() || matches!(c, b'A'..=b'F');
    if digits.len() == 4 && digits.bytes().all(upper) { u16::from_str_radix(digits, 16).ok() } else { None }
}

/// Reads an entry of any kind.
fn load_option(variable: &Variable) -> Option<Entry> {
    let (number, data) = (number(variable.name()).filter(|_| variable.guid() == Guid::GLOBAL)?, variable.data());
    let (attributes, length) = (u32_at(data, 0)?, usize::from(u16_at(data, 4)?));
    let rest = data.get(6..)?;
    let letters = units(rest).position(|unit| unit == 0)?;
    let path = rest.get((letters + 1) * 2..)?.get(..length)?;
    let description = text::description(units(rest).take(letters));
    Some(Entry { number, active: attributes & ACTIVE != 0, description, path: path.to_vec() })
}

/// All boot entries, by number.
pub fn entries(store: &Store) -> Vec<Entry> {
    let boot = store.variables().iter().filter(|variable| variable.name().starts_with("Boot"));
    let mut entries: Vec<Entry> = boot.filter_map(load_option).collect();
    entries.sort_unstable_by_key(|entry| entry.number);
    entries
}

fn numbers(data: &[u8]) -> Vec<u16> {
    units(data).collect()
}

/// The order; empty where there is none yet.
pub fn order(store: &Store) -> Vec<u16> {
    store.find(Guid::GLOBAL, ORDER).map(|variable| numbers(variable.data())).unwrap_or_default()
}

/// What goes first, once.
pub fn next(store: &Store) -> Option<u16> {
    store.find(Guid::GLOBAL, NEXT).and_then(|variable| u16_at(variable.data(), 0))
}

/// The first entry, in the present order, whose path begins so.
pub fn leading_to(store: &Store, beginning: &[u8]) -> Option<u16> {
    let (all, order) = (entries(store), order(store));
    let turn = |entry: &Entry| order.iter().position(|number| *number == entry.number).unwrap_or(usize::MAX);
    all.iter().filter(|entry| entry.path.starts_with(beginning)).min_by_key(|entry| turn(entry)).map(|entry| entry.number)
}

/// Puts entries first, in this order; the others keep their turns behind them. Gives the whole order.
pub fn put_first(store: &mut Store, first: &[u16]) -> Result<Vec<u16>, Choice> {
    let all = entries(store);
    for (place, number) in first.iter().enumerate() {
        if !all.iter().any(|entry| entry.number == *number) {
            return Err(Choice::NoEntry(*number));
        }
        if first.iter().take(place).any(|before| before == number) {
            return Err(Choice::Twice(*number));
        }
    }
    let mut whole = first.to_vec();
    let rest = order(store).into_iter().filter(|number| all.iter().any(|entry| entry.number == *number));
    for number in rest {
        if !whole.contains(&number) {
            whole.push(number);
        }
    }
    let data: Vec<u8> = whole.iter().flat_map(|number| number.to_le_bytes()).collect();
    store.set(Guid::GLOBAL, ORDER, None, &data)?;
    Ok(whole)
}

/// Has an entry booted once, at the next start; none: takes that back.
pub fn set_next(store: &mut Store, entry: Option<u16>) -> Result<(), Choice> {
    let Some(number) = entry else {
        store.delete(Guid::GLOBAL, NEXT);
        return Ok(());
    };
    if !entries(store).iter().any(|entry| entry.number == number) {
        return Err(Choice::NoEntry(number));
    }
    Ok(store.set(Guid::GLOBAL, NEXT, None, &number.to_le_bytes())?)
}

/// Numbers of entries as they are written.
pub fn list(numbers: &[u16]) -> String {
    numbers.iter().map(|number| format!("{number:04X}")).collect::<Vec<_>>().join(",")
}

/// What a variable says, as far as it is known, in a line.
pub fn describe(variable: &Variable) -> String {
    let data = variable.data();
    let global = variable.guid() == Guid::GLOBAL;
    match variable.name() {
        ORDER | "DriverOrder" | "SysPrepOrder" if global => return list(&numbers(data)),
        NEXT | "BootCurrent" if global && data.len() == 2 => return list(&numbers(data)),
        "ConIn" | "ConOut" | "ErrOut" if global => return path::text(data),
        "Timeout" if global && data.len() == 2 => return u16_at(data, 0).map_or_else(String::new, |s| format!("{s} s")),
        _ => {}
    }
    if let Some(entry) = load_option(variable) {
        let inactive = if entry.active { "" } else { " (inactive)" };
        return format!("{}{inactive}  {}", entry.description, path::text(&entry.path));
    }
    let letters = data.strip_suffix(&[0]).unwrap_or(data);
    if (1..=64).contains(&letters.len()) && letters.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ') {
        return String::from_utf8_lossy(letters).replace('\\', "\\u{5c}");
    }
    text::hex(data, SHOWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_names_are_entries() {
        assert_eq!((number("Boot0001"), number("Driver00AF")), (Some(1), Some(0xaf)));
        for wrong in ["Boot1", "Boot00001", "Boot00af", "Boot+001", "BootOrder", "boot0001", "Boot00é"] {
            assert_eq!(number(wrong), None, "{wrong}");
        }
    }
}
