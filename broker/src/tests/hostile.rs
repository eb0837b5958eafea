//! A frontend that was taken over. It may lose its own connections; nothing else happens.

use super::suite::{Life, Suite};
use skep_ipc::CallError;
use skep_ipc::aio::Client;
use skep_proto::broker::{self as proto, *};
use skep_proto::storage::Storage;
use skep_proto::wire::{self, Hello, Origin, Welcome};
use skep_proto::{Call, Helper, Reason, Text, TraceId, UpTo};
use skep_sys::{msg, sock};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);

async fn raw<C: Call<Helper = proto::Broker>>(
    client: &mut Client<proto::Broker>, call: C, fds: C::SendFds,
) -> Result<C::Reply, CallError> {
    let user = Text::lossy("uid 0");
    client.call(TraceId(1), &user, call, fds, PATIENCE).await.map(|(reply, _)| reply)
}

fn local() -> OpenSession {
    OpenSession { credential: Credential::LocalSocket }
}

fn pair() -> OwnedFd {
    sock::stream_pair().expect("pair").1
}

fn list() -> MachineList {
    MachineList { after: None }
}

#[test]
fn nothing_is_answered_before_a_session_and_a_session_is_opened_once() {
    Suite::new().live(async |life: Life| {
        let mut client = life.connect().await;
        assert!(matches!(raw(&mut client, list(), []).await, Err(CallError::Gone { .. })));
        let mut client = life.connect().await;
        raw(&mut client, local(), UpTo(vec![life.client()])).await.expect("a session");
        raw(&mut client, list(), []).await.expect("a list");
        assert!(matches!(raw(&mut client, local(), UpTo(vec![life.client()])).await, Err(CallError::Gone { .. })));
        life.session().await.ask(list()).await.expect("others go on");
    });
}

#[test]
fn a_session_takes_a_socket_or_a_token_and_not_both() {
    Suite::new().live(async |life: Life| {
        let token = || OpenSession { credential: Credential::Token(Text::lossy("skep_guess")) };
        let file = skep_sys::fd::memory_file(c"no socket").expect("a file");
        let wrong = [(local(), vec![]), (token(), vec![pair()]), (token(), vec![]), (local(), vec![file])];
        let reasons = [Reason::InvalidValue, Reason::InvalidValue, Reason::Unauthenticated, Reason::Internal];
        for ((open, fds), reason) in wrong.into_iter().zip(reasons) {
            let mut client = life.connect().await;
            match raw(&mut client, open, UpTo(fds)).await {
                Err(CallError::Refused(refusal)) => assert_eq!(refusal.reason, reason, "{refusal}"),
                other => panic!("{other:?}"),
            }
            assert!(matches!(raw(&mut client, list(), []).await, Err(CallError::Gone { .. })), "no second guess");
        }
    });
}

#[test]
fn only_root_the_owner_and_users_of_the_host_get_a_session() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can be somebody else");
        return;
    }
    Suite::new().live(async |life: Life| {
        // Once: the whole process is somebody else for a moment, with the other tests in it.
        let (_client, socket) = life.client_as(nix::unistd::Uid::from_raw(4711));
        let again = socket.try_clone().expect("a copy");
        let mut client = life.connect().await;
        match raw(&mut client, local(), UpTo(vec![socket])).await {
            Err(CallError::Refused(refusal)) => assert_eq!(refusal.reason, Reason::PermissionDenied),
            other => panic!("{other:?}"),
        }
        // Made a user, he gets one, in which he may do nothing yet; and it ends with the user.
        let mut root = life.session().await;
        let user = |name: &str| UserCreate { name: name.parse().expect("a name"), password: None, local_uid: Some(4711) };
        root.ask(user("alice")).await.expect("made");
        assert_eq!(root.ask(user("bob")).await.expect_err("the same uid").reason, Reason::AlreadyExists);
        let mut client = life.connect().await;
        let state = raw(&mut client, local(), UpTo(vec![again])).await.expect("a session");
        assert_eq!(state.user.as_str(), "alice");
        let denied = |result| matches!(result, Err(CallError::Refused(r)) if r.reason == Reason::PermissionDenied);
        assert!(denied(raw(&mut client, HostShow {}, []).await));
        root.ask(RoleGrant { user: Text::lossy("alice"), group: None, role: Role::Viewer }).await.expect("granted");
        raw(&mut client, HostShow {}, []).await.expect("shown");
        root.ask(UserDelete { user: Text::lossy("alice") }).await.expect("deleted");
        assert!(denied(raw(&mut client, HostShow {}, []).await));
        let mut client = life.connect().await;
        let state = raw(&mut client, local(), UpTo(vec![life.client()])).await.expect("root");
        assert_eq!(state.user.as_str(), "uid 0", "as the kernel says");
    });
}

#[test]
fn a_session_is_of_a_client_that_came_to_the_frontend_and_is_still_there() {
    Suite::new().live(async |life: Life| {
        let uid = nix::unistd::geteuid();
        // Sockets whose other end is ours, as the kernel says, but no client's: made by the frontend, or by its connecting to us.
        let (_client, _accepted) = life.client_as(uid);
        let other = life.broker.door.with_file_name("other.sock");
        let listener = sock::bind_stream(&other, 0o600).expect("bind");
        sock::listen(listener.as_fd()).expect("listen");
        let connected = std::os::unix::net::UnixStream::connect(&other).expect("connect");
        let accepted = sock::accept(listener.as_fd()).expect("accept");
        let (gone, left) = life.client_as(uid);
        drop(gone);
        for socket in [pair(), connected.into(), accepted, left] {
            let mut client = life.connect().await;
            match raw(&mut client, local(), UpTo(vec![socket])).await {
                Err(CallError::Refused(refusal)) => assert_eq!(refusal.reason, Reason::PermissionDenied),
                other => panic!("{other:?}"),
            }
        }
        let (here, socket) = life.client_as(uid);
        let mut client = life.connect().await;
        raw(&mut client, local(), UpTo(vec![socket])).await.expect("a session");
        raw(&mut client, list(), []).await.expect("a list");
        drop(here);
        assert!(matches!(raw(&mut client, list(), []).await, Err(CallError::Gone { .. })), "his name left with him");
    });
}

#[test]
fn what_the_frontend_claims_is_not_what_is_written() {
    Suite::new().live(async |life: Life| {
        let mut client = life.connect().await;
        raw(&mut client, local(), UpTo(vec![life.client()])).await.expect("a session");
        let claim = Text::lossy("token admin");
        let call = NicCreate {
            name: "n".parse().expect("a name"),
            switch: None,
            mac: None,
            machine: None,
            group: None,
            model: NicModel::VirtioNet,
            slot: None,
            address: None,
            rates: skep_proto::Rates::default(),
            isolated: false,
            forwards: Default::default(),
        };
        client.call(TraceId(7), &claim, call, [], PATIENCE).await.expect("made");
        let events = life.broker.read(|db| db.events_after(0, "nic", None)).expect("read");
        let uid = nix::unistd::getuid();
        assert_eq!(events.iter().map(|e| e.user.to_string()).collect::<Vec<_>>(), [format!("uid {uid}")]);
    });
}

/// Sends records by hand; whether the broker closed the connection, and how many replies came.
async fn by_hand(life: &Life, records: Vec<(Vec<u8>, Vec<OwnedFd>)>) -> (bool, usize) {
    let (ours, theirs) = sock::seqpacket_pair().expect("pair");
    let broker = life.broker.clone();
    let served = tokio::task::spawn_local(async move { crate::session::session(&broker, theirs).await });
    let port = skep_ipc::aio::Port::new(ours).expect("a port");
    let hello = Hello { protocol: Text::lossy("broker"), version: proto::Broker::VERSION };
    port.send(&wire::encode(&hello).expect("fits"), &[]).await.expect("sent");
    wire::decode::<Welcome>(&port.recv().await.expect("a welcome").bytes).expect("decodes").expect("welcome");
    let expected = records.len();
    let send = async {
        for (bytes, fds) in records {
            // It may have been closed by now.
            let _ = port.send(&bytes, &fds).await;
        }
    };
    let receive = async {
        let mut replies = 0;
        while replies < expected && port.recv().await.is_ok() {
            replies += 1;
        }
        replies
    };
    let ((), replies) = tokio::join!(send, receive);
    let closed = replies < expected;
    drop(port);
    let error = timeout(PATIENCE, served).await.expect("it ends").expect("no panic").expect_err("it says why");
    assert!(closed != error.is_goodbye(), "{error}");
    (closed, replies)
}

fn request(seq: u32, request: &BrokerRequest) -> Vec<u8> {
    let origin = Origin { seq, trace: TraceId(1), user: Text::lossy("x") };
    wire::encode_request::<proto::Broker>(&origin, request).expect("fits")
}

#[test]
fn wrong_records_close_their_connection_and_nothing_else() {
    Suite::new().live(async |life: Life| {
        let open = || (request(1, &local().into()), vec![life.client()]);
        let list = |seq| request(seq, &list().into());
        let mut long = list(2);
        long.push(0);
        let mut name = request(2, &MachineList { after: Some("abc".parse().expect("a name")) }.into());
        let at = name.windows(3).position(|w| w == b"abc").expect("it is there");
        *name.get_mut(at).expect("it is there") = b'/';
        let cases: Vec<(&str, Vec<u8>, Vec<OwnedFd>)> = vec![
            ("a number that was used", list(1), vec![]),
            ("a number too high", list(3), vec![]),
            ("a descriptor where none belongs", list(2), vec![pair()]),
            ("sixteen of them", list(2), (0..16).map(|_| pair()).collect()),
            ("a trailing byte", long, vec![]),
            ("an operation that there is not", vec![2, 1, 0, 200], vec![]),
            ("noise", vec![0xff; 4000], vec![]),
            ("a name that is none", name, vec![]),
        ];
        for (what, bytes, fds) in cases {
            assert_eq!(by_hand(&life, vec![open(), (bytes, fds)]).await, (true, 1), "{what}");
        }
        assert_eq!(by_hand(&life, vec![(request(2, &local().into()), vec![life.client()])]).await, (true, 0), "not from 1");
        assert_eq!(by_hand(&life, vec![open(), (list(2), vec![])]).await, (false, 2));
        life.session().await.ask(MachineList { after: None }).await.expect("others go on");
    });
}

#[test]
fn a_flood_is_answered_in_order_and_holds_nobody_up() {
    Suite::new().live(async |life: Life| {
        let mut records = vec![(request(1, &local().into()), vec![life.client()])];
        records.extend((2..2000).map(|seq| (request(seq, &list().into()), vec![])));
        let mut session = life.session().await;
        let (flood, other) = tokio::join!(by_hand(&life, records), session.ask(list()));
        assert_eq!(flood, (false, 1999));
        other.expect("answered");
    });
}

#[test]
fn a_frontend_that_goes_away_in_mid_wait_leaves_nothing_waiting() {
    let suite = Suite::new();
    suite.live(async |life: Life| {
        life.up().await;
        let mut s = life.session().await;
        s.machine("web", &[]).await.expect("a machine");
        suite.world.lock().block = Some("Start");
        let op = s.ask(MachineAct { machine: Text::lossy("web"), act: Act::Start }).await.expect("begun");
        suite.world.die.notified().await;
        let (ours, theirs) = sock::seqpacket_pair().expect("pair");
        let broker = life.broker.clone();
        let served = tokio::task::spawn_local(async move { crate::session::session(&broker, theirs).await });
        let mut client = Client::<proto::Broker>::over(ours).await.expect("a connection");
        raw(&mut client, local(), UpTo(vec![life.client()])).await.expect("a session");
        let wait = raw(&mut client, OperationGet { id: op.id, wait: true }, []);
        assert!(timeout(Duration::from_millis(50), wait).await.is_err(), "it waits");
        drop(client);
        let ended = timeout(PATIENCE, served).await.expect("the session ends though the operation does not");
        assert!(ended.expect("no panic").is_err());
        suite.world.resume();
        s.done(op).await.expect("started");
    });
}

#[test]
fn records_can_be_sent_by_hand() {
    // The helper of these tests itself: an unknown protocol is refused at the hello.
    Suite::new().live(async |life: Life| {
        let (ours, theirs) = sock::seqpacket_pair().expect("pair");
        let broker = life.broker.clone();
        let served = tokio::task::spawn_local(async move { crate::session::session(&broker, theirs).await });
        let hello = wire::encode(&Hello { protocol: Text::lossy("storage-helper"), version: Storage::VERSION }).expect("fits");
        msg::send(ours.as_fd(), &hello, &[], None).expect("sent");
        assert!(served.await.expect("no panic").is_err());
    });
}
