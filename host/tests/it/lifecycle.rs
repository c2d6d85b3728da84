//! How hosts end, and what they leave behind: nothing, whatever ends them.

use std::time::{Duration, Instant};

use cardcage_harness::{Cardcage, Config, Deadline, Http, Launch, Nats, Port, Reply, Signal, eventually};
use rustix::process::{Pid, kill_process};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::serving::assert_problem;

/// Time for what should happen soon.
fn soon() -> Deadline {
    Deadline::seconds(60)
}

/// `hello` and `chaos` in an API without a broker, the calls of `chaos` inline.
fn config() -> Config {
    let config = Config::default().set("broker.url", "nats://127.0.0.1:1");
    config.plugin("hello").unwrap().plugin("chaos").unwrap().set("plugins.chaos.placement", "inline")
}

type Asked = JoinHandle<cardcage_harness::Result<Reply>>;

/// A request whose handler has started.
async fn in_flight(api: &Cardcage, mode: &str, ms: u64) -> Asked {
    let (http, admin) = (api.http().unwrap(), api.admin().unwrap());
    let order = json!({ "mode": mode, "ms": ms });
    let asked = tokio::spawn(async move { http.post_json("/chaos/call", &order).await });
    eventually(soon(), "the request is in flight", async || {
        let metrics = admin.get("/metrics").await.ok()?.text();
        metrics.contains("cardcage_http_requests_in_flight 1").then_some(())
    })
    .await
    .unwrap();
    asked
}

/// No process of a host is left, not even one whose parent is gone.
async fn nothing_is_left(host: &Cardcage, deadline: Deadline) {
    eventually(deadline, "no process is left", async || host.child_pids().is_empty().then_some(()))
        .await
        .unwrap_or_else(|error| panic!("{error}: {:?}\n{}", host.child_pids(), host.stderr()));
}

async fn is_draining(admin: &Http) {
    eventually(soon(), "it is unready", async || {
        let reply = admin.get("/readyz").await.ok()?;
        (reply.status == 503 && reply.text().contains("draining")).then_some(())
    })
    .await
    .unwrap();
}

async fn exits(host: &mut Cardcage, code: i32) {
    let status = host.wait_exit(soon()).await.unwrap();
    assert_eq!(status.code(), Some(code), "{}", host.stderr());
    nothing_is_left(host, soon()).await;
}

async fn verbose(host: &Cardcage) -> Value {
    host.admin().unwrap().get("/readyz?verbose").await.unwrap().json().unwrap()
}

fn kill9(pid: u32) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::KILL).unwrap();
}

#[tokio::test]
async fn sigterm_makes_unready_finishes_what_is_in_flight_and_exits_0() {
    let mut api = Cardcage::api(&config()).await.unwrap();
    let asked = in_flight(&api, "sleep", 3_000).await;
    api.signal(Signal::TERM).unwrap();
    is_draining(&api.admin().unwrap()).await;
    assert!(!asked.is_finished(), "it is unready while the request is in flight");
    assert_eq!(asked.await.unwrap().unwrap().status, 200);
    exits(&mut api, 0).await;
}

#[tokio::test]
async fn signal_to_the_whole_group_ends_it_as_one_to_the_supervisor_does() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut api = Launch::new(["api"]).config(&config()).own_group().ready().await.unwrap();
        let asked = in_flight(&api, "sleep", 1_000).await;
        api.signal_group(signal).unwrap();
        assert_eq!(asked.await.unwrap().unwrap().status, 200, "{signal:?}");
        exits(&mut api, 0).await;
    }
}

#[tokio::test]
async fn grace_that_is_exceeded_ends_in_75_also_where_a_thread_is_blocked() {
    for mode in ["sleep", "block"] {
        let mut api = Cardcage::api(&config().set("drain.grace_ms", 300)).await.unwrap();
        let asked = in_flight(&api, mode, 600_000).await;
        api.signal(Signal::TERM).unwrap();
        assert_problem(&asked.await.unwrap().unwrap(), 503, "shutting_down");
        exits(&mut api, 75).await;
    }
}

#[tokio::test]
async fn second_signal_ends_it_at_once() {
    let grace = Duration::from_secs(300);
    let config = config().set("tasks.lease_ms", 600_000).set("drain.grace_ms", 300_000);
    let mut api = Cardcage::api(&config).await.unwrap();
    let _asked = in_flight(&api, "block", 600_000).await;
    let began = Instant::now();
    api.signal(Signal::TERM).unwrap();
    is_draining(&api.admin().unwrap()).await;
    api.signal(Signal::TERM).unwrap();
    exits(&mut api, 75).await;
    assert!(began.elapsed() < grace / 5, "it did not wait for the grace");
}

#[tokio::test]
async fn killed_supervisor_leaves_no_process_and_what_is_in_flight_is_finished() {
    let mut api = Cardcage::api(&config()).await.unwrap();
    let asked = in_flight(&api, "sleep", 1_000).await;
    api.kill9();
    assert_eq!(asked.await.unwrap().unwrap().status, 200);
    nothing_is_left(&api, soon()).await;
}

#[tokio::test]
async fn child_of_a_killed_supervisor_ends_within_the_grace_even_with_a_blocked_thread() {
    for mode in ["sleep", "block"] {
        let mut api = Cardcage::api(&config().set("drain.grace_ms", 1_000)).await.unwrap();
        let _asked = in_flight(&api, mode, 600_000).await;
        assert_eq!(api.child_pids().len(), 1);
        api.kill9();
        // Five times the grace and its margin.
        nothing_is_left(&api, Deadline::after(Duration::from_millis(7_500))).await;
    }
}

#[tokio::test]
async fn supervisor_killed_while_a_plugin_hangs_in_its_init_leaves_no_process() {
    let config = config().plugin_set("chaos", "init", "hang").set("loading.timeout_ms", 600_000);
    let mut api = Launch::new(["api"]).config(&config.set("drain.grace_ms", 500)).start().unwrap();
    eventually(soon(), "it has a child", async || (!api.child_pids().is_empty()).then_some(()))
        .await
        .unwrap();
    api.kill9();
    nothing_is_left(&api, soon()).await;
}

#[tokio::test]
async fn sigterm_while_a_plugin_hangs_in_its_init_ends_it_soon() {
    let config = config().plugin_set("chaos", "init", "hang").set("loading.timeout_ms", 600_000);
    let mut api = Launch::new(["api"]).config(&config).start().unwrap();
    api.wait_addresses(soon()).await.unwrap();
    eventually(soon(), "it has a child", async || (!api.child_pids().is_empty()).then_some(()))
        .await
        .unwrap();
    api.signal(Signal::TERM).unwrap();
    exits(&mut api, 0).await;
}

#[tokio::test]
async fn killed_child_is_restarted() {
    let mut api = Cardcage::api(&config()).await.unwrap();
    for restarts in 1..=3 {
        let [child] = api.child_pids()[..] else { panic!("one child: {:?}", api.child_pids()) };
        kill9(child);
        let http = api.http().unwrap();
        eventually(soon(), "another child serves", async || {
            let now = verbose(&api).await;
            (now["ready"] == true && now["restarts"] == restarts).then_some(())
        })
        .await
        .unwrap();
        assert_eq!(http.get("/hello/inline").await.unwrap().status, 200);
        assert!(!api.child_pids().contains(&child));
    }
    assert_eq!(api.stop(soon()).await.unwrap().code(), Some(0));
    nothing_is_left(&api, soon()).await;
}

#[tokio::test]
async fn worker_ends_as_an_api_does() {
    let nats = Nats::start().await.unwrap();
    let config = Config::new(&nats).plugin("hello").unwrap().set("drain.grace_ms", 2_000);
    let mut worker = Cardcage::worker(&config).await.unwrap();
    let [child] = worker.child_pids()[..] else { panic!("one child: {:?}", worker.child_pids()) };
    kill9(child);
    eventually(soon(), "another child consumes", async || {
        let now = verbose(&worker).await;
        (now["ready"] == true && now["consuming"] == true && now["restarts"] == 1).then_some(())
    })
    .await
    .unwrap();
    worker.signal(Signal::TERM).unwrap();
    exits(&mut worker, 0).await;

    let mut killed = Launch::new(["worker"]).config(&config).own_group().ready().await.unwrap();
    killed.kill9();
    nothing_is_left(&killed, soon()).await;

    let mut grouped = Launch::new(["worker"]).config(&config).own_group().ready().await.unwrap();
    grouped.signal_group(Signal::TERM).unwrap();
    exits(&mut grouped, 0).await;
}

#[tokio::test]
async fn port_in_use_ends_the_start_with_69_and_is_named_with_its_option() {
    let port = Port::reserve().unwrap();
    let _taken = std::net::TcpListener::bind(port.address()).unwrap();
    for (role, option) in [("api", "api.listen"), ("api", "admin.listen"), ("worker", "admin.listen")] {
        let config = config().set(option, port.address());
        let output = Launch::new([role]).config(&config).run(soon()).await.unwrap();
        assert_eq!(output.status.code(), Some(69), "{}", output.stderr);
        let told = |line: &str| line.contains(&port.address()) && line.contains(option);
        assert!(output.stderr.lines().any(told), "{role} {option}: {}", output.stderr);
    }
}

#[tokio::test]
async fn worker_without_a_broker_exits_69_after_its_patience() {
    let began = Instant::now();
    let config = config().set("broker.startup_timeout_ms", 500);
    let mut worker = Launch::new(["worker"]).config(&config).start().unwrap();
    exits(&mut worker, 69).await;
    assert!(began.elapsed() >= Duration::from_millis(500), "it waited");
    assert!(worker.stderr().contains("nats://127.0.0.1:1"), "it names the broker: {}", worker.stderr());
}

#[tokio::test]
async fn bad_configuration_ends_the_start_with_78_and_is_shown() {
    for (text, words) in [
        ("[api\n", "cardcage.toml:1"),
        ("[api]\nlisten = 8080\n", "api.listen"),
        ("[api]\nlistne = \"127.0.0.1:0\"\n", "listen"),
        ("[drain]\ngrace_ms = -1\n", "grace_ms"),
        ("[plugins.hello]\n", "has no library"),
    ] {
        for role in ["api", "worker"] {
            let output = Launch::new([role]).config_text(text).run(soon()).await.unwrap();
            assert_eq!(output.status.code(), Some(78), "{text}: {}", output.stderr);
            assert!(output.stderr.contains(words), "{words}: {}", output.stderr);
        }
    }
}
