//! UDP packets that came with a wrong checksum, and others that the network namespace counts.

use crate::host::proc_net::ProcNet;

/// `Udp: InCsumErrors`, IPv4 and IPv6 together; 0 where it can't be read.
pub fn udp() -> u64 {
    let v4 = ProcNet::own().text("snmp").unwrap_or_default();
    let v6 = ProcNet::own().text("snmp6").unwrap_or_default();
    of_snmp(&v4).unwrap_or(0) + of_snmp6(&v6).unwrap_or(0)
}

/// Packets whose sender is not behind the device that they came by (`rp_filter`); 0 where it can't be read.
pub fn reverse_path() -> u64 {
    let text = ProcNet::own().text("netstat").unwrap_or_default();
    counted(&text, "TcpExt:", "IPReversePathFilter").unwrap_or(0)
}

fn of_snmp(text: &str) -> Option<u64> {
    counted(text, "Udp:", "InCsumErrors")
}

/// Of a line of names, and one of numbers.
fn counted(text: &str, group: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(group));
    let (names, numbers) = (lines.next()?, lines.next()?);
    let at = names.split_whitespace().position(|found| found == name)?;
    numbers.split_whitespace().nth(at)?.parse().ok()
}

fn of_snmp6(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Udp6InCsumErrors"))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_in_proc() {
        let snmp = "Tcp: A B\nTcp: 1 2\nUdp: InDatagrams NoPorts InErrors InCsumErrors\nUdp: 10 2 3 4\n";
        assert_eq!(of_snmp(snmp), Some(4));
        assert_eq!(of_snmp("Udp: InDatagrams\nUdp: 1\n"), None);
        assert_eq!(of_snmp(""), None);
        assert_eq!(
            of_snmp6("Udp6InErrors 1\nUdp6InCsumErrors                5\n"),
            Some(5)
        );
        assert_eq!(of_snmp6(""), None);
    }
}
