//! A server on the net: files over https, with the faults that servers have.

use anyhow::{Context, Result};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

/// What is at a path.
#[derive(Debug, Clone)]
pub enum Page {
    /// A file.
    File(Arc<Vec<u8>>),
    /// Without its length, in chunks.
    Chunked(Arc<Vec<u8>>),
    /// It is elsewhere.
    Moved(String),
    /// Another file each time that it is asked for.
    Changing,
    /// Each connection breaks after so many bytes.
    Breaking(Arc<Vec<u8>>, usize),
    /// After so many bytes nothing more comes.
    Held(Arc<Vec<u8>>, usize),
}

/// Bytes that nothing packs, always the same.
pub fn noise(length: usize) -> Arc<Vec<u8>> {
    let mut x = 0x9e37_79b9_7f4a_7c15u64;
    let step = move || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        (x >> 32) as u8
    };
    Arc::new(std::iter::repeat_with(step).take(length).collect())
}

#[derive(Default)]
struct State {
    pages: Mutex<HashMap<String, Page>>,
    /// Requests so far: path, and from which byte.
    asked: Mutex<Vec<(String, u64)>>,
    /// Connections that are held.
    held: Mutex<usize>,
    news: Condvar,
}

/// See the module. It ends with the test.
pub struct Https {
    state: Arc<State>,
    port: u16,
    /// The certificate, which is its own authority.
    pub certificate: String,
}

impl Https {
    /// One on the loopback, for `127.0.0.1` and `localhost`.
    pub fn start() -> Result<Self> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()])?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let config = Arc::new(config.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key)?);
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (port, state) = (listener.local_addr()?.port(), Arc::new(State::default()));
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (config, state) = (config.clone(), shared.clone());
                // Whatever a client does, the others are served.
                std::thread::spawn(move || serve(&state, config, stream));
            }
        });
        Ok(Self { state, port, certificate: made.cert.pem() })
    }

    /// The address of a path.
    pub fn url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}{path}", self.port)
    }

    /// Puts something at a path.
    pub fn put(&self, path: &str, page: Page) {
        if let Ok(mut pages) = self.state.pages.lock() {
            pages.insert(path.to_owned(), page);
        }
    }

    /// From which bytes on a path was asked for, in their order.
    pub fn asked(&self, path: &str) -> Vec<u64> {
        let asked = self.state.asked.lock().map(|asked| asked.clone()).unwrap_or_default();
        asked.into_iter().filter(|(of, _)| of == path).map(|(_, from)| from).collect()
    }

    /// Waits until so many connections are held.
    pub fn wait_held(&self, count: usize) {
        if let Ok(held) = self.state.held.lock() {
            drop(self.state.news.wait_while(held, |held| *held < count));
        }
    }
}

fn serve(state: &State, config: Arc<ServerConfig>, tcp: TcpStream) -> Option<()> {
    let raw = tcp.try_clone().ok()?;
    let mut stream = BufReader::new(StreamOwned::new(ServerConnection::new(config).ok()?, tcp));
    let (mut line, mut path, mut from) = (String::new(), String::new(), 0);
    loop {
        line.clear();
        (stream.read_line(&mut line).ok()? > 0).then_some(())?;
        match line.trim_end() {
            "" => break,
            text if text.starts_with("GET ") => path = text.split(' ').nth(1)?.to_owned(),
            text => {
                if let Some(range) = text.strip_prefix("Range: bytes=") {
                    from = range.trim_end_matches('-').parse().ok()?;
                }
            }
        }
    }
    let page = state.pages.lock().ok()?.get(&path).cloned();
    let times = {
        let mut asked = state.asked.lock().ok()?;
        asked.push((path, from));
        asked.len()
    };
    let mut out = stream.into_inner();
    let start = usize::try_from(from).ok()?;
    let head = |bytes: &[u8], tag: &str| {
        let (length, last) = (bytes.len() - start.min(bytes.len()), bytes.len().saturating_sub(1));
        let status = if from > 0 {
            format!("206 Partial Content\r\nContent-Range: bytes {from}-{last}/{}", bytes.len())
        } else {
            "200 OK".to_owned()
        };
        format!("HTTP/1.1 {status}\r\nETag: \"{tag}\"\r\nContent-Length: {length}\r\n\r\n")
    };
    match page {
        None => out.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").ok()?,
        Some(Page::Moved(to)) => {
            out.write_all(format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n").as_bytes()).ok()?;
        }
        Some(Page::File(bytes)) => {
            out.write_all(head(&bytes, "same").as_bytes()).ok()?;
            out.write_all(bytes.get(start..)?).ok()?;
        }
        Some(Page::Chunked(bytes)) => {
            out.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").ok()?;
            for piece in bytes.chunks(70_000) {
                out.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).ok()?;
                out.write_all(piece).ok()?;
                out.write_all(b"\r\n").ok()?;
            }
            out.write_all(b"0\r\n\r\n").ok()?;
        }
        Some(Page::Changing) => {
            let bytes = vec![b'x'; 4_000_000 + times];
            let text = head(&bytes, &format!("{times}"));
            out.write_all(text.as_bytes()).ok()?;
            out.write_all(bytes.get(start..start + 1_000_000)?).ok()?;
            out.flush().ok()?;
            return raw.shutdown(Shutdown::Both).ok();
        }
        Some(Page::Breaking(bytes, after)) => {
            out.write_all(head(&bytes, "same").as_bytes()).ok()?;
            let end = (start + after).min(bytes.len());
            out.write_all(bytes.get(start..end)?).ok()?;
            out.flush().ok()?;
            if end < bytes.len() {
                return raw.shutdown(Shutdown::Both).ok();
            }
        }
        Some(Page::Held(bytes, after)) => {
            out.write_all(head(&bytes, "same").as_bytes()).ok()?;
            out.write_all(bytes.get(start..after)?).ok()?;
            out.flush().ok()?;
            let mut held = state.held.lock().ok()?;
            *held += 1;
            state.news.notify_all();
            drop(held);
            // Its client ends it.
            let _ = out.read(&mut [0]);
            return None;
        }
    }
    out.flush().ok()?;
    out.conn.send_close_notify();
    out.flush().ok()
}

/// A server with its certificate in a file.
pub fn start(dir: &std::path::Path) -> Result<(Https, String)> {
    let server = Https::start()?;
    let path = dir.join("ca.pem");
    std::fs::write(&path, &server.certificate)?;
    let path = path.to_str().context("a path")?.to_owned();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    Ok((server, path))
}
