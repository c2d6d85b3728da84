//! An installation to ask questions: a broker, an API, workers, and clients that see more than a polite one does.

use bytes::Bytes;
use cardcage::broker::{Broker, Options};
use cardcage_harness::{Cardcage, Config, Deadline, Http, Nats, Reply, Signal, eventually};
use cardcage_protocol::{Name, Namespace, Priority, TaskAddress, TaskEnvelope, TaskId, Timestamp};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Time for what should happen soon.
pub(crate) fn soon() -> Deadline {
    Deadline::seconds(30)
}

/// A broker and an API; workers as the test starts them.
pub(crate) struct Serving {
    pub(crate) http: Http,
    pub(crate) api: Cardcage,
    pub(crate) config: Config,
    // Last, so that hosts stop before their broker.
    pub(crate) nats: Nats,
}

impl Serving {
    /// An API with the plugins hello and chaos, and with what `change` sets.
    pub(crate) async fn api(change: impl FnOnce(Config) -> Config) -> Self {
        let nats = Nats::start().await.unwrap();
        let config = Config::new(&nats).plugin("hello").unwrap().plugin("chaos").unwrap();
        let config = change(config);
        let api = Cardcage::api(&config).await.unwrap();
        // The API is ready before its streams are there, since it serves inline routes without them.
        restored(&api).await;
        Self { http: api.http().unwrap(), api, config, nats }
    }

    /// Such an API and one worker.
    pub(crate) async fn both(change: impl FnOnce(Config) -> Config) -> (Self, Cardcage) {
        let serving = Self::api(change).await;
        let worker = serving.worker().await;
        (serving, worker)
    }

    pub(crate) async fn worker(&self) -> Cardcage {
        Cardcage::worker(&self.config).await.unwrap()
    }

    /// `POST /chaos/call` with this order.
    /// The installation's broker, beside its hosts, whose lease it must be told.
    pub(crate) async fn broker(&self, lease: Duration) -> Broker {
        let namespace = Namespace::new(self.config.namespace()).unwrap();
        let options = Options { url: self.nats.url(), namespace, lease, ..Options::default() };
        let broker = Broker::connect(options).await.unwrap();
        broker.wait_connected(Duration::from_secs(10)).await.unwrap();
        broker
    }

    pub(crate) async fn order(&self, order: Value) -> Reply {
        self.http.post_json("/chaos/call", &order).await.unwrap()
    }

    /// The same, going on in the background.
    pub(crate) fn order_later(&self, order: Value) -> tokio::task::JoinHandle<Reply> {
        let http = self.http.clone();
        tokio::spawn(async move { http.post_json("/chaos/call", &order).await.unwrap() })
    }

    /// What became of chaos' handlers where they run: on the one worker, or in the API.
    pub(crate) async fn seen(&self) -> Value {
        self.get("/chaos/seen").await.json().unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.http.get(path).await.unwrap()
    }

    /// Waits until chaos has counted `count` of `what` on the one worker.
    pub(crate) async fn wait_seen(&self, what: &str, count: u64) {
        let text = format!("{what} is {count} on the worker");
        eventually(soon(), &text, async || (self.seen().await[what] == count).then_some(())).await.unwrap();
    }

    /// Where callers connect.
    pub(crate) fn address(&self) -> String {
        self.http.url("").trim_start_matches("http://").to_owned()
    }
}

/// Waits until an API has the broker and its streams.
pub(crate) async fn restored(api: &Cardcage) {
    let admin = api.admin().unwrap();
    eventually(soon(), "the API is not degraded", async || {
        let reply = admin.get("/readyz?verbose").await.ok()?;
        let degraded = reply.json().ok()?.get("degraded").and_then(Value::as_array).cloned();
        degraded.is_none_or(|reasons| reasons.is_empty()).then_some(())
    })
    .await
    .unwrap();
}

/// Waits until a line of `/metrics` stands there.
pub(crate) async fn wait_metric(host: &Cardcage, line: &str) {
    let admin = host.admin().unwrap();
    let mut last = String::new();
    let found = eventually(soon(), line, async || {
        last = admin.get("/metrics").await.map(|reply| reply.text()).unwrap_or_default();
        last.lines().any(|found| found == line).then_some(())
    })
    .await;
    assert!(found.is_ok(), "{line} never stood in:\n{last}");
}

/// The one child of a host.
pub(crate) fn child(host: &Cardcage) -> u32 {
    let children = host.child_pids();
    assert_eq!(children.len(), 1, "one child: {children:?}");
    children[0]
}

/// Signals a process that the test started by way of its supervisor.
pub(crate) fn signal(pid: u32, signal: Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// Stops a child in its tracks. The signal is only the beginning of that: a thread that runs on another core goes on
/// for a moment, and can still answer somebody.
pub(crate) async fn pause(pid: u32) {
    signal(pid, Signal::STOP);
    let is_stopped = |thread: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    };
    eventually(soon(), "the child is stopped", async || {
        let mut threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        threads.all(|thread| thread.is_ok_and(is_stopped)).then_some(())
    })
    .await
    .unwrap();
}

/// Asserts that a reply is this problem, complete with everything that problems have.
#[track_caller]
pub(crate) fn assert_problem(reply: &Reply, status: u16, code: &str) {
    assert_eq!((reply.status, reply.problem_code().as_deref()), (status, Some(code)), "{}", reply.text());
    let problem = reply.json().unwrap();
    assert_eq!(problem["type"], format!("/problems/{code}"));
    assert_eq!(problem["status"], status);
    assert_eq!(problem["request_id"].as_str(), reply.header("x-request-id"), "{problem}");
    assert_eq!(reply.header("retry-after").is_some(), status == 503, "{code} and Retry-After");
}

/// A connection on which the test says exactly which bytes are sent.
pub(crate) struct Raw(pub(crate) TcpStream);

impl Raw {
    pub(crate) async fn connect(address: &str) -> Self {
        Self(TcpStream::connect(address).await.unwrap())
    }

    /// Sends, as far as the other side takes it.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.0.write_all(bytes.as_ref()).await;
    }

    /// `POST` with a JSON body.
    pub(crate) async fn post(&mut self, path: &str, body: &Value) {
        let body = body.to_string();
        let length = body.len();
        let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n");
        self.send(format!("{head}content-length: {length}\r\n\r\n{body}")).await;
    }

    /// Reads a reply with a `content-length`; the rest of the connection is not looked at.
    pub(crate) async fn reply(&mut self) -> Reply {
        let mut bytes = Vec::new();
        let mut buffer = [0; 4096];
        let read = async {
            loop {
                if let Some(reply) = parse(&bytes) {
                    return reply;
                }
                match self.0.read(&mut buffer).await {
                    Ok(count) if count > 0 => bytes.extend_from_slice(&buffer[..count]),
                    end => {
                        panic!("the connection ended ({end:?}) after {:?}", String::from_utf8_lossy(&bytes))
                    }
                }
            }
        };
        tokio::time::timeout(soon().length(), read).await.expect("a reply")
    }

    /// Whether the other side closes the connection, reading away what comes before.
    pub(crate) async fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        let end = tokio::time::timeout(soon().length(), self.0.read_to_end(&mut rest)).await;
        // A reset is an end, too.
        end.is_ok()
    }
}

pub(crate) fn parse(bytes: &[u8]) -> Option<Reply> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).unwrap();
    let mut lines = head.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().unwrap();
    let mut headers = http::HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap();
        let name: http::HeaderName = name.parse().unwrap();
        headers.append(name, value.parse().unwrap());
    }
    let length: usize =
        headers.get("content-length").map_or(0, |value| value.to_str().unwrap().parse().unwrap());
    let body = bytes.get(end + 4..end + 4 + length)?;
    Some(Reply { status, headers, body: Bytes::copy_from_slice(body) })
}

/// A client that reads replies piece by piece.
pub(crate) type Pieces =
    hyper_util::client::legacy::Client<hyper_util::client::legacy::connect::HttpConnector, Full<Bytes>>;

pub(crate) fn pieces() -> Pieces {
    hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build_http()
}

/// A client that speaks HTTP/2 and nothing else.
pub(crate) fn http2() -> Pieces {
    hyper_util::client::legacy::Client::builder(TokioExecutor::new()).http2_only(true).build_http()
}

/// `POST` of a JSON body whose reply is to be read piece by piece.
pub(crate) async fn post_pieces(
    serving: &Serving,
    path: &str,
    body: Value,
) -> hyper::Response<hyper::body::Incoming> {
    let request = hyper::Request::post(serving.http.url(path)).header("content-type", "application/json");
    pieces().request(request.body(Full::from(body.to_string())).unwrap()).await.unwrap()
}

/// The next piece; `None` at the end.
pub(crate) async fn next_piece(body: &mut hyper::body::Incoming) -> Option<Result<Bytes, hyper::Error>> {
    let frame = tokio::time::timeout(soon().length(), body.frame()).await.expect("a piece, or an end");
    frame.map(|frame| frame.map(|frame| frame.into_data().unwrap_or_default()))
}

/// An order for chaos that waits `ms` without holding a thread.
pub(crate) fn sleep(ms: u64) -> Value {
    json!({ "mode": "sleep", "ms": ms })
}

/// A task of chaos as another enqueuer would write it.
pub(crate) fn chaos_envelope(id: TaskId, task: &str, body: impl Into<Bytes>) -> TaskEnvelope {
    let address = TaskAddress {
        plugin: Name::new("chaos").unwrap(),
        major: 0,
        task: Name::new(task).unwrap(),
        priority: Priority::Normal,
        id,
    };
    TaskEnvelope::new(address, "0.1.0".into(), Timestamp::now(), body.into())
}
