//! Asks the kernel for a table. The only part that does I/O.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use super::entries::{Blob, HEADER, INFO, Info};
use crate::netfilter::rules::Family;

/// `IPT_SO_GET_INFO` and `IPT_SO_GET_ENTRIES`, the same numbers for IPv6.
const GET_INFO: libc::c_int = 64;
const GET_ENTRIES: libc::c_int = 65;
/// The longest name of a table, with the zero byte behind it.
const NAME: usize = 32;
/// How large a table may be. One with 10,000 Services has some 30 MB.
const BYTES: usize = 128 << 20;
/// How often it's begun anew when the table is replaced meanwhile.
const ATTEMPTS: u32 = 3;

/// A socket that tables of one family are read by, in the calling thread's network namespace.
pub(super) struct Socket {
    socket: OwnedFd,
    family: Family,
}

impl Socket {
    pub(super) fn open(family: Family) -> io::Result<Self> {
        let domain = match family {
            Family::Ip6 => libc::AF_INET6,
            Family::Ip | Family::Inet | Family::Netdev | Family::Bridge => libc::AF_INET,
        };
        // Any socket of the family will do; a raw one, as iptables has it, would require CAP_NET_RAW.
        // SAFETY: it takes numbers, and gives a descriptor or -1.
        let socket = unsafe { libc::socket(domain, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            // SAFETY: it was just made, and is nobody else's.
            socket: unsafe { OwnedFd::from_raw_fd(socket) },
            family,
        })
    }

    /// What the kernel says of a table that is in use, without its entries.
    pub(super) fn info(&self, name: &str) -> io::Result<Info> {
        let mut info = vec![0; INFO];
        put_name(&mut info, name)?;
        self.get(GET_INFO, &mut info)?;
        Info::of(&info).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }

    /// A table that is in use, with its entries.
    pub(super) fn table(&self, name: &str) -> io::Result<Blob> {
        let mut last = io::Error::from_raw_os_error(libc::EAGAIN);
        for _ in 0..ATTEMPTS {
            let info = self.info(name)?;
            let size = usize::try_from(info.size).unwrap_or(usize::MAX);
            if size > BYTES {
                let message = format!("it is larger than {} MB", BYTES >> 20);
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
            }
            let mut bytes = vec![0; HEADER + size];
            put_name(&mut bytes, name)?;
            if let Some(place) = bytes.get_mut(NAME..NAME + 4) {
                place.copy_from_slice(&info.size.to_ne_bytes());
            }
            match self.get(GET_ENTRIES, &mut bytes) {
                Ok(()) => return Ok(Blob::new(self.family, info, bytes)),
                // It has another size by now.
                Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINVAL)) => {
                    last = error;
                }
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    fn get(&self, option: libc::c_int, bytes: &mut [u8]) -> io::Result<()> {
        let level = match self.family {
            Family::Ip6 => libc::IPPROTO_IPV6,
            Family::Ip | Family::Inet | Family::Netdev | Family::Bridge => libc::IPPROTO_IP,
        };
        let mut length = libc::socklen_t::try_from(bytes.len()).map_err(io::Error::other)?;
        // SAFETY: the kernel writes no more than `length` bytes, which are there.
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                level,
                option,
                bytes.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }
}

/// The name is first in every request; one zero byte stays behind it.
fn put_name(request: &mut [u8], name: &str) -> io::Result<()> {
    let place = request.get_mut(..name.len()).filter(|_| name.len() < NAME);
    place
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?
        .copy_from_slice(name.as_bytes());
    Ok(())
}
