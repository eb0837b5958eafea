//! Variables of firmware.

use super::{invalid, named, value};
use skep_api::v1;
use skep_proto::Refusal;
use skep_proto::broker::{BootChoice, VarState, VarsEdited};

/// A variable.
pub fn variable(state: VarState, data: Vec<u8>) -> v1::Variable {
    v1::Variable {
        name: state.name.to_string(),
        attributes: state.attributes,
        size_bytes: state.size,
        meaning: state.meaning.to_string(),
        data: data.into(),
    }
}

/// A boot entry: `0001`, `Boot0001`, `disk:NAME`.
pub fn choice(field: &str, text: &str) -> Result<BootChoice, Refusal> {
    let what = "boot entry";
    if let Some(disk) = text.strip_prefix("disk:") {
        return named(what, field, disk).map(BootChoice::Disk);
    }
    let digits = text.strip_prefix("Boot").unwrap_or(text);
    let whole = (1..=4).contains(&digits.len()) && digits.bytes().all(|c| c.is_ascii_hexdigit());
    let number = u16::from_str_radix(digits, 16).ok().filter(|_| whole);
    number.map(BootChoice::Entry).ok_or_else(|| {
        let note = format_args!("{text:?} is neither a number of one to four hexadecimal digits nor disk:NAME");
        invalid(what, field, note)
    })
}

/// What is booted.
pub fn boot(edited: &VarsEdited) -> v1::BootState {
    let text = |number: &u16| format!("{number:04X}");
    v1::BootState { order: edited.order.iter().map(text).collect(), next: edited.next.as_ref().map(text).unwrap_or_default() }
}

/// A variable's name.
pub fn name(text: &str) -> Result<skep_proto::VarName, Refusal> {
    value("variable", "name", text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_a_number_or_a_disk() {
        assert_eq!(choice("entry", "0001"), Ok(BootChoice::Entry(1)));
        assert_eq!(choice("entry", "Boot00aF"), Ok(BootChoice::Entry(0xaf)));
        assert_eq!(choice("entry", "disk:data"), Ok(BootChoice::Disk("data".parse().expect("valid"))));
        for wrong in ["", "disk:", "10000", "+1", "0x1", "data", "BootBoot1", "é"] {
            assert_eq!(choice("entry", wrong).expect_err("refused").field.as_str(), "entry", "{wrong}");
        }
    }
}
