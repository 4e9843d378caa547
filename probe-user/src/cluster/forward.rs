//! The way to an agent by the API server's port-forward.

use std::fmt;

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use kube::{Client, Resource as _};

use super::{Agent, AgentError, ask::Connect, channels::Forwarded};
use crate::{attribution::kube::object::Pod, error::chain};

/// Forwards to pods of one namespace.
#[derive(Clone)]
pub struct Forward {
    client: Client,
    pods: kube::core::Request,
}

impl fmt::Debug for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forward").finish_non_exhaustive()
    }
}

impl Forward {
    pub fn new(client: Client, namespace: &str) -> Self {
        Self {
            client,
            pods: kube::core::Request::new(Pod::url_path(&(), Some(namespace))),
        }
    }
}

impl Connect for Forward {
    type Stream = Forwarded<TokioIo<Upgraded>>;

    async fn connect(&self, agent: &Agent) -> Result<Self::Stream, AgentError> {
        let request = self
            .pods
            .portforward(&agent.pod, &[agent.port])
            .map_err(|error| AgentError::Forward(chain(&error)))?;
        let connection = self
            .client
            .connect(request)
            .await
            .map_err(|error| AgentError::Forward(chain(&error)))?;
        // Nothing has been read of it yet.
        let stream = connection.into_stream().into_inner();
        Ok(Forwarded::new(stream, agent.port).await)
    }
}
