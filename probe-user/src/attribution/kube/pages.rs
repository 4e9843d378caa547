//! Lists of the API, page by page and object by object as they arrive: neither a page nor an object stays in memory, only what
//! is made of each.

use std::{
    fmt,
    io::{self, BufReader, Read},
    marker::PhantomData,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::{Buf as _, Bytes};
use form_urlencoded::Serializer;
use http_body_util::{BodyExt as _, Limited};
use kube::{Client, client::Body, core::Status};
use serde::{
    Deserialize,
    de::{DeserializeOwned, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use tokio::{sync::mpsc, task::spawn_blocking, time::timeout};

use super::KubeError;
use crate::error::chain;

/// Objects of one page.
pub const PAGE: usize = 500;
/// How long nothing may come; where nobody waits for it, as long as an API server has for a request by default.
const IDLE: Duration = Duration::from_secs(10);
const IDLE_UNATTENDED: Duration = Duration::from_secs(60);
/// How long a page may take, and as many objects as it has where a server sends all at once.
const A_PAGE: Duration = Duration::from_secs(60);
/// Objects and pages of a list. Kubernetes is made for 150,000 pods.
const MOST: usize = 300_000;
const MOST_PAGES: usize = 3_000;
/// Pieces of the body that wait to be read.
const WAITING: usize = 4;
/// Of why a list is refused.
const MOST_REASON: usize = 64 << 10;

/// What is listed.
#[derive(Clone, Debug, Default)]
pub struct ListQuery {
    /// Of the resource, such as `/api/v1/nodes`.
    pub path: String,
    /// For errors.
    pub what: &'static str,
    pub labels: Option<String>,
    pub fields: Option<String>,
    /// A slightly old list will do: the API server sends it from its own memory, and etcd reads nothing for it (docs/scale.md).
    pub may_be_old: bool,
    /// Nobody waits for it. An API server that is busy with others may keep it waiting, rather than get the same again.
    pub unattended: bool,
}

impl ListQuery {
    /// The request of a page.
    fn uri(&self, token: Option<&str>) -> String {
        let mut query = Serializer::new(String::new());
        query.append_pair("limit", &PAGE.to_string());
        for (name, value) in [("labelSelector", &self.labels), ("fieldSelector", &self.fields)] {
            if let Some(value) = value {
                query.append_pair(name, value);
            }
        }
        match token {
            // The version is in it.
            Some(token) => query.append_pair("continue", token),
            None if self.may_be_old => query.append_pair("resourceVersion", "0"),
            None => &mut query,
        };
        format!("{}?{}", self.path, query.finish())
    }
}

/// What a list has, and the version to watch it from.
#[derive(Debug)]
pub struct Listed<T> {
    pub items: Vec<T>,
    pub version: String,
}

/// Lists all, and keeps what `reduce` makes of each object.
///
/// # Errors
/// When the API does not answer, or does not allow it; at which page.
pub async fn list<K, T>(
    client: &Client,
    query: &ListQuery,
    reduce: fn(K) -> Option<T>,
) -> Result<Listed<T>, KubeError>
where
    K: DeserializeOwned + 'static,
    T: Send + 'static,
{
    let mut items = Vec::new();
    let mut token: Option<String> = None;
    let begun = Instant::now();
    for number in 1..=MOST_PAGES {
        let failed = |reason: String| KubeError::Call {
            what: query.what,
            reason: if number == 1 {
                reason
            } else {
                format!("page {number}: {reason}")
            },
        };
        let page = page(client, query, token.as_deref(), items, reduce, begun).await;
        let (all, metadata) = page.map_err(failed)?;
        items = all;
        match metadata.continue_.filter(|token| !token.is_empty()) {
            Some(next) => token = Some(next),
            None => {
                return Ok(Listed {
                    items,
                    version: metadata.resource_version.unwrap_or_default(),
                });
            }
        }
    }
    Err(KubeError::Call {
        what: query.what,
        reason: format!("more than {MOST_PAGES} pages"),
    })
}

/// Adds one page to `items`.
async fn page<K, T>(
    client: &Client,
    query: &ListQuery,
    token: Option<&str>,
    items: Vec<T>,
    reduce: fn(K) -> Option<T>,
    begun: Instant,
) -> Result<(Vec<T>, ListMetadata), String>
where
    K: DeserializeOwned + 'static,
    T: Send + 'static,
{
    let idle = if query.unattended { IDLE_UNATTENDED } else { IDLE };
    let silent = || format!("no data for {} s", idle.as_secs());
    let request = http::Request::get(query.uri(token)).body(Body::empty());
    let request = request.map_err(|error| error.to_string())?;
    let response = timeout(idle, client.send(request)).await;
    let response = response.map_err(|_| silent())?.map_err(|error| chain(&error))?;
    let status = response.status();
    let mut body = response.into_body();
    if !status.is_success() {
        let text = timeout(idle, Limited::new(body, MOST_REASON).collect()).await;
        let text = text.ok().and_then(Result::ok).unwrap_or_default();
        return Err(refused(status, &text.to_bytes()));
    }
    let (pieces, receiver) = mpsc::channel(WAITING);
    let count = Arc::new(AtomicUsize::new(items.len()));
    let read = Pieces {
        receiver,
        piece: Bytes::new(),
    };
    let sink = Sink {
        items,
        reduce,
        count: Arc::clone(&count),
        object: PhantomData,
    };
    let reading = spawn_blocking(move || decode(read, sink));
    // A failed piece is no end: what was read of it is not taken.
    let fed = feed(&mut body, &pieces, idle, begun, &count).await;
    if let Err(reason) = &fed {
        let _ = pieces.send(Err(reason.clone())).await;
    }
    drop(pieces);
    let decoded = reading.await.map_err(|error| error.to_string())?;
    fed?;
    decoded
}

/// Hands over the body, until it ends or nobody reads it any more.
async fn feed(
    body: &mut Body,
    pieces: &mpsc::Sender<Result<Bytes, String>>,
    idle: Duration,
    begun: Instant,
    count: &AtomicUsize,
) -> Result<(), String> {
    loop {
        let frame = timeout(idle, body.frame()).await;
        let frame = frame.map_err(|_| format!("no data for {} s", idle.as_secs()))?;
        let Some(frame) = frame else { return Ok(()) };
        let frame = frame.map_err(|error| chain(&error))?;
        let may_take = allowed(count.load(Ordering::Relaxed));
        if begun.elapsed() > may_take {
            return Err(format!("not read within {} s", may_take.as_secs()));
        }
        if let Ok(data) = frame.into_data()
            && pieces.send(Ok(data)).await.is_err()
        {
            return Ok(());
        }
    }
}

/// How long a list may take that has so many objects by now.
fn allowed(objects: usize) -> Duration {
    let pages = u32::try_from(objects / PAGE).unwrap_or(u32::MAX);
    A_PAGE.saturating_mul(pages.saturating_add(1))
}

/// The API server's own sentence, where there is one.
fn refused(status: http::StatusCode, text: &[u8]) -> String {
    let said: Option<Status> = serde_json::from_slice(text).ok();
    said.map(|said| said.message)
        .filter(|message| !message.is_empty())
        .unwrap_or_else(|| format!("the API server answered {status}"))
}

/// The body, for a reader that waits.
struct Pieces {
    receiver: mpsc::Receiver<Result<Bytes, String>>,
    piece: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.receiver.blocking_recv() {
                Some(piece) => self.piece = piece.map_err(io::Error::other)?,
                None => return Ok(0),
            }
        }
        let length = self.piece.len().min(buffer.len());
        self.piece.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

/// Where objects go.
struct Sink<K, T> {
    items: Vec<T>,
    reduce: fn(K) -> Option<T>,
    count: Arc<AtomicUsize>,
    object: PhantomData<fn() -> K>,
}

fn decode<K: DeserializeOwned, T>(
    read: impl Read,
    mut sink: Sink<K, T>,
) -> Result<(Vec<T>, ListMetadata), String> {
    let mut reader = serde_json::Deserializer::from_reader(BufReader::new(read));
    let metadata = Page(&mut sink).deserialize(&mut reader);
    let metadata = metadata.map_err(|error| error.to_string())?;
    reader.end().map_err(|error| error.to_string())?;
    Ok((sink.items, metadata))
}

/// Of a list's metadata.
#[derive(Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
struct ListMetadata {
    #[serde(rename = "resourceVersion")]
    resource_version: Option<String>,
    #[serde(rename = "continue")]
    continue_: Option<String>,
}

/// A list: its metadata; its items go to the sink.
struct Page<'a, K, T>(&'a mut Sink<K, T>);

impl<'de, K: DeserializeOwned, T> DeserializeSeed<'de> for Page<'_, K, T> {
    type Value = ListMetadata;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<ListMetadata, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, K: DeserializeOwned, T> Visitor<'de> for Page<'_, K, T> {
    type Value = ListMetadata;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of the Kubernetes API")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ListMetadata, A::Error> {
        let mut metadata = None;
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "metadata" => metadata = map.next_value::<Option<ListMetadata>>()?,
                "items" => map.next_value_seed(Items(&mut *self.0))?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        // A list without its end or its version would pass for all that there is.
        metadata.ok_or_else(|| serde::de::Error::missing_field("metadata"))
    }
}

/// The items of a list, which may be `null`.
struct Items<'a, K, T>(&'a mut Sink<K, T>);

impl<'de, K: DeserializeOwned, T> DeserializeSeed<'de> for Items<'_, K, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de, K: DeserializeOwned, T> Visitor<'de> for Items<'_, K, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("items of a list")
    }

    fn visit_none<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while let Some(object) = items.next_element::<K>()? {
            let count = self.0.count.fetch_add(1, Ordering::Relaxed) + 1;
            if count > MOST {
                return Err(serde::de::Error::custom(format!("more than {MOST} objects")));
            }
            self.0.items.extend((self.0.reduce)(object));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, net::TcpListener, sync::Mutex, thread};

    use serde_json::json;

    use super::*;

    fn decoded(text: &str) -> Result<(Vec<u32>, ListMetadata), String> {
        let sink = Sink {
            items: vec![7],
            reduce: |number: u32| (number != 0).then_some(number),
            count: Arc::default(),
            object: PhantomData,
        };
        decode(text.as_bytes(), sink)
    }

    #[test]
    fn what_a_page_has() {
        let metadata = |version: &str, token: Option<&str>| ListMetadata {
            resource_version: Some(version.to_owned()),
            continue_: token.map(str::to_owned),
        };
        for (text, items, expected) in [
            (
                r#"{"kind": "List", "metadata": {"resourceVersion": "5", "continue": "t", "x": [{}]}, "items": [1, 0, 2]}"#,
                vec![7, 1, 2],
                metadata("5", Some("t")),
            ),
            (
                r#"{"items": [], "metadata": {"resourceVersion": "6"}}"#,
                vec![7],
                metadata("6", None),
            ),
            (
                r#"{"items": null, "metadata": {"resourceVersion": "6", "continue": ""}}"#,
                vec![7],
                metadata("6", Some("")),
            ),
        ] {
            assert_eq!(decoded(text).unwrap(), (items, expected), "{text}");
        }
        for text in [
            "",
            "[]",
            r#"{"items": [1]}"#,
            r#"{"metadata": {}, "items": [1"#,
            r#"{"metadata": {}, "items": ["a"]}"#,
            r#"{"metadata": {}, "items": [1]} x"#,
        ] {
            assert!(decoded(text).is_err(), "{text}");
        }
        let many = json!({"metadata": {}, "items": vec![1; MOST + 1]}).to_string();
        assert!(decoded(&many).unwrap_err().contains("more than 300000 objects"));
    }

    #[test]
    fn what_is_asked() {
        let query = ListQuery {
            path: "/api/v1/pods".to_owned(),
            labels: Some("a=b,c".to_owned()),
            ..ListQuery::default()
        };
        let old = ListQuery {
            may_be_old: true,
            ..query.clone()
        };
        for (query, token, expected) in [
            (&query, None, "/api/v1/pods?limit=500&labelSelector=a%3Db%2Cc"),
            (
                &old,
                None,
                "/api/v1/pods?limit=500&labelSelector=a%3Db%2Cc&resourceVersion=0",
            ),
            // With a token, a version is refused.
            (
                &old,
                Some("t/="),
                "/api/v1/pods?limit=500&labelSelector=a%3Db%2Cc&continue=t%2F%3D",
            ),
        ] {
            assert_eq!(query.uri(token), expected);
        }
    }

    /// An API that answers each request with the next of these; one without an answer hangs.
    fn api(answers: Vec<Option<(&'static str, &'static str)>>) -> (Client, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let asked = Arc::clone(&requests);
        thread::spawn(move || {
            let mut hanging = Vec::new();
            for (stream, answer) in listener.incoming().zip(answers) {
                let mut stream = stream.unwrap();
                let mut lines = io::BufRead::lines(BufReader::new(stream.try_clone().unwrap()));
                asked.lock().unwrap().push(lines.next().unwrap().unwrap());
                while !lines.next().unwrap().unwrap().is_empty() {}
                match answer {
                    Some((status, body)) => {
                        let length = body.len();
                        write!(
                            stream,
                            "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
                        )
                        .unwrap();
                    }
                    None => hanging.push(stream),
                }
            }
            thread::sleep(Duration::from_secs(60));
        });
        let config = kube::Config::new(url.parse().unwrap());
        (Client::try_from(config).unwrap(), requests)
    }

    const FIRST: &str = r#"{"metadata": {"resourceVersion": "5", "continue": "t"}, "items": [1, 2]}"#;
    const LAST: &str = r#"{"metadata": {"resourceVersion": "5"}, "items": [3]}"#;

    #[tokio::test]
    async fn pages_and_where_they_fail() {
        let query = ListQuery {
            path: "/api/v1/numbers".to_owned(),
            what: "the list of numbers",
            may_be_old: true,
            ..ListQuery::default()
        };
        let forbidden = r#"{"kind": "Status", "message": "no more", "code": 403}"#;
        let cases = [
            (
                vec![Some(("200 OK", FIRST)), Some(("200 OK", LAST))],
                Ok(vec![1, 2, 3]),
            ),
            (
                vec![Some(("200 OK", FIRST)), Some(("403 Forbidden", forbidden))],
                Err("the list of numbers can't be read: page 2: no more"),
            ),
            (
                vec![Some(("403 Forbidden", forbidden))],
                Err("the list of numbers can't be read: no more"),
            ),
            (
                vec![Some(("200 OK", FIRST)), None],
                Err("the list of numbers can't be read: page 2: no data for 10 s"),
            ),
        ];
        for (answers, expected) in cases {
            let (client, requests) = api(answers);
            let listed = list(&client, &query, |number: u32| Some(number)).await;
            let found = listed
                .map(|listed| (listed.items, listed.version))
                .map_err(|error| error.to_string());
            let expected = expected
                .map(|items| (items, "5".to_owned()))
                .map_err(str::to_owned);
            assert_eq!(found, expected);
            let requests = requests.lock().unwrap();
            assert!(
                requests[0].contains("limit=500&resourceVersion=0 "),
                "{requests:?}"
            );
            assert!(
                requests
                    .iter()
                    .skip(1)
                    .all(|line| line.contains("limit=500&continue=t ")),
                "{requests:?}"
            );
        }
    }

    #[test]
    fn how_long_a_list_may_take() {
        for (objects, seconds) in [(0, 60), (499, 60), (500, 120), (5000, 660)] {
            assert_eq!(allowed(objects).as_secs(), seconds, "{objects}");
        }
    }

    #[test]
    fn why_a_list_is_refused() {
        let forbidden = http::StatusCode::FORBIDDEN;
        let said =
            br#"{"kind": "Status", "status": "Failure", "message": "nodes is forbidden", "reason": "Forbidden", "code": 403}"#;
        assert_eq!(refused(forbidden, said), "nodes is forbidden");
        assert_eq!(
            refused(forbidden, b"<html>"),
            "the API server answered 403 Forbidden"
        );
    }
}
