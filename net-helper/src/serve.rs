//! One line per operation.

use crate::ops::server::{self, Network};
use crate::ops::{gateway, list, pair, switch, tap, tunnel};
use crate::platform::{NetHost, Switch};
use skep_ipc::{Answered, Ask, ProtocolError, Service};
use skep_proto::net::{CreateGraphSwitch, CreateSwitch, Done, Net, NetRequest};
use skep_proto::{IfName, InstanceId, Reason, Refusal};
use skep_sys::sock::Peer;
use std::net::IpAddr;
use std::rc::Rc;

/// What the host's administrator gives.
#[derive(Debug, Default)]
pub struct Given {
    /// Interfaces of the host that switches may have, and tunnels go through.
    pub uplinks: Vec<IfName>,
    /// Whom guests' names are asked of.
    pub resolvers: Vec<IpAddr>,
    /// Networks inside that images may come from.
    pub fetch_from: Vec<Network>,
    /// Networks that portals of iSCSI targets may be in.
    pub iscsi_portals: Vec<Network>,
}

/// The helper.
#[derive(Debug)]
pub struct NetHelper<H> {
    host: H,
    instance: InstanceId,
    privileged: bool,
    uplinks: Rc<[IfName]>,
    resolvers: Vec<IpAddr>,
    fetch_from: Vec<Network>,
    iscsi_portals: Vec<Network>,
}

impl<H: NetHost> NetHelper<H> {
    /// Serves `host`, where `instance` marks what is ours, with what is `given`. Not `privileged`: only the list.
    pub fn new(host: H, instance: InstanceId, privileged: bool, given: Given) -> Self {
        let Given { uplinks, resolvers, fetch_from, iscsi_portals } = given;
        Self { host, instance, privileged, uplinks: uplinks.into(), resolvers, fetch_from, iscsi_portals }
    }

    /// The host, to change it.
    fn acting(&mut self) -> Result<(&mut dyn NetHost, InstanceId), Refusal> {
        if self.privileged {
            return Ok((&mut self.host, self.instance));
        }
        Err(Refusal::new(Reason::NeedsRoot, "net-helper").note("an ordinary user may not make interfaces"))
    }
}

impl<H: NetHost> Service<Net> for NetHelper<H> {
    fn serve(&mut self, ask: Ask<'_>, request: NetRequest) -> Result<Answered, ProtocolError> {
        use NetRequest as R;
        match request {
            R::CreateSwitch(c) => ask.answer(c, |_, c, []| {
                let uplinks = self.uplinks.clone();
                Ok((switch::create(self.acting()?, &uplinks, &c, Switch::Bridge)?, []))
            }),
            R::DeleteSwitch(c) => ask.answer(c, |_, c, []| Ok((switch::delete(self.acting()?, &c)?, []))),
            R::CreateTap(c) => ask.answer(c, |_, c, []| tap::create(self.acting()?, &c)),
            R::MoveTap(c) => ask.answer(c, |_, c, []| Ok((tap::move_to(self.acting()?, &c)?, []))),
            R::DeleteTap(c) => ask.answer(c, |_, c, []| Ok((tap::delete(self.acting()?, &c)?, []))),
            R::ListInterfaces(c) => {
                ask.answer(c, |_, c, []| Ok((list::list((&mut self.host, self.instance), &self.uplinks, &c)?, [])))
            }
            R::CountTaps(c) => ask.answer(c, |_, c, []| Ok((tap::count(&mut self.host, self.instance, &c)?, []))),
            R::CreateTunnel(c) => ask.answer(c, |_, c, []| {
                let uplinks = self.uplinks.clone();
                Ok((tunnel::create(self.acting()?, &uplinks, &c)?, []))
            }),
            R::HostKey(c) => ask.answer(c, |_, _, []| Ok((tunnel::host_key(self.acting()?)?, []))),
            R::DeleteTunnel(c) => ask.answer(c, |_, c, []| Ok((tunnel::delete(self.acting()?, &c)?, []))),
            R::CreatePair(c) => ask.answer(c, |_, c, []| Ok((pair::create(self.acting()?, &c)?, []))),
            R::CreateGraphSwitch(c) => ask.answer(c, |_, c, []| {
                let (uplinks, CreateGraphSwitch { switch, number, uplink }) = (self.uplinks.clone(), c);
                let call = CreateSwitch { switch, number, uplink };
                Ok((switch::create(self.acting()?, &uplinks, &call, Switch::Netgraph)?, []))
            }),
            R::SetGateway(c) => ask.answer(c, |_, c, []| Ok((gateway::set(self.acting()?, &c)?, []))),
            R::CheckPort(c) => ask.answer(c, |_, c, []| Ok((gateway::check_port(&mut self.host, &c)?, []))),
            R::OpenPort(c) => ask.answer(c, |_, c, []| Ok((Done {}, gateway::open_port(self.acting()?, &c)?))),
            R::GuardTap(c) => ask.answer(c, |_, c, []| Ok((tap::guard(self.acting()?, &c)?, []))),
            R::LimitTap(c) => ask.answer(c, |_, c, []| Ok((tap::limit(self.acting()?, &c)?, []))),
            // Everybody may open sockets.
            R::OpenResolvers(c) => {
                ask.answer(c, |_, _, []| Ok((Done {}, gateway::open_resolvers(&mut self.host, &self.resolvers)?)))
            }
            R::ConnectServer(c) => {
                let Self { host, instance, fetch_from, iscsi_portals, .. } = self;
                ask.answer(c, |_, c, []| Ok((Done {}, server::connect((host, *instance), fetch_from, iscsi_portals, &c)?)))
            }
            R::DeletePair(c) => ask.answer(c, |_, c, []| Ok((pair::delete(self.acting()?, &c)?, []))),
        }
    }

    fn closed(&mut self, _: Peer, _: &ProtocolError) {}

    fn stranger(&mut self, _: Peer) {}
}
