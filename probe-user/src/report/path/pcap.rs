//! A capture for tcpdump and Wireshark: each hop of a packet is one frame, with what happened there as its comment.

use std::{
    borrow::Cow,
    collections::HashMap,
    io::{self, Write},
    time::Duration,
};

use jiff::Timestamp;
use pcap_file::{
    DataLink, Endianness, PcapError,
    pcapng::{
        PcapNgWriter,
        blocks::{
            enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption},
            interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption},
            section_header::{SectionHeaderBlock, SectionHeaderOption},
        },
    },
};

use super::{Told, text::safe};
use crate::model::path::{Hop, event::PathDevice};

/// Of Ethernet.
const HEADER: usize = 14;
/// Where the type is in it.
const TYPE: usize = 12;
/// Interfaces described at the most: pods come and go.
const INTERFACES: usize = 4096;
/// Times are in units of 10⁻⁹ seconds.
const NANOSECONDS: u8 = 9;

/// A device in a network namespace; `None`: the packet had none there.
type Interface = (u32, Option<PathDevice>);

/// Writes a capture as pcapng.
pub struct PcapWriter<W: Write> {
    writer: PcapNgWriter<W>,
    interfaces: HashMap<Interface, u32>,
    /// Of all that are beyond those.
    others: Option<u32>,
    described: u32,
}

impl<W: Write> PcapWriter<W> {
    /// `hardware` and `system` say where it was made.
    ///
    /// # Errors
    /// The output's.
    pub fn new(out: W, hardware: &str, system: &str) -> io::Result<Self> {
        let section = SectionHeaderBlock {
            endianness: Endianness::native(),
            options: vec![
                SectionHeaderOption::Hardware(Cow::Owned(safe(hardware))),
                SectionHeaderOption::OS(Cow::Owned(safe(system))),
                SectionHeaderOption::UserApplication(Cow::Borrowed(concat!(
                    "probe ",
                    env!("CARGO_PKG_VERSION")
                ))),
            ],
            ..SectionHeaderBlock::default()
        };
        Ok(Self {
            writer: PcapNgWriter::with_section_header(out, section).map_err(error)?,
            interfaces: HashMap::new(),
            others: None,
            described: 0,
        })
    }

    /// The frames of an exchange in the order of time. `time`: of day, by `CLOCK_MONOTONIC` nanoseconds.
    ///
    /// # Errors
    /// The output's.
    pub fn exchange(&mut self, told: &Told<'_>, time: impl Fn(u64) -> Timestamp) -> io::Result<()> {
        let mut frames = frames(told);
        frames.sort_by_key(|(hop, _)| hop.event.time_ns);
        for (hop, comment) in frames {
            let interface_id = self.interface(told, hop)?;
            let data = ethernet(hop);
            let packet = EnhancedPacketBlock {
                interface_id,
                timestamp: since_1970(time(hop.event.time_ns)),
                original_len: original(hop, data.len()),
                data: Cow::Owned(data),
                options: vec![EnhancedPacketOption::Comment(Cow::Owned(comment))],
            };
            self.writer.write_pcapng_block(packet).map_err(error)?;
        }
        self.writer.get_mut().flush()
    }

    /// Describes a device when it first appears.
    fn interface(&mut self, told: &Told<'_>, hop: &Hop) -> io::Result<u32> {
        let place = (hop.event.netns, hop.event.device.clone());
        if let Some(known) = self.interfaces.get(&place) {
            return Ok(*known);
        }
        if self.interfaces.len() >= INTERFACES {
            if let Some(others) = self.others {
                return Ok(others);
            }
            let others = self.describe("others".to_owned())?;
            self.others = Some(others);
            return Ok(others);
        }
        let name = format!("{} {}", (told.places)(hop.event.netns), hop.device());
        let id = self.describe(safe(name.trim()))?;
        self.interfaces.insert(place, id);
        Ok(id)
    }

    fn describe(&mut self, name: String) -> io::Result<u32> {
        let block = InterfaceDescriptionBlock {
            linktype: DataLink::ETHERNET,
            // No limit: frames say themselves how much of them is missing.
            snaplen: 0,
            options: vec![
                InterfaceDescriptionOption::IfName(Cow::Owned(name)),
                InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
            ],
        };
        self.writer.write_pcapng_block(block).map_err(error)?;
        let id = self.described;
        self.described += 1;
        Ok(id)
    }
}

/// Each hop of which there are bytes, and its comment.
fn frames<'a>(told: &Told<'a>) -> Vec<(&'a Hop, String)> {
    let exchange = told.exchange;
    let mut frames = Vec::new();
    for journey in &exchange.journeys {
        let is_request = exchange
            .request()
            .is_some_and(|request| std::ptr::eq(request, journey));
        let before = frames.len();
        for (at, hop) in journey.hops.iter().enumerate() {
            if !hop.event.bytes.is_empty() {
                frames.push((hop, safe(&journey.words(at))));
            }
        }
        if is_request
            && frames.len() > before
            && let Some((_, comment)) = frames.last_mut()
        {
            comment.push_str(" → ");
            comment.push_str(&safe(&exchange.conclusion(told.places).text));
        }
    }
    frames
}

/// Behind an Ethernet header without addresses, which tools want to see.
fn ethernet(hop: &Hop) -> Vec<u8> {
    let bytes = &hop.event.bytes;
    let v4 = match bytes.first().map(|byte| byte >> 4) {
        Some(4) => true,
        Some(6) => false,
        _ => hop.event.packet.source.is_ipv4(),
    };
    let mut frame = vec![0; TYPE];
    frame.extend_from_slice(if v4 { &[0x08, 0x00] } else { &[0x86, 0xdd] });
    frame.extend_from_slice(bytes);
    frame
}

/// The frame's length on the wire; `captured`: as much as there is of it. In a tunnel the outer header knows.
fn original(hop: &Hop, captured: usize) -> u32 {
    let word = |at: usize| {
        let bytes = hop.event.bytes.get(at..at + 2)?;
        Some(u32::from(u16::from_be_bytes(bytes.try_into().ok()?)))
    };
    let outer = match hop.event.bytes.first().map(|byte| byte >> 4) {
        Some(4) => word(2),
        Some(6) => word(4).map(|payload| payload + 40),
        _ => None,
    };
    let length = hop.event.packet.length.max(outer.unwrap_or(0));
    let header = HEADER as u32;
    length
        .saturating_add(header)
        .max(u32::try_from(captured).unwrap_or(u32::MAX))
}

fn since_1970(time: Timestamp) -> Duration {
    Duration::try_from(time.as_duration()).unwrap_or_default()
}

fn error(error: PcapError) -> io::Error {
    match error {
        PcapError::IoError(error) => error,
        other => io::Error::other(other),
    }
}
