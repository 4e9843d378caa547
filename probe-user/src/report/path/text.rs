//! For people: one block an exchange.

use super::{
    super::{clock::Clock, escape, style, text},
    Told,
    rows::{self, Row, Widths},
    side_by_side::SideBySide,
};
use crate::model::path::{
    Conclusion, Exchange, Hop, Journey, JourneyEnd, Outcome, Packet, Places, event::Direction, time,
};

/// The longest text shown; JSON has all of it.
const LONGEST: usize = 2000;
/// Words are wrapped no narrower.
const LEAST: usize = 30;

/// How it is written.
#[derive(Clone, Copy)]
pub struct Style {
    pub colour: bool,
    /// Everything known, and nothing wrapped.
    pub wide: bool,
    /// Request and reply side by side where there is room.
    pub beside: bool,
    pub width: usize,
}

/// A part of a block.
enum Part {
    /// A packet whose hops follow.
    Headline(String),
    Hop(Row),
    /// Those of the request and of its reply.
    SideBySide(SideBySide),
    /// All of a packet, or a remark.
    Line(String),
}

/// Appends a block.
pub fn push(out: &mut Vec<u8>, look: Style, clock: &mut Clock, told: &Told<'_>) {
    let exchange = told.exchange;
    let Some(first) = exchange.request().or_else(|| exchange.journeys.first()) else {
        return;
    };
    let parts = parts(told, first, look);
    let widths = Widths::of(parts.iter().filter_map(|part| match part {
        Part::Hop(row) => Some(row),
        Part::Headline(_) | Part::SideBySide(_) | Part::Line(_) => None,
    }));
    style::styled(out, look.colour, style::TIME, |out| {
        clock.local(out, told.time, true)
    });
    text::spaces(out, 2);
    style::styled(out, look.colour, style::HEADER, |out| say(out, &headline(first)));
    out.push(b'\n');
    for part in &parts {
        match part {
            Part::Headline(words) => {
                text::spaces(out, 2);
                style::styled(out, look.colour, style::HEADER, |out| say(out, words));
                out.push(b'\n');
            }
            Part::Hop(row) => rows::push(out, look, widths, row),
            Part::SideBySide(both) => both.push(out, look),
            Part::Line(words) => indented(out, look, 2, 4, words, anstyle::Style::new()),
        }
    }
    conclusion(out, look, &exchange.conclusion(told.places));
}

/// All but the first headline.
fn parts(told: &Told<'_>, first: &Journey, look: Style) -> Vec<Part> {
    let exchange = told.exchange;
    let wide = look.wide;
    let start = exchange.journeys.first().map_or(0, Journey::start_ns);
    let headed = |journey: &Journey| {
        let since = journey.start_ns().saturating_sub(start);
        format!("{} (+{})", headline(journey), time(since))
    };
    let mut in_full = vec![first];
    let mut parts = Vec::new();
    let both = look.beside.then(|| both(told, look)).flatten();
    match both {
        Some((reply, both)) => {
            in_full.push(reply);
            parts.push(Part::Headline(headed(reply)));
            parts.push(Part::SideBySide(both));
            parts.extend([first, reply].into_iter().filter_map(left_out));
        }
        None => parts.extend(hops(first, told.places, wide)),
    }
    for journey in &exchange.journeys {
        if in_full.iter().any(|told| std::ptr::eq(*told, journey)) {
            continue;
        }
        let words = headed(journey);
        let as_before = in_full.iter().any(|told| is_dropped_alike(told, journey));
        if wide || is_told_in_full(exchange, journey) && !as_before {
            in_full.push(journey);
            parts.push(Part::Headline(words));
            parts.extend(hops(journey, told.places, wide));
        } else {
            let as_before = if as_before { ", as before" } else { "" };
            parts.push(Part::Line(format!(
                "{words}: {}{as_before}",
                ending(journey, told.places)
            )));
        }
    }
    if exchange.left_out > 0 {
        parts.push(Part::Line(format!(
            "… and {} points of packets beyond these",
            exchange.left_out
        )));
    }
    parts
}

fn hops(journey: &Journey, places: Places<'_>, wide: bool) -> Vec<Part> {
    let rows = rows::of(journey, places, wide).into_iter();
    rows.map(Part::Hop).chain(left_out(journey)).collect()
}

/// That more is known of a packet: its loop, or points beyond those kept.
fn left_out(journey: &Journey) -> Option<Part> {
    let more = (journey.left_out > 0).then(|| format!("… and {} more points of it", journey.left_out));
    let rounds = journey.rounds.map(|rounds| {
        let first = journey
            .hops
            .get(rounds.first)
            .map(Hop::device)
            .unwrap_or_default();
        let (points, times) = (rounds.points, rounds.times);
        safe(&format!(
            "… a loop: it passed these {points} points from {first} on {times} times"
        ))
    });
    let words: Vec<_> = rounds.into_iter().chain(more).collect();
    (!words.is_empty()).then(|| Part::Line(words.join("; ")))
}

/// The request and its reply side by side, where there are both and there is room.
fn both<'a>(told: &Told<'a>, look: Style) -> Option<(&'a Journey, SideBySide)> {
    let (request, reply) = (told.exchange.request()?, told.exchange.reply()?);
    let rows = |journey| rows::of(journey, told.places, look.wide);
    Some((reply, SideBySide::of(look.width, rows(request), rows(reply))?))
}

fn is_told_in_full(exchange: &Exchange, journey: &Journey) -> bool {
    let is_reply = exchange.reply().is_some_and(|reply| std::ptr::eq(reply, journey));
    is_reply || journey.packet().is_some_and(|packet| packet.about) || journey.fault().is_some()
}

/// Whether both were dropped in the same place for the same reason: what is sent again often is.
fn is_dropped_alike(one: &Journey, other: &Journey) -> bool {
    let drop = |journey: &Journey| {
        let hop = journey.hops.get(journey.fault()?)?;
        Some((hop.event.netns, hop.event.what.clone(), hop.rule.clone()))
    };
    let dropped = drop(one);
    one.direction == other.direction && dropped.is_some() && dropped == drop(other)
}

/// `reply SYN-ACK 10.96.7.7:443 → 10.244.1.5:41234`
fn headline(journey: &Journey) -> String {
    let Some(packet) = journey.packet() else {
        return String::new();
    };
    let reply = if journey.direction == Direction::Reply && !packet.about {
        "reply "
    } else {
        ""
    };
    let again = if journey.again { " sent again" } else { "" };
    safe(&format!("{reply}{}{again} {}", packet.title(), ends(packet)))
}

/// From whom to whom; ICMP has no ports.
fn ends(packet: &Packet) -> String {
    let (source, destination) = packet.ends();
    match (packet.icmp, packet.sequence) {
        (Some(_), Some(sequence)) => format!(
            "{} → {} (identifier {}, sequence {sequence})",
            source.ip(),
            destination.ip(),
            source.port().max(destination.port()),
        ),
        (Some(_), None) => format!("{} → {}", source.ip(), destination.ip()),
        (None, _) if source.port() == 0 && destination.port() == 0 => {
            format!("{} → {}", source.ip(), destination.ip())
        }
        (None, _) => format!("{source} → {destination}"),
    }
}

/// How a packet ended, where, and after how long.
fn ending(journey: &Journey, places: Places<'_>) -> String {
    let end = journey.end();
    let Some(hop) = journey.hops.get(end.hop()) else {
        return String::new();
    };
    let place = places(hop.event.netns);
    let device = |word: &str| match hop.device() {
        "" => String::new(),
        device => format!(" {word} {device}"),
    };
    let words = match end {
        JourneyEnd::Delivered(_) => format!("delivered in {place}"),
        JourneyEnd::Dropped(at) => {
            let words = journey.words(at);
            format!("{words}, in {place}{}", device("at"))
        }
        JourneyEnd::Left(_) => format!("left {place}{}", device("by")),
        JourneyEnd::Arrived(_) => format!("reached {place}"),
    };
    safe(&format!("{words} after {}", time(journey.after_ns(end.hop()))))
}

fn conclusion(out: &mut Vec<u8>, look: Style, conclusion: &Conclusion) {
    let style = match conclusion.outcome {
        Outcome::Delivered => style::GOOD,
        Outcome::NoRequest => style::DOUBT,
        Outcome::Refused
        | Outcome::Dropped
        | Outcome::Untranslated
        | Outcome::Unreachable
        | Outcome::Unanswered => style::FAULT,
    };
    let words = format!("→ {}", safe(&conclusion.text));
    indented(out, look, 2, 4, &words, style.bold());
    for fix in &conclusion.fixes {
        // In one line, and never cut: it is to be copied.
        text::spaces(out, 4);
        text::ascii(out, "do: ");
        say(out, &fix.to_string());
        out.push(b'\n');
    }
}

/// Appends words that are safe, the first line indented by `first`, others by `rest`.
fn indented(out: &mut Vec<u8>, look: Style, first: usize, rest: usize, words: &str, style: anstyle::Style) {
    for (line, words) in wrapped(words, look.width, rest).enumerate() {
        text::spaces(out, if line == 0 { first } else { rest });
        style::styled(out, look.colour, style, |out| say(out, &words));
        out.push(b'\n');
    }
}

/// Lines of words, with room for an indent. Commands and names are not broken at their hyphens.
pub fn wrapped(words: &str, width: usize, indent: usize) -> impl Iterator<Item = String> {
    let options = textwrap::Options::new(width.saturating_sub(indent).max(LEAST))
        .word_splitter(textwrap::WordSplitter::NoHyphenation);
    let lines = textwrap::wrap(words, options);
    lines
        .into_iter()
        .map(std::borrow::Cow::into_owned)
        .collect::<Vec<_>>()
        .into_iter()
}

/// Appends words; what a terminal would obey never gets past here.
pub fn say(out: &mut Vec<u8>, words: &str) -> usize {
    escape::push(out, words, usize::MAX)
}

/// Words from outside, fit for a terminal, and cut.
pub fn safe(words: &str) -> String {
    escape::text(words, LONGEST)
}
