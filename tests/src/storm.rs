//! As many connections as the machine can make.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use socket2::{Domain, SockRef, Socket, Type};

use crate::{netns::Netns, process::output, server::accept_all, wait::wait_until};

/// Addresses of the server for each client, each with a port space of its own: connections in TIME_WAIT are in
/// nobody's way.
const ADDRESSES: u8 = 200;

/// How clients end their connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// As close() does.
    Fin,
    /// With SO_LINGER of zero.
    Reset,
}

/// A server and its clients on the loopback of a namespace of their own: every connection has both ends here.
#[derive(Debug)]
pub struct Storm {
    netns: Netns,
    port: u16,
    clients: u8,
    served: Vec<Arc<AtomicU64>>,
}

impl Storm {
    /// Starts the server.
    pub fn new(port: u16, clients: u8) -> Result<Self> {
        let netns = Netns::new("storm")?;
        // No local port that another scenario's server has: such a connection would be watched, and is not meant.
        output(
            netns
                .command("sysctl")
                .args(["-qw", "net.ipv4.ip_local_port_range=30001 65000"]),
        )?;
        let listener = netns.enter(|| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())?;
            socket.listen(4096)?;
            anyhow::Ok(TcpListener::from(socket))
        })??;
        // As many as clients: a backlog that overflows costs a second, when SYN is sent again.
        let served = (0..clients)
            .map(|_| Ok(accept_all(listener.try_clone()?)))
            .collect::<Result<_>>()?;
        Ok(Self {
            netns,
            port,
            clients,
            served,
        })
    }

    /// Connects and closes, `connections` times in all; returns how long it took until every end was closed.
    pub fn run(&self, connections: u64, close: Close) -> Result<Duration> {
        let start = Instant::now();
        let expected = self.served() + connections;
        let each = connections / u64::from(self.clients);
        thread::scope(|scope| {
            let clients: Vec<_> = (0..self.clients)
                .map(|client| scope.spawn(move || self.netns.enter(|| self.dial(client, each, close))?))
                .collect();
            clients
                .into_iter()
                .try_for_each(|client| client.join().map_err(|_| anyhow!("a client panicked"))?)
        })?;
        wait_until("the server has closed all", Duration::from_secs(60), || {
            (self.served() >= expected).then_some(())
        })?;
        Ok(start.elapsed())
    }

    /// Connects once from `host` of 127.2.0.0/24, where no client of the storm is, and closes.
    pub fn connect_from(&self, host: u8) -> Result<()> {
        let port = self.port;
        self.netns.enter(|| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.bind(&SocketAddr::from(([127, 2, 0, host], 0)).into())?;
            socket.connect(&SocketAddr::from(([127, 1, 0, 1], port)).into())?;
            anyhow::Ok(())
        })?
    }

    /// Connections that the server has closed.
    fn served(&self) -> u64 {
        self.served
            .iter()
            .map(|served| served.load(Ordering::Relaxed))
            .sum()
    }

    fn dial(&self, client: u8, times: u64, close: Close) -> Result<()> {
        for host in (1..=ADDRESSES).cycle().zip(0..times).map(|(host, _)| host) {
            let server = SocketAddr::from(([127, 1, client, host], self.port));
            let stream = TcpStream::connect(server).with_context(|| format!("can't connect to {server}"))?;
            if close == Close::Reset {
                SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
            }
        }
        Ok(())
    }
}
