//! `-o wide`: one line a record with everything that is known, each thing named.

use super::{
    clock::Clock,
    escape, style, text, tls,
    who::{self, Detail},
};
use crate::model::{Connection, Owner, Role};

/// Columns for a command line: 256 bytes from the kernel, more from /proc.
const COMMAND: usize = 512;
/// Columns for a cause.
const CAUSE: usize = 600;
/// Columns for what TLS says: server names and protocols are 255 bytes at most.
const TLS: usize = 800;
/// Columns for a node's name: Kubernetes allows no more.
const NODE: usize = 253;
/// Columns for a path.
const PATH: usize = 256;
/// Of a container id, as in the table.
const CONTAINER: usize = 12;

/// `node`: of which node it is, where records of several are shown.
pub fn line(out: &mut Vec<u8>, clock: &mut Clock, colour: bool, node: Option<&str>, connection: &Connection) {
    style::styled(out, colour, style::TIME, |out| {
        clock.local(out, connection.time, true)
    });
    gap(out);
    let width = style::outcome(out, colour, connection.outcome);
    text::spaces(out, 15_usize.saturating_sub(width));
    gap(out);
    who(out, connection);
    gap(out);
    text::end(out, connection.source);
    if let Some(seen_as) = connection.seen_as {
        text::ascii(out, " seen as ");
        text::end(out, seen_as);
    }
    who::arrow(out);
    if let Some(dialled) = connection.dialled {
        text::end(out, dialled);
        text::ascii(out, " which is ");
    }
    text::end(out, connection.destination);
    gap(out);
    if let Some(payload) = connection.payload {
        text::bytes(out, payload.sent);
        out.extend_from_slice(" ↑ ".as_bytes());
        text::bytes(out, payload.received);
        out.extend_from_slice(" ↓  ".as_bytes());
    }
    text::duration(out, connection.duration);
    if let Some(cadence) = connection.cadence.filter(|cadence| cadence.count > 1) {
        text::ascii(out, if cadence.every.is_some() { "  every " } else { "  " });
        text::cadence(out, &cadence, true);
        if let Some(each) = cadence.per_interval {
            text::ascii(out, " (");
            text::decimal(out, each.into());
            text::ascii(out, " each)");
        }
        if let Some(also) = cadence.also {
            text::ascii(out, " and ");
            text::every(out, also, None);
        }
    }
    text::ascii(out, "  seen by ");
    text::ascii(out, connection.role.name());
    if let Some(node) = node {
        text::ascii(out, " on ");
        escape::push(out, node, NODE);
    }
    if connection.netns != 0 {
        text::ascii(out, " in netns ");
        text::decimal(out, connection.netns.into());
    }
    let sides = match connection.role {
        Role::Client => [("client", connection.actor()), ("server", connection.server())],
        Role::Server => [("server", connection.server()), ("client", connection.actor())],
    };
    for (name, owner) in sides {
        if let Some(owner) = owner {
            gap(out);
            text::ascii(out, name);
            text::ascii(out, ":");
            details(out, owner);
        }
    }
    if let Some(said) = &connection.tls {
        text::ascii(out, "  tls: ");
        escape::push(out, &tls::text(said), TLS);
    }
    if let Some(cause) = &connection.cause {
        text::ascii(out, "  cause: ");
        escape::push(out, &cause.what, CAUSE);
    }
    out.push(b'\n');
}

/// As in the table, in its longest form; the dialled address is shown if the client runs on this node.
fn who(out: &mut Vec<u8>, connection: &Connection) {
    match connection.actor() {
        Some(actor) => who::owner(out, actor, Detail::Spelled),
        None => text::ascii(out, "?"),
    };
    if let Some(server) = connection.server() {
        who::arrow(out);
        who::owner(out, server, Detail::Spelled);
    }
}

fn details(out: &mut Vec<u8>, owner: &Owner) {
    if let Some(uid) = owner.process.as_ref().and_then(|process| process.uid) {
        text::ascii(out, " uid ");
        text::decimal(out, uid.into());
    }
    if let Some(container) = &owner.container {
        text::ascii(out, " ");
        text::ascii(
            out,
            container.runtime.map_or("container", |runtime| runtime.name()),
        );
        text::ascii(out, " ");
        escape::push(out, who::start_of(&container.id, CONTAINER), CONTAINER);
    }
    if let Some(pod) = &owner.pod {
        text::ascii(out, " pod");
        if let Some(qos) = pod.qos {
            text::ascii(out, " ");
            text::ascii(out, qos.name());
        }
        text::ascii(out, " ");
        escape::push(out, &pod.uid, PATH);
    }
    let Some(process) = &owner.process else {
        return;
    };
    if let Some(executable) = &process.executable {
        text::ascii(out, " exe ");
        escape::push(out, executable, PATH);
    }
    if !process.command.is_empty() {
        text::ascii(out, " cmd ");
        let mut room = COMMAND;
        for (index, argument) in process.command.iter().enumerate() {
            if index > 0 {
                room -= text::ascii(out, " ").min(room);
            }
            room -= quoted(out, argument, room).min(room);
            if room < 4 {
                break;
            }
        }
        if process.command_cut {
            out.extend_from_slice(" …".as_bytes());
        }
    }
}

/// An argument, in quotes where a space would make two of it.
fn quoted(out: &mut Vec<u8>, argument: &str, room: usize) -> usize {
    if !argument.is_empty() && !argument.contains([' ', '\'', '"']) {
        return escape::push(out, argument, room);
    }
    let quote = if argument.contains('\'') { "\"" } else { "'" };
    text::ascii(out, quote) + escape::push(out, argument, room) + text::ascii(out, quote)
}

fn gap(out: &mut Vec<u8>) {
    text::ascii(out, "  ");
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;
    use crate::report::samples;

    fn shown(connection: &Connection) -> String {
        let mut out = Vec::new();
        line(&mut out, &mut Clock::new(TimeZone::UTC), false, None, connection);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn everything_known_is_named() {
        assert_eq!(
            shown(&samples::incident()),
            "09:10:14.145  half-open        monitoring/sdp-monitor-z8989 (python3.11 pid 4242)  10.244.2.2:41234 → \
             192.168.88.11:2379  0 B ↑ 0 B ↓  0.4 ms  every 5.0 s ×12  seen by client in netns 4026532401  client: \
             uid 0 containerd 4f5e6d7c8b9a pod BestEffort 0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9 exe /usr/bin/python3.11 \
             cmd python3.11 /app/monitor.py --target 'etcd 1'\n"
        );
    }

    #[test]
    fn of_which_node() {
        let mut out = Vec::new();
        let (mut clock, node) = (Clock::new(TimeZone::UTC), Some("be\x1bta"));
        line(&mut out, &mut clock, false, node, &samples::incident());
        let shown = String::from_utf8(out).unwrap();
        assert!(
            shown.contains("  seen by client on be\\x1bta in netns 4026532401  "),
            "{shown}"
        );
    }

    #[test]
    fn what_tls_says() {
        let mut connection = samples::incident();
        connection.tls = samples::tls().into_iter().nth(5).map(Box::new);
        let line = shown(&connection);
        assert!(
            line.ends_with("  tls: client sends HTTP, no TLS, server sends no TLS\n"),
            "{line}"
        );
    }

    #[test]
    fn why_it_failed() {
        let line = shown(&samples::failed());
        assert!(
            line.ends_with("  cause: packets left untranslated: exempted by \\x1b[2Jrule 1\n"),
            "{line}"
        );
    }

    #[test]
    fn nothing_known_is_nothing_said() {
        let mut connection = samples::incident();
        connection.owner = std::sync::Arc::default();
        connection.payload = None;
        connection.cadence = None;
        connection.netns = 0;
        assert_eq!(
            shown(&connection),
            "09:10:14.145  half-open        ?  10.244.2.2:41234 → 192.168.88.11:2379  0.4 ms  seen by client\n"
        );
    }

    #[test]
    fn both_ends_of_a_local_connection() {
        let line = shown(&samples::both_ends());
        assert!(
            line.contains("  monitoring/sdp-monitor-z8989 (python3.11 pid 4242) → etcd (pid 812)  "),
            "{line}"
        );
        assert!(
            line.contains("seen by server in netns 4026531840  server: uid 0 exe"),
            "{line}"
        );
        assert!(line.contains("  client: uid 0 containerd"), "{line}");
    }

    #[test]
    fn a_command_line_is_bounded_and_escaped() {
        let mut connection = samples::incident();
        let mut owner = (*connection.owner).clone();
        let arguments = vec!["\x1b[2J".to_owned(), "x y".repeat(10_000), "z".to_owned()];
        owner.process.as_mut().unwrap().command =
            crate::model::CommandLine::new(arguments, crate::model::Secrets::Hidden);
        connection.owner = owner.into();
        let line = shown(&connection);
        assert!(line.contains("cmd \\x1b[2J 'x yx y"), "{line}");
        assert!(!line.contains('\x1b') && line.len() < 1200, "{}", line.len());
    }
}
