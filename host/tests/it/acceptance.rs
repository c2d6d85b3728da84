//! What a 202 is worth when the broker stored the first publish only after its caller had been told no.
//!
//! The link between the API and a real nats-server has a gate that stops at a task's publish, as a network that stalls
//! would; the rest of the world goes on. What the gate lets go on was to be stored before it came to the gate: waiting
//! until a promise's own generous margin is over would take half a minute each time.

use std::time::Duration;

use cardcage::broker::{Broker, Options, Place};
use cardcage_harness::{Cardcage, Config, Http, Nats, Reply, eventually};
use cardcage_protocol::{Namespace, TaskId, Timestamp, header};
use http::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

use crate::serving::{assert_problem, restored, soon, wait_metric};

const WAIT: Duration = Duration::from_secs(10);

/// A way to the broker that can be closed to the publishes of tasks.
struct Gate {
    url: String,
    is_closed: watch::Sender<bool>,
    held: mpsc::UnboundedReceiver<String>,
}

impl Gate {
    async fn before(nats: &Nats) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("nats://{}", listener.local_addr().unwrap());
        let server = nats.url().trim_start_matches("nats://").to_owned();
        let (is_closed, closed) = watch::channel(false);
        let (tell, held) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(&server).await else { continue };
                tokio::spawn(pass(client, server, closed.clone(), tell.clone()));
            }
        });
        Self { url, is_closed, held }
    }

    fn close(&self) {
        self.is_closed.send_replace(true);
    }

    fn open(&self) {
        self.is_closed.send_replace(false);
    }

    /// The task of the next publish that stands before the closed gate.
    async fn held(&mut self) -> TaskId {
        let text = tokio::time::timeout(WAIT, self.held.recv()).await.expect("a publish").unwrap();
        let id = text.lines().find_map(|line| line.strip_prefix(header::TASK_ID)?.strip_prefix(": "));
        id.expect("a task's id").parse().unwrap()
    }
}

/// The publish with an `accept-by` of a millisecond ago, which is as long as the one that it has.
fn too_late(publish: &str) -> String {
    let (before, after) = publish.split_once(header::ACCEPT_BY).expect("an accept-by");
    let (value, after) = after.split_once("\r\n").unwrap();
    let passed = format!(": {}", Timestamp::from_unix_ms(Timestamp::now().unix_ms() - 1));
    assert_eq!(passed.len(), value.len());
    format!("{before}{}{passed}\r\n{after}", header::ACCEPT_BY)
}

async fn pass(
    client: TcpStream,
    server: TcpStream,
    mut closed: watch::Receiver<bool>,
    tell: mpsc::UnboundedSender<String>,
) {
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let up = async {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(count @ 1..) = from_client.read(&mut buffer).await {
            let text = String::from_utf8_lossy(&buffer[..count]);
            let mut bytes = buffer[..count].to_vec();
            if *closed.borrow() && text.contains("HPUB") && text.contains(".task.") {
                bytes = too_late(&text).into_bytes();
                tell.send(text.into_owned()).unwrap();
                if closed.wait_for(|closed| !closed).await.is_err() {
                    return;
                }
            }
            if to_server.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = up => {}
        _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
    }
}

/// An API behind a gate.
struct Front {
    api: Cardcage,
    http: Http,
    gate: Gate,
}

impl Front {
    async fn open(nats: &Nats, config: &Config, patience_ms: i64) -> Self {
        let gate = Gate::before(nats).await;
        let gated = config.clone().set("broker.url", gate.url.as_str());
        let api = Cardcage::api(&gated.set("api.enqueue_timeout_ms", patience_ms)).await.unwrap();
        restored(&api).await;
        Self { http: api.http().unwrap(), api, gate }
    }

    async fn post(&self) -> Reply {
        post(&self.http).await.unwrap()
    }

    /// A request whose publish is stored after its caller had a 503; returns the task that nobody was promised.
    async fn miss(&mut self) -> TaskId {
        self.gate.close();
        assert_problem(&self.post().await, 503, "broker_unavailable");
        let late = self.gate.held().await;
        self.gate.open();
        late
    }

    /// Repeats the request until it is accepted, as a caller does who reads `Retry-After`.
    async fn retry(&self) -> String {
        let accepted = eventually(soon(), "the retry is accepted", async || {
            let reply = self.post().await;
            if reply.status != 202 {
                assert_problem(&reply, 503, "broker_unavailable");
                return None;
            }
            reply.task_id().ok()
        });
        accepted.await.unwrap()
    }
}

async fn post(http: &Http) -> cardcage_harness::Result<Reply> {
    let headers = [("idempotency-key", "payment-7"), ("content-type", "application/json")];
    http.send(Method::POST, "/chaos/task", &headers, json!({ "mode": "ok" }).to_string().into()).await
}

/// An installation, and a broker to look into.
struct Stage {
    front: Front,
    broker: Broker,
    /// Tasks that were accepted before the test began.
    primed: usize,
    config: Config,
    // Last, so that hosts stop before their broker.
    nats: Nats,
}

impl Stage {
    async fn set(patience_ms: i64) -> Self {
        let nats = Nats::start().await.unwrap();
        let config = Config::new(&nats).plugin("hello").unwrap().plugin("chaos").unwrap();
        let front = Front::open(&nats, &config, patience_ms).await;
        let namespace = Namespace::new(config.namespace()).unwrap();
        let options = Options { url: nats.url(), namespace, ..Options::default() };
        let broker = Broker::connect(options).await.unwrap();
        broker.wait_connected(WAIT).await.unwrap();
        let primed = prime(&front, &broker).await;
        Self { front, broker, primed, config, nats }
    }

    /// Waits until the late publish is in the queue.
    async fn wait_stored(&self, id: TaskId) {
        eventually(soon(), "the late publish is stored", async || {
            let place = self.broker.find_task(id).await.unwrap()?;
            let Place::Queued(waiting) = &place else { panic!("{place:?}") };
            assert!(!waiting.envelope.as_ref().unwrap().is_promised(waiting.stored_at.unwrap()), "{place:?}");
            Some(())
        })
        .await
        .unwrap();
    }

    /// Waits for the task's one run, and sees that nothing else has run.
    async fn ran_once(&self, id: &str, worker: &Cardcage) {
        let done = self.front.http.final_task(id, soon()).await.unwrap();
        assert_eq!(done["state"], "succeeded", "{done}");
        assert_eq!(done["attempts"].as_array().unwrap().len(), 1, "{done}");
        let config = self.config.namespace();
        let client = async_nats::connect(self.nats.url()).await.unwrap();
        let context = async_nats::jetstream::new(client);
        let mut stream = context.get_stream(format!("{config}_TASKS_chaos")).await.unwrap();
        eventually(soon(), "the queue is empty", async || {
            (stream.info().await.ok()?.state.messages == 0).then_some(())
        })
        .await
        .unwrap();
        wait_metric(worker, &format!("cardcage_tasks_total{{what=\"started\"}} {}", self.primed + 1)).await;
    }
}

/// An API says by when a publish must be stored as soon as it knows the broker's clock. Returns how many tasks it took.
async fn prime(front: &Front, broker: &Broker) -> usize {
    let mut primed = 0;
    eventually(soon(), "the API knows the broker's clock", async || {
        let reply = front.http.post_json("/hello/task", &json!({})).await.unwrap();
        primed += usize::from(reply.status == 202);
        let found = broker.find_task(reply.task_id().ok()?.parse().unwrap()).await.unwrap();
        let Some(Place::Queued(waiting)) = found else { panic!("{found:?}") };
        waiting.envelope.unwrap().accept_by.map(|_| ())
    })
    .await
    .unwrap();
    primed
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_of_a_request_that_was_stored_too_late_is_run_once_when_a_worker_starts() {
    let mut stage = Stage::set(1_500).await;
    let late = stage.front.miss().await;
    stage.wait_stored(late).await;
    let id = stage.front.retry().await;
    assert_eq!(stage.front.retry().await, id, "and every further retry means the same task");
    let worker = Cardcage::worker(&stage.config).await.unwrap();
    stage.ran_once(&id, &worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_of_a_request_that_a_worker_has_dropped_is_run_once() {
    let mut stage = Stage::set(1_500).await;
    let worker = Cardcage::worker(&stage.config).await.unwrap();
    stage.front.miss().await;
    wait_metric(&worker, "cardcage_tasks_total{what=\"unpromised\"} 1").await;
    let id = stage.front.retry().await;
    assert_eq!(stage.front.retry().await, id, "and every further retry means the same task");
    stage.ran_once(&id, &worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_that_race_after_a_late_publish_get_one_task() {
    let mut stage = Stage::set(1_500).await;
    let worker = Cardcage::worker(&stage.config).await.unwrap();
    stage.front.miss().await;
    // At once: they meet the late message on its way, in the queue, with the worker, or gone.
    let ids = futures_util::future::join_all((0..16).map(|_| stage.front.retry())).await;
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    stage.ran_once(&ids[0], &worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn api_killed_after_it_removed_a_late_publish_leaves_a_task_that_the_next_retry_publishes() {
    let mut stage = Stage::set(1_500).await;
    let late = stage.front.miss().await;
    stage.wait_stored(late).await;
    stage.front.gate.close();
    let http = stage.front.http.clone();
    let dying = tokio::spawn(async move { post(&http).await });
    let again = stage.front.gate.held().await;
    stage.front.api.kill9();
    for pid in stage.front.api.child_pids() {
        // Gone already where it was quick to notice.
        let _ = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status();
    }
    assert!(dying.await.unwrap().is_err(), "nobody was told anything");
    stage.front = Front::open(&stage.nats, &stage.config, 1_500).await;
    assert_eq!(stage.front.retry().await, again.to_string());
    let worker = Cardcage::worker(&stage.config).await.unwrap();
    stage.ran_once(&again.to_string(), &worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn first_request_that_is_overtaken_by_a_repeat_whose_publish_came_too_late_is_run_once() {
    let mut stage = Stage::set(20_000).await;
    let mut hasty = Front::open(&stage.nats, &stage.config, 1_500).await;
    stage.primed += prime(&hasty, &stage.broker).await;
    stage.front.gate.close();
    let http = stage.front.http.clone();
    let patient = tokio::spawn(async move { post(&http).await.unwrap() });
    let id = stage.front.gate.held().await;
    assert_eq!(hasty.miss().await, id, "the repeat means the same task");
    stage.wait_stored(id).await;
    stage.front.gate.open();
    let reply = patient.await.unwrap();
    if reply.status != 202 {
        assert_problem(&reply, 503, "broker_unavailable");
        stage.front.retry().await;
    }
    let worker = Cardcage::worker(&stage.config).await.unwrap();
    stage.ran_once(&id.to_string(), &worker).await;
}
