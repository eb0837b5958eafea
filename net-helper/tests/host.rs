//! The helper on a real kernel.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod acts;
mod platform;
mod support;
