//! A frontend over a real socket, and a broker that does as it is told: for faults only.

use hyper_util::rt::{TokioExecutor, TokioIo};
use skep_api_frontend::{BrokerAt, over_local};
use skep_proto::broker::{Broker, BrokerRequest, OpenSession, SessionState};
use skep_proto::wire::{self, Hello, Origin, Welcome};
use skep_proto::{Call, Text};
use skep_service::Journal;
use skep_sys::{msg, sock};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};

/// What the scripted broker does with one session.
pub type Act<T> = Box<dyn FnOnce(&mut Session) -> T + Send>;

/// A frontend in a thread of its own, in a directory of its own.
pub struct Frontend {
    dir: tempfile::TempDir,
}

impl Frontend {
    pub fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let run = dir.path().to_owned();
        let listener = std::os::unix::net::UnixListener::bind(run.join("api.sock")).expect("bind");
        std::thread::spawn(move || {
            let held = OwnedFd::from(std::fs::File::open(&run).expect("open RUN"));
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let journal = Journal::new("api-frontend", None);
            runtime.block_on(over_local(listener, BrokerAt::new(held, run), journal)).expect("serves");
        });
        Self { dir }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A new connection to it.
    pub async fn client(&self) -> Channel {
        let path: PathBuf = self.path().join("api.sock");
        let connect = tower::service_fn(move |_| {
            let path = path.clone();
            async move { Ok::<_, std::io::Error>(TokioIo::new(tokio::net::UnixStream::connect(path).await?)) }
        });
        Endpoint::from_static("http://skep").connect_with_connector(connect).await.expect("connects")
    }

    /// The same for a client that sends its deadline and does not keep it: tonic's would give up by itself.
    pub async fn patient(
        &self,
    ) -> (impl GrpcService<Body, ResponseBody = hyper::body::Incoming, Future: Send> + Clone + Send, Uri) {
        let io = tokio::net::UnixStream::connect(self.path().join("api.sock")).await.expect("connects");
        let made = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await;
        let (sender, connection) = made.expect("HTTP/2");
        tokio::spawn(connection);
        (tower::service_fn(move |request| sender.clone().send_request(request)), Uri::from_static("http://skep"))
    }

    /// Runs a scripted broker in a thread: one function a connection, in this order. Gives back what each saw.
    pub fn broker<T: Send + 'static>(&self, script: Vec<Act<T>>) -> mpsc::Receiver<T> {
        let listener = sock::bind_seqpacket(&self.path().join("broker.sock"), 0o600).expect("bind");
        sock::listen(listener.as_fd()).expect("listen");
        let (to, seen) = mpsc::channel();
        std::thread::spawn(move || {
            for act in script {
                let socket = sock::accept(listener.as_fd()).expect("accept");
                let mut session = Session { socket };
                session.greet();
                if to.send(act(&mut session)).is_err() {
                    return;
                }
            }
        });
        seen
    }
}

/// One session of the scripted broker.
pub struct Session {
    pub socket: OwnedFd,
}

impl Session {
    /// A frontend that leaves at any point of it, as at a call's deadline, is seen by whoever asks for its next request.
    fn greet(&mut self) {
        let Some((bytes, _)) = self.next() else { return };
        let hello: Hello = wire::decode(&bytes).expect("a hello");
        assert_eq!(hello.protocol.as_str(), "broker");
        self.send(&wire::encode(&Welcome::Ok(hello.version)).expect("encodes"), vec![]);
        let Some((origin, request, fds)) = self.another() else { return };
        assert!(matches!(request, BrokerRequest::OpenSession(_)), "the first request opens a session");
        let [socket] = <[OwnedFd; 1]>::try_from(fds).expect("the client's socket comes along");
        let peer = sock::peer(socket.as_fd()).expect("a socket");
        assert_eq!(peer.uid, nix::unistd::geteuid().as_raw());
        self.answer::<OpenSession>(&origin, Ok(SessionState { user: Text::lossy("uid test") }), vec![]);
    }

    fn next(&mut self) -> Option<(Vec<u8>, Vec<OwnedFd>)> {
        let record = msg::recv(self.socket.as_fd(), skep_proto::MAX_RECORD, skep_proto::MAX_FDS, None).ok()?;
        Some((record.bytes, record.fds))
    }

    /// The next request.
    pub fn request(&mut self) -> (Origin, BrokerRequest, Vec<OwnedFd>) {
        self.another().expect("a request")
    }

    /// The next request, if the frontend does not leave before.
    pub fn another(&mut self) -> Option<(Origin, BrokerRequest, Vec<OwnedFd>)> {
        let (bytes, fds) = self.next()?;
        let (origin, request) = wire::decode_request::<Broker>(&bytes).expect("a request");
        Some((origin, request, fds))
    }

    /// Answers it.
    pub fn answer<C: Call>(&mut self, origin: &Origin, result: Result<C::Reply, skep_proto::Refusal>, fds: Vec<OwnedFd>) {
        self.send(&wire::encode_reply::<C>(origin.seq, &result).expect("encodes"), fds);
    }

    /// Sends any bytes, unless the frontend has left, as it does when a call's deadline passes before its session is open.
    pub fn send(&mut self, bytes: &[u8], fds: Vec<OwnedFd>) {
        match msg::send(self.socket.as_fd(), bytes, &msg::borrow(&fds), None) {
            Err(gone) if gone.kind() == std::io::ErrorKind::BrokenPipe => (),
            sent => sent.expect("sends"),
        }
    }
}
