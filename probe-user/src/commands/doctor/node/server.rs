//! The API server of kubelet's configuration: resolved, dialled, asked.

use std::{
    net::{IpAddr, SocketAddr, ToSocketAddrs as _},
    sync::mpsc,
    thread,
    time::Duration,
};

use super::login::Used;
use crate::{
    host::{files::Root, hosts},
    model::doctor::{
        node::{DialledAddress, Server},
        server::{Dialled, Stop},
    },
    tls::{self, Ask, Request},
};

/// For one dial, with all that is said.
pub const DIAL: Duration = Duration::from_millis(2500);
/// For a name to be resolved.
const RESOLVE: Duration = Duration::from_secs(2);
/// Addresses of one name that are dialled.
const ADDRESSES: usize = 4;

/// Where kubelet's configuration leads.
pub struct Target {
    url: String,
    pub host: String,
    pub port: u16,
}

impl Target {
    /// # Errors
    /// Why it is not dialled, in words.
    pub fn of(used: &Used) -> Result<Self, String> {
        let url = used.login.server.clone();
        if used.login.proxy.is_some() {
            return Err(format!(
                "kubelet uses {url} through a proxy, which probe does not query"
            ));
        }
        let uri: http::Uri = url.parse().map_err(|_| format!("{url} is not a URL"))?;
        if uri.scheme_str() != Some("https") {
            return Err(format!("{url} is not https"));
        }
        let host = uri.host().ok_or_else(|| format!("{url} has no host"))?;
        Ok(Self {
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: uri.port_u16().unwrap_or(443),
            url,
        })
    }
}

/// Dials all its addresses at the same time.
pub fn dial(root: &Root, target: &Target, used: &Used) -> Server {
    let addresses = resolve(root, &target.host, target.port);
    let name = used.login.server_name.clone();
    let name = name.or_else(|| {
        target
            .host
            .parse::<IpAddr>()
            .is_err()
            .then(|| target.host.clone())
    });
    let places = addresses.map(|addresses| {
        thread::scope(|scope| {
            let dials: Vec<_> = addresses
                .into_iter()
                .map(|address| {
                    let name = name.as_deref();
                    (address, scope.spawn(move || ask(address, name, used)))
                })
                .collect();
            dials
                .into_iter()
                .map(|(address, dial)| DialledAddress {
                    address,
                    dialled: dial.join().unwrap_or_else(|_| Dialled::stopped(Stop::Closed)),
                })
                .collect()
        })
    });
    Server {
        url: target.url.clone(),
        host: target.host.clone(),
        places,
    }
}

fn ask(address: SocketAddr, name: Option<&str>, used: &Used) -> Dialled {
    tls::dial(&Ask {
        address,
        name,
        authorities: used.authorities.as_deref(),
        identity: used.identity.as_ref(),
        request: Some(Request {
            path: "/healthz",
            token: used.token.as_deref(),
        }),
        timeout: DIAL,
    })
}

/// As the node does: its own list first, then whom it asks.
fn resolve(root: &Root, host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let own = root.text("/etc/hosts").unwrap_or_default();
    let own = hosts::addresses(&own, host);
    if !own.is_empty() {
        let all = own.into_iter().take(ADDRESSES);
        return Ok(all.map(|address| SocketAddr::new(address, port)).collect());
    }
    let (answer, answers) = mpsc::channel();
    let name = host.to_owned();
    // A resolver that hangs is left behind: this process ends soon.
    let asked = thread::Builder::new().name("resolve".to_owned()).spawn(move || {
        let found = (name.as_str(), port).to_socket_addrs();
        drop(answer.send(found.map(|all| all.take(ADDRESSES).collect::<Vec<_>>())));
    });
    asked.map_err(|_| "can't start a thread".to_owned())?;
    match answers.recv_timeout(RESOLVE) {
        Ok(Ok(found)) if found.is_empty() => Err("it has no address".to_owned()),
        Ok(Ok(found)) => Ok(found),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer in {} s", RESOLVE.as_secs())),
    }
}
