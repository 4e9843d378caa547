//! Why a packet was dropped, by all that is known of it: the kernel's reason, and what the packet and its other points show.

use super::{
    event::What,
    journey::Journey,
    reason::{self, plain},
};

impl Journey {
    /// Why it was dropped at a hop; `told`: the ICMP error sent to its sender, if it was seen. Never
    /// empty.
    pub(super) fn why(&self, at: usize, told: Option<(u8, u8)>) -> String {
        let Some(hop) = self.hops.get(at) else {
            return String::new();
        };
        let What::Dropped { reason, at: function } = &hop.event.what else {
            return String::new();
        };
        if let Some(cause) = &hop.cause {
            return cause.words();
        }
        let (reason, function) = (reason.as_deref(), function.as_deref());
        let words = reason::words(reason, function);
        let packet = &hop.event.packet;
        match (reason, function.map(plain)) {
            (Some("IP_INHDR"), Some("ip_forward" | "ip6_forward")) => out_of_hops(),
            (Some("IP_INHDR"), _) | (None | Some("NOT_SPECIFIED"), Some("ip_forward" | "ip6_forward"))
                if packet.ttl <= 1 =>
            {
                out_of_hops()
            }
            (Some("IP_INHDR"), _) => "its IP header is malformed".to_owned(),
            (Some("IP_INADDRERRORS"), Some("ip_error")) => format!(
                "forwarding is off for packets that arrive on {} (its setting forwarding is 0)",
                hop.device()
            ),
            (_, Some("ip_error" | "ip6_pkt_drop" | "ip6_pkt_discard" | "ip6_pkt_prohibit")) => {
                let told = told.or_else(|| self.told_at(at));
                refused_by_route(packet.source.is_ipv4(), reason, told).map_or(words, str::to_owned)
            }
            _ => words,
        }
    }

    /// Whether a route refused it, or none was there, and the kernel's reason does not say which.
    pub fn is_refused_by_route(&self, at: usize) -> bool {
        match self.hops.get(at).map(|hop| &hop.event.what) {
            Some(What::Dropped { reason, at: Some(at) }) => {
                let at = plain(at);
                let is_vague = matches!(reason.as_deref(), None | Some("NOT_SPECIFIED"));
                // IPv6 says IP_INNOROUTES of all of them.
                is_vague && matches!(at, "ip_error" | "dst_discard" | "dst_discard_out")
                    || at.starts_with("ip6_pkt_")
            }
            _ => false,
        }
    }

    /// The ICMP error that its sender is sent, where it was decided.
    fn told_at(&self, at: usize) -> Option<(u8, u8)> {
        let netns = self.hops.get(at)?.event.netns;
        self.hops.iter().find_map(|hop| match hop.event.what {
            What::Icmp { kind, code } if hop.event.netns == netns => Some((kind, code)),
            _ => None,
        })
    }
}

fn out_of_hops() -> String {
    "its TTL expired".to_owned()
}

/// What kind of route refused it, by the ICMP error that its sender is sent (`ip_error()`, `ip6_pkt_drop()`).
fn refused_by_route(v4: bool, reason: Option<&str>, told: Option<(u8, u8)>) -> Option<&'static str> {
    match (v4, told?) {
        (true, (3, 13)) | (false, (1, 1)) => {
            Some("a prohibit route leads there (ip route show type prohibit)")
        }
        (true, (3, 0)) => Some("no route to the destination"),
        // Without a route the kernel says IP_INNOROUTES.
        (true, (3, 1)) if reason != Some("IP_INNOROUTES") => {
            Some("an unreachable route leads there (ip route show type unreachable)")
        }
        _ => None,
    }
}
