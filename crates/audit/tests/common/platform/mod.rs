//! Which kernel answers.

/// FreeBSD's, with capability mode.
pub const FREEBSD: bool = cfg!(target_os = "freebsd");
