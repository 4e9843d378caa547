//! Names of kernel functions by address, out of /proc/kallsyms.

use std::{
    collections::{BTreeSet, HashMap},
    fs::File,
    io::{self, BufRead, BufReader},
    ops::ControlFlow,
};

const KALLSYMS: &str = "/proc/kallsyms";
/// Addresses remembered.
const KEPT: usize = 1024;

/// Names found so far.
#[derive(Debug, Default)]
pub struct Symbols {
    names: HashMap<u64, Option<String>>,
}

impl Symbols {
    /// Finds the functions of all these addresses in one reading, some 50 ms; those that are known cost nothing. Without
    /// CAP_SYSLOG the kernel shows no address, and none is found.
    pub fn find(&mut self, addresses: impl Iterator<Item = u64>) {
        let wanted: BTreeSet<u64> = addresses
            .filter(|address| *address != 0 && !self.names.contains_key(address))
            .take(KEPT)
            .collect();
        if wanted.is_empty() {
            return;
        }
        if self.names.len() + wanted.len() > KEPT {
            self.names.clear();
        }
        let found = File::open(KALLSYMS)
            .and_then(|file| nearest(BufReader::with_capacity(1 << 16, file), &wanted))
            .unwrap_or_default();
        for address in wanted {
            self.names.insert(address, found.get(&address).cloned());
        }
    }

    /// The function at an address that was looked for.
    pub fn name(&self, address: u64) -> Option<&str> {
        self.names.get(&address)?.as_deref()
    }
}

/// Whether the kernel itself has a symbol of this name, be it a function or not; its name shows also to who may not see its
/// address. Some 50 ms.
pub fn has(name: &str) -> bool {
    File::open(KALLSYMS)
        .and_then(|file| names(BufReader::with_capacity(1 << 16, file), name))
        .unwrap_or(false)
}

/// Calls `each` with every line, its end included, until it breaks off.
fn lines(mut list: impl BufRead, mut each: impl FnMut(&[u8]) -> ControlFlow<()>) -> io::Result<()> {
    let mut line = Vec::new();
    while {
        line.clear();
        list.read_until(b'\n', &mut line)? > 0
    } {
        if each(&line).is_break() {
            break;
        }
    }
    Ok(())
}

/// The same with every function: its address, and its name.
fn each_function(list: impl BufRead, mut each: impl FnMut(u64, &str)) -> io::Result<()> {
    lines(list, |line| {
        if let Some((start, name)) = function(line) {
            each(start, name);
        }
        ControlFlow::Continue(())
    })
}

fn names(list: impl BufRead, name: &str) -> io::Result<bool> {
    let mut is_there = false;
    lines(list, |line| {
        let mut words = line.split(u8::is_ascii_whitespace);
        is_there = words.nth(2) == Some(name.as_bytes());
        if is_there {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    Ok(is_there)
}

/// First byte, and the first behind it, of each of these functions, as far as addresses show. Some 50 ms.
pub fn functions(names: impl Iterator<Item = &'static str>) -> HashMap<&'static str, (u64, u64)> {
    let wanted: Vec<_> = names.collect();
    File::open(KALLSYMS)
        .and_then(|file| extents(BufReader::with_capacity(1 << 16, file), &wanted))
        .unwrap_or_default()
}

/// A function ends where the next symbol begins: the kernel's own are in order. One in a module, which are not, is left out unless its
/// end follows.
fn extents(list: impl BufRead, wanted: &[&'static str]) -> io::Result<HashMap<&'static str, (u64, u64)>> {
    let mut found = HashMap::new();
    let mut open: Option<(&'static str, u64)> = None;
    each_function(list, |address, name| {
        if let Some((known, start)) = open
            && address != start
        {
            if address > start {
                found.insert(known, (start, address));
            }
            open = None;
        }
        if let Some(known) = wanted.iter().find(|known| **known == name) {
            open = Some((known, address));
        }
    })?;
    Ok(found)
}

/// The last function that begins at or before each address. The list is in no order where modules are.
fn nearest(list: impl BufRead, wanted: &BTreeSet<u64>) -> io::Result<HashMap<u64, String>> {
    let mut found: HashMap<u64, (u64, String)> = HashMap::new();
    each_function(list, |start, name| {
        for address in wanted.range(start..) {
            match found.get_mut(address) {
                Some((best, _)) if *best > start => {}
                Some(best) => *best = (start, name.to_owned()),
                None => {
                    found.insert(*address, (start, name.to_owned()));
                }
            }
        }
    })?;
    let names = found.into_iter().map(|(address, (_, name))| (address, name));
    Ok(names.collect())
}

/// `ffffffff81c0b1d0 T nf_hook_slow`, and in a module `ffffffffc0a3b000 t vxlan_rcv [vxlan]`.
fn function(line: &[u8]) -> Option<(u64, &str)> {
    let mut words = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    let start = u64::from_str_radix(words.next()?, 16)
        .ok()
        .filter(|start| *start != 0)?;
    let kind = words.next()?;
    let name = words.next()?;
    matches!(kind, "t" | "T" | "w" | "W").then_some((start, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_by_name() {
        let list =
            "0000000000000000 d tasks_rcu_exit_srcu\n0000000000000000 t vxlan_rcv\t[vxlan]\nnonsense\n";
        for (name, is_there) in [
            ("tasks_rcu_exit_srcu", true),
            ("vxlan_rcv", true),
            ("tasks_rcu_exit", false),
            ("d", false),
        ] {
            assert_eq!(names(list.as_bytes(), name).unwrap(), is_there, "{name}");
        }
    }

    #[test]
    fn where_functions_begin_and_end() {
        let list = "0000000000000000 T hidden\n\
                    ffffffff81000100 t ip_rcv_core\n\
                    ffffffff81000100 t ip_rcv_alias\n\
                    ffffffff81000180 T tcp_v4_rcv\n\
                    nonsense\n\
                    ffffffff810001c0 T next\n\
                    ffffffffc0000000 t vxlan_rcv\t[vxlan]\n\
                    ffffffff81000200 T last\n";
        let wanted = ["hidden", "ip_rcv_core", "tcp_v4_rcv", "vxlan_rcv", "last"];
        let expected = HashMap::from([
            ("ip_rcv_core", (0xffff_ffff_8100_0100, 0xffff_ffff_8100_0180)),
            ("tcp_v4_rcv", (0xffff_ffff_8100_0180, 0xffff_ffff_8100_01c0)),
        ]);
        assert_eq!(extents(list.as_bytes(), &wanted).unwrap(), expected);
    }

    #[test]
    fn the_function_that_an_address_is_in() {
        let list = "0000000000000000 T hidden\n\
                    ffffffff81000000 T _text\n\
                    ffffffff81000100 t ip_rcv_core\n\
                    ffffffff81000180 D data\n\
                    nonsense\n\
                    ffffffffc0000000 t vxlan_rcv\t[vxlan]\n\
                    ffffffff81000200 T nf_hook_slow\n";
        let wanted = BTreeSet::from([
            0xffff_ffff_8100_0190,
            0xffff_ffff_8100_0200,
            0xffff_ffff_c000_0001,
            1,
        ]);
        let found = nearest(list.as_bytes(), &wanted).unwrap();
        let name = |address: u64| found.get(&address).map(String::as_str);
        assert_eq!(name(0xffff_ffff_8100_0190), Some("ip_rcv_core"));
        assert_eq!(name(0xffff_ffff_8100_0200), Some("nf_hook_slow"));
        assert_eq!(name(0xffff_ffff_c000_0001), Some("vxlan_rcv"));
        assert_eq!(name(1), None);
    }
}
