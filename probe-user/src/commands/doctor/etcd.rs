//! The check `etcd`: its clients for a while, and its own log.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom},
    path::Path,
};

use anyhow::Result;
use jiff::{Timestamp, tz::TimeZone};

use super::{
    CheckContext,
    watching::{self, WatchScope},
};
use crate::{
    attribution::listens,
    model::{
        Cadences,
        doctor::{
            Answer, Check,
            etcd::{EtcdFacts, Logged, NEWS, PORT, judge},
        },
        etcd_log::{Line, Reader},
    },
};

/// Where the kubelet keeps the logs of pods.
const PODS: &str = "/var/log/pods";
/// What is read of a log: its end.
const END: u64 = 4 << 20;
/// A line longer than this is cut.
const LONGEST: u64 = 64 << 10;
/// Logs that are read.
const LOGS: usize = 4;

pub fn run(node: &CheckContext) -> Answer {
    look(node).unwrap_or_else(|error| Answer::impossible(Check::Etcd, &error))
}

fn look(node: &CheckContext) -> Result<Answer> {
    let began = Timestamp::now();
    let (rows, since, lacks) = match &node.memory {
        Some(memory) => {
            let since = began.checked_sub(NEWS).unwrap_or(began).max(memory.since());
            let mut cadences = Cadences::default();
            for connection in memory.connections(PORT, since) {
                cadences.seen(&connection);
            }
            (cadences.rows().cloned().collect(), since, Vec::new())
        }
        None => {
            let watched = watching::watch(node, &WatchScope::of(node, &[PORT]), || {})?;
            let rows = watched.summary.map(|summary| summary.rows).unwrap_or_default();
            (rows, began, watched.lacks)
        }
    };
    let seen = EtcdFacts {
        listens: listens(PORT),
        rows,
        logged: logged(node),
        since,
        now: Timestamp::now(),
    };
    Ok(judge(&seen).without(lacks))
}

/// What the logs of etcd's pods say at their ends.
fn logged(node: &CheckContext) -> Option<Logged> {
    let pods = node.root.names(PODS).ok()?;
    let etcd = pods.iter().filter(|pod| pod.starts_with("kube-system_etcd-"));
    let mut logged = None;
    for pod in etcd.take(LOGS) {
        let directory = Path::new(PODS).join(pod).join("etcd");
        // `0.log`, `1.log`: the number of times that it was started.
        let newest = node
            .root
            .names(&directory)
            .unwrap_or_default()
            .into_iter()
            .filter(|name| Path::new(name).extension().is_some_and(|kind| kind == "log"))
            .filter_map(|name| node.root.open(directory.join(name)).ok())
            .max_by_key(|(_, metadata)| metadata.modified().ok());
        if let Some((file, metadata)) = newest {
            // One that can't be read is skipped.
            let _ = read(file, metadata.len(), logged.get_or_insert_with(Logged::default));
        }
    }
    logged
}

fn read(mut file: File, size: u64, logged: &mut Logged) -> std::io::Result<()> {
    file.seek(SeekFrom::Start(size.saturating_sub(END)))?;
    let mut file = BufReader::new(file.take(END));
    let reader = Reader::new(TimeZone::system(), Timestamp::now());
    let mut line = Vec::new();
    loop {
        line.clear();
        if file.by_ref().take(LONGEST).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        if let Line::Rejected(rejected) = reader.read(&String::from_utf8_lossy(&line)) {
            logged.seen(&rejected);
        }
    }
}
