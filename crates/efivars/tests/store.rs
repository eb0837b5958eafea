//! Images of the corpus, and what is made of them; and the template of this host's firmware.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use proptest::prelude::*;
use skep_efivars::{Change, Guid, Store, boot, path};
use std::collections::BTreeMap;

const AUTHENTICATED: &[u8] = include_bytes!("../../../fuzz/corpus/variables/authenticated");
const PLAIN: &[u8] = include_bytes!("../../../fuzz/corpus/variables/plain");
const UNFINISHED: &[u8] = include_bytes!("../../../fuzz/corpus/variables/unfinished");
const FINISHED: &[u8] = include_bytes!("../../../fuzz/corpus/variables/finished");
const WILD_QUEUE: &[u8] = include_bytes!("../../../fuzz/corpus/variables/wild-queue");
const TRANSITION: &[u8] = include_bytes!("../../../fuzz/corpus/variables/transition");
const STRANGE_NAMES: &[u8] = include_bytes!("../../../fuzz/corpus/variables/strange-names");
const STRANGE_ENTRIES: &[u8] = include_bytes!("../../../fuzz/corpus/variables/strange-entries");
const TOO_LONG: &[u8] = include_bytes!("../../../fuzz/corpus/variables/too-long");
const FULL: &[u8] = include_bytes!("../../../fuzz/corpus/variables/full");

fn store(image: &[u8]) -> Store {
    Store::parse(image).unwrap()
}

fn written(store: &Store, image: &[u8]) -> Vec<u8> {
    let mut image = image.to_vec();
    store.write(&mut image).unwrap();
    image
}

fn get<'a>(store: &'a Store, name: &str) -> &'a [u8] {
    store.find(Guid::GLOBAL, name).unwrap().data()
}

/// Names in the order of the image.
fn names(store: &Store) -> Vec<&str> {
    store.variables().iter().map(|v| v.name()).collect()
}

#[test]
fn both_layouts_hold_the_same_variables() {
    let (one, other) = (store(AUTHENTICATED), store(PLAIN));
    let all = ["Lang", "Timeout", "Boot0000", "Boot0001", "Boot0002", "Boot0003", "BootOrder", "MTC"];
    assert_eq!(names(&one), all);
    for (one, other) in one.variables().iter().zip(other.variables()) {
        assert_eq!((one.guid(), one.name(), one.data()), (other.guid(), other.name(), other.data()));
    }
    assert_eq!(get(&one, "Timeout"), [5, 0]);
    assert_eq!(boot::order(&one), [1, 2, 3, 0]);
    let meaning = |name: &str| boot::describe(one.find(Guid::GLOBAL, name).unwrap());
    assert_eq!(meaning("BootOrder"), "0001,0002,0003,0000");
    assert_eq!(meaning("Timeout"), "5 s");
    assert_eq!(meaning("Lang"), "eng");
    assert_eq!(meaning("Boot0001"), "UEFI Misc Device  PciRoot(0x0)/Pci(0x8,0x0)");
    let debian = "debian  HD(1,GPT,33323130-3534-3736-3839-616263646566,0x800,0x17000)/\\EFI\\debian\\shimx64.efi";
    assert_eq!(meaning("Boot0003"), debian);
}

#[test]
fn what_is_not_changed_stays_to_the_byte() {
    for image in [AUTHENTICATED, PLAIN, FINISHED, STRANGE_NAMES, STRANGE_ENTRIES, FULL] {
        let before = store(image);
        assert_eq!(store(&written(&before, image)), before);
        let mut after = before.clone();
        after.set(Guid::GLOBAL, "Boot0042", None, b"new").unwrap();
        let (used, room) = after.room();
        // The full one is left as it is.
        let after = if used <= room { after } else { before.clone() };
        let new = store(&written(&after, image));
        for variable in before.variables() {
            assert!(new.variables().iter().any(|v| v.raw() == variable.raw()), "{variable:?}");
        }
        // Everything behind the variables, and before them.
        let image_after = written(&after, image);
        assert_eq!(image_after[..0x64], image[..0x64]);
        assert_eq!(image_after[0x1000..], image[0x1000..]);
    }
}

#[test]
fn variables_are_set_and_deleted() {
    let mut store = store(AUTHENTICATED);
    let other: Guid = "eb704011-1402-11d3-8e77-00a0c969723b".parse().unwrap();
    store.set(Guid::GLOBAL, "Timeout", None, &[9, 0]).unwrap();
    store.set(other, "Timeout", Some(3), &[1, 2, 3]).unwrap();
    assert!(store.delete(Guid::GLOBAL, "Lang") && !store.delete(Guid::GLOBAL, "Lang"));
    let again = Store::parse(&written(&store, AUTHENTICATED)).unwrap();
    assert_eq!(again, store);
    assert_eq!(get(&again, "Timeout"), [9, 0]);
    let new = again.find(other, "Timeout").unwrap();
    assert_eq!((new.attributes(), new.data()), (3, &[1u8, 2, 3][..]));
    assert!(again.find(Guid::GLOBAL, "Lang").is_none());
    for (attributes, name) in [(6, "A"), (0x47, "A"), (5, "A"), (0, "A")] {
        assert_eq!(store.set(other, name, Some(attributes), b"x"), Err(Change::Attributes(attributes)));
    }
    for name in ["", "a\\b", "é", "a\nb"] {
        assert_eq!(store.set(other, name, None, b"x"), Err(Change::Name), "{name}");
    }
    assert_eq!(store.set(other, "A", None, b""), Err(Change::Empty));
}

#[test]
fn a_full_store_says_how_full() {
    let mut full = store(FULL);
    let (used, room) = full.room();
    assert_eq!(used, room);
    full.set(Guid::GLOBAL, "Timeout", None, &[1, 0]).unwrap();
    let error = full.write(&mut FULL.to_vec()).unwrap_err();
    assert_eq!(error, Change::Full { needed: room + 60 + 16 + 2, room });
    assert!(error.to_string().contains(&room.to_string()), "{error}");
}

#[test]
fn what_the_firmware_has_yet_to_finish_is_left_to_it() {
    assert_eq!(store(UNFINISHED).write(&mut UNFINISHED.to_vec()), Err(Change::Unfinished));
    for image in [FINISHED, WILD_QUEUE] {
        store(image).write(&mut image.to_vec()).unwrap();
    }
    assert_eq!(store(AUTHENTICATED).write(&mut PLAIN.to_vec()), Err(Change::OtherImage));
}

#[test]
fn of_two_the_one_in_force_is_found() {
    let store = store(TRANSITION);
    assert_eq!(names(&store), ["BootNext", "Timeout"]);
    assert_eq!((get(&store, "BootNext"), get(&store, "Timeout")), (&[1u8, 0][..], &[2u8, 0][..]));
    assert_eq!(Store::parse(&written(&store, TRANSITION)).unwrap(), store);
}

#[test]
fn the_boot_order_is_chosen_by_number_or_place() {
    let mut store = store(AUTHENTICATED);
    assert_eq!(boot::leading_to(&store, &path::pci(9, 0)), Some(2));
    assert_eq!(boot::leading_to(&store, &path::pci(10, 0)), None);
    assert_eq!(boot::put_first(&mut store, &[3, 2]), Ok(vec![3, 2, 1, 0]));
    assert_eq!(boot::order(&store), [3, 2, 1, 0]);
    assert_eq!(boot::put_first(&mut store, &[7]), Err(boot::Choice::NoEntry(7)));
    assert_eq!(boot::put_first(&mut store, &[1, 1]), Err(boot::Choice::Twice(1)));
    boot::set_next(&mut store, Some(2)).unwrap();
    assert_eq!(boot::next(&store), Some(2));
    assert_eq!(boot::set_next(&mut store, Some(7)), Err(boot::Choice::NoEntry(7)));
    boot::set_next(&mut store, None).unwrap();
    assert_eq!(boot::next(&store), None);
}

#[test]
fn names_and_entries_of_a_hostile_guest_do_no_harm() {
    let found = store(STRANGE_NAMES);
    // Without a name is without a name, whatever stands in its place.
    assert_eq!(found.variables().len(), 5);
    let mut shown = names(&found);
    assert!(shown.iter().all(|name| name.bytes().all(|c| c.is_ascii_graphic() || c == b' ')), "{shown:?}");
    shown.sort_unstable();
    shown.dedup();
    assert_eq!(shown.len(), 5);
    let odd = store(STRANGE_ENTRIES);
    assert_eq!(boot::entries(&odd).len(), 1);
    for variable in odd.variables() {
        let meaning = boot::describe(variable);
        assert!(!meaning.chars().any(|c| c.is_control() || c == '\u{202e}'), "{meaning}");
    }
    assert!(Store::parse(TOO_LONG).unwrap_err().to_string().contains("2147483647"));
}

#[test]
fn damage_is_told_with_its_place() {
    let damaged = |at: usize, byte: u8| {
        let mut image = AUTHENTICATED.to_vec();
        image[at] ^= byte;
        Store::parse(&image).unwrap_err()
    };
    assert_eq!(damaged(40, 1).at, 40);
    assert!(damaged(50, 1).to_string().contains("checksum"), "{}", damaged(50, 1));
    assert_eq!(damaged(0x48, 1).what, "the variables' header");
    assert_eq!(damaged(0x48 + 20, 1).at, 0x48 + 20);
    for length in [0, 1, 40, 0x48, 0x60, 0x1000] {
        Store::parse(&AUTHENTICATED[..length]).unwrap_err();
    }
    Store::parse(&vec![0xff; 540_672]).unwrap_err();
    Store::parse(&[0; 4096]).unwrap_err();
}

/// What Debian's OVMF 2022.11 wrote in a boot with a disk on each controller, numbered for the firmware: places and lengths of what is
/// not 0xff, each with its bytes.
#[test]
fn what_ovmf_wrote_is_read_and_written() {
    let (mut image, mut runs) = (vec![0xff; 540_672], &include_bytes!("booted.runs")[..]);
    while let Some((head, rest)) = runs.split_first_chunk::<8>() {
        let [at, length] = [0, 4].map(|n| u32::from_le_bytes(head[n..n + 4].try_into().unwrap()) as usize);
        image[at..at + length].copy_from_slice(&rest[..length]);
        runs = &rest[length..];
    }
    let mut store = store(&image);
    assert_eq!(store.variables().len(), 30);
    assert_eq!(boot::order(&store), [2, 3, 4, 1, 0, 5]);
    let scsi = [path::pci(6, 0), path::scsi(2, 0)].concat();
    let sata = [path::pci(0x1f, 2), path::sata(3)].concat();
    let places = [path::pci(8, 0), path::pci(9, 0), scsi, sata];
    assert_eq!(places.map(|place| boot::leading_to(&store, &place)), [Some(2), Some(3), Some(4), Some(1)]);
    let meaning = boot::describe(store.find(Guid::GLOBAL, "Boot0003").unwrap());
    assert_eq!(meaning, "UEFI QEMU NVMe Ctrl x 1  PciRoot(0x0)/Pci(0x9,0x0)/NVMe(0x1,0000000000000000)");
    // What was deleted meanwhile is gone, and its room is free.
    assert_eq!(boot::put_first(&mut store, &[3]), Ok(vec![3, 2, 4, 1, 0, 5]));
    let after = written(&store, &image);
    assert_eq!(Store::parse(&after).unwrap(), store);
    assert_eq!((&after[..0x64], &after[0x40000..]), (&image[..0x64], &image[0x40000..]));
}

/// What Debian's ovmf ships for a new machine.
#[test]
fn the_template_of_this_host_is_read_and_written() {
    let Ok(image) = std::fs::read("/usr/share/OVMF/OVMF_VARS_4M.fd") else {
        println!("SKIP the_template_of_this_host_is_read_and_written: Debian's ovmf is not installed");
        return;
    };
    let mut store = store(&image);
    assert_eq!(written(&store, &image), image);
    store.set(Guid::GLOBAL, "Timeout", None, &[0, 0]).unwrap();
    let image = written(&store, &image);
    assert_eq!(Store::parse(&image).unwrap(), store);
    store.set(Guid::GLOBAL, "Timeout", None, &vec![7; 300_000]).unwrap();
    assert!(matches!(store.write(&mut image.clone()), Err(Change::Full { .. })));
}

/// A change of one variable.
fn edits() -> impl Strategy<Value = Vec<(u8, Option<Vec<u8>>)>> {
    let data = proptest::option::of(proptest::collection::vec(any::<u8>(), 1..200));
    proptest::collection::vec((0..12u8, data), 0..30)
}

proptest! {
    #[test]
    fn whatever_is_changed_reads_as_a_map_would(edits in edits(), plain in any::<bool>()) {
        let image = if plain { PLAIN } else { AUTHENTICATED };
        let mut store = store(image);
        let mut model: BTreeMap<String, Vec<u8>> =
            store.variables().iter().map(|v| (format!("{}{}", v.name(), v.guid()), v.data().to_vec())).collect();
        for (name, data) in edits {
            let name = format!("Boot{name:04X}");
            let key = format!("{name}{}", Guid::GLOBAL);
            match data {
                Some(data) => {
                    store.set(Guid::GLOBAL, &name, None, &data).unwrap();
                    model.insert(key, data);
                }
                None => prop_assert_eq!(store.delete(Guid::GLOBAL, &name), model.remove(&key).is_some()),
            }
        }
        let mut image = image.to_vec();
        match store.write(&mut image) {
            Ok(()) => {
                let again = Store::parse(&image).unwrap();
                let found: BTreeMap<String, Vec<u8>> =
                    again.variables().iter().map(|v| (format!("{}{}", v.name(), v.guid()), v.data().to_vec())).collect();
                prop_assert_eq!(found, model);
            }
            Err(Change::Full { needed, room }) => prop_assert!(needed > room),
            Err(other) => prop_assert!(false, "{}", other),
        }
    }

    #[test]
    fn bytes_that_a_guest_turned_end_nothing(at in 0..12288usize, byte in any::<u8>(), more in proptest::collection::vec((0x64..2048usize, any::<u8>()), 0..8)) {
        let mut image = AUTHENTICATED.to_vec();
        image[at] = byte;
        for (at, byte) in more {
            image[at] = byte;
        }
        if let Ok(store) = Store::parse(&image) {
            for variable in store.variables() {
                boot::describe(variable);
            }
            let before = image.clone();
            if store.write(&mut image).is_ok() {
                prop_assert_eq!(Store::parse(&image).unwrap(), store);
                prop_assert_eq!(&image[0x1000..], &before[0x1000..]);
            }
        }
    }

    #[test]
    fn paths_of_any_bytes_are_printed_within_bounds(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(path::text(&bytes).len() < 24 * 1300);
    }
}
