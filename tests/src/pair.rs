//! Two hosts on one cable, for what happens between two sockets.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    sync::{Mutex, PoisonError},
};

use anyhow::{Context, Result, bail};
use socket2::{Domain, Socket, Type};

use crate::{netns::Netns, process::Stream};

/// How client and server talk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
    /// IPv4 between IPv6 sockets.
    Mapped,
}

impl Family {
    pub const PLAIN: [Self; 2] = [Self::V4, Self::V6];
    pub const ALL: [Self; 3] = [Self::V4, Self::V6, Self::Mapped];

    fn domain(self) -> Domain {
        match self {
            Self::V4 => Domain::IPV4,
            Self::V6 | Self::Mapped => Domain::IPV6,
        }
    }

    /// The same address as a socket of this family is given it.
    pub fn dial(self, address: SocketAddr) -> SocketAddr {
        match (self, address.ip()) {
            (Self::Mapped, IpAddr::V4(v4)) => SocketAddr::new(v4.to_ipv6_mapped().into(), address.port()),
            _ => address,
        }
    }
}

/// `client` 10.77.0.1, fd77::1 — `server` 10.77.0.2, fd77::2.
#[derive(Debug)]
pub struct Pair {
    pub client: Netns,
    pub server: Netns,
    /// Client's ends of connections so far.
    had: Mutex<HashSet<SocketAddr>>,
}

impl Pair {
    pub fn new() -> Result<Self> {
        let (client, server) = (Netns::new("client")?, Netns::new("server")?);
        client.ip(&format!(
            "link add eth0 type veth peer name eth0 netns {}",
            server.name()
        ))?;
        for (host, number) in [(&client, 1), (&server, 2)] {
            host.ip_each([
                format!("addr add 10.77.0.{number}/16 dev eth0"),
                format!("addr add fd77::{number}/64 dev eth0 nodad"),
                "link set eth0 up".to_owned(),
            ])?;
        }
        for host in [&client, &server] {
            host.carries("eth0")?;
        }
        Ok(Self {
            client,
            server,
            had: Mutex::default(),
        })
    }

    pub fn client_ip(family: Family) -> IpAddr {
        Self::ip(family, 1)
    }

    pub fn server_ip(family: Family) -> IpAddr {
        Self::ip(family, 2)
    }

    fn ip(family: Family, number: u8) -> IpAddr {
        match family {
            Family::V4 | Family::Mapped => IpAddr::from([10, 77, 0, number]),
            Family::V6 => IpAddr::from([0xfd77, 0, 0, 0, 0, 0, 0, u16::from(number)]),
        }
    }

    /// A listener at the server, as `family` has it.
    pub fn listen(&self, family: Family, port: u16) -> Result<TcpListener> {
        let any = match family {
            Family::V4 => IpAddr::from([0; 4]),
            Family::V6 | Family::Mapped => IpAddr::from([0; 16]),
        };
        self.server.enter(|| {
            let socket = Socket::new(family.domain(), Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            socket.bind(&SocketAddr::new(any, port).into())?;
            socket.listen(4096)?;
            anyhow::Ok(TcpListener::from(socket))
        })?
    }

    /// A client socket with its port chosen, and its address, which no other of this pair ever has: scenarios know connections
    /// by it, and the kernel may give the port of a closed socket to the next.
    pub fn socket(&self, family: Family) -> Result<(Socket, SocketAddr)> {
        /// One in some ten thousand is one that was had before.
        const TRIES: usize = 10;
        let local = SocketAddr::new(Self::client_ip(family), 0);
        for _ in 0..TRIES {
            let socket = self.client.enter(|| {
                let socket = Socket::new(family.domain(), Type::STREAM, None)?;
                socket.bind(&family.dial(local).into())?;
                anyhow::Ok(socket)
            })??;
            let address = socket.local_addr()?.as_socket().context("no internet address")?;
            let address = SocketAddr::new(address.ip().to_canonical(), address.port());
            let mut had = self.had.lock().unwrap_or_else(PoisonError::into_inner);
            if had.insert(address) {
                return Ok((socket, address));
            }
        }
        bail!("the kernel gave out ports only that connections of this pair had before");
    }

    /// A connection to the server: the client's stream and its address.
    pub fn connect(&self, family: Family, port: u16) -> Result<(Stream, SocketAddr)> {
        let (socket, address) = self.socket(family)?;
        let server = SocketAddr::new(Self::server_ip(family), port);
        socket
            .connect(&family.dial(server).into())
            .with_context(|| format!("can't connect to {server}"))?;
        Ok((TcpStream::from(socket).into(), address))
    }

    /// iptables or ip6tables at one host.
    pub fn iptables(host: &Netns, family: Family, rule: &str) -> Result<String> {
        let tool = if family == Family::V6 {
            "ip6tables"
        } else {
            "iptables"
        };
        host.run(&format!("{tool} -w {rule}"))
    }
}
