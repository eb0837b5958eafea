//! Lists in pages that fit a record.

use serde::Serialize;
use skep_proto::{MAX_RECORD, wire};

/// Rows that are read for one page; fewer may fit.
pub const ROWS: u32 = 64;

/// As many of `items` as fit, from the first.
pub fn fit<T: Serialize>(items: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut page = Vec::new();
    // Room for the reply's header and the length of the list.
    let mut left = MAX_RECORD - 32;
    for item in items {
        let Ok(bytes) = wire::encode(&item) else { break };
        if bytes.len() > left {
            break;
        }
        left -= bytes.len();
        page.push(item);
    }
    page
}
