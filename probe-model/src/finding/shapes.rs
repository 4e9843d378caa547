//! The commands that fixes may be, by what their programs parse. Every fix that a test of this crate makes is held against it.

/// Whether the program takes these arguments, and they do no more than one change.
pub fn is_known(argv: &[String]) -> bool {
    let words: Vec<&str> = argv.iter().map(String::as_str).collect();
    let [program, arguments @ ..] = words.as_slice() else {
        return false;
    };
    match *program {
        "iptables-legacy" | "iptables-nft" | "ip6tables-legacy" | "ip6tables-nft" => iptables(arguments),
        "nft" => nft(arguments),
        "ip" => ip(arguments),
        "bridge" => matches!(
            arguments,
            ["fdb", "append" | "del" | "replace", _, "dev", _, "dst", _]
                | ["fdb", "del", _, "dev", _]
                | ["link", "set", "dev", _, "hairpin", "on" | "off"]
        ),
        // They only list.
        "bpftool" => matches!(arguments, ["prog", "show", "id", id] if id.parse::<u32>().is_ok()),
        "tc" => matches!(
            arguments,
            ["-s", "filter", "show", "dev", _, "ingress" | "egress"]
        ),
        "ethtool" => matches!(arguments, ["-K", _, _, "on" | "off"]),
        // All devices are never changed at once.
        "sysctl" => matches!(arguments, ["-w", setting]
            if setting.split_once('=').is_some_and(|(_, value)| value.parse::<u64>().is_ok())
                && ![".conf.all.", ".conf.default.", "/conf/all/", "/conf/default/"]
                    .iter()
                    .any(|all| setting.contains(all))),
        "ufw" => {
            let start = arguments
                .iter()
                .take_while(|word| !matches!(**word, "proto" | "from"));
            matches!(
                start.copied().collect::<Vec<_>>().as_slice(),
                ["allow"]
                    | ["allow", "out"]
                    | ["route", "allow"]
                    | ["insert", "1", "allow"]
                    | ["route", "insert", "1", "allow"]
                    | ["insert", "1", "allow", "out"]
            )
        }
        "firewall-cmd" => {
            matches!(arguments, ["--reload"])
                || matches!(arguments, ["--permanent", port] if port.starts_with("--add-port="))
        }
        "kubectl" => kubectl(arguments),
        "kubeadm" => matches!(
            arguments,
            ["token", "list"]
                | ["token", "create", "--print-join-command"]
                | ["certs", "renew", _]
                | ["kubeconfig", "user", "--org", _, "--client-name", _]
        ),
        "systemctl" => matches!(
            arguments,
            ["restart", _] | ["enable", "--now", _] | ["disable", "--now", _, ..]
        ),
        "journalctl" => matches!(arguments, ["-u", _, "-n", _]),
        "crictl" => matches!(arguments, ["ps", "-a", "--name", _]),
        "openssl" => matches!(
            arguments,
            ["x509", "-noout", "-fingerprint", "-in", _] | ["s_client", "-noservername", "-connect", _]
        ),
        "getent" => matches!(arguments, ["hosts", _]),
        "ping" => matches!(arguments, ["-c1", _] | ["-c1", "-M", "do", "-s", _, _]),
        "ss" => matches!(arguments, ["-ltnp", _]),
        "conntrack" => matches!(arguments, ["-L"] | ["-D", ..]),
        "modprobe" | "timedatectl" => arguments.len() <= 1,
        "mv" => matches!(arguments, [from, to] if from.starts_with('/') && to.starts_with('/')),
        "rm" => {
            !arguments.is_empty()
                && arguments
                    .iter()
                    .all(|file| file.starts_with('/') && !file.ends_with('/'))
        }
        // Parsed by probe itself, in its own tests.
        "probe" => true,
        _ => false,
    }
}

/// No policy is set, no chain emptied, nothing deleted by its position.
fn iptables(arguments: &[&str]) -> bool {
    let ["-t", _, command @ ("-A" | "-I" | "-D"), _, matches @ ..] = arguments else {
        return false;
    };
    let accepts = matches.ends_with(&["-j", "ACCEPT"]);
    matches.len() > 2 && matches.contains(&"-j") && (accepts || *command == "-D")
}

fn nft(arguments: &[&str]) -> bool {
    match arguments {
        ["delete", "rule", _, _, _, "handle", handle] => handle.parse::<u64>().is_ok(),
        ["add" | "insert", "rule", _, _, _, matches @ .., "accept"] => !matches.is_empty(),
        _ => false,
    }
}

fn ip(arguments: &[&str]) -> bool {
    let arguments = match arguments {
        ["-6", rest @ ..] => rest,
        all => all,
    };
    match arguments {
        ["link", "set", _, "up" | "down"] | ["link", "delete", _] | ["-br", "addr"] => true,
        ["link", "set", _, "mtu", mtu] => mtu.parse::<u32>().is_ok(),
        ["-d", "link", "show", "type", "vxlan"]
        | ["-d", "link", "show", _]
        | ["-d", "link", "show", "dev", _]
        | ["rule", "show"]
        | ["neigh", "show", _]
        | ["route", "show", "table", _]
        | ["route", "show", "table", "all", "type", _]
        | ["route", "get", _] => true,
        ["addr" | "route", "del", _, "dev", _] => true,
        [
            "route",
            "del",
            "blackhole" | "unreachable" | "prohibit",
            host,
            rest @ ..,
        ]
        | ["route", "del", host, rest @ ..] => is_host(host) && has_options(rest),
        ["route", "add" | "replace", _, rest @ ..] | ["neigh", "add" | "replace" | "del", _, rest @ ..] => {
            rest.contains(&"dev")
        }
        _ => false,
    }
}

/// Whether a prefix is of one address.
fn is_host(prefix: &str) -> bool {
    prefix
        .parse::<ipnet::IpNet>()
        .is_ok_and(|prefix| prefix.prefix_len() == prefix.max_prefix_len())
}

/// Whether these words are pairs of an option of a route and its value.
fn has_options(words: &[&str]) -> bool {
    words
        .chunks(2)
        .all(|pair| matches!(pair, ["via" | "dev" | "table", _]))
}

fn kubectl(arguments: &[&str]) -> bool {
    let arguments = match arguments {
        ["-n", _, rest @ ..] => rest,
        all => all,
    };
    match arguments {
        ["get", _, ..] | ["logs", "-l", _] | ["logs", "-l", _, "--tail", _] => true,
        ["delete", "pod", name] => !name.starts_with('-'),
        ["delete", "pod", "-l", _, "--field-selector", _] => true,
        ["rollout", "restart", "deployment", _] => true,
        _ => false,
    }
}
