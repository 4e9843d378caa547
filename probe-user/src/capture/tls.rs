//! Segments of the kernel side.

use probe_ebpf::contract::tls::{Segment as Raw, Way as RawWay};

use super::connection::Malformed;
use crate::model::{
    connection::socket_address,
    tls::{Key, Segment, Way},
};

/// A segment out of the buffer, and whose it is.
///
/// # Errors
/// When the bytes are no segment.
pub fn segment(bytes: &[u8]) -> Result<(Key, Segment<'_>), Malformed> {
    let malformed = |what, value: u32| Malformed {
        what,
        value: value as usize,
    };
    let (raw, packet) = bytes.split_at_checked(size_of::<Raw>()).ok_or(Malformed {
        what: "length",
        value: bytes.len(),
    })?;
    let raw: Raw = bytemuck::pod_read_unaligned(raw);
    let captured = packet
        .get(raw.headers as usize..raw.captured as usize)
        .ok_or_else(|| malformed("captured", raw.captured))?;
    if captured.is_empty() || captured.len() > raw.length as usize {
        return Err(malformed("length of its payload", raw.length));
    }
    let way = match raw.way {
        way if way == RawWay::Sent as u32 => Way::Sent,
        way if way == RawWay::Received as u32 => Way::Received,
        way => return Err(malformed("way", way)),
    };
    let key = Key {
        local: socket_address(raw.local, raw.local_port),
        peer: socket_address(raw.peer, raw.peer_port),
        netns: raw.netns,
    };
    let segment = Segment {
        time_ns: raw.time_ns,
        socket: raw.socket,
        way,
        sequence: raw.sequence,
        first: raw.first,
        length: raw.length,
        captured,
    };
    Ok((key, segment))
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;

    use super::*;

    fn bytes(change: impl FnOnce(&mut Raw)) -> Vec<u8> {
        let mut raw = Raw::zeroed();
        raw.local = std::net::Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped().octets();
        (raw.local_port, raw.peer_port) = (41_234, 443);
        (raw.headers, raw.captured, raw.length) = (54, 57, 3);
        change(&mut raw);
        let mut bytes = bytemuck::bytes_of(&raw).to_vec();
        bytes.extend([0; 54]);
        // Three bytes of payload, and what fills up.
        bytes.extend(*b"TLS\0\0\0\0");
        bytes
    }

    #[test]
    fn payload_without_headers_and_filling() {
        let bytes = bytes(|_| {});
        let (key, segment) = segment(&bytes).unwrap();
        assert_eq!(segment.captured, b"TLS");
        assert_eq!(segment.way, Way::Sent);
        assert_eq!(key.local, "10.0.0.1:41234".parse().unwrap());
        assert_eq!(key.peer, "[::]:443".parse().unwrap());
    }

    #[test]
    fn what_is_no_segment_is_refused() {
        let changes: [fn(&mut Raw); 6] = [
            |raw| raw.headers = 58,
            |raw| raw.headers = u32::MAX,
            |raw| raw.captured = 1000,
            |raw| raw.captured = 54,
            |raw| raw.length = 2,
            |raw| raw.way = 2,
        ];
        for (index, change) in changes.into_iter().enumerate() {
            assert!(segment(&bytes(change)).is_err(), "{index}");
        }
        let whole = bytes(|_| {});
        for end in 0..size_of::<Raw>() + 57 {
            assert!(segment(&whole[..end]).is_err(), "{end}");
        }
    }
}
