//! `probe who`: who had an address, from recordings.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    net::SocketAddr,
    path::Path,
};

use anyhow::{Context, Result, bail};
use jiff::tz::TimeZone;

use super::{
    cluster::{
        Cluster,
        remembered::{self, Remembered},
    },
    quiet_if_closed, recordings,
};
use crate::{
    cli::Who as Settings,
    model::{Exit, addresses::addresses},
    report::{etcd_log::Report, say},
};

/// Addresses of one text.
const MOST: usize = 100_000;
/// A line longer than this is cut.
const LONGEST: u64 = 1 << 20;
/// Addresses that agents are asked for one by one: each is a question to every node.
const MOST_OF_AGENTS: usize = 64;

/// Prints the owners of each address, the nearest in time first.
///
/// # Errors
/// When a recording or the text can't be read, no agent be found or the answer not be written.
pub async fn run(settings: Settings) -> Result<Exit> {
    let asked = asked(&settings)?;
    if asked.is_empty() {
        say(format_args!("probe: the text has no address with a port"));
        return Ok(Exit::of_search(false, true));
    }
    let mut flows = recordings::flows(&settings.flows)?;
    let mut agents: Option<Remembered> = None;
    match settings.agents.clone() {
        None => recordings::any(&flows)?,
        Some(whom) => {
            if asked.len() > MOST_OF_AGENTS {
                bail!(
                    "{} addresses: agents are queried for at most {MOST_OF_AGENTS}. Record with probe watch \
                     --cluster --record FILE, and use --flows FILE",
                    asked.len()
                );
            }
            let cluster = Cluster::open(whom).await?;
            agents = Some(remembered::of_clients(&cluster, &asked, &mut flows).await?);
        }
    }
    let mut report = Report::new(settings.json, TimeZone::system()).of(&flows);
    let mut stdout = io::stdout().lock();
    let mut out = Vec::new();
    let is_one = asked.len() == 1;
    let mut found = 0;
    for address in &asked {
        let near = flows.near(*address, settings.at);
        found += usize::from(!near.is_empty());
        // Each identity once: the nearest of its connections.
        let mut told = HashSet::new();
        for near in near.iter().filter(|near| told.insert(near.who)) {
            report.who(&mut out, (!is_one).then_some(*address), *address, near)?;
        }
        if near.is_empty() && !is_one {
            report.nobody(&mut out, *address)?;
        }
        let written = stdout.write_all(&out);
        out.clear();
        if let Err(error) = written.context("can't write") {
            return quiet_if_closed(error).map(|()| Exit::of_search(true, true));
        }
    }
    let flushed = stdout.flush().context("can't write");
    flushed.or_else(quiet_if_closed)?;
    let complete = agents.as_ref().is_none_or(|agents| !agents.incomplete);
    if found == asked.len() {
        return Ok(Exit::of_search(true, true));
    }
    if let (true, Some(address)) = (is_one, asked.first()) {
        match &agents {
            None => say(format_args!("probe: {}", report.not_recorded(*address))),
            Some(_) => say(format_args!(
                "probe: no agent's history has a client with address {address}{}",
                report.missing()
            )),
        }
    }
    if let Some(agents) = agents {
        agents.tell_memories();
    }
    Ok(Exit::of_search(found > 0, complete))
}

/// The addresses, each once.
fn asked(settings: &Settings) -> Result<Vec<SocketAddr>> {
    let mut seen = HashSet::new();
    let mut asked: Vec<_> = settings.addresses.clone();
    asked.retain(|address| seen.insert(*address));
    let Some(text) = &settings.text else {
        return Ok(asked);
    };
    let name = text.display();
    let mut reader: Box<dyn BufRead> = if text == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        let file = File::open(text).with_context(|| format!("can't read {name}"))?;
        Box::new(BufReader::new(file))
    };
    let mut line = Vec::new();
    let mut left_out: u64 = 0;
    loop {
        line.clear();
        let read = reader.by_ref().take(LONGEST).read_until(b'\n', &mut line);
        if read.with_context(|| format!("can't read {name}"))? == 0 {
            break;
        }
        for address in addresses(&String::from_utf8_lossy(&line)) {
            if seen.len() >= MOST && !seen.contains(&address) {
                left_out += 1;
            } else if seen.insert(address) {
                asked.push(address);
            }
        }
    }
    if left_out > 0 {
        say(format_args!(
            "probe: {left_out} addresses of {name} skipped: at most {MOST} are looked up"
        ));
    }
    Ok(asked)
}
