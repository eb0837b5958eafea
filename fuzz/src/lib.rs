//! Every decoder of the suite as a fuzz target. `libfuzzer/` runs them guided by coverage (README.md says how); `tests/corpus.rs` replays the corpus in `./test`.
#![forbid(unsafe_code)]

mod guest;

pub use guest::{event, guest};

pub use skep_disk_server::fuzz_served as served;
pub use skep_storage_helper::{fuzz_packed as packed, fuzz_vhd as vhd, fuzz_vhdx as vhdx, fuzz_vmdk as vmdk};

use skep_proto::broker::{Broker, EventView};
use skep_proto::cell::Cell;
use skep_proto::console::Console;
use skep_proto::fetch::{FetchSays, FetchTold};
use skep_proto::net::Net;
use skep_proto::runner::{Runner, RunnerEvent};
use skep_proto::services::{Document, ServiceEvent, Services};
use skep_proto::storage::{JobRecord, Storage};
use skep_proto::upload::{END, Pieces, header};
use skep_proto::wire::{Hello, Welcome, decode, decode_request, encode_request};
use skep_proto::{Helper, Refusal};
use std::io::Read;

/// What takes any bytes and must not panic.
pub type Target = fn(&[u8]);

/// Name and function of each target.
pub const TARGETS: &[(&str, Target)] = &[
    ("records", records),
    ("qmp", qmp),
    ("image", image),
    ("vmdk", vmdk),
    ("vhd", vhd),
    ("vhdx", vhdx),
    ("packed", packed),
    ("fetch", fetch),
    ("signature", signature),
    ("iscsi", iscsi),
    ("served", served),
    ("upload", upload),
    ("marks", marks),
    ("volumes", volumes),
    ("variables", variables),
    ("guest", guest),
];

/// A request that decodes is encoded again, and means the same.
fn request<H: Helper>(bytes: &[u8])
where
    H::Request: PartialEq + std::fmt::Debug,
{
    let Ok((origin, request)) = decode_request::<H>(bytes) else { return };
    let again = encode_request::<H>(&origin, &request).expect("a decoded request encodes");
    assert_eq!(decode_request::<H>(&again).expect("and decodes"), (origin, request));
}

/// Records between processes: the first byte chooses what is expected.
pub fn records(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind % 16 {
        0 => request::<Broker>(bytes),
        1 => request::<Storage>(bytes),
        2 => request::<Net>(bytes),
        3 => request::<Cell>(bytes),
        4 => request::<Runner>(bytes),
        5 => request::<Console>(bytes),
        6 => drop(decode::<Hello>(bytes)),
        7 => drop(decode::<Welcome>(bytes)),
        8 => drop(decode::<RunnerEvent>(bytes)),
        9 => drop(decode::<JobRecord>(bytes)),
        11 => request::<Services>(bytes),
        12 => drop(decode::<ServiceEvent>(bytes)),
        14 => drop(decode::<FetchSays>(bytes)),
        15 => drop(decode::<FetchTold>(bytes)),
        13 => {
            if let Ok(document) = Document::decode(bytes) {
                assert_eq!(Document::decode(&document.encode().expect("as long as before")), Ok(document));
            }
        }
        _ => {
            drop(decode::<EventView>(bytes));
            drop(decode::<Result<(), Refusal>>(bytes));
        }
    }
}

/// Lines that a hypervisor sends over QMP.
pub fn qmp(bytes: &[u8]) {
    let mut lines = skep_engine_qemu::qmp::Reader::default();
    // In two pieces, as a socket might give them.
    let (first, second) = bytes.split_at(bytes.len() / 2);
    let each = |line| {
        if let skep_engine_qemu::qmp::Line::Reply(_, skep_engine_qemu::qmp::Reply::Done(answer)) = line {
            let _ = skep_engine_qemu::qmp::block_stats(&answer);
        }
    };
    if lines.feed(first, each).is_ok() {
        let _ = lines.feed(second, each);
    }
}

/// Uploads: what reads to its end is what the same pieces hold.
pub fn upload(bytes: &[u8]) {
    let mut all = Vec::new();
    if Pieces::new(bytes).read_to_end(&mut all).is_ok() {
        let one = header(all.len()).map_or(END.to_vec(), |header| [&header, &all[..], &END].concat());
        let mut again = Vec::new();
        Pieces::new(&one[..]).read_to_end(&mut again).expect("whole");
        assert_eq!(again, all);
    }
}

/// Times at the beginning of a machine's log: what is read is written again as the same, and goes on.
pub fn marks(bytes: &[u8]) {
    use skep_proto::marks::{MAGIC, Marks, TABLE};
    let mut table = MAGIC.to_vec();
    table.extend(bytes);
    table.resize(usize::try_from(TABLE).unwrap_or_default(), 0);
    let Some(mut marks) = Marks::parse(&table) else { return };
    assert_eq!(marks.table(), table);
    assert!(marks.since(i64::MIN).is_none_or(|at| at == TABLE));
    marks.note(u64::MAX, i64::MAX);
}

/// Packed lists of ZFS: what is read is packed again, and means the same.
pub fn volumes(bytes: &[u8]) {
    use skep_storage_helper::zfs::List;
    let Ok(list) = List::unpack(bytes) else { return };
    // Some kinds are read and never written.
    if let Some(packed) = list.pack() {
        assert_eq!(List::unpack(&packed), Ok(list));
    }
}

/// What servers and resolvers send to image-fetcher: the first byte chooses what it is taken for.
pub fn fetch(bytes: &[u8]) {
    use hickory_proto::rr::{Name, RecordType};
    use skep_image_fetcher::{dns, http, sums, url::Url};
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let text = String::from_utf8_lossy(bytes);
    match kind {
        b'h' => {
            if let Ok(Some((head, length))) = http::head(bytes) {
                let body = http::Body::new(bytes.get(length..).unwrap_or_default(), head.framing);
                let _ = body.take(1 << 20).read_to_end(&mut Vec::new());
            }
        }
        b's' => drop(sums::find(&text, "a.img")),
        b'u' => {
            if let Ok(url) = Url::parse(&text) {
                assert_eq!(Url::parse(&url.to_string()), Ok(url.clone()));
                let _ = Url { path: "/x/y".into(), ..url }.join(&text);
            }
        }
        _ => {
            let id = bytes.first_chunk().map_or(0, |id| u16::from_be_bytes(*id));
            if let Ok(name) = Name::from_ascii("example.org.") {
                let _ = dns::answer(&dns::question(&name, RecordType::A, id), bytes);
            }
        }
    }
}

/// Signatures, signed lists and keys: the first byte chooses what it is taken for. Keys are not a stranger's, but may come from one.
pub fn signature(bytes: &[u8]) {
    use skep_image_fetcher::signature::{Keys, Wrong};
    const OPENPGP: &[u8] = include_bytes!("../../image-fetcher/src/signature/vectors/keys.asc");
    const LIST: &[u8] = include_bytes!("../../image-fetcher/src/signature/vectors/list");
    const SIGNIFY: &[u8] = b"untrusted comment: a key\nRWRZMmz/e/DwQkWkEXhhr96COkX7Q+8cu9gmdv0OkL9wHOTw3FsDFZ34\n";
    /// 2026-11-01, when they were made.
    const MADE: u64 = 1_793_491_200;
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let check = |keys: &Keys| {
        // Whoever finds a signature over something else has broken Ed25519 or RSA.
        assert!(keys.detached(bytes, b"nobody signed this", MADE).is_err());
        let whole = keys.detached(bytes, LIST, MADE);
        let _ = keys.inline(bytes, MADE);
        // What comes piece by piece is signed if it is as a whole.
        let coming = |pieces: &[&[u8]]| {
            let mut coming = keys.coming(bytes, MADE)?;
            pieces.iter().for_each(|piece| coming.update(piece));
            coming.finish(MADE)
        };
        assert!(coming(&[b"nobody ", b"signed this"]).is_err());
        let (first, rest) = LIST.split_at(LIST.len() / 3);
        match coming(&[first, rest]) {
            Err(Wrong::AllAtOnce) => {}
            in_pieces => assert_eq!(in_pieces.is_ok(), whole.is_ok()),
        }
    };
    match kind {
        b'k' => drop(Keys::parse(bytes, MADE)),
        b's' => check(&Keys::parse(OPENPGP, MADE).expect("good keys")),
        _ => check(&Keys::parse(SIGNIFY, MADE).expect("a good key")),
    }
}

/// What targets and hypervisors send to iscsi-initiator: the first byte chooses what it is taken for.
pub fn iscsi(bytes: &[u8]) {
    use skep_iscsi_initiator::login::{Agreed, Login, Step};
    use skep_iscsi_initiator::scsi::Ask;
    use skep_iscsi_initiator::{pdu::Reader, session::Session};
    use skep_nbd::{Client, Geometry};
    use skep_proto::iscsi::LoginOrder;
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind {
        b'l' => {
            let (Ok(initiator), Ok(portal), Ok(target)) =
                ("iqn.2026-11.a:b".parse(), "192.0.2.1".parse(), "iqn.2026-11.a".parse())
            else {
                return;
            };
            let order = LoginOrder { initiator, isid: [0; 6], portal, target, lun: 0, chap: None };
            let (mut login, _) = Login::new(&order);
            let mut reader = Reader::default();
            reader.feed(bytes);
            while let Ok(Some(unit)) = reader.unit() {
                if !matches!(login.hear(&unit), Ok(Step::Send(_))) {
                    return;
                }
            }
        }
        b's' => {
            let mut session = Session::new(Agreed { unit: 512, at_once: 512, command: 1, status: 1, most: 9 }, 0);
            session.command(1, &Ask::Write { block: 0, blocks: 8, now: false }, vec![7; 4096], 0);
            session.command(2, &Ask::Read { block: 0, blocks: 8 }, Vec::new(), 4096);
            let _ = session.hear(bytes);
            session.take_back();
        }
        _ => {
            let mut client = Client::new(Geometry { blocks: 2048, block: 512 }, kind & 1 == 0);
            client.feed(bytes);
            while let Ok(Some(_)) = client.asked() {}
        }
    }
}

/// Images: QCOW2 headers and tables.
pub fn image(bytes: &[u8]) {
    skep_storage_helper::fuzz_import(bytes);
}

/// Variable stores: what is read is written, and read again as the same; so is what was changed.
pub fn variables(bytes: &[u8]) {
    use skep_efivars::{Guid, Store, boot};
    let Ok(mut store) = Store::parse(bytes) else { return };
    for variable in store.variables() {
        assert!(!boot::describe(variable).chars().any(char::is_control));
        let name = format!("{}-{}", variable.name(), variable.guid());
        assert_eq!(name.parse::<skep_proto::VarName>().map(|n| n.to_string()), Ok(name));
    }
    let written = |store: &Store| {
        let mut image = bytes.to_vec();
        store.write(&mut image).ok().map(|()| assert_eq!(Store::parse(&image).as_ref(), Ok(store)))
    };
    // Only what the firmware has yet to finish is not written.
    let could = written(&store).is_some();
    let entries: Vec<u16> = boot::entries(&store).iter().map(|entry| entry.number).collect();
    let _ = boot::leading_to(&store, bytes.get(..12).unwrap_or_default());
    if boot::put_first(&mut store, entries.get(..1).unwrap_or_default()).is_ok() {
        written(&store);
    }
    let _ = boot::set_next(&mut store, entries.last().copied());
    let _ = store.set(Guid::GLOBAL, "Fuzz", Some(3), bytes.get(..64).unwrap_or(&[1]));
    written(&store);
    if store.delete(Guid::GLOBAL, "Fuzz") && store.delete(Guid::GLOBAL, boot::NEXT) && store.delete(Guid::GLOBAL, boot::ORDER) {
        assert_eq!(written(&store).is_some(), could);
    }
}
