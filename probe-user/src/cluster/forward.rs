//! The way to an agent by the API server's port-forward.

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll},
};

use kube::{Api, Client, api::Portforwarder};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Agent, AgentError, ask::Connect};
use crate::{attribution::kube::object::Pod, error::chain};

/// Forwards to pods of one namespace.
#[derive(Clone)]
pub struct Forward {
    pods: Api<Pod>,
}

impl fmt::Debug for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forward").finish_non_exhaustive()
    }
}

impl Forward {
    pub fn new(client: Client, namespace: &str) -> Self {
        Self {
            pods: Api::namespaced(client, namespace),
        }
    }
}

impl Connect for Forward {
    type Stream = Forwarded;

    async fn connect(&self, agent: &Agent) -> Result<Forwarded, AgentError> {
        let mut forwarder = self
            .pods
            .portforward(&agent.pod, &[agent.port])
            .await
            .map_err(|error| AgentError::Forward(chain(&error)))?;
        let stream = forwarder.take_stream(agent.port);
        let refused = forwarder.take_error(agent.port);
        let (Some(stream), Some(refused)) = (stream, refused) else {
            return Err(AgentError::Forward("the API server opened no stream".to_owned()));
        };
        Ok(Forwarded {
            stream: Box::new(stream),
            refused: Some(Box::pin(refused)),
            forwarder,
        })
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A stream to a pod's port. Why the node could not connect there comes beside it, and is the stream's error.
pub struct Forwarded {
    stream: Box<dyn Stream>,
    refused: Option<Pin<Box<dyn Future<Output = Option<String>> + Send>>>,
    forwarder: Portforwarder,
}

impl Forwarded {
    /// What was said against it, if anything was.
    fn refused(&mut self, context: &mut Context<'_>) -> Option<io::Error> {
        match self.refused.as_mut()?.as_mut().poll(context) {
            Poll::Pending => None,
            Poll::Ready(said) => {
                self.refused = None;
                said.map(|said| io::Error::other(said.trim().to_owned()))
            }
        }
    }
}

/// Its task would wait for the other side to close.
impl Drop for Forwarded {
    fn drop(&mut self) {
        self.forwarder.abort();
    }
}

impl AsyncRead for Forwarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let came = matches!(&read, Poll::Ready(Ok(()))) && buffer.filled().len() > before;
        if !came && let Some(error) = self.refused(context) {
            return Poll::Ready(Err(error));
        }
        read
    }
}

impl AsyncWrite for Forwarded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
