//! The kubernetes Service, through this node's own rules.

use super::{login::Used, server::DIAL};
use crate::{
    model::{
        bypass::service::Service as Rules,
        doctor::node::{ApiService, DialledAddress},
    },
    tls::{self, Ask},
};

const TCP: u8 = 6;

/// The one with that name, or, if the rules have no names, the one with the API server as its endpoint; dialled.
pub fn dial(services: &[Rules], used: &Used, places: &[DialledAddress]) -> Option<ApiService> {
    let mut tcp = services.iter().filter(|service| service.protocol == TCP);
    let named = |service: &&Rules| {
        let name = service.name.as_deref();
        name.is_some_and(|name| name == "default/kubernetes" || name.starts_with("default/kubernetes:"))
    };
    let leads = |service: &&Rules| {
        service.name.is_none()
            && places
                .iter()
                .any(|place| service.endpoints.contains(&place.address))
    };
    let found = tcp.clone().find(named).or_else(|| tcp.find(leads))?;
    Some(ApiService {
        address: found.address,
        endpoints: found.endpoints.clone(),
        mode: found.mode.name(),
        dialled: tls::dial(&Ask {
            address: found.address,
            name: None,
            authorities: used.authorities.as_deref(),
            identity: None,
            request: None,
            timeout: DIAL,
        }),
    })
}
