//! DHCP (RFC 2131). The one address that a port has is its own as long as it is served, so there are no leases to keep, and none to run
//! out of.

use crate::port::Identity;
use dhcproto::v4::{CLIENT_PORT, DhcpOption, DhcpOptions, Flags, HType, Message, MessageType, Opcode, OptionCode};
use dhcproto::{Decodable, Decoder, Encodable, Encoder};
use ipnet::Ipv4Net;
use skep_proto::services::{ADDRESS, LEASE_SECONDS};
use std::net::Ipv4Addr;

/// UDP port of servers.
pub const PORT: u16 = 67;
/// What a message begins options with.
const MAGIC: [u8; 4] = [99, 130, 83, 99];
/// Where that stands.
const MAGIC_AT: usize = 236;
/// Where the names of a server and a file stand.
const NAMES: usize = 44;
/// Options without a length.
const PAD: u8 = 0;
const END: u8 = 255;
/// Shorter ones are padded: BOOTP's length, which some clients still expect.
const SHORTEST: usize = 300;
/// Bytes of a message that are looked at.
const LONGEST: usize = 1500;

/// What came of a message.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What is sent.
    pub reply: Option<Reply>,
    /// What the client did with its address.
    pub change: Change,
}

/// What the client did with its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    Nothing,
    /// It has taken it.
    Taken,
    /// It has taken it for longer.
    Renewed,
    /// It has given it back, or cannot use it.
    Left,
}

/// What is sent.
#[derive(Debug, PartialEq, Eq)]
pub struct Reply {
    /// The message.
    pub bytes: Vec<u8>,
    /// To whom; none: to everybody.
    pub to: Option<Ipv4Addr>,
    /// To which port of UDP.
    pub port: u16,
}

/// Answers a message. `None`: it is malformed, or not from the port's own client.
pub fn answer(identity: &Identity, bytes: &[u8]) -> Option<Outcome> {
    let request = Message::decode(&mut Decoder::new(&needed(bytes)?)).ok()?;
    // The length first: the library takes it for granted when it gives the address.
    let ours = request.opcode() == Opcode::BootRequest && request.htype() == HType::Eth && request.hlen() == 6;
    if !ours || request.chaddr() != identity.mac || !request.giaddr().is_unspecified() {
        return None;
    }
    let silent = |change| Some(Outcome { reply: None, change });
    let reply = |kind, change| Some(Outcome { reply: Some(reply(identity, &request, kind)), change });
    let wanted = match request.opts().get(OptionCode::RequestedIpAddress) {
        Some(DhcpOption::RequestedIpAddress(address)) => Some(*address),
        _ => None,
    };
    let server = match request.opts().get(OptionCode::ServerIdentifier) {
        Some(DhcpOption::ServerIdentifier(address)) => Some(*address),
        _ => None,
    };
    let is_for_another = server.is_some_and(|server| server != ADDRESS);
    match request.opts().msg_type()? {
        MessageType::Discover => reply(MessageType::Offer, Change::Nothing),
        // Another server's offer was taken.
        MessageType::Request | MessageType::Decline | MessageType::Release if is_for_another => silent(Change::Nothing),
        MessageType::Request => {
            // Selecting and init-reboot name the address here; renewing and rebinding have it already.
            let (address, change) = match wanted {
                Some(wanted) => (wanted, Change::Taken),
                None if !request.ciaddr().is_unspecified() => (request.ciaddr(), Change::Renewed),
                None => return None,
            };
            if address == identity.address { reply(MessageType::Ack, change) } else { reply(MessageType::Nak, Change::Nothing) }
        }
        MessageType::Decline | MessageType::Release => silent(Change::Left),
        MessageType::Inform if request.ciaddr() == identity.address => reply(MessageType::Ack, Change::Nothing),
        _ => None,
    }
}

/// What of a message is looked at: its fixed part without names, and the options that matter here, if they are as long as they should be.
/// The library ends the process at some others (dhcproto 0.15: `assert!` of a length in those of bulk leasequery).
fn needed(bytes: &[u8]) -> Option<Vec<u8>> {
    let (fixed, mut rest) = bytes.split_at_checked(MAGIC_AT + MAGIC.len())?;
    if !fixed.ends_with(&MAGIC) || bytes.len() > LONGEST {
        return None;
    }
    let mut needed = fixed.to_vec();
    needed.get_mut(NAMES..MAGIC_AT)?.fill(0);
    let mut seen = Vec::new();
    loop {
        match *rest {
            [] | [END, ..] => break,
            [PAD, ..] => rest = rest.get(1..)?,
            [code, length, ..] => {
                let (option, after) = rest.split_at_checked(2 + usize::from(length))?;
                let wanted = matches!((code, length), (50 | 54, 4) | (53, 1) | (61, 2..));
                if wanted && !seen.contains(&code) {
                    seen.push(code);
                    needed.extend_from_slice(option);
                }
                rest = after;
            }
            [_] => return None,
        }
    }
    needed.push(END);
    Some(needed)
}

fn reply(identity: &Identity, request: &Message, kind: MessageType) -> Reply {
    let informs = request.opts().msg_type() == Some(MessageType::Inform);
    let mut message = Message::default();
    message
        .set_opcode(Opcode::BootReply)
        .set_htype(HType::Eth)
        .set_xid(request.xid())
        .set_flags(Flags::new(u16::from(request.flags())))
        .set_chaddr(&identity.mac);
    if kind == MessageType::Ack {
        message.set_ciaddr(request.ciaddr());
    }
    let mut options = DhcpOptions::new();
    options.insert(DhcpOption::MessageType(kind));
    options.insert(DhcpOption::ServerIdentifier(ADDRESS));
    // RFC 6842.
    if let Some(id @ DhcpOption::ClientIdentifier(_)) = request.opts().get(OptionCode::ClientIdentifier) {
        options.insert(id.clone());
    }
    if kind == MessageType::Nak {
        options.insert(DhcpOption::Message("another address is yours on this network".into()));
    } else {
        if !informs {
            message.set_yiaddr(identity.address);
            options.insert(DhcpOption::AddressLeaseTime(LEASE_SECONDS));
            options.insert(DhcpOption::Renewal(LEASE_SECONDS / 2));
            options.insert(DhcpOption::Rebinding(LEASE_SECONDS / 8 * 7));
        }
        network(identity, &mut options);
    }
    message.set_opts(options);
    let mut bytes = Vec::new();
    // Of what was put in above, all can be encoded.
    let _ = message.encode(&mut Encoder::new(&mut bytes));
    bytes.resize(bytes.len().max(SHORTEST), 0);
    // RFC 2131 4.1. What is sent to an address that the client does not have yet goes to its hardware address all the same.
    let to = if kind == MessageType::Nak {
        None
    } else if !request.ciaddr().is_unspecified() {
        Some(identity.address)
    } else if request.flags().broadcast() {
        None
    } else {
        Some(identity.address)
    };
    Reply { bytes, to, port: CLIENT_PORT }
}

/// What a client is told of the network.
fn network(identity: &Identity, options: &mut DhcpOptions) {
    let subnet = &identity.subnet;
    options.insert(DhcpOption::SubnetMask(identity.mask()));
    options.insert(DhcpOption::BroadcastAddr(identity.address | !identity.mask()));
    options.insert(DhcpOption::DomainNameServer(vec![ADDRESS]));
    options.insert(DhcpOption::DomainName(subnet.domain.as_str().to_owned()));
    options.insert(DhcpOption::Hostname(identity.host.as_str().to_owned()));
    options.insert(DhcpOption::InterfaceMtu(subnet.mtu));
    if let Some(router) = subnet.router {
        options.insert(DhcpOption::Router(vec![router]));
    }
    // Who understands these routes ignores the router above.
    let route = |address: Ipv4Addr, length, through| Some((Ipv4Net::new(address, length).ok()?, through));
    let routes =
        [route(ADDRESS, 32, Ipv4Addr::UNSPECIFIED), subnet.router.and_then(|router| route(Ipv4Addr::UNSPECIFIED, 0, router))];
    options.insert(DhcpOption::ClasslessStaticRoute(routes.into_iter().flatten().collect()));
}
