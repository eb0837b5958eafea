//! Where a suite keeps its things, and where its API answers.

use crate::up;
use std::ops::Deref;
use std::path::PathBuf;

/// STATE, RUN and the API's socket of one suite.
#[derive(Debug, Clone)]
pub struct Places {
    dirs: up::Places,
    /// The socket of its API.
    pub socket: PathBuf,
}

impl Places {
    /// From what was given, or the defaults of who asks.
    pub fn new(state: Option<PathBuf>, run: Option<PathBuf>, socket: Option<PathBuf>) -> Self {
        let dirs = up::Places::new(state, run);
        let socket = socket.unwrap_or_else(|| dirs.socket());
        Self { dirs, socket }
    }
}

impl Deref for Places {
    type Target = up::Places;
    fn deref(&self) -> &up::Places {
        &self.dirs
    }
}
