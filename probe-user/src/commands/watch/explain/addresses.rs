//! Evidence: the node's devices, addresses and routes.

use std::{collections::HashSet, net::IpAddr};

use crate::{
    model::network::Device,
    rtnetlink::{RouteError, Routing},
};

/// The node's tables, where they can be read.
#[derive(Default)]
pub struct Addresses {
    routing: Option<Routing>,
}

impl Addresses {
    /// # Errors
    /// When the kernel can't be asked.
    pub fn open(&mut self) -> Result<(), RouteError> {
        self.routing = Some(Routing::open()?);
        Ok(())
    }

    pub fn devices(&mut self) -> Vec<Device> {
        let devices = self.routing.as_mut().and_then(|routing| routing.devices().ok());
        devices.unwrap_or_default()
    }

    /// The node's own addresses.
    pub fn own(&mut self) -> HashSet<IpAddr> {
        let addresses = self.routing.as_mut().and_then(|routing| routing.addresses().ok());
        let addresses = addresses.into_iter().flatten();
        addresses.map(|(_, address)| address).collect()
    }

    /// Devices of default routes.
    pub fn outside(&mut self) -> HashSet<u32> {
        let routes = self.routing.as_mut().and_then(|routing| routing.routes().ok());
        let routes = routes.into_iter().flatten();
        routes
            .filter(|route| route.prefix.prefix_len() == 0)
            .filter_map(|route| route.device)
            .collect()
    }
}
