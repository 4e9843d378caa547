//! Whether a device leaves checksums to be filled in by what is below it.

use std::os::fd::AsRawFd as _;

use netlink_sys::{Socket, protocols::NETLINK_ROUTE};

/// A number that C libraries have different types for.
const SIOCETHTOOL: libc::Ioctl = 0x8946;
const ETHTOOL_GTXCSUM: u32 = 0x16;

/// `struct ethtool_value`
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// `ethtool -k DEVICE`: tx-checksumming, in the calling thread's network namespace. `None` where it does not say.
pub fn checksums(device: &str) -> Option<bool> {
    // Any socket will do: the ioctl is asked of the network namespace.
    let socket = Socket::new(NETLINK_ROUTE).ok()?;
    let mut value = Value {
        command: ETHTOOL_GTXCSUM,
        data: 0,
    };
    let mut name = [0; libc::IFNAMSIZ];
    let bytes = device.as_bytes();
    // One byte stays 0.
    let room = name
        .get_mut(..bytes.len())
        .filter(|room| room.len() < libc::IFNAMSIZ)?;
    for (to, from) in room.iter_mut().zip(bytes) {
        // A char is signed or not, by the architecture.
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    let mut request = libc::ifreq {
        ifr_name: name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_data: (&raw mut value).cast(),
        },
    };
    // SAFETY: the request's name ends with 0, and its data is an ethtool_value that outlives the call, which the kernel
    // reads and writes as this command says.
    let asked = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    (asked == 0).then_some(value.data != 0)
}
