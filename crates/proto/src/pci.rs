//! Places on PCI bus 0 as one number: the device number, 1 to 30, in its lower five bits and the function, 0 to 7, in the upper three. Where no
//! function is said, it is the device number.

/// The place of a function of a device number; none: there is no such place. 0 of function 0 is one that is not said.
pub fn place(slot: u32, function: u32) -> Option<u8> {
    let (slot, function) = (u8::try_from(slot).ok()?, u8::try_from(function).ok()?);
    let there = (1..=30).contains(&slot) && function <= 7 || (slot, function) == (0, 0);
    there.then_some(slot | function << 5)
}

/// Device number and function of a place.
pub const fn parts(place: u8) -> (u8, u8) {
    (place & 31, place >> 5)
}

/// As people write it: `20`, or `20.1` with another function than 0.
pub fn written(place: u8) -> String {
    match parts(place) {
        (slot, 0) => slot.to_string(),
        (slot, function) => format!("{slot}.{function}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_is_a_number_and_nothing_else_is_one() {
        let mut all = 0;
        for (slot, function) in (0..300).flat_map(|slot| (0..300).map(move |function| (slot, function))) {
            let Some(at) = place(slot, function) else { continue };
            assert_eq!(parts(at), (u8::try_from(slot).expect("small"), u8::try_from(function).expect("small")));
            all += 1;
        }
        assert_eq!((all, place(20, 0), place(20, 1)), (30 * 8 + 1, Some(20), Some(52)));
        assert_eq!((written(20), written(52)), ("20".to_owned(), "20.1".to_owned()));
    }
}
