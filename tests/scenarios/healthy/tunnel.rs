//! A tunnel device of user space, for kernels without the real one: IP packets go through a TUN device, and to the peer in
//! IPIP or UDP. What the packet filter and probe see on the wire is what they see of the real one.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    mem::MaybeUninit,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    os::fd::{AsRawFd as _, RawFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use probe_lab::Netns;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// What IP packets travel in.
#[derive(Clone, Copy, Debug)]
pub enum Encapsulation {
    Ipip,
    /// Geneve and WireGuard: UDP to a port from the same port, with a header of so many bytes.
    Udp {
        port: u16,
        header: [u8; 16],
        length: usize,
    },
}

/// One end of a tunnel; dropping it removes its device.
#[derive(Debug)]
pub struct Tunnel {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Tunnel {
    /// The device `name` in `netns`, whose packets travel from `local` to `peer`.
    pub fn new(
        netns: &Netns,
        name: &str,
        local: Ipv4Addr,
        peer: Ipv4Addr,
        encapsulation: Encapsulation,
    ) -> Self {
        let (device, socket) = netns
            .enter(|| (open(name), Wire::new(local, peer, encapsulation)))
            .unwrap();
        let stop = Arc::<AtomicBool>::default();
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || relay(device, &socket, &stopped));
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The socket on the underlay.
struct Wire {
    socket: Socket,
    peer: SockAddr,
    header: Vec<u8>,
    /// The socket's packets begin with their own IP header.
    raw: bool,
}

impl Wire {
    fn new(local: Ipv4Addr, peer: Ipv4Addr, encapsulation: Encapsulation) -> Self {
        match encapsulation {
            Encapsulation::Ipip => {
                let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(4))).unwrap();
                socket.bind(&SocketAddrV4::new(local, 0).into()).unwrap();
                Self {
                    socket,
                    peer: SocketAddrV4::new(peer, 0).into(),
                    header: Vec::new(),
                    raw: true,
                }
            }
            Encapsulation::Udp { port, header, length } => Self {
                socket: UdpSocket::bind((local, port)).unwrap().into(),
                peer: SocketAddrV4::new(peer, port).into(),
                header: header[..length].to_vec(),
                raw: false,
            },
        }
    }

    fn send(&self, packet: &[u8]) {
        let packet = [&self.header, packet].concat();
        // Refused while the peer is not there yet.
        let _ = self.socket.send_to(&packet, &self.peer);
    }

    /// The inner packet, if there is one.
    fn receive<'a>(&self, buffer: &'a mut [MaybeUninit<u8>]) -> Option<&'a [u8]> {
        let length = self.socket.recv(buffer).ok()?;
        // SAFETY: the kernel wrote that many.
        let packet = unsafe { std::slice::from_raw_parts(buffer.as_ptr().cast::<u8>(), length) };
        let outer = if self.raw {
            usize::from(packet.first()? & 15) * 4
        } else {
            self.header.len()
        };
        packet.get(outer..)
    }
}

/// TUNSETIFF with `IFF_TUN | IFF_NO_PI`.
fn open(name: &str) -> File {
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .unwrap();
    // struct ifreq: the name, the flags, and room for the rest of the union.
    let mut request = [0u8; 40];
    request[..name.len()].copy_from_slice(name.as_bytes());
    request[16..18].copy_from_slice(&0x1001u16.to_ne_bytes());
    // SAFETY: the request is as long as the kernel's structure, and outlives the call.
    let set = unsafe { libc::ioctl(device.as_raw_fd(), 0x4004_54ca, request.as_mut_ptr()) };
    assert_eq!(set, 0, "{name}: {}", std::io::Error::last_os_error());
    device
}

fn relay(mut device: File, wire: &Wire, stopped: &AtomicBool) {
    let mut packet = [0; 2048];
    let mut buffer = [MaybeUninit::uninit(); 2048];
    while !stopped.load(Ordering::Relaxed) {
        let [from_device, from_wire] = readable([device.as_raw_fd(), wire.socket.as_raw_fd()]);
        if from_device && let Ok(length) = device.read(&mut packet) {
            wire.send(&packet[..length]);
        }
        if from_wire && let Some(inner) = wire.receive(&mut buffer) {
            // One that the device does not take is lost, as on any wire.
            let _ = device.write(inner);
        }
    }
}

/// Waits for 100 ms at the most.
fn readable(of: [RawFd; 2]) -> [bool; 2] {
    let mut polled = of.map(|fd| libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    });
    // SAFETY: the array outlives the call.
    unsafe { libc::poll(polled.as_mut_ptr(), 2, 100) };
    polled.map(|one| one.revents & libc::POLLIN != 0)
}
