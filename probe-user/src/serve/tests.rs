use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::Instant,
};

use super::*;

#[derive(Default)]
struct Echo {
    answered: AtomicUsize,
    refused: AtomicUsize,
}

impl Answers for Echo {
    fn answer(&self, request: &Request<Incoming>) -> Response<Body> {
        text(StatusCode::OK, request.uri().path().to_owned())
    }

    fn answered(&self, _: StatusCode) {
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }
}

const LIMITS: Limits = Limits {
    all: 3,
    of_peer: 2,
    whole: Some(Duration::from_millis(700)),
};

async fn server() -> (SocketAddr, Arc<Echo>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let echo = Arc::new(Echo::default());
    tokio::spawn(serve(listener, LIMITS, Arc::clone(&echo)));
    (address, echo)
}

/// Sends these bytes and reads until the server closes.
async fn ask(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // It may be closed before all is sent.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn answers_and_refuses() {
    let (address, echo) = server().await;
    for (request, expected) in [
        ("GET /a HTTP/1.1\r\nhost: x\r\n\r\n", "HTTP/1.1 200"),
        (
            "POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc",
            "HTTP/1.1 405",
        ),
        ("\0\x01\x02garbage\r\n\r\n", "HTTP/1.1 400"),
        ("GET", ""),
    ] {
        let answer = ask(address, request.as_bytes()).await;
        assert!(answer.starts_with(expected), "{request:?}: {answer:?}");
    }
    let mut huge = b"GET / HTTP/1.1\r\nx: ".to_vec();
    huge.resize(1 << 20, b'a');
    let answer = ask(address, &huge).await;
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 431"),
        "{answer:?}"
    );
    assert_eq!(echo.answered.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn who_is_slow_does_not_stay() {
    let (address, _) = server().await;
    let start = Instant::now();
    assert_eq!(ask(address, b"GET /a HT").await, "");
    assert!(start.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn one_peer_does_not_take_all_places() {
    let (address, echo) = server().await;
    let mut slow = Vec::new();
    for _ in 0..10 {
        slow.push(TcpStream::connect(address).await.unwrap());
    }
    sleep(Duration::from_millis(100)).await;
    assert_eq!(echo.refused.load(Ordering::Relaxed), 8);
    // Another still is served.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut other = socket.connect(address).await.unwrap();
    other
        .write_all(b"GET /b HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    other.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("/b"),
        "{answer}"
    );
    // And those that have gone make room.
    drop(slow);
    sleep(Duration::from_millis(100)).await;
    assert!(
        ask(address, b"GET /c HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .ends_with("/c")
    );
}
