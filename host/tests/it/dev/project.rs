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
///
/// Tests share a target folder, so each has names of its own.
struct Repo {
    folder: TempDir,
    plugin: String,
}

impl Repo {
    fn new(plugin: &str) -> Self {
        let repo = Self { folder: tempfile::tempdir().unwrap(), plugin: plugin.to_owned() };
        let mut new = std::process::Command::new(env!("CARGO_BIN_EXE_cardcage"));
        new.args(["plugin", "new", plugin, "--path"]).arg(repo.path("")).arg("--sdk").arg(workspace_root());
        let output = new.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let waits = "while !body[\"until\"].as_str().is_some_and(|file| std::path::Path::new(file).exists()) {\n\
            plugin_api::tokio::time::sleep(std::time::Duration::from_millis(20)).await;\n}\n    Ok(body)";
        repo.edit("    Ok(body)", waits);
        // It waits as long as a build takes.
        repo.edit("timeout = \"30s\"", "timeout = \"30m\"");
        repo
    }

    /// Another package whose library says that it is the same plugin.
    fn named_as(mut self, plugin: &str) -> Self {
        self.edit(&format!("name = \"{}\"", self.plugin), &format!("name = \"{plugin}\""));
        self.plugin = plugin.to_owned();
        self
    }

    /// As `dev` calls it.
    fn shown(&self) -> String {
        self.path("").canonicalize().unwrap().display().to_string()
    }

    fn breaks(&self) {
        self.edit("    Ok(body)", "    oops");
    }

    fn is_mended(&self) {
        self.edit("    oops", "    Ok(body)");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("repo").join(name)
    }

    /// From now on a build never ends, and tells who does it.
    fn build_never_ends(&self) {
        let told = self.folder.path().join("builder");
        let script = format!(
            "fn main() {{\n    std::fs::write({told:?}, std::process::id().to_string()).unwrap();\n    \
             loop {{\n        std::thread::park();\n    }}\n}}\n"
        );
        std::fs::write(self.path("build.rs"), script).unwrap();
    }

    /// Who does it.
    async fn builder(&self, dev: &Cardcage) -> u32 {
        let told = self.folder.path().join("builder");
        let builder = eventually(built(), "the build script runs", async || {
            std::fs::read_to_string(&told).ok()?.parse::<u32>().ok()
        });
        builder.await.unwrap_or_else(|error| panic!("{error}\n{}", dev.stderr()))
    }

    fn edit(&self, from: &str, to: &str) {
        let file = self.path("src/lib.rs");
        let source = std::fs::read_to_string(&file).unwrap();
        assert_eq!(source.matches(from).count(), 1, "{from}: {source}");
        std::fs::write(file, source.replace(from, to)).unwrap();
    }
}

fn launch(repos: &[&Repo], ports: &[Port; 2]) -> Launch {
    launch_folders(repos.iter().map(|repo| repo.path("")), config(ports))
}

fn config(ports: &[Port; 2]) -> Config {
    Config::default()
        .set("broker.url", format!("nats://{}", ports[0].address()))
        .set("api.listen", ports[1].address().to_string())
        .set("dev.watch_interval_ms", 100)
}

fn launch_folders(folders: impl Iterator<Item = PathBuf>, config: Config) -> Launch {
    let arguments = folders.flat_map(|folder| ["--plugin".into(), folder.into_os_string()]);
    let launch = Launch::new(std::iter::once("dev".into()).chain(arguments));
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

/// Waits until this process is over.
async fn is_gone(pid: u32) {
    let gone = eventually(soon(), "the process is gone", async || {
        // One that is dead and not yet waited for by whoever inherited it has no memory.
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        (!status.contains("VmRSS")).then_some(())
    });
    gone.await.unwrap();
}

/// Waits until the plugin answers with this greeting.
async fn greets(plugin: &str, dev: &Cardcage, http: &Http, greeting: &str) {
    let wait = eventually(built(), greeting, async || {
        let reply = http.get(&format!("/{plugin}/inline?name=Ada")).await.ok()?;
        (reply.text() == greeting).then_some(())
    });
    wait.await.unwrap_or_else(|error| panic!("{error}\n{}", dev.stderr()));
}

/// A task that runs.
struct InFlight {
    http: Http,
    id: String,
    until: PathBuf,
}

impl InFlight {
    async fn start(repo: &Repo, http: &Http) -> Self {
        let until = repo.folder.path().join("until");
        let accepted =
            http.post_json(&format!("/{}/task", repo.plugin), &json!({ "until": until })).await.unwrap();
        let task = Self { http: http.clone(), id: accepted.task_id().unwrap(), until };
        let runs = async || (task.now().await?["state"] == "running").then_some(());
        eventually(soon(), "the task runs", runs).await.unwrap();
        task
    }

    async fn now(&self) -> Option<Value> {
        self.http.get(&format!("/tasks/{}", self.id)).await.ok()?.json().ok()
    }

    async fn succeeds_in_its_first_attempt(self) {
        assert_eq!(self.now().await.unwrap()["state"], "running", "it runs on in the child from before");
        std::fs::write(&self.until, "").unwrap();
        let done = self.http.final_task(&self.id, soon()).await.unwrap();
        let attempts = done["attempts"].as_array().unwrap();
        let causes: Vec<_> = attempts.iter().map(|attempt| attempt["cause"].as_str().unwrap()).collect();
        assert_eq!((&done["state"], causes), (&json!("succeeded"), vec!["succeeded"]), "{done}");
    }
}

/// Somebody who asks all the time, and counts what came of it.
struct Caller {
    over: Arc<AtomicBool>,
    asking: tokio::task::JoinHandle<()>,
    answered: Arc<AtomicUsize>,
    refused: Arc<std::sync::Mutex<Vec<String>>>,
}

impl Caller {
    fn start(plugin: &str, http: &Http) -> Self {
        let (over, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let refused = Arc::new(std::sync::Mutex::new(Vec::new()));
        let path = format!("/{plugin}/inline?name=Bob");
        let (http, stop, good, bad) = (http.clone(), over.clone(), answered.clone(), refused.clone());
        let asking = tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                match http.get(&path).await {
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
    let mut dev = launch(&[&repo], &ports).start().unwrap();
    dev.wait_ready(built()).await.unwrap();
    let http = dev.http().unwrap();
    greets("rolled", &dev, &http, "Hello, Ada!").await;
    let caller = Caller::start("rolled", &http);

    let task = InFlight::start(&repo, &http).await;
    repo.edit("\"{}, {}!\"", "\"{}, {}!!\"");
    greets("rolled", &dev, &http, "Hello, Ada!!").await;
    assert!(dev.stderr().contains("worker took over: rolled 0.1.0"), "{}", dev.stderr());
    task.succeeds_in_its_first_attempt().await;

    repo.edit("\"{}, {}!!\"", "\"{}, {}!!!\" oops");
    says(&dev, "rolled does not build: the version from before goes on serving").await;
    assert!(dev.stderr().contains("oops"), "cargo's own words are shown: {}", dev.stderr());
    greets("rolled", &dev, &http, "Hello, Ada!!").await;
    repo.edit("\"{}, {}!!!\" oops", "\"{}, {}!!!\"");
    greets("rolled", &dev, &http, "Hello, Ada!!!").await;

    let (answered, refused) = caller.stop().await;
    assert!(answered > 100 && refused.is_empty(), "{answered} answered; {refused:?}");
    assert!(dev.stop(soon()).await.unwrap().success(), "{}", dev.stderr());
    assert!(dev.child_pids().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_run_without_any_plugin_that_builds_and_ctrl_c_ends_a_build_with_all_that_it_started() {
    let repo = Repo::new("slow");
    repo.breaks();
    let ports = ports();
    let mut dev = launch(&[&repo], &ports).start().unwrap();
    dev.wait_ready(built()).await.unwrap();
    says(&dev, "does not build: it is built again when you save something in it").await;
    repo.build_never_ends();
    let builder = repo.builder(&dev).await;
    dev.signal_group(Signal::INT).unwrap();
    assert_eq!(dev.wait_exit(soon()).await.unwrap().code(), Some(0), "{}", dev.stderr());
    is_gone(builder).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_that_is_killed_takes_a_build_with_it() {
    let repo = Repo::new("cut_off");
    repo.build_never_ends();
    let mut dev = launch(&[&repo], &ports()).start().unwrap();
    let builder = repo.builder(&dev).await;
    dev.kill9();
    is_gone(builder).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn folder_that_is_saved_as_it_was_is_built_and_nothing_is_rolled() {
    let repo = Repo::new("unchanged");
    let mut dev = launch(&[&repo], &ports()).start().unwrap();
    dev.wait_ready(built()).await.unwrap();
    let http = dev.http().unwrap();
    let source = std::fs::read(repo.path("src/lib.rs")).unwrap();
    std::fs::write(repo.path("src/lib.rs"), source).unwrap();
    says(&dev, "a library was written anew with the bytes from before, and nothing is rolled: unchanged")
        .await;
    repo.edit("\"{}, {}!\"", "\"{}, {}!!\"");
    greets("unchanged", &dev, &http, "Hello, Ada!!").await;
    let stderr = dev.stderr();
    assert_eq!(stderr.matches("a library changed: rolling").count(), 1, "for the edit alone: {stderr}");
    assert!(dev.stop(soon()).await.unwrap().success(), "{}", dev.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn plugin_that_does_not_build_at_first_holds_nothing_up_and_joins_running_hosts_with_its_settings() {
    let (early, late) = (Repo::new("early"), Repo::new("late"));
    late.breaks();
    let ports = ports();
    let config = config(&ports)
        .plugin_at("late", &late.path("not/built/yet.so"))
        .set("plugins.late.config.greeting", "Welcome");
    let mut dev = launch_folders([late.path(""), early.path("")].into_iter(), config).start().unwrap();
    dev.wait_ready(built()).await.unwrap();
    assert!(dev.stderr().contains("the hosts start without late: "), "{}", dev.stderr());
    let http = dev.http().unwrap();
    greets("early", &dev, &http, "Hello, Ada!").await;
    let task = InFlight::start(&early, &http).await;
    let hosts = [pid_of(&dev, "worker"), pid_of(&dev, "api")];

    late.is_mended();
    greets("late", &dev, &http, "Welcome, Ada!").await;
    assert_eq!(http.post_json("/late/call", &json!({ "a": 1 })).await.unwrap().text(), r#"{"a":1}"#);
    assert_eq!([pid_of(&dev, "worker"), pid_of(&dev, "api")], hosts, "nothing was restarted");
    task.succeeds_in_its_first_attempt().await;

    late.edit("\"{}, {}!\"", "\"{}, {}!!\"");
    greets("late", &dev, &http, "Welcome, Ada!!").await;
    // One that dies before it has told that it took over is restarted as one that cannot be asked.
    eventually(soon(), "the api has told so", async || {
        (dev.stderr().matches("cardcage: api took over").count() == 2).then_some(())
    })
    .await
    .unwrap();
    let killed = std::process::Command::new("kill").args(["-9", &hosts[1].to_string()]).status().unwrap();
    assert!(killed.success());
    says(&dev, "api died of SIGKILL; starting it again").await;
    greets("late", &dev, &http, "Welcome, Ada!!").await;
    assert!(dev.stop(soon()).await.unwrap().success(), "{}", dev.stderr());
    assert!(dev.child_pids().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn plugin_without_which_the_configuration_is_not_complete_is_waited_for() {
    let repo = Repo::new("needed");
    repo.breaks();
    let config = config(&ports()).set("plugins.needed.config.greeting", "Welcome");
    let mut dev = launch_folders(std::iter::once(repo.path("")), config).start().unwrap();
    says(&dev, "plugin `needed` has no library").await;
    says(&dev, "nothing is started before it builds").await;
    repo.is_mended();
    dev.wait_ready(built()).await.unwrap();
    greets("needed", &dev, &dev.http().unwrap(), "Welcome, Ada!").await;
    assert!(dev.stop(soon()).await.unwrap().success(), "{}", dev.stderr());
}

#[tokio::test]
async fn two_folders_of_one_plugin_are_refused_with_both_and_the_name() {
    let (first, second) = (Repo::new("twin"), Repo::new("triplet").named_as("twin"));
    let output = launch(&[&first, &second], &ports()).run(built()).await.unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let told = format!("{} and {} are both the plugin `twin`", first.shown(), second.shown());
    assert!(output.stderr.contains(&told), "{told}: {output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn folder_that_builds_later_to_a_plugin_of_another_folder_is_told_and_the_first_goes_on() {
    let (first, second) = (Repo::new("taken"), Repo::new("other").named_as("taken"));
    second.breaks();
    second.edit("\"{}, {}!\"", "\"{}, {}, from another folder!\"");
    let mut dev = launch(&[&first, &second], &ports()).start().unwrap();
    dev.wait_ready(built()).await.unwrap();
    let http = dev.http().unwrap();
    greets("taken", &dev, &http, "Hello, Ada!").await;
    second.is_mended();
    says(&dev, &format!("{} and {} are both the plugin `taken`", first.shown(), second.shown())).await;
    // It joins as soon as it is another one.
    second.edit("name = \"taken\"", "name = \"other\"");
    greets("other", &dev, &http, "Hello, Ada, from another folder!").await;
    greets("taken", &dev, &http, "Hello, Ada!").await;
    assert!(dev.stop(soon()).await.unwrap().success(), "{}", dev.stderr());
}

#[tokio::test]
async fn dev_without_cargo_says_what_to_do() {
    let repo = Repo::new("unbuilt");
    let nowhere = tempfile::tempdir().unwrap();
    let launch = launch(&[&repo], &ports()).env("PATH", nowhere.path()).env("CARGO", "cargo");
    let output = launch.run(soon()).await.unwrap();
    assert_eq!(output.status.code(), Some(69), "{output:?}");
    for words in ["cargo cannot be run", "install Rust, or correct PATH", "cannot be built without it"] {
        assert!(output.stderr.contains(words), "{words}: {output:?}");
    }
}

#[tokio::test]
async fn folder_that_is_no_plugins_source_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let folders = std::iter::once(folder.path().to_owned());
    let output = launch_folders(folders, config(&ports())).run(soon()).await.unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(output.stderr.contains("Cargo.toml is not there"), "{output:?}");
}
