//! What the kernel prints of a network namespace: `/proc/net`, and its settings in `/proc/sys`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    files::head,
    sockets::{self, Socket},
};

/// The longest file that is read whole. A table of sockets has 150 bytes a socket, so this is some 100,000 of them.
const LONGEST: u64 = 16 << 20;

/// The `/proc/net` of one network namespace.
#[derive(Clone, Debug)]
pub struct ProcNet(PathBuf);

impl ProcNet {
    /// The calling thread's.
    pub fn own() -> Self {
        Self::at("/proc/thread-self/net")
    }

    /// The one in this directory, such as `/proc/PID/net`.
    pub fn at(directory: impl Into<PathBuf>) -> Self {
        Self(directory.into())
    }

    /// Whether the kernel has such a file, which costs less than reading it.
    pub fn has(&self, file: &str) -> bool {
        self.0.join(file).exists()
    }

    /// A file of it; what is no UTF-8 in it is replaced.
    pub fn text(&self, file: &str) -> Option<String> {
        let bytes = head(&self.0.join(file), LONGEST)?;
        Some(
            String::from_utf8(bytes)
                .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()),
        )
    }

    /// The same of a file that is read whole, or not at all.
    pub fn whole(&self, file: &str) -> Option<String> {
        let complete = |text: &String| u64::try_from(text.len()).is_ok_and(|length| length < LONGEST);
        self.text(file).filter(complete)
    }

    /// TCP sockets, of IPv4 and IPv6.
    pub fn tcp(&self) -> Vec<Socket> {
        self.sockets(["tcp", "tcp6"])
    }

    /// UDP sockets, of IPv4 and IPv6.
    pub fn udp(&self) -> Vec<Socket> {
        self.sockets(["udp", "udp6"])
    }

    fn sockets(&self, files: [&str; 2]) -> Vec<Socket> {
        let tables = files.into_iter().filter_map(|file| self.text(file));
        tables.flat_map(|table| sockets::parse(&table)).collect()
    }
}

/// A setting of the calling thread's network namespace, `net/ipv4/ip_forward`, that is a number.
pub fn setting(name: &str) -> Option<u64> {
    let text = fs::read_to_string(Path::new("/proc/sys").join(name)).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;
    use crate::host::sockets::Doing;

    #[test]
    fn the_sockets_of_this_process() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(
            !ProcNet::own().tcp().iter().any(|socket| socket.local == listener),
            "it is closed"
        );
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let bound = UdpSocket::bind("[::1]:0").unwrap();
        let (local, udp) = (listener.local_addr().unwrap(), bound.local_addr().unwrap());
        let found = ProcNet::own().tcp();
        let found = found.iter().find(|socket| socket.local == local).unwrap();
        assert_eq!((found.doing, found.waiting), (Doing::Listens, 0));
        assert!(found.inode > 0);
        assert!(
            ProcNet::own()
                .udp()
                .iter()
                .any(|socket| socket.local == udp && socket.inode > 0)
        );
        let nowhere = ProcNet::at("/proc/self/nonexistent");
        assert_eq!((nowhere.tcp(), nowhere.text("tcp")), (Vec::new(), None));
    }
}
