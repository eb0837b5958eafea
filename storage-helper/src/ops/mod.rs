//! What each operation does. One file a noun.

pub mod clone;
pub mod disk;
pub mod import;
pub mod incoming;
pub mod layer;
pub mod log;
pub mod snapshot;
pub mod space;
pub mod variables;
pub mod vars;
pub mod volume;
