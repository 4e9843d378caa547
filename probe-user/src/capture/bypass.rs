//! Counters of the bypass object into the model. What has a number that means nothing is left out.

use probe_ebpf::contract::bypass as raw;

use crate::model::{
    bypass::stream::{Direction, Server, UntrackedCount, UntrackedStream},
    connection::socket_address,
};

pub fn stream(key: &raw::Key, counters: &raw::Counters) -> Option<(UntrackedStream, UntrackedCount)> {
    let ip = |address| socket_address(address, 0).ip();
    let stream = UntrackedStream {
        source: ip(key.source),
        destination: ip(key.destination),
        protocol: key.protocol,
        port: key.port,
        server: Server::from_raw(key.server)?,
        direction: Direction::from_raw(key.direction)?,
        input: (key.input != 0).then_some(key.input),
        output: (key.output != 0).then_some(key.output),
    };
    let count = UntrackedCount {
        packets: counters.packets,
        frames: counters.frames,
        bytes: counters.bytes,
        syn: counters.syn,
        syn_ack: counters.syn_ack,
        rst: counters.rst,
        first_ns: counters.first_ns,
        last_ns: counters.last_ns,
        other_port: u16::try_from(counters.other_port).unwrap_or(0),
        sender: (counters.sender != 0).then_some(counters.sender),
        others: counters.others != 0,
    };
    Some((stream, count))
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;

    use super::*;

    #[test]
    fn what_means_nothing_is_left_out() {
        let counters = raw::Counters::zeroed();
        assert!(stream(&raw::Key::zeroed(), &counters).is_some());
        for bad in [
            raw::Key {
                direction: 3,
                ..raw::Key::zeroed()
            },
            raw::Key {
                server: 3,
                ..raw::Key::zeroed()
            },
        ] {
            assert!(stream(&bad, &counters).is_none());
        }
    }
}
