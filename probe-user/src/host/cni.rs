//! CNI configurations in `/etc/cni/net.d`.

use ipnet::IpNet;
use serde::Deserialize;

use crate::model::host::{CniNetwork, CniPlugin};

/// The default directories of runtimes.
pub const DIRECTORY: &str = "/etc/cni/net.d";
/// The bridge plugin's, and flannel's, where the file names none.
pub const BRIDGE: &str = "cni0";
/// More plugins, or ranges, than anybody chains.
const MOST: usize = 64;

/// Whether a runtime takes a file of that name.
pub fn is_one(name: &str) -> bool {
    [".conflist", ".conf", ".json"]
        .iter()
        .any(|ending| name.ends_with(ending))
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct File {
    name: Option<String>,
    plugins: Option<Vec<Plugin>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Plugin {
    name: Option<String>,
    r#type: Option<String>,
    bridge: Option<String>,
    force_address: Option<bool>,
    mtu: Option<u32>,
    ipam: Option<Ipam>,
    /// What flannel's plugin hands on.
    delegate: Option<Box<Plugin>>,
    subnet_file: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Ipam {
    r#type: Option<String>,
    subnet: Option<String>,
    ranges: Option<Vec<Vec<Range>>>,
    data_dir: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Range {
    subnet: Option<String>,
}

/// A configuration's text.
///
/// # Errors
/// What is wrong with it, in words.
pub fn parse(text: &str) -> Result<CniNetwork, String> {
    let file: File =
        serde_json::from_str(text).map_err(|error| format!("not a CNI configuration: {error}"))?;
    let (name, plugins) = match file.plugins {
        Some(plugins) => (file.name, plugins),
        None => {
            let plugin: Plugin = serde_json::from_str(text).map_err(|error| error.to_string())?;
            (plugin.name.clone(), vec![plugin])
        }
    };
    let plugins: Vec<_> = plugins.into_iter().take(MOST).filter_map(taken).collect();
    if plugins.is_empty() {
        return Err("it has no plugin with a type".to_owned());
    }
    Ok(CniNetwork {
        name: name.unwrap_or_default(),
        plugins,
    })
}

fn taken(plugin: Plugin) -> Option<CniPlugin> {
    let kind = plugin.r#type?;
    let subnet_file = plugin.subnet_file;
    let (inner, ipam) = match kind.as_str() {
        "flannel" => {
            let inner = *plugin.delegate.unwrap_or_default();
            let ipam = plugin.ipam.or(inner.ipam).unwrap_or_else(|| Ipam {
                r#type: Some("host-local".to_owned()),
                ..Ipam::default()
            });
            let kind = inner.r#type.unwrap_or_else(|| "bridge".to_owned());
            let inner = Inner {
                bridge: bridge_of(&kind, inner.bridge),
                force_address: inner.force_address,
                mtu: inner.mtu,
            };
            (inner, Some(ipam))
        }
        kind => {
            let inner = Inner {
                bridge: bridge_of(kind, plugin.bridge),
                force_address: plugin.force_address,
                mtu: plugin.mtu,
            };
            (inner, plugin.ipam)
        }
    };
    let ipam = ipam.unwrap_or_default();
    let ranges = ipam.ranges.into_iter().flatten().flatten();
    let ranges = ranges
        .filter_map(|range| range.subnet)
        .chain(ipam.subnet)
        .filter_map(|subnet| subnet.parse::<IpNet>().ok())
        .take(MOST)
        .collect();
    Some(CniPlugin {
        kind,
        bridge: inner.bridge,
        force_address: inner.force_address.unwrap_or(false),
        mtu: inner.mtu,
        ipam: ipam.r#type,
        ranges,
        data_dir: ipam.data_dir,
        subnet_file,
    })
}

struct Inner {
    bridge: Option<String>,
    force_address: Option<bool>,
    mtu: Option<u32>,
}

fn bridge_of(kind: &str, named: Option<String>) -> Option<String> {
    (kind == "bridge").then(|| named.unwrap_or_else(|| BRIDGE.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flannel() {
        let network = parse(
            r#"{"name":"cbr0","cniVersion":"0.3.1","plugins":[{"type":"flannel","delegate":{"hairpinMode":true,"isDefaultGateway":true}},
            {"type":"portmap","capabilities":{"portMappings":true}}]}"#,
        )
        .unwrap();
        assert_eq!(network.name, "cbr0");
        let main = network.main().unwrap();
        assert_eq!(
            (main.kind.as_str(), main.bridge.as_deref()),
            ("flannel", Some("cni0"))
        );
        assert_eq!(main.ipam.as_deref(), Some("host-local"));
        assert_eq!(network.plugins[1].bridge, None);
    }

    #[test]
    fn bridges() {
        let list = r#"{"name":"k8s","plugins":[{"type":"bridge","bridge":"br7","forceAddress":true,"mtu":1450,
            "ipam":{"type":"host-local","dataDir":"/x","ranges":[[{"subnet":"10.244.1.0/24"}],[{"subnet":"fd00::/64"}]]}}]}"#;
        let main = parse(list).unwrap().plugins.remove(0);
        assert_eq!(main.bridge.as_deref(), Some("br7"));
        assert!(main.force_address);
        assert_eq!(main.ranges.len(), 2);
        assert_eq!(main.data_dir.as_deref(), Some("/x"));
        let single =
            parse(r#"{"name":"a","type":"bridge","ipam":{"type":"host-local","subnet":"10.9.0.0/24"}}"#)
                .unwrap();
        assert_eq!(single.name, "a");
        assert_eq!(single.main().unwrap().ranges, ["10.9.0.0/24".parse().unwrap()]);
        assert_eq!(
            parse(r#"{"type":"cilium-cni"}"#).unwrap().main().unwrap().bridge,
            None
        );
    }

    #[test]
    fn what_is_none() {
        for text in [
            "",
            "{}",
            "[]",
            r#"{"plugins":[]}"#,
            r#"{"plugins":[{}]}"#,
            r#"{"type":7}"#,
            "{\"type\":",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
