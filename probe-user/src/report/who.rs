//! Who is behind a connection, in as many words as there is room for.

use super::{escape, text};
use crate::model::{Owner, Process, Role};

/// How much is said of an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// `monitoring/sdp-monitor-z8989 (python3.11 pid 4242)`: one that needs no header.
    Spelled,
    /// `monitoring/sdp-monitor-z8989 (python3.11 4242)`
    Full,
    /// `monitoring/sdp-monitor-z8989`
    Named,
    /// `sdp-monitor-z8989`
    Short,
}

/// Columns for a process name: 15 bytes, some of which may need an escape.
const PROCESS: usize = 60;
/// The longest name of a pod, a namespace or a node in Kubernetes.
const POD: usize = 253;
/// As `crictl` and `docker` print container ids.
const CONTAINER: usize = 12;
/// Of a pod's uid, where its name is not known.
const UID: usize = 8;

/// Who did it, in at most `room` columns; returns those taken.
///
/// A record of the server's end also says whose process was dialled: `shop/cart-0 → etcd (812)`, or, with a
/// client of another node, `? → etcd (812)`. What does not fit even in its shortest form loses its middle.
pub fn push(
    out: &mut Vec<u8>,
    role: Role,
    actor: Option<&Owner>,
    server: Option<&Owner>,
    room: usize,
) -> usize {
    use Detail::{Full, Named, Short};
    let server = match role {
        Role::Client => None,
        Role::Server => server,
    };
    let forms: &[(Detail, Option<Detail>)] = match (actor, server) {
        (None, None) => return text::ascii(out, "?"),
        (Some(_), None) => &[(Full, None), (Named, None), (Short, None)],
        (None, Some(_)) => &[(Full, Some(Full)), (Full, Some(Named)), (Full, Some(Short))],
        (Some(_), Some(_)) => &[
            (Full, Some(Full)),
            (Full, Some(Short)),
            (Named, Some(Short)),
            (Named, None),
            (Short, Some(Short)),
            (Short, None),
        ],
    };
    let start = out.len();
    for (of_actor, of_server) in forms {
        out.truncate(start);
        let mut width = match actor {
            Some(actor) => owner(out, actor, *of_actor),
            None => text::ascii(out, "?"),
        };
        if let (Some(server), Some(detail)) = (server, of_server) {
            width += arrow(out) + owner(out, server, *detail);
        }
        if width <= room {
            return width;
        }
    }
    cut_middle(out, start, room)
}

pub fn arrow(out: &mut Vec<u8>) -> usize {
    out.extend_from_slice(" → ".as_bytes());
    3
}

/// One owner. Of a container without a pod, and of a process without either, this is the process.
pub fn owner(out: &mut Vec<u8>, owner: &Owner, detail: Detail) -> usize {
    if let Some(node) = &owner.node {
        return text::ascii(out, "node ") + escape::push(out, &node.name, POD);
    }
    let process = owner.process.as_ref();
    if let Some(pod) = &owner.pod {
        let mut width = match &pod.name {
            Some(name) => {
                let namespace = match (&pod.namespace, detail) {
                    (None, _) | (Some(_), Detail::Short) => 0,
                    (Some(namespace), Detail::Spelled | Detail::Full | Detail::Named) => {
                        escape::push(out, namespace, POD) + text::ascii(out, "/")
                    }
                };
                namespace + escape::push(out, name, POD)
            }
            None => text::ascii(out, "pod ") + escape::push(out, start_of(&pod.uid, UID), UID),
        };
        if let (Some(process), Detail::Spelled | Detail::Full) = (process, detail) {
            width += text::ascii(out, " (") + name(out, process);
            width += text::ascii(out, if detail == Detail::Spelled { " pid " } else { " " });
            width += text::decimal(out, process.pid.into()) + text::ascii(out, ")");
        }
        return width;
    }
    let mut width = 0;
    if let Some(process) = process {
        width += name(out, process);
        if detail != Detail::Short {
            width += text::ascii(out, if detail == Detail::Spelled { " (pid " } else { " (" });
            width += text::decimal(out, process.pid.into()) + text::ascii(out, ")");
        }
    }
    if let Some(container) = &owner.container
        && (process.is_none() || matches!(detail, Detail::Spelled | Detail::Full))
    {
        width += text::ascii(out, if process.is_none() { "container " } else { " in " });
        width += escape::push(out, start_of(&container.id, CONTAINER), CONTAINER);
    }
    if width == 0 { text::ascii(out, "?") } else { width }
}

fn name(out: &mut Vec<u8>, process: &Process) -> usize {
    if process.name.is_empty() {
        text::ascii(out, "?")
    } else {
        escape::push(out, &process.name, PROCESS)
    }
}

pub fn start_of(text: &str, characters: usize) -> &str {
    text.get(..characters).unwrap_or(text)
}

/// Cuts what stands in `out` from `start` on to `room` columns, an ellipsis in its middle: both the name a
/// person gave and the random suffix that distinguishes replicas stay.
fn cut_middle(out: &mut Vec<u8>, start: usize, room: usize) -> usize {
    use unicode_width::UnicodeWidthChar as _;

    let full = String::from_utf8_lossy(out.get(start..).unwrap_or_default()).into_owned();
    out.truncate(start);
    let tail = room.saturating_sub(1) / 2;
    let head = room.saturating_sub(1) - tail;
    let mut width = 0;
    for character in full.chars() {
        let columns = character.width().unwrap_or(0);
        if width + columns > head {
            break;
        }
        out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        width += columns;
    }
    let (mut from, mut end) = (full.len(), 0);
    for (index, character) in full.char_indices().rev() {
        let columns = character.width().unwrap_or(0);
        if end + columns > tail {
            break;
        }
        (from, end) = (index, end + columns);
    }
    out.extend_from_slice("…".as_bytes());
    out.extend_from_slice(full.get(from..).unwrap_or_default().as_bytes());
    width + 1 + end
}

#[cfg(test)]
mod tests {
    use unicode_width::UnicodeWidthStr;

    use super::*;
    use crate::report::samples::{container, host, pod, unnamed_pod};

    fn who(role: Role, actor: Option<&Owner>, server: Option<&Owner>, room: usize) -> String {
        let mut out = b">".to_vec();
        let width = push(&mut out, role, actor, server, room);
        let out = String::from_utf8(out).unwrap();
        assert_eq!(out[1..].width(), width);
        assert!(width <= room, "{out} in {room}");
        out[1..].to_owned()
    }

    #[test]
    fn forms_by_room() {
        let monitor = pod("monitoring", "sdp-monitor-z8989", "python3.11", 4242);
        let etcd = host("etcd", 812);
        let etcd_pod = pod("kube-system", "etcd-node1", "etcd", 812);
        let docker = container("nc", 77);
        let unnamed = unnamed_pod("curl", 9);
        let hostile = host("\x1b[2J\u{202e}evil", 1);
        let (client, server) = (Role::Client, Role::Server);
        let table = [
            (client, None, None, 12, "?"),
            (
                client,
                Some(&monitor),
                None,
                46,
                "monitoring/sdp-monitor-z8989 (python3.11 4242)",
            ),
            (client, Some(&monitor), None, 45, "monitoring/sdp-monitor-z8989"),
            (client, Some(&monitor), None, 27, "sdp-monitor-z8989"),
            (client, Some(&monitor), None, 16, "sdp-moni…r-z8989"),
            (
                client,
                Some(&monitor),
                Some(&etcd),
                60,
                "monitoring/sdp-monitor-z8989 (python3.11 4242)",
            ),
            (client, Some(&docker), None, 40, "nc (77) in 4f5e6d7c8b9a"),
            (client, Some(&docker), None, 20, "nc (77)"),
            (client, Some(&unnamed), None, 40, "pod 0a1b2c3d (curl 9)"),
            (client, Some(&unnamed), None, 20, "pod 0a1b2c3d"),
            (client, Some(&hostile), None, 40, "\\x1b[2J\\u{202e}evil (1)"),
            (server, None, Some(&etcd), 20, "? → etcd (812)"),
            (
                server,
                None,
                Some(&etcd_pod),
                40,
                "? → kube-system/etcd-node1 (etcd 812)",
            ),
            (server, None, Some(&etcd_pod), 30, "? → kube-system/etcd-node1"),
            (server, None, Some(&etcd_pod), 18, "? → etcd-node1"),
            (server, None, Some(&etcd_pod), 12, "? → et…node1"),
            (server, None, None, 12, "?"),
            (
                server,
                Some(&monitor),
                Some(&etcd),
                60,
                "monitoring/sdp-monitor-z8989 (python3.11 4242) → etcd (812)",
            ),
            (
                server,
                Some(&monitor),
                Some(&etcd),
                55,
                "monitoring/sdp-monitor-z8989 (python3.11 4242) → etcd",
            ),
            (
                server,
                Some(&monitor),
                Some(&etcd),
                40,
                "monitoring/sdp-monitor-z8989 → etcd",
            ),
            (
                server,
                Some(&monitor),
                Some(&etcd),
                30,
                "monitoring/sdp-monitor-z8989",
            ),
            (
                server,
                Some(&monitor),
                Some(&etcd),
                24,
                "sdp-monitor-z8989 → etcd",
            ),
            (server, Some(&monitor), Some(&etcd), 18, "sdp-monitor-z8989"),
            (server, Some(&monitor), None, 18, "sdp-monitor-z8989"),
        ];
        for (role, actor, dialled, room, expected) in table {
            assert_eq!(who(role, actor, dialled, room), expected, "{room}");
        }
    }

    #[test]
    fn whatever_the_room_it_fits() {
        let wide = pod("监控", "监控监控监控监控-x7k2p", "\u{202e}\u{202e}", 4242);
        for room in 1..80 {
            who(Role::Client, Some(&wide), None, room);
            who(Role::Server, Some(&wide), Some(&wide), room);
        }
    }
}
