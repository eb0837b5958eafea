//! How much of this process one user may take, so that nobody keeps the others out, and it never runs out of descriptors.

use skep_proto::{Reason, Refusal};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Whose share it is. For sharing out only: who a client is, the broker finds out by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum User {
    /// A local user.
    Uid(u32),
    /// Where a remote client is.
    Address(IpAddr),
    /// All who read metrics.
    Metrics,
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Connections of clients.
    Connection,
    /// Sessions with the broker.
    Session,
    /// Streams: consoles, screens, events, imports, logs.
    Stream,
    /// Logs that are followed: three descriptors each, and one of the kernel's watchers, of which a user has 128 (inotify(7)).
    Follower,
}

/// Of all users, and of one. All together stay below the table's limit of descriptors (a connection takes two).
const ALL: [(Kind, usize); 4] = [(Kind::Connection, 128), (Kind::Session, 330), (Kind::Stream, 240), (Kind::Follower, 64)];
const ONE: [(Kind, usize); 4] = [(Kind::Connection, 48), (Kind::Session, 150), (Kind::Stream, 100), (Kind::Follower, 24)];
/// Of all who are neither root nor who started the suite: whoever they are and however many addresses they have, these two get in.
const OTHERS: [(Kind, usize); 4] = [(Kind::Connection, 80), (Kind::Session, 230), (Kind::Stream, 160), (Kind::Follower, 44)];

/// A place, given back when it is dropped.
pub struct Place {
    _taken: [Option<OwnedSemaphorePermit>; 3],
}

struct Pool([(Kind, Arc<Semaphore>); 4]);

impl Pool {
    fn new(limits: [(Kind, usize); 4]) -> Self {
        Self(limits.map(|(kind, most)| (kind, Arc::new(Semaphore::new(most)))))
    }
    fn take(&self, wanted: Kind) -> Option<OwnedSemaphorePermit> {
        let (_, pool) = self.0.iter().find(|(kind, _)| *kind == wanted)?;
        pool.clone().try_acquire_owned().ok()
    }
}

/// One user's share.
pub struct Share {
    all: Arc<Pool>,
    others: Option<Arc<Pool>>,
    one: Pool,
}

impl Share {
    /// Takes a place.
    pub fn place(&self, kind: Kind) -> Result<Place, Refusal> {
        let full = |whose| {
            let what = match kind {
                Kind::Connection => "connections",
                Kind::Session => "calls",
                Kind::Stream => "streams",
                Kind::Follower => "logs that are followed",
            };
            Refusal::new(Reason::LimitReached, "api-frontend").note(format_args!("{whose} has too many {what}"))
        };
        let of_one = self.one.take(kind).ok_or_else(|| full("this user"))?;
        let of_others = self.others.as_ref().map(|pool| pool.take(kind).ok_or_else(|| full("the suite"))).transpose()?;
        let of_all = self.all.take(kind).ok_or_else(|| full("the suite"))?;
        Ok(Place { _taken: [Some(of_one), of_others, Some(of_all)] })
    }
}

/// All shares.
pub struct Shares {
    all: Arc<Pool>,
    others: Arc<Pool>,
    users: Mutex<HashMap<User, Weak<Share>>>,
}

impl Default for Shares {
    fn default() -> Self {
        Self { all: Arc::new(Pool::new(ALL)), others: Arc::new(Pool::new(OTHERS)), users: Mutex::default() }
    }
}

impl Shares {
    /// A user's share; it lives as long as he has a connection.
    pub fn of(&self, user: User) -> Arc<Share> {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = users.get(&user).and_then(Weak::upgrade) {
            return share;
        }
        users.retain(|_, share| share.strong_count() > 0);
        let known = [User::Metrics, User::Uid(0), User::Uid(nix::unistd::getuid().as_raw())].contains(&user);
        let others = (!known).then(|| self.others.clone());
        let share = Arc::new(Share { all: self.all.clone(), others, one: Pool::new(ONE) });
        users.insert(user, Arc::downgrade(&share));
        share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_cannot_keep_another_out() {
        let shares = Shares::default();
        let (greedy, other) = (shares.of(User::Uid(1)), shares.of(User::Uid(2)));
        let mut taken = Vec::new();
        while let Ok(place) = greedy.place(Kind::Connection) {
            taken.push(place);
        }
        assert_eq!(taken.len(), 48);
        let crowd: Vec<_> = (10..200).map(|n| shares.of(User::Address([10, 0, 0, n].into()))).collect();
        let crowd: Vec<_> = crowd.iter().flat_map(|share| (0..48).map_while(|_| share.place(Kind::Connection).ok())).collect();
        assert_eq!(taken.len() + crowd.len(), 80);
        let root = shares.of(User::Uid(0));
        assert_eq!((0..100).map_while(|_| root.place(Kind::Connection).ok()).collect::<Vec<_>>().len(), 48);
        drop(crowd);
        assert!(other.place(Kind::Connection).is_ok());
        taken.pop();
        assert!(greedy.place(Kind::Connection).is_ok());
    }
}
