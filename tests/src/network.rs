//! A network of rooms: each has one interface, all are on one bridge in a room of its own, the host is not touched.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use serde::Deserialize;

use crate::{Context, Error, NodeOptions, Result, Room, Scene};

/// Rooms with an address each.
#[derive(Debug)]
pub struct Network {
    rooms: Vec<Arc<Room>>,
    hub: Room,
}

/// What is wrong with a room's cable, both ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing arrives.
    Cut,
    /// One packet in so many hundreds is lost, in percent.
    Loss(u8),
    /// So many kbit/s pass; the rest waits, and what waits for more than [`QUEUE`] is lost.
    Slow(u32),
}

/// How long a packet waits at most for its turn on a slow cable.
const QUEUE: &str = "400ms";

#[derive(Deserialize)]
struct Link {
    stats64: Stats,
}

#[derive(Deserialize)]
struct Stats {
    rx: Direction,
}

#[derive(Deserialize)]
struct Direction {
    bytes: u64,
    packets: u64,
}

/// Ethernet, IPv4 and UDP headers of one datagram; as long as a whole ARP frame.
const HEADERS_BYTES: u64 = 14 + 20 + 8;

impl Network {
    /// # Errors
    /// The kernel's, or a missing `ip`.
    pub fn new(scene: &Scene, rooms: usize) -> Result<Self> {
        let hub = Room::new(scene, true)?;
        hub.run("ip", &["link", "add", "bridge0", "type", "bridge"])?;
        hub.run("ip", &["link", "set", "bridge0", "up"])?;
        let mut made = Vec::new();
        for number in 0..rooms {
            let room = Room::new(scene, true)?;
            let (port, pid) = (format!("port{number}"), room.pid().to_string());
            hub.run("ip", &["link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &pid])?;
            hub.run("ip", &["link", "set", &port, "master", "bridge0", "up"])?;
            room.run("ip", &["address", "add", &format!("{}/24", Self::address(number)), "dev", "eth0"])?;
            room.run("ip", &["link", "set", "lo", "up"])?;
            room.run("ip", &["link", "set", "eth0", "up"])?;
            made.push(Arc::new(room));
        }
        Ok(Self { rooms: made, hub })
    }

    /// The room of that number, from 0.
    ///
    /// # Errors
    /// There is none.
    pub fn room(&self, number: usize) -> Result<Arc<Room>> {
        self.rooms.get(number).cloned().ok_or_else(|| Error::new(format!("no room {number}")))
    }

    /// Its address.
    pub fn address(number: usize) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, 77, 0, u8::try_from(number + 1).unwrap_or(u8::MAX)))
    }

    /// A node in the room of that number; its API is on the room's own loopback.
    ///
    /// # Errors
    /// There is no such room.
    pub fn node(&self, number: usize) -> Result<NodeOptions> {
        let api = SocketAddr::from((Ipv4Addr::LOCALHOST, 3002));
        Ok(NodeOptions { room: Some(self.room(number)?), api, quic: Self::quic(number), qemu: None })
    }

    /// Where a node in it listens for other nodes.
    pub fn quic(number: usize) -> SocketAddr {
        SocketAddr::new(Self::address(number), 3003)
    }

    /// From now on a room's cable is like that, beside what others are; [`Network::heal`] ends it.
    ///
    /// A packet is dropped where the bridge forwards it, and delayed by a queue at each end of the cable that sends no
    /// faster: this needs no netem, which not every kernel has.
    ///
    /// # Errors
    /// There is no such room, or no `nft` or `tc`, or the kernel can't do it.
    pub fn trouble(&self, number: usize, trouble: Trouble) -> Result<()> {
        let (room, port) = (self.room(number)?, format!("port{number}"));
        let drop = match trouble {
            Trouble::Cut => "drop".to_owned(),
            Trouble::Loss(percent) => format!("numgen random mod 100 < {percent} drop"),
            Trouble::Slow(kbit_per_s) => {
                let rate = format!("{kbit_per_s}kbit");
                for (place, device) in [(&self.hub, port.as_str()), (&*room, "eth0")] {
                    let queue = ["dev", device, "root", "tbf", "rate", &rate, "burst", "16kb", "latency", QUEUE];
                    place.run("tc", &[&["qdisc", "replace"], &queue[..]].concat())?;
                }
                return Ok(());
            }
        };
        let rules = format!(
            "add table bridge trouble
             add chain bridge trouble forward {{ type filter hook forward priority 0; }}
             add rule bridge trouble forward iifname {port} {drop}
             add rule bridge trouble forward oifname {port} {drop}"
        );
        self.hub.run("nft", &[&rules])?;
        Ok(())
    }

    /// All cables are whole again.
    ///
    /// # Errors
    /// As those of [`Network::trouble`].
    pub fn heal(&self) -> Result<()> {
        self.hub.run("nft", &["add table bridge trouble; delete table bridge trouble"])?;
        for (number, room) in self.rooms.iter().enumerate() {
            for (place, device) in [(&self.hub, format!("port{number}")), (&**room, "eth0".into())] {
                if place.run("tc", &["qdisc", "show", "dev", &device])?.contains("tbf") {
                    place.run("tc", &["qdisc", "del", "dev", &device, "root"])?;
                }
            }
        }
        Ok(())
    }

    /// Bytes that have arrived at its interface, frames' headers included.
    ///
    /// # Errors
    /// `ip` says something else than expected.
    pub fn received_bytes(&self, number: usize) -> Result<u64> {
        Ok(self.received(number)?.bytes)
    }

    /// UDP payload bytes among them, as long as nodes alone talk. A row of datagrams that the kernel carries as one packet is
    /// counted as one, with one head.
    ///
    /// # Errors
    /// As [`Network::received_bytes`].
    pub fn received_payload_bytes(&self, number: usize) -> Result<u64> {
        let received = self.received(number)?;
        Ok(received.bytes.saturating_sub(received.packets * HEADERS_BYTES))
    }

    fn received(&self, number: usize) -> Result<Direction> {
        let said = self.room(number)?.run("ip", &["-json", "-stats", "link", "show", "dev", "eth0"])?;
        let mut links: Vec<Link> = serde_json::from_str(&said).context(|| format!("read what ip says: {said}"))?;
        let link = links.pop().ok_or_else(|| Error::new("ip shows no interface"))?;
        Ok(link.stats64.rx)
    }
}
