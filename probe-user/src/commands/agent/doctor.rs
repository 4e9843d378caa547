//! The doctor, asked by way of the agent: it goes to the node, and knows what the agent has seen.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use bytes::Bytes;
use futures_util::{Stream, stream};
use jiff::Timestamp;
use tokio::sync::mpsc::{self, Receiver};

use super::{node, shared::Shared};
use crate::{
    cli::Agent,
    commands::doctor::{CheckContext, Remembers, examine},
    model::{
        Connection, bypass,
        doctor::{Answer, Check},
        vxlan,
    },
    recording::{connection, history::Filter},
    report,
};

/// Answers on their way.
const WAITING: usize = Check::ALL.len();

/// One doctor at a time: each checks all of the node.
#[derive(Default)]
pub struct DoctorLock(Arc<AtomicBool>);

/// Gives the place back, however it ends.
struct Busy(Arc<AtomicBool>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl DoctorLock {
    /// Starts the checks; lines as they come, the last of which says that it is the last. `None`: another request is running.
    ///
    /// # Errors
    /// When this process may not have another thread.
    pub fn begin(
        &self,
        shared: &Arc<Shared>,
        settings: Agent,
        checks: Vec<Check>,
    ) -> io::Result<Option<impl Stream<Item = Bytes> + Send + use<>>> {
        if self.0.swap(true, Ordering::Acquire) {
            return Ok(None);
        }
        let busy = Busy(Arc::clone(&self.0));
        let shared = Arc::clone(shared);
        let (sender, receiver) = mpsc::channel(WAITING);
        thread::Builder::new().name("doctor".to_owned()).spawn(move || {
            let _busy = busy;
            let send = |line: serde_json::Result<String>| {
                let line = line.map_err(io::Error::from)? + "\n";
                // Who asked may have gone.
                sender
                    .blocking_send(Bytes::from(line))
                    .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
            };
            let name = settings.node.clone();
            let entered = if settings.enter { node::enter() } else { Ok(()) };
            let told = match entered {
                Ok(()) => {
                    let node = CheckContext::new(settings.doctor(checks.clone()), Some(shared));
                    examine(node, &checks, |answer| send(report::doctor::json(&answer, &name)))
                }
                Err(error) => checks.iter().try_for_each(|check| {
                    let answer = Answer::impossible(*check, &format!("{error:#}"));
                    send(report::doctor::json(&answer, &name))
                }),
            };
            if told.is_ok() {
                // As above.
                let _ = send(report::doctor::end(&name));
            }
        })?;
        Ok(Some(stream::unfold(
            receiver,
            |mut receiver: Receiver<Bytes>| async {
                let line = receiver.recv().await?;
                Some((line, receiver))
            },
        )))
    }
}

impl Remembers for Shared {
    fn vxlan(&self) -> Option<Arc<vxlan::view::View>> {
        self.vxlan()
    }

    fn bypass(&self) -> Option<Arc<bypass::View>> {
        self.bypass()
    }

    fn since(&self) -> Timestamp {
        let now = Timestamp::now();
        now.checked_sub(self.age()).unwrap_or(now)
    }

    fn connections(&self, port: u16, since: Timestamp) -> Vec<Connection> {
        let filter = Filter {
            since: Some(since),
            ports: vec![port],
            ..Filter::default()
        };
        let (found, _) = self.find(&filter);
        // What it wrote itself can be read.
        let read = |line: &[u8]| connection::read(line).ok();
        found.iter().filter_map(|kept| read(&kept.line)).collect()
    }
}
