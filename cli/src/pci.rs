//! Places on the PCI bus, as a user writes them: `20`, or `20.1` with a function. Which there are is the service's to say.

/// Device number and function.
pub fn place(text: &str) -> Result<(u32, u32), String> {
    let (slot, function) = text.split_once('.').unwrap_or((text, "0"));
    let number = |digits: &str| digits.parse::<u32>().ok();
    let place = number(slot).filter(|slot| *slot > 0).zip(number(function));
    place.ok_or_else(|| format!("{text} is no place on the PCI bus, like 20, or 20.1 with a function"))
}

/// The same, or `0`: the usual one.
pub fn place_or_usual(text: &str) -> Result<(u32, u32), String> {
    if text == "0" { Ok((0, 0)) } else { place(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_device_number_and_perhaps_a_function() {
        assert_eq!((place("20"), place("20.1"), place("99.9")), (Ok((20, 0)), Ok((20, 1)), Ok((99, 9))));
        for wrong in ["", "0", "0.1", "20.", ".1", "20.1.1", "x", "-1"] {
            assert!(place(wrong).is_err_and(|why| why.contains(wrong)), "{wrong}");
        }
        assert_eq!((place_or_usual("0"), place_or_usual("20.1")), (Ok((0, 0)), Ok((20, 1))));
    }
}
