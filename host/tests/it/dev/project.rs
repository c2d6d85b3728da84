//! `cardcage dev --plugin`: a plugin's folder, built and rolled as its author saves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use cardcage_harness::{Http, workspace_root};

use super::*;
use crate::loading::outside;

/// A debug build of a plugin and of the SDK before it, on a busy machine.
fn built() -> Deadline {
    Deadline::seconds(600)
}

/// A plugin's folder as `plugin new` writes it, with a task that waits for a file.
struct Repo(TempDir);

impl Repo {
    fn new(plugin: &str) -> Self {
        let repo = Self(tempfile::tempdir().unwrap());
        let mut new = std::process::Command::new(env!("CARGO_BIN_EXE_cardcage"));
        new.args(["plugin", "new", plugin, "--path"]).arg(repo.path("")).arg("--sdk").arg(workspace_root());
        let output = new.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let waits = "while !body[\"until\"].as_str().is_some_and(|file| std::path::Path::new(file).exists()) {\n\
            plugin_api::tokio::time::sleep(std::time::Duration::from_millis(20)).await;\n}\n    Ok(body)";
        repo.edit("    Ok(body)", waits);
        repo
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join("repo").join(name)
    }

    fn edit(&self, from: &str, to: &str) {
        let file = self.path("src/lib.rs");
        let source = std::fs::read_to_string(&file).unwrap();
        assert_eq!(source.matches(from).count(), 1, "{from}: {source}");
        std::fs::write(file, source.replace(from, to)).unwrap();
    }
}

fn launch(repo: &Path, ports: &[Port; 2]) -> Launch {
    let config = Config::default()
        .set("broker.url", format!("nats://{}", ports[0].address()))
        .set("api.listen", ports[1].address().to_string())
        .set("dev.watch_interval_ms", 100);
    let launch = Launch::new(["dev".into(), "--plugin".into(), repo.as_os_str().to_owned()]);
    let launch = launch.binary(Path::new(env!("CARGO_BIN_EXE_cardcage"))).config(&config).own_group();
    launch.env("CARGO_TARGET_DIR", outside::target()).env("CARGO_NET_OFFLINE", "true")
}

fn ports() -> [Port; 2] {
    [Port::reserve().unwrap(), Port::reserve().unwrap()]
}

async fn says(dev: &Cardcage, what: &str) {
    let wait = eventually(built(), what, async || dev.stderr().contains(what).then_some(())).await;
    wait.unwrap_or_else(|error| panic!("{error}\n{}", dev.stderr()));
}

/// Waits for this greeting.
async fn greets(dev: &Cardcage, http: &Http, greeting: &str) {
    let wait = eventually(built(), greeting, async || {
        let reply = http.get("/rolled/inline?name=Ada").await.ok()?;
        (reply.text() == greeting).then_some(())
    });
    wait.await.unwrap_or_else(|error| panic!("{error}\n{}", dev.stderr()));
}

/// Somebody who asks all the time, and counts what came of it.
struct Caller {
    over: Arc<AtomicBool>,
    asking: tokio::task::JoinHandle<()>,
    answered: Arc<AtomicUsize>,
    refused: Arc<std::sync::Mutex<Vec<String>>>,
}

impl Caller {
    fn start(http: &Http) -> Self {
        let (over, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let refused = Arc::new(std::sync::Mutex::new(Vec::new()));
        let (http, stop, good, bad) = (http.clone(), over.clone(), answered.clone(), refused.clone());
        let asking = tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                match http.get("/rolled/inline?name=Bob").await {
                    Ok(reply) if reply.status == 200 => drop(good.fetch_add(1, Ordering::Relaxed)),
                    other => bad.lock().unwrap().push(format!("{other:?}")),
                }
            }
        });
        Self { over, asking, answered, refused }
    }

    async fn stop(self) -> (usize, Vec<String>) {
        self.over.store(true, Ordering::Relaxed);
        self.asking.await.unwrap();
        (self.answered.load(Ordering::Relaxed), self.refused.lock().unwrap().clone())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plugin_is_rebuilt_when_saved_and_rolled_while_a_task_runs_and_callers_call() {
    let repo = Repo::new("rolled");
    let ports = ports();
    let mut dev = launch(&repo.path(""), &ports).start().unwrap();
    dev.wait_ready(built()).await.unwrap();
    let http = dev.http().unwrap();
    greets(&dev, &http, "Hello, Ada!").await;
    let caller = Caller::start(&http);

    let until = repo.0.path().join("until");
    let accepted = http.post_json("/rolled/task", &json!({ "until": until })).await.unwrap();
    let id = accepted.task_id().unwrap();
    let task = async || -> Option<Value> { http.get(&format!("/tasks/{id}")).await.ok()?.json().ok() };
    eventually(soon(), "the task runs", async || (task().await?["state"] == "running").then_some(()))
        .await
        .unwrap();

    repo.edit("\"{}, {}!\"", "\"{}, {}!!\"");
    greets(&dev, &http, "Hello, Ada!!").await;
    assert!(dev.stderr().contains("worker took over: rolled 0.1.0"), "{}", dev.stderr());
    assert_eq!(task().await.unwrap()["state"], "running", "it runs on in the child from before");
    std::fs::write(&until, "").unwrap();
    let done = http.final_task(&id, soon()).await.unwrap();
    let attempts = done["attempts"].as_array().unwrap();
    let causes: Vec<_> = attempts.iter().map(|attempt| attempt["cause"].as_str().unwrap()).collect();
    assert_eq!((&done["state"], causes), (&json!("succeeded"), vec!["succeeded"]), "{done}");

    repo.edit("\"{}, {}!!\"", "\"{}, {}!!!\" oops");
    says(&dev, "rolled does not build: the version from before goes on serving").await;
    assert!(dev.stderr().contains("oops"), "cargo's own words are shown: {}", dev.stderr());
    greets(&dev, &http, "Hello, Ada!!").await;
    repo.edit("\"{}, {}!!!\" oops", "\"{}, {}!!!\"");
    greets(&dev, &http, "Hello, Ada!!!").await;

    let (answered, refused) = caller.stop().await;
    assert!(answered > 100 && refused.is_empty(), "{answered} answered; {refused:?}");
    assert!(dev.stop(soon()).await.unwrap().success(), "{}", dev.stderr());
    assert!(dev.child_pids().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn plugin_that_does_not_build_at_first_is_waited_for_and_ctrl_c_ends_a_build_with_all_that_it_started()
{
    let repo = Repo::new("slow");
    repo.edit("    Ok(body)", "    oops");
    let ports = ports();
    let mut dev = launch(&repo.path(""), &ports).start().unwrap();
    says(&dev, "does not build: it is built again when you save something in it").await;
    // A build that never ends, and tells who does it.
    let told = repo.0.path().join("builder");
    let script = format!(
        "fn main() {{\n    std::fs::write({told:?}, std::process::id().to_string()).unwrap();\n    \
         loop {{\n        std::thread::park();\n    }}\n}}\n"
    );
    std::fs::write(repo.path("build.rs"), script).unwrap();
    let builder = eventually(built(), "the build script runs", async || {
        std::fs::read_to_string(&told).ok()?.parse::<u32>().ok()
    });
    let builder = builder.await.unwrap_or_else(|error| panic!("{error}\n{}", dev.stderr()));
    dev.signal_group(Signal::INT).unwrap();
    assert_eq!(dev.wait_exit(soon()).await.unwrap().code(), Some(0), "{}", dev.stderr());
    let gone = eventually(soon(), "the builder is gone", async || {
        // One that is dead and not yet waited for by whoever inherited it has no memory.
        let status = std::fs::read_to_string(format!("/proc/{builder}/status")).unwrap_or_default();
        (!status.contains("VmRSS")).then_some(())
    });
    gone.await.unwrap();
}

#[tokio::test]
async fn folder_that_is_no_plugins_source_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let output = launch(folder.path(), &ports()).run(soon()).await.unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(output.stderr.contains("Cargo.toml is not there"), "{output:?}");
}
