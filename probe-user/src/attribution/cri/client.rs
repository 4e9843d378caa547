//! Calls to a container runtime over its socket.

use std::{path::Path, time::Duration};

use prost::Message;
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

use super::messages::{
    ListContainersRequest, ListContainersResponse, ListPodSandboxRequest, ListPodSandboxResponse,
    PodSandboxStatusRequest, PodSandboxStatusResponse, VersionRequest, VersionResponse,
};
use crate::error::chain;

/// How long a runtime may think.
const PATIENCE: Duration = Duration::from_secs(5);
/// The largest answer: some thousand containers with all their annotations.
const LARGEST: usize = 64 << 20;

/// Why a runtime does not answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CriError {
    #[error("can't connect to it: {0}")]
    Connect(String),
    #[error("{method} failed: {reason}")]
    Call { method: &'static str, reason: String },
}

/// A runtime that answered.
#[derive(Clone, Debug)]
pub struct Client {
    grpc: Grpc<Channel>,
    service: &'static str,
    /// `containerd v1.6.20`
    pub runtime: String,
}

impl Client {
    /// The runtime behind `socket`; v1 of the interface, or v1alpha2 (containerd before 1.6, CRI-O before 1.20).
    ///
    /// # Errors
    /// When nothing answers there, or no runtime.
    pub async fn connect(socket: &Path) -> Result<Self, CriError> {
        let connect = |error: tonic::transport::Error| CriError::Connect(chain(&error));
        let channel = Endpoint::from_shared(format!("unix://{}", socket.display()))
            .map_err(connect)?
            .connect_timeout(PATIENCE)
            .timeout(PATIENCE)
            .connect()
            .await
            .map_err(connect)?;
        let mut client = Self {
            grpc: Grpc::new(channel).max_decoding_message_size(LARGEST),
            service: "runtime.v1.RuntimeService",
            runtime: String::new(),
        };
        let version = match client.version().await {
            Err(status) if status.code() == Code::Unimplemented => {
                client.service = "runtime.v1alpha2.RuntimeService";
                client.version().await
            }
            answer => answer,
        };
        let version = version.map_err(|status| failed("Version", &status))?;
        client.runtime = format!("{} {}", version.runtime_name, version.runtime_version);
        Ok(client)
    }

    async fn version(&mut self) -> Result<VersionResponse, Status> {
        self.call("Version", VersionRequest::default()).await
    }

    /// # Errors
    /// When the runtime does not answer.
    pub async fn sandboxes(&mut self) -> Result<ListPodSandboxResponse, CriError> {
        self.ask("ListPodSandbox", ListPodSandboxRequest {}).await
    }

    /// # Errors
    /// When the runtime does not answer.
    pub async fn containers(&mut self) -> Result<ListContainersResponse, CriError> {
        self.ask("ListContainers", ListContainersRequest {}).await
    }

    /// # Errors
    /// When the runtime does not answer, or has no such sandbox any more.
    pub async fn sandbox(&mut self, id: &str) -> Result<PodSandboxStatusResponse, CriError> {
        let request = PodSandboxStatusRequest {
            pod_sandbox_id: id.to_owned(),
            verbose: true,
        };
        self.ask("PodSandboxStatus", request).await
    }

    async fn ask<Q, A>(&mut self, method: &'static str, request: Q) -> Result<A, CriError>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        self.call(method, request)
            .await
            .map_err(|status| failed(method, &status))
    }

    async fn call<Q, A>(&mut self, method: &'static str, request: Q) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let path = format!("/{}/{method}", self.service);
        let path = PathAndQuery::try_from(path).map_err(|error| Status::internal(error.to_string()))?;
        self.grpc
            .ready()
            .await
            .map_err(|error| Status::unavailable(chain(&error)))?;
        let answer = self
            .grpc
            .unary(Request::new(request), path, ProstCodec::default())
            .await?;
        Ok(answer.into_inner())
    }
}

fn failed(method: &'static str, status: &Status) -> CriError {
    CriError::Call {
        method,
        reason: format!("{} ({:?})", status.message(), status.code()),
    }
}
