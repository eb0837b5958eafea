//! Passwords: hashed by two threads at most, never by the broker's own; and tries are counted, so that guessing is slow.

use crate::broker::Broker;
use crate::db::Who;
use crate::db::users::Users;
use crate::policy::Proof;
use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use skep_proto::broker::Ref;
use skep_proto::{OperationId, Reason, Refusal, Secret, Text};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, oneshot};

/// Argon2id: KiB of memory, passes over it, lanes (OWASP's first choice; RFC 9106 names the algorithm).
const COST: (u32, u32, u32) = (19 * 1024, 2, 1);
/// Hashes that are computed at a time.
pub const AT_ONCE: usize = 2;
/// Logins that wait for their hash; further ones are refused.
const WAITING: usize = 16;
/// Stack of a thread that hashes: the memory is on the heap.
const STACK: usize = 512 << 10;
/// The shortest password that is taken, in characters.
const SHORTEST: usize = 8;

/// Names and addresses that tries are remembered of.
const KEPT: usize = 4096;
/// Tries of one user, and from one address, that cost nothing; then each doubles the wait, up to so much.
const USER: (u32, Duration) = (5, Duration::from_secs(60));
const PEER: (u32, Duration) = (20, Duration::from_secs(300));
/// Without further tries they are forgotten after this time.
const FORGOTTEN: Duration = Duration::from_secs(900);

/// Of what tries are counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    User(String),
    Peer(String),
}

impl Key {
    /// One address of IPv6 is as good as all of its network.
    fn peer(text: &str) -> Self {
        Key::Peer(crate::strangers::network(text))
    }

    fn wait(&self, failed: u32) -> Duration {
        let (free, most) = match self {
            Key::User(_) => USER,
            Key::Peer(_) => PEER,
        };
        match failed.checked_sub(free) {
            None | Some(0) => Duration::ZERO,
            Some(n) => Duration::from_secs(1 << n.min(16)).min(most),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Tries {
    failed: u32,
    last: Instant,
}

/// Tries that failed, or are under way.
#[derive(Debug, Default)]
struct Count(HashMap<Key, Tries>);

impl Count {
    /// Counts a try as failed until it turns out otherwise. Refused: how long it has to wait.
    fn begin(&mut self, keys: &[Key], now: Instant) -> Result<(), Duration> {
        self.0.retain(|_, tries| now.duration_since(tries.last) < FORGOTTEN);
        let left = |key: &Key| {
            let tries = self.0.get(key)?;
            let until = tries.last + key.wait(tries.failed);
            until.checked_duration_since(now).filter(|left| !left.is_zero())
        };
        if let Some(left) = keys.iter().filter_map(left).max() {
            return Err(left);
        }
        for key in keys {
            if !self.0.contains_key(key) && self.0.len() >= KEPT {
                let oldest = self.0.iter().min_by_key(|(_, tries)| tries.last).map(|(key, _)| key.clone());
                oldest.map(|oldest| self.0.remove(&oldest));
            }
            let tries = self.0.entry(key.clone()).or_insert(Tries { failed: 0, last: now });
            *tries = Tries { failed: tries.failed.saturating_add(1), last: now };
        }
        Ok(())
    }

    /// It was no try after all: nothing was compared.
    fn undo(&mut self, keys: &[Key]) {
        for key in keys {
            if let Some(tries) = self.0.get_mut(key) {
                tries.failed = tries.failed.saturating_sub(1);
                // Names invented at will drive nobody out whose tries count.
                if tries.failed == 0 {
                    self.0.remove(key);
                }
            }
        }
    }

    /// It did not fail. What was counted of a user is forgotten; of an address only this one: it may have guessed at others.
    fn good(&mut self, keys: &[Key]) {
        for key in keys {
            match key {
                Key::User(_) => drop(self.0.remove(key)),
                Key::Peer(_) => {
                    if let Some(tries) = self.0.get_mut(key) {
                        tries.failed = tries.failed.saturating_sub(1);
                    }
                }
            }
        }
    }
}

/// Who hashes, and what is remembered of those who tried.
pub struct Logins {
    count: RefCell<Count>,
    places: Arc<Semaphore>,
    waiting: Cell<usize>,
    begun: Cell<u64>,
}

impl Default for Logins {
    fn default() -> Self {
        Self { count: RefCell::default(), places: Arc::new(Semaphore::new(AT_ONCE)), waiting: Cell::new(0), begun: Cell::new(0) }
    }
}

/// One of those who wait.
struct Waits<'a>(&'a Cell<usize>);
impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

impl Logins {
    /// Has a thread of its own do something slow. The place is its: whoever asked may go away meanwhile.
    pub async fn aside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
        if self.waiting.get() >= WAITING {
            return Err(Refusal::later("login", Duration::from_secs(1)));
        }
        self.waiting.set(self.waiting.get() + 1);
        self.begun.set(self.begun.get() + 1);
        let waits = Waits(&self.waiting);
        let failed = |what: &str| Refusal::new(Reason::Internal, "login").note(what);
        let place = self.places.clone().acquire_owned().await.map_err(|_| failed("there are no places"))?;
        let (tell, told) = oneshot::channel();
        let thread = std::thread::Builder::new().stack_size(STACK).spawn(move || {
            let done = work();
            drop(place);
            // Nobody may wait any more.
            let _ = tell.send(done);
        });
        thread.map_err(|e| Refusal::io("login", "start a thread", &e))?;
        let done = told.await.map_err(|_| failed("its thread has ended"));
        drop(waits);
        done
    }

    /// How much was done so far, or is being done.
    #[cfg(test)]
    pub fn begun(&self) -> u64 {
        self.begun.get()
    }
}

fn argon2() -> Result<Argon2<'static>, Refusal> {
    let (memory, passes, lanes) = COST;
    let params = Params::new(memory, passes, lanes, None);
    let params = params.map_err(|e| Refusal::new(Reason::Internal, "login").note(e))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// The hash of a new password, in the PHC string format. Slow.
fn hash(password: &Secret) -> Result<String, Refusal> {
    let failed = |e: argon2::password_hash::Error| Refusal::new(Reason::Internal, "password").note(e);
    // From the kernel's generator.
    let salt = SaltString::encode_b64(&OperationId::random().as_u128().to_be_bytes()).map_err(failed)?;
    let hashed = argon2()?.hash_password(password.expose().as_bytes(), &salt).map_err(failed)?;
    Ok(hashed.to_string())
}

/// Whether a password has this hash. Slow, also where there is none: how long it takes says nothing about who exists.
fn matches(password: &Secret, stored: Option<&str>) -> Result<bool, Refusal> {
    let parsed = stored.and_then(|stored| PasswordHash::new(stored).ok());
    let Some(parsed) = parsed else { return hash(password).map(|_| false) };
    Ok(argon2()?.verify_password(password.expose().as_bytes(), &parsed).is_ok())
}

impl Broker {
    /// Whose password that is.
    pub async fn log_in(&self, user: &Ref, password: Secret, peer: &Text<64>) -> Result<Proof, Refusal> {
        let row = self.read(|db| db.find_user(user.as_str()))?;
        let name = row.as_ref().map_or(user.as_str(), |row| row.name.as_str());
        let keys = [Key::User(name.to_owned()), Key::peer(peer.as_str())];
        let begun = self.logins.count.borrow_mut().begin(&keys, Instant::now());
        begun.map_err(|wait| Refusal::later(format_args!("login {user}"), wait))?;
        let stored = row.as_ref().filter(|row| !row.disabled).and_then(|row| row.password.clone());
        let checked = self.logins.aside(move || matches(&password, stored.as_deref())).await.and_then(|result| result);
        match (checked, row) {
            (Ok(true), Some(row)) => {
                self.logins.count.borrow_mut().good(&keys);
                Ok(Proof::Password(row.id))
            }
            (Err(refusal), _) => {
                self.logins.count.borrow_mut().undo(&keys);
                Err(refusal)
            }
            _ => {
                Err(Refusal::new(Reason::Unauthenticated, format_args!("login {user}")).note("the user or the password is wrong"))
            }
        }
    }

    /// The hash of a password that somebody has chosen.
    pub async fn new_password(&self, user: &str, password: Secret) -> Result<String, Refusal> {
        if password.expose().chars().count() < SHORTEST {
            let refusal = Refusal::new(Reason::InvalidValue, format_args!("user {user}")).field("password");
            return Err(refusal.note(format_args!("it has less than {SHORTEST} characters")));
        }
        self.logins.aside(move || hash(&password)).await?
    }

    /// A token opened a session: written once a minute at most.
    pub fn token_used(&self, hash: &[u8; 32]) {
        let now = skep_service::now_ns();
        let Ok(Some(token)) = self.read(|db| db.token(hash)) else { return };
        if now.saturating_sub(token.used_ns) < 60_000_000_000 {
            return;
        }
        let who = Who::broker();
        if let Err(fault) = self.change(&who, |change| change.token_used(hash, now)) {
            self.warn(who.trace, format_args!("token {}: {fault}", token.name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn guessing_is_slow_and_what_is_remembered_is_bounded() {
        let (mut count, start) = (Count::default(), Instant::now());
        let keys = |user: &str, peer: &str| [Key::User(user.into()), Key::peer(peer)];
        let alice = keys("alice", "192.0.2.1");
        for _ in 0..=USER.0 {
            count.begin(&alice, start).expect("free");
        }
        let wait = count.begin(&alice, start).expect_err("slow");
        assert_eq!(wait, Duration::from_secs(2));
        // Refused before anything is hashed, and not counted; from elsewhere, too.
        assert_eq!(count.begin(&keys("alice", "198.51.100.7"), start), Err(wait));
        count.begin(&keys("bob", "192.0.2.1"), start).expect("others are let in");
        let mut now = start;
        let mut tries = 0;
        while now < start + Duration::from_secs(3600) {
            match count.begin(&alice, now) {
                Ok(()) => tries += 1,
                Err(wait) => now += wait,
            }
        }
        assert!(tries < 80, "{tries} guesses in an hour");
        // A good one: the user is as new, the address is not.
        now += Duration::from_secs(300);
        count.begin(&alice, now).expect("after its wait");
        count.good(&alice);
        for _ in 0..USER.0 {
            count.begin(&keys("alice", "203.0.113.9"), now).expect("free again");
        }
        // What was not compared is not counted, and forgets nothing.
        let carol = keys("carol", "203.0.113.10");
        for _ in 0..=USER.0 {
            count.begin(&carol, now).expect("free");
        }
        let later = now + Duration::from_secs(2);
        count.begin(&carol, later).expect("after its wait");
        count.undo(&carol);
        assert_eq!(count.begin(&carol, later), Err(Duration::from_secs(2)));
        for n in 0..2 * KEPT {
            let _ = count.begin(&keys(&format!("u{n}"), &format!("10.{}.{}.1", n / 256, n % 256)), now);
        }
        assert!(count.0.len() <= KEPT, "{}", count.0.len());
        let late = later + FORGOTTEN;
        count.begin(&alice, late).expect("forgotten");
        assert_eq!(count.0.len(), 2);
    }

    #[test]
    fn a_network_of_ipv6_is_one_peer() {
        assert_eq!(Key::peer("2001:db8::1"), Key::peer("2001:db8::ffff:2"));
        assert_ne!(Key::peer("2001:db8:0:1::1"), Key::peer("2001:db8::1"));
        assert_ne!(Key::peer("192.0.2.1"), Key::peer("192.0.2.2"));
    }

    #[test]
    fn two_hashes_at_a_time_and_none_by_this_thread() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let logins = Logins::default();
            let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            let own = std::thread::current().id();
            let one = || {
                let (now, most) = (now.clone(), most.clone());
                logins.aside(move || {
                    assert_ne!(std::thread::current().id(), own);
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    let good = hash(&"correct horse".parse().expect("a password"));
                    now.fetch_sub(1, Ordering::SeqCst);
                    good
                })
            };
            let (a, b, c, d, e, f) = tokio::join!(one(), one(), one(), one(), one(), one());
            for done in [a, b, c, d, e, f] {
                assert!(done.expect("done").expect("hashed").starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
            }
            assert_eq!(most.load(Ordering::SeqCst), AT_ONCE);
            // More than may wait are told to come again.
            let many: Vec<_> =
                (0..WAITING).map(|_| Box::pin(logins.aside(|| std::thread::sleep(Duration::from_millis(20))))).collect();
            let mut many = many;
            let waker = std::task::Waker::noop();
            for waits in &mut many {
                assert!(waits.as_mut().poll(&mut std::task::Context::from_waker(waker)).is_pending());
            }
            let refusal = logins.aside(|| ()).await.expect_err("too many");
            assert_eq!((refusal.reason, refusal.wait()), (Reason::TooManyTries, Some(Duration::from_secs(1))));
        });
    }

    #[test]
    fn a_password_is_known_by_its_hash_alone() {
        let secret = |text: &str| text.parse::<Secret>().expect("a password");
        let stored = hash(&secret("correct horse")).expect("hashed");
        assert!(matches(&secret("correct horse"), Some(&stored)).expect("compared"));
        for (password, stored) in
            [("correct horsf", Some(stored.as_str())), ("", Some(stored.as_str())), ("x", None), ("x", Some("$argon2id$no"))]
        {
            assert!(!matches(&secret(password), stored).expect("compared"), "{password:?}");
        }
    }
}
