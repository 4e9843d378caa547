//! A port-forward's WebSocket as a stream of bytes. kube's own has buffers of 128 KiB for each, which can't be set, and two
//! tasks: too much for a connection to every node of a large cluster.
//!
//! Kubernetes sends binary messages, each with the number of its channel first: 0 has the port's data, 1 why it can't be
//! forwarded. The first message of each channel is the port's number.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use futures_util::{Sink as _, Stream as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message,
        error::ProtocolError,
        protocol::{Role, WebSocketConfig},
    },
};

/// What is read at once; larger messages get a buffer of their own size.
const READ: usize = 8 << 10;
/// The longest message: a kubelet sends 32 KiB at once.
const LONGEST: usize = 1 << 20;
/// The longest sent.
const WRITE: usize = 16 << 10;
/// Of why it can't be forwarded.
const MOST_REASON: usize = 4096;

const DATA: u8 = 0;

/// What the messages of one port's channels mean.
#[derive(Debug)]
struct Channels {
    port: u16,
    /// Whether the first message of each came.
    begun: [bool; 2],
}

impl Channels {
    fn new(port: u16) -> Self {
        Self {
            port,
            begun: [false; 2],
        }
    }

    /// The data in a message.
    fn data(&mut self, mut message: Bytes) -> io::Result<Bytes> {
        let wrong = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
        if message.len() < 2 {
            return Ok(Bytes::new());
        }
        let channel = message.get_u8();
        let Some(begun) = self.begun.get_mut(usize::from(channel)) else {
            return Err(wrong(format!("port-forward: no channel has number {channel}")));
        };
        if !std::mem::replace(begun, true) {
            return match <[u8; 2]>::try_from(&*message).map(u16::from_le_bytes) {
                Ok(port) if port == self.port => Ok(Bytes::new()),
                Ok(port) => Err(wrong(format!(
                    "port-forward: to port {port} instead of {}",
                    self.port
                ))),
                Err(_) => Err(wrong("port-forward: the first message has no port".to_owned())),
            };
        }
        match channel {
            DATA => Ok(message),
            // The other channel of the two.
            _ => {
                message.truncate(MOST_REASON);
                Err(io::Error::other(
                    String::from_utf8_lossy(&message).trim().to_owned(),
                ))
            }
        }
    }
}

/// A stream to a pod's port. Why the node could not connect there is the stream's error.
#[derive(Debug)]
pub struct Forwarded<S> {
    socket: WebSocketStream<S>,
    channels: Channels,
    /// Of the latest message.
    rest: Bytes,
    ended: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Forwarded<S> {
    /// On a connection that the API server has switched to a port-forward of one port.
    pub async fn new(stream: S, port: u16) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ)
            .write_buffer_size(0)
            .max_write_buffer_size(2 * WRITE)
            .max_message_size(Some(LONGEST))
            .max_frame_size(Some(LONGEST));
        Self {
            socket: WebSocketStream::from_raw_socket(stream, Role::Client, Some(config)).await,
            channels: Channels::new(port),
            rest: Bytes::new(),
            ended: false,
        }
    }
}

/// Its end is no fault of the stream; an error of what carries it stays that.
fn ended(error: Error) -> io::Result<()> {
    match error {
        Error::ConnectionClosed | Error::AlreadyClosed => Ok(()),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Ok(()),
        // The answer to its close, or to a ping: who closed may be gone.
        Error::Io(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Error::Io(error) => Err(error),
        error => Err(io::Error::other(error)),
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Forwarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if !self.rest.is_empty() {
                let length = self.rest.len().min(buffer.remaining());
                buffer.put_slice(&self.rest.split_to(length));
                return Poll::Ready(Ok(()));
            }
            if self.ended {
                return Poll::Ready(Ok(()));
            }
            match ready!(Pin::new(&mut self.socket).poll_next(context)) {
                Some(Ok(Message::Binary(message))) => self.rest = self.channels.data(message)?,
                None | Some(Ok(Message::Close(_))) => self.ended = true,
                // Pings are answered by the socket.
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    self.ended = true;
                    ended(error)?;
                }
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Forwarded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut socket = Pin::new(&mut self.socket);
        ready!(socket.as_mut().poll_ready(context)).map_err(io::Error::other)?;
        let length = bytes.len().min(WRITE);
        let message = [&[DATA], &bytes[..length]].concat();
        socket
            .start_send(Message::binary(message))
            .map_err(io::Error::other)?;
        Poll::Ready(Ok(length))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = ready!(Pin::new(&mut self.socket).poll_flush(context));
        Poll::Ready(flushed.map_err(io::Error::other))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = ready!(Pin::new(&mut self.socket).poll_close(context));
        Poll::Ready(closed.or_else(ended))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{SinkExt as _, StreamExt as _};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[test]
    fn what_messages_mean() {
        let port = 9470_u16.to_le_bytes();
        let begin = |channel: u8| vec![channel, port[0], port[1]];
        let read = |messages: &[Vec<u8>]| {
            let mut channels = Channels::new(9470);
            let mut read = Vec::new();
            for message in messages {
                match channels.data(Bytes::from(message.clone())) {
                    Ok(data) => read.extend_from_slice(&data),
                    Err(error) => return Err(error.to_string()),
                }
            }
            Ok(String::from_utf8(read).unwrap())
        };
        let error = |reason: &str| Err(reason.to_owned());
        for (messages, expected) in [
            (vec![], Ok(String::new())),
            (vec![begin(0), begin(1)], Ok(String::new())),
            (
                vec![
                    begin(0),
                    b"\0one ".to_vec(),
                    begin(1),
                    vec![],
                    vec![0],
                    b"\0two".to_vec(),
                ],
                Ok("one two".to_owned()),
            ),
            (
                vec![begin(0), begin(1), b"\x01connection refused\n".to_vec()],
                error("connection refused"),
            ),
            (vec![begin(2)], error("port-forward: no channel has number 2")),
            (
                vec![vec![0, 1, 0]],
                error("port-forward: to port 1 instead of 9470"),
            ),
            (
                vec![b"\0text".to_vec()],
                error("port-forward: the first message has no port"),
            ),
        ] {
            assert_eq!(read(&messages), expected, "{messages:?}");
        }
        let long = vec![begin(1), [&[1][..], &[b'x'; 1 << 16]].concat()];
        assert_eq!(read(&long).unwrap_err().len(), MOST_REASON);
    }

    #[tokio::test]
    async fn bytes_both_ways() {
        let (here, there) = duplex(1 << 16);
        let server = async {
            let mut socket = WebSocketStream::from_raw_socket(there, Role::Server, None).await;
            for channel in [0, 1] {
                let begin = [&[channel][..], &9470_u16.to_le_bytes()].concat();
                socket.send(Message::binary(begin)).await.unwrap();
            }
            let mut asked = Vec::new();
            while asked.len() < 40_000 {
                let message = socket.next().await.unwrap().unwrap().into_data();
                assert_eq!(message[0], DATA);
                asked.extend_from_slice(&message[1..]);
            }
            socket.send(Message::Ping(Bytes::new())).await.unwrap();
            socket
                .send(Message::binary([&[DATA][..], &asked].concat()))
                .await
                .unwrap();
            socket.close(None).await.unwrap();
            // Until the client has answered that.
            while socket.next().await.is_some_and(|message| message.is_ok()) {}
        };
        let client = async {
            let mut stream = Forwarded::new(here, 9470).await;
            let sent: Vec<_> = (0..40_000_u32).map(|number| number as u8).collect();
            stream.write_all(&sent).await.unwrap();
            stream.flush().await.unwrap();
            let mut read = Vec::new();
            stream.read_to_end(&mut read).await.unwrap();
            assert!(read == sent);
        };
        tokio::join!(server, client);
    }

    #[tokio::test]
    async fn a_connection_that_breaks_is_an_end() {
        let (here, there) = duplex(1 << 10);
        let mut stream = Forwarded::new(here, 1).await;
        drop(there);
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
    }
}
