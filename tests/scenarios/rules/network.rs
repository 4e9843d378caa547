//! A router with a device on each side, which the rule sets are loaded in.

use std::{
    fs, io,
    net::{Ipv4Addr, UdpSocket},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    time::Duration,
};

use anyhow::{Result, ensure};
use probe_lab::{Netns, finish};
use probe_user::model::rule::PacketPath;

use crate::{
    generate::RuleSet,
    packet::{self, TestPacket},
    render,
};

pub const INPUT: &str = "in0";
pub const OUTPUT: &str = "out0";
/// MAC addresses: that of the router, that of all others.
const ROUTER: [u8; 6] = [2, 0, 0, 0, 0, 1];
const OTHERS: [u8; 6] = [2, 0, 0, 0, 0, 2];

pub struct Router {
    pub netns: Netns,
    outside: Netns,
}

impl Router {
    pub fn new() -> Result<Self> {
        let (netns, outside) = (Netns::new("router")?, Netns::new("outside")?);
        let far = outside.name();
        // The kernel's own packets of IPv6 would be counted.
        for host in [&netns, &outside] {
            host.set("net.ipv6.conf.all.disable_ipv6", "1")?;
            host.set("net.ipv6.conf.default.disable_ipv6", "1")?;
        }
        netns.ip_each([
            format!("link add {INPUT} address 02:00:00:00:00:01 type veth peer name far0 address 02:00:00:00:00:02 netns {far}"),
            format!("link add {OUTPUT} type veth peer name far1 netns {far}"),
            format!("link set {INPUT} up"),
            format!("link set {OUTPUT} up"),
        ])?;
        outside.ip_each(["link set far0 up", "link set far1 up"])?;
        for setting in [
            "all.rp_filter",
            "default.rp_filter",
            "in0.rp_filter",
            "out0.rp_filter",
        ] {
            netns.set(&format!("net.ipv4.conf.{setting}"), "0")?;
        }
        netns.set("net.ipv4.ip_forward", "1")?;
        let mut lines = vec![
            format!("route add 10.60.0.0/24 dev {OUTPUT}"),
            format!("route add default dev {OUTPUT}"),
        ];
        for last in 1..=4 {
            lines.push(format!("addr add 10.50.0.{last}/32 dev {INPUT}"));
            lines.push(format!(
                "neigh add 10.60.0.{last} lladdr 02:00:00:00:00:09 dev {OUTPUT} nud permanent"
            ));
        }
        netns.ip_each(lines)?;
        netns.carries(INPUT)?;
        netns.carries(OUTPUT)?;
        Ok(Self { netns, outside })
    }

    pub fn load(&self, sets: &[&RuleSet]) -> Result<()> {
        for (program, text) in render::files(sets) {
            if text.is_empty() {
                continue;
            }
            let file = tempfile::NamedTempFile::new()?;
            fs::write(&file, &text)?;
            let options: &[&str] = if program == "nft" {
                &["-f"]
            } else {
                &["--noflush", "-c"]
            };
            let output = finish(self.netns.command(program).args(options).arg(file.path()))?;
            let error = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "{program} failed: {error} of {text}");
        }
        Ok(())
    }

    pub fn send(&self, packets: &[TestPacket]) -> Result<()> {
        let (ours, theirs): (Vec<&TestPacket>, Vec<&TestPacket>) =
            packets.iter().partition(|packet| packet.path == PacketPath::Out);
        self.netns.enter(|| send_from_here(&ours))??;
        // What comes last has passed the rules when all others have.
        let port = 9999;
        let listener = self.netns.enter(|| UdpSocket::bind(("10.50.0.1", port)))??;
        listener.set_read_timeout(Some(Duration::from_secs(10)))?;
        let last = TestPacket {
            path: PacketPath::In,
            protocol: packet::UDP,
            source: Ipv4Addr::new(10, 100, 250, 1),
            destination: Ipv4Addr::new(10, 50, 0, 1),
            source_port: 1,
            destination_port: port,
        };
        let theirs: Vec<&TestPacket> = theirs.into_iter().chain([&last]).collect();
        self.outside.enter(|| send_to_router(&theirs))??;
        listener.recv(&mut [0; 64])?;
        Ok(())
    }
}

fn socket(domain: i32, protocol: i32) -> Result<OwnedFd> {
    // SAFETY: it makes a descriptor, which is owned from here on.
    let fd = unsafe { libc::socket(domain, libc::SOCK_RAW, protocol) };
    ensure!(fd >= 0, "no raw socket: {}", io::Error::last_os_error());
    // SAFETY: it was just made.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn send<T>(socket: &OwnedFd, bytes: &[u8], to: &T) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<T>()).unwrap();
    // SAFETY: pointers and lengths are of what is borrowed.
    let sent = unsafe {
        let to = (&raw const *to).cast();
        libc::sendto(
            socket.as_raw_fd(),
            bytes.as_ptr().cast(),
            bytes.len(),
            0,
            to,
            length,
        )
    };
    if sent < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Past the router's sockets, through its rules for output.
fn send_from_here(packets: &[&TestPacket]) -> Result<()> {
    let socket = socket(libc::AF_INET, libc::IPPROTO_RAW)?;
    for packet in packets {
        let to = libc::sockaddr_in {
            sin_family: libc::sa_family_t::try_from(libc::AF_INET)?,
            sin_port: 0,
            sin_addr: libc::in_addr {
                s_addr: u32::from_ne_bytes(packet.destination.octets()),
            },
            sin_zero: [0; 8],
        };
        // A rule that drops it shows as this error.
        match send(&socket, &packet.bytes(), &to) {
            Err(error) if error.kind() != io::ErrorKind::PermissionDenied => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

fn send_to_router(packets: &[&TestPacket]) -> Result<()> {
    let socket = socket(libc::AF_PACKET, 0)?;
    let index = nix::net::if_::if_nametoindex("far0")?;
    let mut address = [0; 8];
    address[..6].copy_from_slice(&ROUTER);
    let to = libc::sockaddr_ll {
        sll_family: libc::sa_family_t::try_from(libc::AF_PACKET)?,
        sll_protocol: 0x0800_u16.to_be(),
        sll_ifindex: i32::try_from(index)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: address,
    };
    for packet in packets {
        let frame = [&ROUTER[..], &OTHERS, &[8, 0], &packet.bytes()].concat();
        send(&socket, &frame, &to)?;
    }
    Ok(())
}
