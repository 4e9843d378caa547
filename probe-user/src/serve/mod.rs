//! A small HTTP server: GET only, bounded in connections, in all and by peer, in the size of a request and in time.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};

/// How long the head of a request may take.
const HEAD: Duration = Duration::from_secs(5);
/// How large it may be, bytes.
const HEAD_BYTES: usize = 16 << 10;
/// How long to rest when no connection can be taken, for lack of descriptors mostly.
const REST: Duration = Duration::from_millis(50);

pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What a listener bears.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once.
    pub all: usize,
    /// The same, of one address.
    pub of_peer: usize,
    /// How long a connection may last; `None`: as long as it is read.
    pub whole: Option<Duration>,
}

/// Who answers.
pub trait Answers: Send + Sync + 'static {
    /// Answers a GET.
    fn answer(&self, request: &Request<Incoming>) -> Response<Body>;
    /// Takes note of an answer.
    fn answered(&self, status: StatusCode);
    /// Takes note of a connection that was refused for lack of room.
    fn refused(&self);
}

/// An answer of text.
pub fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    body(status, "text/plain; charset=utf-8", text)
}

/// An answer of this type.
pub fn body(status: StatusCode, kind: &'static str, bytes: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(bytes.into()).boxed_unsync());
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

/// Serves until it is dropped.
pub async fn serve(listener: TcpListener, limits: Limits, answers: Arc<impl Answers>) {
    let places = Arc::new(Places::default());
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            sleep(REST).await;
            continue;
        };
        match Places::take(&places, peer, limits) {
            // Closed at once: an answer would take the place that there is not.
            None => answers.refused(),
            Some(place) => {
                let answers = Arc::clone(&answers);
                tokio::spawn(async move {
                    let connection = connection(stream, answers);
                    match limits.whole {
                        // A client that is too slow, or gone, is not reported.
                        Some(whole) => drop(timeout(whole, connection).await),
                        None => connection.await,
                    }
                    drop(place);
                });
            }
        }
    }
}

async fn connection(stream: TcpStream, answers: Arc<impl Answers>) {
    let service = service_fn(|request: Request<Incoming>| {
        let response = if request.method() == Method::GET {
            answers.answer(&request)
        } else {
            text(StatusCode::METHOD_NOT_ALLOWED, "only GET is supported\n")
        };
        answers.answered(response.status());
        async { Ok::<_, Infallible>(response) }
    });
    // What a client breaks is its own.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// Who is being served.
#[derive(Default)]
struct Places {
    peers: Mutex<HashMap<IpAddr, usize>>,
}

/// One connection's.
struct ConnectionSlot {
    places: Arc<Places>,
    peer: IpAddr,
}

impl Places {
    fn take(places: &Arc<Self>, peer: SocketAddr, limits: Limits) -> Option<ConnectionSlot> {
        let peer = peer.ip().to_canonical();
        let mut peers = places.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = peers.values().sum();
        let of_peer = peers.get(&peer).copied().unwrap_or(0);
        if all >= limits.all || of_peer >= limits.of_peer {
            return None;
        }
        peers.insert(peer, of_peer + 1);
        Some(ConnectionSlot {
            places: Arc::clone(places),
            peer,
        })
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut peers = self.places.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_peer) = peers.get_mut(&self.peer) {
            *of_peer -= 1;
            if *of_peer == 0 {
                peers.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests;
