//! Sockets of a network namespace, as `/proc/net/tcp`, `tcp6`, `udp` and `udp6` list them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What a TCP socket is doing, as far as anybody asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    Established,
    /// SYN is sent, and not answered yet.
    Dials,
    Listens,
    Else,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket {
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub doing: Doing,
    /// Of one that listens: connections that wait to be accepted.
    pub waiting: u32,
    pub inode: u64,
}

/// The sockets of a table; lines that are none are left out.
pub fn parse(table: &str) -> Vec<Socket> {
    table.lines().skip(1).filter_map(socket).collect()
}

fn socket(line: &str) -> Option<Socket> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (local, remote) = (address(fields.next()?)?, address(fields.next()?)?);
    let doing = match fields.next()? {
        "01" => Doing::Established,
        "02" => Doing::Dials,
        "0A" => Doing::Listens,
        _ => Doing::Else,
    };
    let (_, waiting) = fields.next()?.split_once(':')?;
    Some(Socket {
        local,
        remote,
        doing,
        waiting: u32::from_str_radix(waiting, 16).ok()?,
        inode: fields.nth(4)?.parse().ok()?,
    })
}

/// `0100007F:0016`: words in the host's byte order, as the kernel prints them. IPv4 in IPv6 is IPv4.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| {
        let word = u32::from_str_radix(ip.get(at..at + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    let ip = match ip.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut octets = [0; 16];
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            octets.copy_from_slice(words.as_flattened());
            IpAddr::V6(Ipv6Addr::from(octets)).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            \x20  0: 0B58A8C0:AD9C 0B58A8C0:192B 01 00000000:00000000 02:000001D1 00000000     0        0 4242 2 0 20 4 30 10 -1\n\
            \x20  1: 00000000000000000000000000000000:01BB 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 7 1\n\
            \x20  2: 0000000000000000FFFF00000B58A8C0:AD9D 0000000000000000FFFF00000B58A8C0:192B 06 0:0 0:0 0 0 0 0\n\
            nonsense\n 3: zz:1 0:0 01 0 0 0 0 0 1\n";
        let found = parse(table);
        let row = |socket: &Socket| {
            (
                socket.local.to_string(),
                socket.remote.to_string(),
                socket.doing,
                socket.inode,
            )
        };
        assert_eq!(
            found.iter().map(row).collect::<Vec<_>>(),
            [
                (
                    "192.168.88.11:44444".to_owned(),
                    "192.168.88.11:6443".to_owned(),
                    Doing::Established,
                    4242
                ),
                ("[::]:443".to_owned(), "[::]:0".to_owned(), Doing::Listens, 7),
                (
                    "192.168.88.11:44445".to_owned(),
                    "192.168.88.11:6443".to_owned(),
                    Doing::Else,
                    0
                ),
            ]
        );
        assert!(parse("").is_empty());
    }
}
