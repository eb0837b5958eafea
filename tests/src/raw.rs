//! The API's methods by their paths, with messages as bytes.

use anyhow::{Context, Result};
use hyper_util::rt::TokioIo;
use std::path::Path;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Status};

/// Not a clock that a test runs by: the answer to a method that never answers.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection.
#[derive(Debug)]
pub struct Raw {
    runtime: Runtime,
    grpc: Grpc<Channel>,
}

impl Raw {
    /// Connects to a suite's socket.
    pub fn connect(socket: &Path) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let path = socket.to_owned();
        let connector = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        // The address is not used, but must be one.
        let address = Endpoint::from_static("http://localhost");
        let channel =
            runtime.block_on(address.connect_with_connector(connector)).with_context(|| socket.display().to_string())?;
        Ok(Self { runtime, grpc: Grpc::new(channel) })
    }

    /// Sends one message, and gives what comes first: a message (none: the end), or the refusal.
    pub fn ask(&mut self, path: &str, message: Vec<u8>) -> Result<Result<Option<Vec<u8>>, Status>> {
        let path = path.parse()?;
        self.runtime.block_on(async {
            self.grpc.ready().await?;
            let asked = async {
                let answers = self.grpc.streaming(Request::new(tokio_stream::once(message)), path, Bytes).await?;
                answers.into_inner().message().await
            };
            tokio::time::timeout(PATIENCE, asked).await.context("no answer")
        })
    }

    /// Sends one message with metadata, and gives whether its method begins to answer, or the refusal.
    pub fn begin(
        &mut self, path: &str, message: Vec<u8>, metadata: &[(&'static str, &str)],
    ) -> Result<std::result::Result<(), Status>> {
        let path = path.parse()?;
        let mut request = Request::new(tokio_stream::once(message));
        for (name, value) in metadata {
            request.metadata_mut().insert(*name, value.parse()?);
        }
        self.runtime.block_on(async {
            self.grpc.ready().await?;
            let asked = self.grpc.streaming(request, path, Bytes);
            Ok(tokio::time::timeout(PATIENCE, asked).await.context("no answer")?.map(drop))
        })
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Bytes;

impl Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;
    fn encoder(&mut self) -> Self {
        Self
    }
    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;
    fn encode(&mut self, item: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        prost_reflect::prost::bytes::BufMut::put_slice(to, &item);
        Ok(())
    }
}

impl Decoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;
    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let count = prost_reflect::prost::bytes::Buf::remaining(from);
        Ok(Some(prost_reflect::prost::bytes::Buf::copy_to_bytes(from, count).to_vec()))
    }
}
