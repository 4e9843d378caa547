//! What the kernel's namespaces are known by.

use std::{
    fs,
    net::UdpSocket,
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    path::Path,
};

/// The inode of the pid namespace that the kernel begins with (`PROC_PID_INIT_INO`): a process in any other is a
/// container's.
pub const FIRST_PID: u64 = 0xEFFF_FFFC;

/// The inode of a namespace, by its file in /proc.
pub fn inode(file: impl AsRef<Path>) -> Option<u64> {
    fs::metadata(file).ok().map(|file| file.ino())
}

/// The inode of the calling thread's network namespace.
pub fn own_netns() -> Option<u64> {
    inode("/proc/thread-self/ns/net")
}

/// Distinguishes a network namespace from all others, as far as the kernel can: the inode of one that is gone is given to another
/// one, the cookie (since 5.14) never is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetnsIdentity {
    inode: u64,
    cookie: Option<u64>,
}

impl NetnsIdentity {
    /// The calling thread's; `None` if it is unknown.
    pub fn own() -> Option<Self> {
        Some(Self {
            inode: own_netns()?,
            cookie: cookie(),
        })
    }
}

/// The cookie of the calling thread's network namespace.
fn cookie() -> Option<u64> {
    /// `SO_NETNS_COOKIE`, the same number on x86 and Arm.
    const NETNS_COOKIE: libc::c_int = 71;
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    let mut cookie = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of::<u64>()).ok()?;
    // SAFETY: the kernel writes no more than `length` bytes, which `cookie` has.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    (result == 0).then_some(cookie)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use nix::sched::{CloneFlags, unshare};

    use super::*;

    #[test]
    fn network_namespaces_differ() {
        let own = NetnsIdentity::own();
        assert!(own.is_some());
        assert_eq!(NetnsIdentity::own(), own);
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: not root");
            return;
        }
        let other = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            NetnsIdentity::own()
        };
        let first = thread::spawn(other).join().unwrap();
        // The inode of one that is gone may be this one's.
        let second = thread::spawn(other).join().unwrap();
        assert!(first != own && second != own);
        if first.is_some_and(|first| first.cookie.is_some()) {
            assert_ne!(first, second);
        }
    }
}
