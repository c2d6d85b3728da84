//! `cardcage dev`: everything on one machine, and nothing left of it afterwards.

mod project;

use std::path::{Path, PathBuf};

use cardcage_harness::{Cardcage, Config, Deadline, Launch, Nats, Port, Signal, eventually, plugin_library};
use cardcage_protocol::Timestamp;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Generous: a debug build on a busy machine.
fn soon() -> Deadline {
    Deadline::seconds(60)
}

/// A private copy of the hello plugin, which a test can replace.
struct Library(TempDir);

impl Library {
    fn new() -> Self {
        let library = Self(tempfile::tempdir().unwrap());
        library.replace(&std::fs::read(plugin_library("hello").unwrap()).unwrap());
        library
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("libhello.so")
    }

    /// As a linker does it: a new file under the old name.
    fn replace(&self, bytes: &[u8]) {
        let temporary = self.0.path().join("new");
        std::fs::write(&temporary, bytes).unwrap();
        std::fs::rename(temporary, self.path()).unwrap();
    }
}

struct Dev {
    cardcage: Cardcage,
    port: Port,
    /// Fixed, so that the API is found again after a restart.
    _api: Port,
    library: Library,
}

fn launch(port: &Port, api: &Port, library: &Path) -> Launch {
    let config = Config::default()
        .set("broker.url", format!("nats://{}", port.address()))
        .set("api.listen", api.address().to_string())
        .set("dev.watch_interval_ms", 100)
        .plugin_at("hello", library);
    Launch::new(["dev"]).binary(Path::new(env!("CARGO_BIN_EXE_cardcage"))).config(&config).own_group()
}

impl Dev {
    async fn ready() -> Self {
        let (port, api, library) = (Port::reserve().unwrap(), Port::reserve().unwrap(), Library::new());
        let cardcage = launch(&port, &api, &library.path()).ready().await.unwrap();
        Self { cardcage, port, _api: api, library }
    }

    async fn says(&self, what: &str) {
        let wait =
            eventually(soon(), what, async || self.cardcage.stderr().contains(what).then_some(())).await;
        wait.unwrap_or_else(|error| panic!("{error}\n{}", self.cardcage.stderr()));
    }

    async fn everything_is_gone(&self) {
        let gone = eventually(soon(), "no process is left", async || {
            self.cardcage.child_pids().is_empty().then_some(())
        });
        gone.await.unwrap_or_else(|error| {
            panic!("{error}: {:?}\n{}", self.cardcage.child_pids(), self.cardcage.stderr())
        });
        assert!(std::net::TcpStream::connect(self.port.address()).is_err(), "nats-server is gone");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_serves_and_ctrl_c_leaves_no_process() {
    let mut dev = Dev::ready().await;
    // dev's guard, nats-server, and two supervisors with a child each.
    assert_eq!(dev.cardcage.child_pids().len(), 6, "{}", dev.cardcage.stderr());
    let http = dev.cardcage.http().unwrap();
    assert_eq!(http.get("/hello/inline?name=dev").await.unwrap().text(), "Hello, dev!");
    assert_eq!(http.post_json("/hello/call", &json!({"a": 1})).await.unwrap().text(), r#"{"a":1}"#);
    assert_eq!(http.post_json("/hello/task", &json!({"a": 1})).await.unwrap().status, 202);
    let printed = dev.cardcage.stdout();
    for word in ["API", "api admin", "worker admin", "NATS", "/hello", "Ctrl-C"] {
        assert!(printed.contains(word), "{word} is in {printed}");
    }
    dev.cardcage.signal_group(Signal::INT).unwrap();
    assert_eq!(dev.cardcage.wait_exit(soon()).await.unwrap().code(), Some(0), "{}", dev.cardcage.stderr());
    dev.everything_is_gone().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_that_is_killed_leaves_no_process_and_no_folder() {
    let mut dev = Dev::ready().await;
    let mark = format!("cardcage-dev-{}-", dev.cardcage.pid());
    let folders = || {
        let entries = std::fs::read_dir(std::env::temp_dir()).unwrap().flatten();
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&mark)).count()
    };
    assert_eq!(folders(), 1);
    dev.cardcage.kill9();
    dev.everything_is_gone().await;
    assert_eq!(folders(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_rolls_a_changed_library_and_not_a_broken_one() {
    let mut dev = Dev::ready().await;
    let before = dev.cardcage.child_pids();
    let good = std::fs::read(dev.library.path()).unwrap();

    dev.library.replace(b"not a library");
    dev.says("the hosts go on with the library that they have").await;
    assert_eq!(dev.cardcage.child_pids(), before, "nothing was restarted");
    assert_eq!(dev.cardcage.http().unwrap().get("/hello/inline").await.unwrap().status, 200);

    // A good library that differs: something behind its end, which nothing reads.
    dev.library.replace(&[good.as_slice(), b"\n"].concat());
    dev.says("worker took over: hello 0.1.0").await;
    dev.says("api took over: hello 0.1.0").await;
    assert_eq!(dev.cardcage.http().unwrap().get("/hello/inline").await.unwrap().status, 200);
    let children = eventually(soon(), "the children from before are gone", async || {
        let after = dev.cardcage.child_pids();
        // nats-server, its guard and both supervisors stay.
        (after.len() == 6 && after.iter().filter(|pid| before.contains(pid)).count() == 4).then_some(())
    });
    children.await.unwrap_or_else(|error| panic!("{error}: {:?}", dev.cardcage.child_pids()));
    assert!(dev.cardcage.stop(soon()).await.unwrap().success());
    dev.everything_is_gone().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_says_whose_port_it_is_and_uses_a_broker_that_runs() {
    let nats = Nats::start().await.unwrap();
    let library = Library::new();
    let config = |managed: bool| {
        Config::new(&nats).set("dev.broker_managed", managed).plugin_at("hello", &library.path())
    };
    let binary = Path::new(env!("CARGO_BIN_EXE_cardcage"));
    let output = Launch::new(["dev"]).binary(binary).config(&config(true)).run(soon()).await.unwrap();
    assert_eq!(output.status.code(), Some(69), "{output:?}");
    assert!(output.stderr.contains("dev.broker_managed=false"), "{output:?}");

    let mut cardcage = Launch::new(["dev"]).binary(binary).config(&config(false)).ready().await.unwrap();
    assert_eq!(cardcage.child_pids().len(), 4, "no guard and no nats-server");
    assert!(cardcage.stop(soon()).await.unwrap().success());
    assert!(cardcage.child_pids().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_that_cannot_start_says_why_and_leaves_no_process() {
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("empty.so");
    std::fs::write(&library, "").unwrap();
    let port = Port::reserve().unwrap();
    let api = Port::reserve().unwrap();
    let mut cardcage = launch(&port, &api, &library).start().unwrap();
    let status = cardcage.wait_exit(soon()).await.unwrap();
    assert_eq!(status.code(), Some(70), "{}", cardcage.stderr());
    assert!(cardcage.stderr().contains("empty.so"), "{}", cardcage.stderr());
    let gone =
        eventually(soon(), "no process is left", async || cardcage.child_pids().is_empty().then_some(()));
    gone.await.unwrap();

    let api = Port::reserve().unwrap();
    let output = launch(&port, &api, &library).config_text("[dev]\nnats = 1").run(soon()).await.unwrap();
    assert_eq!(output.status.code(), Some(78), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_starts_again_what_died() {
    let mut dev = Dev::ready().await;
    for word in ["worker", "api"] {
        let pid = pid_of(&dev.cardcage, word);
        let killed = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
        assert!(killed.success());
        dev.says(&format!("{word} died of SIGKILL; starting it again")).await;
        let back = eventually(soon(), "it is back", async || {
            let now = find_pid(&dev.cardcage, word)?;
            (now != pid).then_some(())
        });
        back.await.unwrap();
    }
    assert!(dev.cardcage.stop(soon()).await.unwrap().success());
    dev.everything_is_gone().await;
}

/// A `dev` with the plugin chaos, whose nats-server keeps its store in a folder of the test's.
fn keeping(store: &TempDir, ports: &[Port; 2], grace_ms: i64, lease_ms: i64) -> Launch {
    let nats_config = store.path().join("nats.conf");
    let text = format!("jetstream {{ store_dir: {:?} }}\n", store.path().join("store"));
    std::fs::write(&nats_config, text).unwrap();
    let config = Config::default()
        .set("broker.url", format!("nats://{}", ports[0].address()))
        // The same in both launches of a test.
        .set("broker.namespace", "kept")
        .set("api.listen", ports[1].address())
        .set("dev.nats_config", nats_config.display().to_string())
        .set("drain.grace_ms", grace_ms)
        .set("tasks.lease_ms", lease_ms)
        .plugin("chaos")
        .unwrap();
    Launch::new(["dev"]).binary(Path::new(env!("CARGO_BIN_EXE_cardcage"))).config(&config).own_group()
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_in_dev_loses_no_task_in_flight_whether_it_can_be_finished_or_not() {
    for (ms, grace_ms, lease_ms, causes) in
        [(4_000, 20_000, 30_000, vec!["succeeded"]), (600_000, 500, 3_000, vec!["interrupted", "succeeded"])]
    {
        let (store, ports) =
            (tempfile::tempdir().unwrap(), [Port::reserve().unwrap(), Port::reserve().unwrap()]);
        let mut first = keeping(&store, &ports, grace_ms, lease_ms).ready().await.unwrap();
        let http = first.http().unwrap();
        let order = json!({ "mode": "sleep", "ms": ms, "times": 1 });
        let id = eventually(soon(), "the task is accepted", async || {
            http.post_json("/chaos/task", &order).await.ok()?.task_id().ok()
        })
        .await
        .unwrap();
        let task = async || -> Option<Value> { http.get(&format!("/tasks/{id}")).await.ok()?.json().ok() };
        eventually(soon(), "the task runs", async || (task().await?["state"] == "running").then_some(()))
            .await
            .unwrap();
        let signalled = Timestamp::now();
        first.signal_group(Signal::INT).unwrap();
        let status = first.wait_exit(soon()).await.unwrap();
        let gone =
            eventually(soon(), "no process is left", async || first.child_pids().is_empty().then_some(()));
        gone.await.unwrap_or_else(|error| panic!("{error}: {:?}", first.child_pids()));
        assert_eq!(status.code(), Some(0), "{}", first.stderr());

        let _second = keeping(&store, &ports, grace_ms, lease_ms).ready().await.unwrap();
        let done = http.final_task(&id, soon()).await.unwrap();
        let attempts = done["attempts"].as_array().unwrap();
        let seen: Vec<_> = attempts.iter().map(|attempt| attempt["cause"].as_str().unwrap()).collect();
        assert_eq!((&done["state"], seen), (&json!("succeeded"), causes), "{done}");
        let ended: Timestamp = attempts[0]["ended_at"].as_str().unwrap().parse().unwrap();
        assert!(ended > signalled, "it was no longer in flight at {signalled}: {done}");
    }
}

fn pid_of(cardcage: &Cardcage, role: &str) -> u32 {
    find_pid(cardcage, role).unwrap()
}

fn find_pid(cardcage: &Cardcage, role: &str) -> Option<u32> {
    let is = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).nth(1) == Some(role.as_bytes())
    };
    cardcage.child_pids().into_iter().find(is)
}
