//! Arguments of `probe path`.

use std::{path::PathBuf, time::Duration};

use bytesize::ByteSize;
use clap::{Args, ValueEnum};
use ipnet::IpNet;
use jiff::SignedDuration;

use super::{FormatArg, SourceArgs, settings};
use crate::{kernel::object::Source, model::path::Outcome, report::Format};

const HELP: &str = "\
Examples:
  probe path --from 10.244.1.5 --to 10.96.0.1 --port 443    a pod's requests to a Service, hop by hop, and the replies
  probe path --from shop/checkout-5x2kq --port 443 --count 1   the next connection of a pod to port 443
  probe path --to 10.244.2.7 --proto icmp                   pings of a pod, whoever sends them
  probe path --port 2379 -o wide                            with the kernel's function names
  probe path --port 443 --write path.pcapng                 for Wireshark too: a packet a hop, with comments
  probe path --to 10.96.0.1 --port 443 --expect delivered --duration 30s   for scripts: exit code 1 otherwise
  kubectl exec ... -- curl https://SERVICE/                 meanwhile: what nobody sends, nobody sees

Packets that the filter takes begin a flow; from then on both ways of it are followed: through devices, network namespaces, NAT
and VXLAN, to a socket, a drop, or out of this machine. Nothing is changed on the way. `+61 µs` is the time since the packet
was first seen. A flow is told when it has rested for a moment, its packets in the order they began:

  delivered      it came to its socket; if there is a reply, that came back
  refused        it came to its host, where no socket listens, or RST came back
  dropped        it was let go on its way, or its reply was: where, why, by which rule
  untranslated   it left for a Service, or the reply for the client, past conntrack: by which rule
  unreachable    an ICMP error came back
  unanswered     it left this machine, or came to its host, and no answer was seen
  no-request     only packets of the other way were seen

How much is seen between two devices depends on the kernel: `probe check` tells. Exit codes: 0 fine, 1 a fault or another
outcome than --expect says, 2 usage.";

/// Packets: where each goes, what each hop does to it, and where it ends
///
/// Follows packets in the kernel from the socket or device they come from, hop by hop, and says what became of the request and
/// of its reply; where a rule dropped it, or kept it from being translated, which rule. Ctrl-C ends with a summary.
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub struct PathArgs {
    /// Requests from this address, prefix (10.244.1.0/24) or pod (`name` or `namespace/name`, of this node). Default: any
    #[arg(long, value_name = "ADDR|POD")]
    pub from: Option<String>,

    /// Requests to this address, prefix or pod; a Service's address as clients dial it. Default: any
    #[arg(long, value_name = "ADDR|POD")]
    pub to: Option<String>,

    /// The server's port, as clients dial it. Default: any
    #[arg(short, long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,

    /// Only this protocol. Default: any, with --port those that have ports
    #[arg(long, value_enum, value_name = "PROTOCOL")]
    pub proto: Option<Protocol>,

    /// Only packets that begin in this network namespace (/run/netns/NAME, /proc/PID/ns/net); followed everywhere
    #[arg(long, value_name = "FILE")]
    pub netns: Option<PathBuf>,

    /// Only packets that are first seen at this device, of --netns or of the network namespace probe runs in
    #[arg(long, value_name = "NAME")]
    pub device: Option<String>,

    /// End after so many exchanges were told
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,

    /// End after this time: 10s, 5m
    #[arg(long, value_name = "TIME")]
    pub duration: Option<SignedDuration>,

    /// Exit code 1 unless every exchange ends so (below), and there is one. Ends after the first, where neither --count nor
    /// --duration says otherwise
    #[arg(long, value_name = "OUTCOME", value_parser = super::named(&Outcome::ALL, Outcome::name))]
    pub expect: Option<Outcome>,

    /// Journeys for people, the same with all packets and the kernel's function names, or one JSON object an exchange
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t = FormatArg::Table)]
    pub output: FormatArg,

    /// Write the packets to this file too, once a hop, as pcapng with comments
    #[arg(long, value_name = "FILE")]
    pub write: Option<PathBuf>,

    /// UDP ports of VXLAN, up to two
    #[arg(long, value_name = "PORT", value_delimiter = ',', default_value = "8472,4789", num_args = 1..=2)]
    pub vxlan_port: Vec<u16>,

    /// Hops told a second and CPU; what goes beyond is counted
    #[arg(long, value_name = "N", default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_hops: u32,

    /// Memory for hops on their way from the kernel, rounded up to a power of two
    #[arg(long, value_name = "BYTES", default_value = "4MiB")]
    pub ring_size: ByteSize,

    /// Name of this node in reports. Default: the host name
    #[arg(long, alias = "node", value_name = "NAME", env = "NODE_NAME")]
    pub node_name: Option<String>,

    /// The container runtime's socket (CRI), which tells pods by network namespace; `none`: ask none. Default: the first that is
    /// there of containerd's, CRI-O's, cri-dockerd's, and those of k3s, k0s and MicroK8s
    #[arg(long, value_name = "SOCKET")]
    pub cri: Option<PathBuf>,

    #[command(flatten)]
    pub source: SourceArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    Tcp,
    Udp,
    /// ICMP, or ICMPv6 where an address is one of IPv6
    Icmp,
}

/// Whose packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    Net(IpNet),
    /// `name` or `namespace/name`.
    Pod(String),
}

/// What `probe path` does.
#[derive(Clone, Debug)]
pub struct Path {
    pub from: Option<End>,
    pub to: Option<End>,
    pub port: Option<u16>,
    pub protocol: Option<Protocol>,
    pub netns: Option<PathBuf>,
    pub device: Option<String>,
    pub count: Option<u64>,
    pub duration: Option<Duration>,
    pub expect: Option<Outcome>,
    pub format: Format,
    pub write: Option<PathBuf>,
    pub vxlan_ports: [u16; 2],
    pub max_hops: u32,
    pub ring_bytes: u32,
    pub node: String,
    /// The container runtime's socket.
    pub cri: Option<PathBuf>,
    pub source: Source,
}

impl TryFrom<PathArgs> for Path {
    type Error = clap::Error;

    fn try_from(args: PathArgs) -> Result<Self, clap::Error> {
        let ports = args.vxlan_port.as_slice();
        let vxlan_ports = match *ports {
            [one] => [one, one],
            [one, other] => [one, other],
            _ => {
                return Err(settings::usage(
                    "--vxlan-port takes two ports at the most".to_owned(),
                ));
            }
        };
        if args.port.is_some() && args.proto == Some(Protocol::Icmp) {
            return Err(settings::usage("--port: ICMP has no ports".to_owned()));
        }
        let once = args.expect.is_some() && args.duration.is_none();
        Ok(Self {
            from: args.from.map(end).transpose()?,
            to: args.to.map(end).transpose()?,
            port: args.port,
            protocol: args.proto,
            netns: args.netns,
            device: args.device,
            count: args.count.or_else(|| once.then_some(1)),
            duration: args
                .duration
                .map(|time| settings::positive("--duration", time))
                .transpose()?,
            expect: args.expect,
            format: args.output.into(),
            write: args.write,
            vxlan_ports,
            max_hops: args.max_hops,
            ring_bytes: settings::ring(args.ring_size)
                .map_err(|error| settings::usage(format!("--ring-size: {error}")))?,
            node: args.node_name.unwrap_or_else(settings::host_name),
            cri: settings::runtime(args.cri),
            source: args.source.into(),
        })
    }
}

/// What is no address and no prefix is a pod's name, if it can be one.
fn end(text: String) -> Result<End, clap::Error> {
    if let Ok(net) = super::prefix(&text) {
        return Ok(End::Net(net));
    }
    let is_name = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
            && part.bytes().any(|byte| byte.is_ascii_lowercase())
    };
    let parts: Vec<_> = text.split('/').collect();
    if parts.len() > 2 || !parts.iter().all(|part| is_name(part)) {
        return Err(settings::usage(format!(
            "{text:?} is neither an address, nor a prefix such as 10.244.0.0/16, nor a pod such as shop/checkout-5x2kq"
        )));
    }
    Ok(End::Pod(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_prefixes_and_pods() {
        for (text, expected) in [
            ("10.244.1.5", Some(End::Net("10.244.1.5/32".parse().unwrap()))),
            ("fd77::/64", Some(End::Net("fd77::/64".parse().unwrap()))),
            ("checkout-5x2kq", Some(End::Pod("checkout-5x2kq".to_owned()))),
            ("shop/checkout", Some(End::Pod("shop/checkout".to_owned()))),
            ("10.244.1", None),
            ("10.244.1.5/33", None),
            ("a/b/c", None),
            ("", None),
            ("a b", None),
        ] {
            assert_eq!(end(text.to_owned()).ok(), expected, "{text}");
        }
    }
}
