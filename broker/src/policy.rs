//! Who may do what.

use crate::broker::Broker;
use sha2::{Digest, Sha256};
use skep_proto::broker::Credential;
use skep_proto::{Op, Reason, Refusal, Text};
use std::os::fd::{AsFd, OwnedFd};

/// Who a session turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// For logs, events and operations.
    pub name: Text<64>,
    /// On this host, by the kernel's word.
    pub local: bool,
}

impl Broker {
    /// Finds out who a client is. Refused: nobody who may do anything here.
    pub fn recognise(&self, credential: &Credential, socket: Option<&OwnedFd>) -> Result<User, Refusal> {
        match (credential, socket) {
            (Credential::LocalSocket, Some(socket)) => {
                let failed = |e| Refusal::io("session", "ask who is at the other end", &e).field("credential");
                let uid = skep_sys::sock::peer(socket.as_fd()).map_err(failed)?.uid;
                // Of a connection that the frontend itself has made, to whatever root listens on, the kernel would name root; and
                // whoever has left asks for nothing any more.
                let door = skep_sys::sock::bound_to(socket.as_fd()).map_err(failed)?;
                if door.as_ref() != Some(&self.door) || skep_sys::sock::hung_up(socket.as_fd()) {
                    let refusal = Refusal::new(Reason::PermissionDenied, "session").field("credential");
                    return Err(refusal.note(format_args!("it is no client's connection to {}", self.door.display())));
                }
                let name = Text::lossy(&format!("uid {uid}"));
                if uid == 0 || uid == self.owner {
                    Ok(User { name, local: true })
                } else {
                    Err(Refusal::new(Reason::PermissionDenied, name).note("only root and who started skep may use it"))
                }
            }
            (Credential::Token(text), None) => {
                let hash: [u8; 32] = Sha256::digest(text.as_str().as_bytes()).into();
                let name = self.read(|db| db.token(&hash))?;
                let name = name.ok_or_else(|| Refusal::new(Reason::Unauthenticated, "session").note("no such token"))?;
                Ok(User { name: Text::lossy(&format!("token {name}")), local: false })
            }
            _ => Err(Refusal::new(Reason::InvalidValue, "session")
                .field("credential")
                .note("the socket goes with LocalSocket only")),
        }
    }
}

/// Refuses what this user may not do. Everybody who got a session administers this host; only somebody on it lets others in.
pub fn permit(user: &User, op: &Op) -> Result<(), Refusal> {
    if op.name == "TokenCreate" && !user.local {
        return Err(Refusal::new(Reason::PermissionDenied, &user.name).note("tokens are made on the host itself"));
    }
    Ok(())
}
