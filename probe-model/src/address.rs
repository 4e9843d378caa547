//! An address and a port as JSON has them.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use serde::{Deserialize, Serialize, Serializer};

use crate::owner::Name;

/// An address without a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Address {
    /// The address.
    pub address: IpAddr,
}

/// As [`Address`].
pub(crate) fn alone<S: Serializer>(address: &IpAddr, serializer: S) -> Result<S::Ok, S::Error> {
    Address { address: *address }.serialize(serializer)
}

/// As [`AddressPort`].
pub(crate) fn with_port<S: Serializer>(end: &SocketAddr, serializer: S) -> Result<S::Ok, S::Error> {
    AddressPort::new(*end).serialize(serializer)
}

/// An endpoint, with the pod that has its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NamedEnd<'a> {
    /// The address.
    pub address: IpAddr,
    /// The port; of untracked packets on the server side alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The pod that has the address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<&'a str>,
    /// The pod's namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<&'a str>,
}

impl<'a> NamedEnd<'a> {
    /// `names`: of the addresses of pods.
    pub fn new(address: IpAddr, port: Option<u16>, names: &'a HashMap<IpAddr, Name>) -> Self {
        let name = names.get(&address);
        Self {
            address,
            port,
            pod: name.map(|name| name.pod.as_str()),
            namespace: name.map(|name| name.namespace.as_str()),
        }
    }
}

/// An address with its port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AddressPort {
    /// The address. IPv4 mapped into IPv6 is shown as IPv4.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The port; absent if none was chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

impl AddressPort {
    /// A client's port of 0, and with it an address of zeros, was never chosen.
    pub fn new(end: SocketAddr) -> Self {
        let port = Some(end.port()).filter(|port| *port != 0);
        Self {
            address: Some(end.ip()).filter(|ip| port.is_some() || !ip.is_unspecified()),
            port,
        }
    }

    /// Both as they are, also zeros: of a log or a question, which have what they have.
    pub const fn as_written(end: SocketAddr) -> Self {
        Self {
            address: Some(end.ip()),
            port: Some(end.port()),
        }
    }

    /// Zeros for what was never chosen.
    pub fn socket(self) -> SocketAddr {
        let address = self.address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        SocketAddr::new(address, self.port.unwrap_or_default())
    }

    /// `None` if no address was chosen.
    pub fn known(self) -> Option<Self> {
        self.address.is_some().then_some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::AddressPort;

    #[test]
    fn zeros() {
        for (end, chosen, written) in [
            (
                "10.0.0.1:80",
                r#"{"address":"10.0.0.1","port":80}"#,
                r#"{"address":"10.0.0.1","port":80}"#,
            ),
            (
                "10.0.0.1:0",
                r#"{"address":"10.0.0.1"}"#,
                r#"{"address":"10.0.0.1","port":0}"#,
            ),
            ("0.0.0.0:0", "{}", r#"{"address":"0.0.0.0","port":0}"#),
        ] {
            let end = end.parse().unwrap();
            let json = |end: AddressPort| serde_json::to_string(&end).unwrap();
            assert_eq!(json(AddressPort::new(end)), chosen);
            assert_eq!(json(AddressPort::as_written(end)), written);
            assert_eq!(AddressPort::as_written(end).socket(), end);
        }
    }
}
