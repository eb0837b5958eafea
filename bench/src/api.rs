//! The least gRPC client of a suite.

use anyhow::{Context, Result, ensure};
use hyper_util::rt::TokioIo;
use skep_api::v1::disks_client::DisksClient;
use skep_api::v1::events_client::EventsClient;
use skep_api::v1::machines_client::MachinesClient;
use skep_api::v1::operations_client::OperationsClient;
use skep_api::v1::{
    CloneDiskRequest, ConsoleAttach, ConsoleInput, CreateMachineRequest, Event, GetMachineRequest, LaunchMachineRequest,
    ListMachinesRequest, MachineActRequest, MachineSettings, Operation, OperationState, UpdateMachineRequest,
    WaitOperationRequest, WatchEventsRequest, console_input, console_output,
};
use std::path::Path;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint, Uri};

/// A connection, and the one thread that serves it while one of these methods runs.
pub struct Api {
    runtime: Runtime,
    machines: MachinesClient<Channel>,
    operations: OperationsClient<Channel>,
    disks: DisksClient<Channel>,
    events: EventsClient<Channel>,
    watched: Option<Streaming<Event>>,
}

impl Api {
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
        let machines = MachinesClient::new(channel.clone()).max_decoding_message_size(skep_api::MAX_MESSAGE);
        let events = EventsClient::new(channel.clone());
        let disks = DisksClient::new(channel.clone());
        Ok(Self { runtime, machines, operations: OperationsClient::new(channel), disks, events, watched: None })
    }

    /// Defines a machine that has nothing.
    pub fn create(&mut self, name: &str) -> Result<()> {
        let settings = MachineSettings { memory_mib: Some(128), ..MachineSettings::default() };
        let request = CreateMachineRequest { name: name.to_owned(), settings: Some(settings), ..Default::default() };
        self.runtime.block_on(self.machines.create(request))?;
        Ok(())
    }

    /// Shows one.
    pub fn show(&mut self, name: &str) -> Result<()> {
        let machine = self.runtime.block_on(self.machines.get(GetMachineRequest { machine: name.to_owned() }))?.into_inner();
        ensure!(machine.name == name, "{} instead of {name}", machine.name);
        Ok(())
    }

    /// Changes what is said of one.
    pub fn describe(&mut self, name: &str, description: &str) -> Result<()> {
        let settings = MachineSettings { description: Some(description.to_owned()), ..Default::default() };
        let request = UpdateMachineRequest { machine: name.to_owned(), settings: Some(settings), ..Default::default() };
        self.runtime.block_on(self.machines.update(request))?;
        Ok(())
    }

    /// Watches events of machines from now on.
    pub fn watch(&mut self) -> Result<()> {
        let request = WatchEventsRequest { after: None, object: "machine".to_owned() };
        self.watched = Some(self.runtime.block_on(self.events.watch(request))?.into_inner());
        Ok(())
    }

    /// Waits until the watch says that this one was changed.
    pub fn heard(&mut self, name: &str) -> Result<()> {
        let Self { runtime, watched, .. } = self;
        let watched = watched.as_mut().context("nothing is watched")?;
        runtime.block_on(async {
            loop {
                let event = watched.message().await?.context("the watch ended")?;
                if event.name == name && event.what == "changed" {
                    return Ok(());
                }
            }
        })
    }

    /// Lists all machines; how many there are.
    pub fn list(&mut self) -> Result<usize> {
        self.runtime.block_on(async {
            let (mut count, mut page_token) = (0, String::new());
            loop {
                let page = self.machines.list(ListMachinesRequest { page_size: 0, page_token }).await?.into_inner();
                count += page.machines.len();
                page_token = page.next_page_token;
                if page_token.is_empty() {
                    return Ok(count);
                }
            }
        })
    }

    /// Starts a machine and waits until the operation is done.
    pub fn start(&mut self, name: &str) -> Result<()> {
        let request = MachineActRequest { machine: name.to_owned(), ..MachineActRequest::default() };
        let operation = self.runtime.block_on(self.machines.start(request))?.into_inner();
        self.wait(operation)
    }

    /// Makes a machine of an image and starts it, without waiting for its guest.
    #[allow(dead_code, reason = "measured on Linux")]
    pub fn launch(&mut self, image: &str, name: &str) -> Result<()> {
        let settings = MachineSettings { memory_mib: Some(256), ..MachineSettings::default() };
        let request = LaunchMachineRequest {
            name: name.to_owned(),
            image: image.to_owned(),
            settings: Some(settings),
            ..Default::default()
        };
        let operation = self.runtime.block_on(self.machines.launch(request))?.into_inner();
        self.wait(operation)
    }

    /// Waits for the first byte that a machine says on its serial line.
    #[allow(dead_code, reason = "measured on Linux")]
    pub fn first_byte(&mut self, name: &str) -> Result<()> {
        let attach = ConsoleAttach { machine: name.to_owned(), ..Default::default() };
        let first = ConsoleInput { kind: Some(console_input::Kind::Attach(attach)) };
        self.runtime.block_on(async {
            // The line stays open as long as the client does not end his side.
            let (input, said) = tokio::sync::mpsc::channel(1);
            input.send(first).await?;
            let said = tokio_stream::wrappers::ReceiverStream::new(said);
            let mut output = self.machines.console(said).await?.into_inner();
            loop {
                let message = output.message().await?.context("the console ended before the guest said anything")?;
                if matches!(message.kind, Some(console_output::Kind::Data(data)) if !data.is_empty()) {
                    return Ok(());
                }
            }
        })
    }

    /// Copies a disk and waits until the copy is there.
    pub fn clone_disk(&mut self, disk: &str, name: &str) -> Result<()> {
        let request = CloneDiskRequest { disk: disk.to_owned(), name: name.to_owned(), ..Default::default() };
        let operation = self.runtime.block_on(DisksClient::clone(&mut self.disks, request))?.into_inner();
        self.wait(operation)
    }

    /// Kills a machine and waits until it is gone.
    pub fn kill(&mut self, name: &str) -> Result<()> {
        let request = MachineActRequest { machine: name.to_owned(), ..MachineActRequest::default() };
        let operation = self.runtime.block_on(self.machines.kill(request))?.into_inner();
        self.wait(operation)
    }

    fn wait(&mut self, begun: Operation) -> Result<()> {
        let ended = self.runtime.block_on(async {
            let request = WaitOperationRequest { operation: begun.id.clone() };
            let mut stream = self.operations.wait(request).await?.into_inner();
            let mut last = begun;
            while last.state() == OperationState::Running {
                last = stream.message().await?.context("the operation's stream ended before the operation")?;
            }
            anyhow::Ok(last)
        })?;
        let why = ended.failure.as_ref().map(|f| f.message.as_str()).unwrap_or_default();
        ensure!(ended.state() == OperationState::Done, "{} {}: {why}", ended.kind, ended.object);
        Ok(())
    }
}

/// `bare-list SOCKET`: lists machines and prints their number.
pub fn bare_list(socket: &Path) -> Result<()> {
    println!("{}", Api::connect(socket)?.list()?);
    Ok(())
}
