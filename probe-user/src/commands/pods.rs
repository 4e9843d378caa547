//! Names of this node's pods, by the container runtime.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use anyhow::{Context, Result};

use crate::{
    attribution::{
        cri::{self, Named, Runtime},
        health::Health,
    },
    model::{owner::Name, settings::RuntimeSocket},
    report::say,
};

/// How long to wait for the container runtime's first answer.
const FIRST_ANSWER: Duration = Duration::from_millis(300);

/// The container runtime, with its first answer where that comes soon.
///
/// # Errors
/// When this process may not have another thread.
pub fn runtime(socket: &RuntimeSocket) -> Result<Option<Runtime>> {
    let Some(socket) = cri::socket(socket) else {
        return Ok(None);
    };
    let runtime =
        Runtime::start(&socket).context("can't start the thread that queries the container runtime")?;
    runtime.wait(FIRST_ANSWER);
    Ok(Some(runtime))
}

/// The pods by their addresses. Says so once when the runtime can't be asked.
pub fn names(runtime: &Runtime) -> HashMap<IpAddr, Name> {
    while let Some(news) = runtime.news() {
        if let Health::Failing(reason) = news.health {
            say(format_args!(
                "probe: {} is unavailable, pods have no names until it answers: {reason}",
                news.who
            ));
        }
    }
    let name = |named: Named| Name {
        namespace: named.pod.namespace.clone(),
        pod: named.pod.name.clone(),
    };
    let pods = runtime.addresses().into_iter();
    pods.map(|(address, named)| (address, name(named))).collect()
}
