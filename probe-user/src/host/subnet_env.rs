//! flannel's `/run/flannel/subnet.env`: lines of NAME=value.

use ipnet::IpNet;

use crate::model::host::SubnetEnv;

/// Where flannel writes it, and its CNI plugin reads it.
pub const PATH: &str = "/run/flannel/subnet.env";

/// What it says. What can't be read of it is left out: the plugin, too, takes only the names that it knows.
pub fn parse(text: &str) -> SubnetEnv {
    let mut env = SubnetEnv::default();
    for line in text.lines() {
        let Some((name, value)) = line.trim().split_once('=') else {
            continue;
        };
        let value = value.trim().trim_matches('"');
        // flannel with several networks separates them by commas.
        let nets = || {
            value
                .split(',')
                .filter_map(|net| net.trim().parse::<IpNet>().ok())
        };
        match name.trim() {
            "FLANNEL_NETWORK" | "FLANNEL_IPV6_NETWORK" => env.networks.extend(nets()),
            "FLANNEL_SUBNET" | "FLANNEL_IPV6_SUBNET" => env.subnets.extend(nets()),
            "FLANNEL_MTU" => env.mtu = value.parse().ok(),
            "FLANNEL_IPMASQ" => env.masquerade = value.parse().ok(),
            _ => {}
        }
    }
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_flannel_writes_it() {
        let env = parse(
            "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_IPV6_NETWORK=fd00::/48\n\
             FLANNEL_IPV6_SUBNET=fd00:0:0:1::1/64\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n",
        );
        assert_eq!(
            env.networks,
            ["10.244.0.0/16".parse().unwrap(), "fd00::/48".parse().unwrap()]
        );
        // With the bridge's address.
        assert_eq!(env.subnets[0].to_string(), "10.244.1.1/24");
        assert_eq!((env.mtu, env.masquerade), (Some(1450), Some(true)));
    }

    #[test]
    fn what_is_none_is_left_out() {
        for text in [
            "",
            "\0",
            "FLANNEL_SUBNET",
            "FLANNEL_SUBNET=10.244.1.1/99\nFLANNEL_MTU=-1\n=\n",
        ] {
            assert_eq!(parse(text), SubnetEnv::default(), "{text}");
        }
        let two = parse("FLANNEL_NETWORK=10.244.0.0/16,x,10.9.0.0/16");
        assert_eq!(two.networks.len(), 2);
    }
}
