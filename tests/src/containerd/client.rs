//! Calls over the container runtime interface, one after the other.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result};
use prost::Message;
use tokio::runtime::{Builder, Runtime};
use tonic::{
    Request,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

use crate::wait::patience;

/// For starting a pod on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct Cri {
    runtime: Runtime,
    channel: Channel,
}

impl Cri {
    /// Calls connect when they have to, also again after the runtime was restarted.
    pub fn new(socket: &Path) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()))?;
        let channel = runtime.block_on(async { endpoint.timeout(TIMEOUT * patience()).connect_lazy() });
        Ok(Self { runtime, channel })
    }

    pub fn call<Q, A>(&self, method: &str, request: Q) -> Result<A>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let path = PathAndQuery::try_from(format!("/runtime.v1.RuntimeService/{method}"))?;
        self.runtime
            .block_on(async {
                let mut grpc = Grpc::new(self.channel.clone());
                grpc.ready().await?;
                let answer = grpc
                    .unary(Request::new(request), path, ProstCodec::default())
                    .await?;
                anyhow::Ok(answer.into_inner())
            })
            .with_context(|| format!("{method} failed"))
    }
}
