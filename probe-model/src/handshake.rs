//! Handshakes that a server answered and the client has not finished.

use probe_ebpf::contract::connection::Handshake;

/// Whether the kernel no longer waits for the client: it doubles its wait with each SYN-ACK it sends again, so when
/// twice the last wait and a second are over, there will be no other.
pub fn is_given_up(handshake: &Handshake, now_ns: u64) -> bool {
    const FIRST_WAIT_NS: u64 = 1_000_000_000;
    let last_wait = FIRST_WAIT_NS << handshake.retransmits.saturating_sub(1).min(10);
    now_ns.saturating_sub(handshake.last_ns) > 2 * last_wait + FIRST_WAIT_NS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_is_given_up_when_no_other_syn_ack_can_follow() {
        const SECOND: u64 = 1_000_000_000;
        for (retransmits, after, expected) in [
            (1, 2 * SECOND, false),
            (1, 4 * SECOND, true),
            (2, 4 * SECOND, false),
            (2, 6 * SECOND, true),
            (5, 32 * SECOND, false),
            (5, 34 * SECOND, true),
            (u64::MAX, SECOND, false),
        ] {
            let handshake = Handshake {
                first_ns: 0,
                last_ns: 0,
                retransmits,
            };
            assert_eq!(
                is_given_up(&handshake, after),
                expected,
                "{retransmits} after {after}"
            );
        }
    }
}
