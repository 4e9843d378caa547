//! Arguments of `probe path`.

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};
use ipnet::IpNet;

use super::{
    SourceArgs,
    common::{DurationArgs, RingArgs, RuntimeArgs, count, format, named, port},
    help, settings,
};
use crate::{
    model::{
        path::Outcome,
        settings::{KernelSource, RuntimeSocket},
    },
    report::Format,
};

const EXAMPLES: &str = "\
Examples:
  probe path --from 10.244.1.5 --to 10.96.0.1 --port 443   requests of a pod to a Service
  probe path --from shop/checkout --port 443 --count 1     the next connection of a pod to port 443
  probe path --to 10.244.2.7 --proto icmp                  pings to a pod, from any source
  probe path --port 2379 -o wide                           with the kernel's function names
  probe path --port 443 --write path.pcapng                also a file for Wireshark
  probe path --to 10.96.0.1 --expect delivered --duration 30s   for scripts: else exit code 1
  kubectl exec ... -- curl https://SERVICE/                meanwhile: a report needs traffic";

const NOTES: &str = "\
    A packet that matches the filter begins a flow. Both directions are followed through devices, network \
    namespaces, NAT and VXLAN, to a socket, a drop, or out of this node. No packet is changed. `+61 µs` is \
    the time \
    since the packet was first seen. A flow is reported after a short pause in it, its packets in order of their first hop.";

const KERNELS: &str = "\
    The hops seen between two devices depend on the kernel: see `probe check`.";

fn help() -> String {
    help::sections(&[EXAMPLES, NOTES, &help::list::<Outcome>("Outcomes"), KERNELS])
}

/// Follow packets through the kernel hop by hop, and name the rule that drops or untracks them
///
/// Follows packets from their socket or device through every hop, and reports the outcome of the request and of its reply. For a
/// packet that was dropped or skipped NAT it names the rule. Ctrl-C ends with a summary.
#[derive(Args, Debug)]
#[command(after_help = help())]
pub struct PathArgs {
    /// Follow requests from this address, prefix (10.244.1.0/24) or pod of this node (NAME or NAMESPACE/NAME). Default: any
    #[arg(long, value_name = "ADDR|POD")]
    pub from: Option<String>,

    /// Follow requests to this address, prefix or pod; for a Service the address that clients dial. Default: any
    #[arg(long, value_name = "ADDR|POD")]
    pub to: Option<String>,

    /// Follow requests to this server port, as clients dial it. Default: any
    #[arg(short, long, value_name = "PORT", value_parser = port)]
    pub port: Option<u16>,

    /// Follow only this protocol. Default: any; with --port TCP and UDP
    #[arg(long, value_enum, value_name = "PROTOCOL")]
    pub proto: Option<Protocol>,

    /// Follow only packets that begin in this network namespace (/run/netns/NAME, /proc/PID/ns/net), through all others
    #[arg(long, value_name = "FILE")]
    pub netns: Option<PathBuf>,

    /// Follow only packets first seen at this device of --netns, or of the current network namespace
    #[arg(long, value_name = "NAME")]
    pub device: Option<String>,

    /// Stop after N exchanges
    #[arg(long, value_name = "N", value_parser = count)]
    pub count: Option<u64>,

    #[command(flatten)]
    pub duration: DurationArgs,

    /// Require this outcome (listed below) of at least one and of every exchange, else exit with code 1. Stops after the first
    /// exchange without --count and --duration
    #[arg(long, value_name = "OUTCOME", value_parser = named::<Outcome>(), hide_possible_values = true)]
    pub expect: Option<Outcome>,

    /// Output format: hops for reading, the same with all packets and kernel functions, or one JSON object an exchange
    #[arg(short, long, value_name = "FORMAT", default_value = Format::Table.name(), value_parser = format())]
    pub output: Format,

    /// Write the packets to this file too: pcapng, one packet per hop, with comments
    #[arg(long, value_name = "FILE")]
    pub write: Option<PathBuf>,

    /// Decode this UDP port as VXLAN; repeat or separate by commas, up to two
    #[arg(long, value_name = "PORT", value_delimiter = ',', default_value = "8472,4789")]
    pub vxlan_port: Vec<u16>,

    /// Limit of hops reported per second and CPU; those beyond are counted
    #[arg(long, value_name = "N", default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_hops: u32,

    #[command(flatten)]
    pub ring: RingArgs,

    /// Name of this node in reports. Default: the host name
    #[arg(long, alias = "node", value_name = "NAME", env = "NODE_NAME")]
    pub node_name: Option<String>,

    #[command(flatten)]
    pub runtime: RuntimeArgs,

    #[command(flatten)]
    pub source: SourceArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    Tcp,
    Udp,
    /// ICMP, or ICMPv6 if an address is IPv6
    Icmp,
}

/// Whose packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathTarget {
    Net(IpNet),
    /// `name` or `namespace/name`.
    Pod(String),
}

/// What `probe path` does.
#[derive(Clone, Debug)]
pub struct Path {
    pub from: Option<PathTarget>,
    pub to: Option<PathTarget>,
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
    pub node: Option<String>,
    /// The container runtime's socket.
    pub cri: RuntimeSocket,
    pub source: KernelSource,
}

impl TryFrom<PathArgs> for Path {
    type Error = clap::Error;

    fn try_from(args: PathArgs) -> Result<Self, clap::Error> {
        let ports = args.vxlan_port.as_slice();
        let vxlan_ports = match *ports {
            [one] => [one, one],
            [one, other] => [one, other],
            _ => {
                return Err(settings::usage("--vxlan-port takes at most two ports".to_owned()));
            }
        };
        if args.port.is_some() && args.proto == Some(Protocol::Icmp) {
            return Err(settings::usage(
                "--port can't be used with --proto icmp: ICMP has no ports".to_owned(),
            ));
        }
        let duration = args.duration.checked()?;
        let once = args.expect.is_some() && duration.is_none();
        Ok(Self {
            from: args.from.map(end).transpose()?,
            to: args.to.map(end).transpose()?,
            port: args.port,
            protocol: args.proto,
            netns: args.netns,
            device: args.device,
            count: args.count.or_else(|| once.then_some(1)),
            duration,
            expect: args.expect,
            format: args.output,
            write: args.write,
            vxlan_ports,
            max_hops: args.max_hops,
            ring_bytes: args.ring.bytes()?,
            node: args.node_name,
            cri: args.runtime.cri.into(),
            source: args.source.into(),
        })
    }
}

/// What is no address and no prefix is a pod's name, if it can be one.
fn end(text: String) -> Result<PathTarget, clap::Error> {
    if let Ok(net) = super::prefix(&text) {
        return Ok(PathTarget::Net(net));
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
    Ok(PathTarget::Pod(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_prefixes_and_pods() {
        for (text, expected) in [
            (
                "10.244.1.5",
                Some(PathTarget::Net("10.244.1.5/32".parse().unwrap())),
            ),
            ("fd77::/64", Some(PathTarget::Net("fd77::/64".parse().unwrap()))),
            (
                "checkout-5x2kq",
                Some(PathTarget::Pod("checkout-5x2kq".to_owned())),
            ),
            ("shop/checkout", Some(PathTarget::Pod("shop/checkout".to_owned()))),
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
