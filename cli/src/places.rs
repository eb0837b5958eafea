//! Where a suite keeps its things, and where its API answers.

use crate::installed::{ConfError, Installed};
use crate::up;
use std::ops::Deref;
use std::path::PathBuf;

/// STATE, RUN and the API's socket of one suite.
#[derive(Debug, Clone)]
pub struct Places {
    dirs: up::Places,
    /// The socket of its API.
    pub socket: PathBuf,
    /// Somebody said which suite.
    pub chosen: bool,
}

impl Places {
    /// From what was given, or the defaults of who asks: his own suite, and the installed one where he has none.
    pub fn new(state: Option<PathBuf>, run: Option<PathBuf>, socket: Option<PathBuf>) -> Result<Self, ConfError> {
        let installed = Installed::read()?;
        let theirs = installed.as_ref().map(|i| i.run.join(up::API));
        let dirs = up::Places::new(state, run, installed);
        let chosen = socket.is_some() || !dirs.by_default;
        let socket = socket.unwrap_or_else(|| {
            let own = dirs.socket();
            if own.exists() { own } else { theirs.filter(|path| dirs.by_default && path.exists()).unwrap_or(own) }
        });
        Ok(Self { dirs, socket, chosen })
    }
}

impl Deref for Places {
    type Target = up::Places;
    fn deref(&self) -> &up::Places {
        &self.dirs
    }
}
