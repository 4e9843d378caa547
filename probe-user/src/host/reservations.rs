//! host-local's reservations, `/var/lib/cni/networks/NAME/ADDRESS`: the container's id, and its device on a second line.

use std::net::IpAddr;

use crate::model::host::Reservation;

/// Where they are kept, a directory a network, unless the configuration names another place.
pub const DIRECTORY: &str = "/var/lib/cni/networks";

/// One file's; `None` where its name is no address (`lock`, `last_reserved_ip.0`) or no container is in it.
pub fn parse(name: &str, text: &str) -> Option<Reservation> {
    // IPv6 addresses have _ for : on file systems that can't have it.
    let address: IpAddr = name.replace('_', ":").parse().ok()?;
    let mut lines = text.lines().map(str::trim);
    let container = lines.next().filter(|id| !id.is_empty())?.to_owned();
    let device = lines.next().filter(|name| !name.is_empty()).map(str::to_owned);
    Some(Reservation {
        address,
        container,
        device,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_host_local_writes_them() {
        let found = parse("10.244.1.5", "0a1b\r\neth0").unwrap();
        assert_eq!(found.address, IpAddr::from([10, 244, 1, 5]));
        assert_eq!(
            (found.container.as_str(), found.device.as_deref()),
            ("0a1b", Some("eth0"))
        );
        // Versions before 0.7 have no second line.
        assert_eq!(parse("10.244.1.5", "0a1b").unwrap().device, None);
        assert_eq!(
            parse("fd00__5", "0a1b").unwrap().address,
            "fd00::5".parse::<IpAddr>().unwrap()
        );
    }

    #[test]
    fn what_is_none() {
        for (name, text) in [
            ("lock", ""),
            ("last_reserved_ip.0", "10.244.1.5"),
            ("10.244.1.5", ""),
            ("10.244.1.5", "\r\neth0"),
            ("10.244.1", "0a1b"),
        ] {
            assert_eq!(parse(name, text), None, "{name}");
        }
    }
}
