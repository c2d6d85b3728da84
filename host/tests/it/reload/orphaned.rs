//! The old child dies while the new one is still on its way: another one with the old set serves until it is known what becomes of
//! the new one.

use super::handover::{Load, each_ran_once};
use super::{Installation, followed};
use crate::groups::grouped;
use crate::serving::{child, signal, sleep, soon};
use cardcage_harness::{Cardcage, Config, Deadline, Http, Launch, Output, Signal, eventually};
use serde_json::{Value, json};
use std::path::PathBuf;

/// How long a plugin's start may hang: far longer than a child needs to come up, however busy the machine is.
const HANGS_MS: i64 = 20_000;

/// A reload whose new child is on its way, of a host whose old child has been killed meanwhile.
struct Orphaned<'a> {
    installation: &'a Installation,
    host: &'a Cardcage,
    reloading: Reloading,
}

impl<'a> Orphaned<'a> {
    /// `config` is what the reload finds.
    async fn begin(installation: &'a Installation, host: &'a Cardcage, config: &Config) -> Self {
        let old = child(host);
        installation.rewrite(config);
        let reloading = installation.reload_later(host);
        let is_begun = async || host.stderr().contains("another child is started").then_some(());
        eventually(soon(), "the new child is on its way", is_begun).await.unwrap();
        signal(old, Signal::KILL);
        Self { installation, host, reloading }
    }

    /// What the host says of itself, once a child was started in the dead one's place and `wanted` is so.
    async fn restarted(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(soon(), "a child was started in the dead one's place", async || {
            let now = status(self.host).await?;
            (now["restarts"] == 1 && now["child_pid"].is_u64() && wanted(&now)).then_some(now)
        })
        .await
        .unwrap_or_else(|error| panic!("{error}: {}", self.host.stderr()))
    }

    /// The child that serves with the old set.
    async fn old_set_serves(&mut self) -> u32 {
        let now = self.restarted(|now| now["ready"] == true).await;
        assert_eq!((&now["reloads"], &now["last_crash"]["cause"]), (&json!(0), &json!("killed")), "{now}");
        self.installation.answers().await;
        self.reloading.goes_on();
        u32::try_from(now["child_pid"].as_u64().unwrap()).unwrap()
    }

    /// The reload was refused for `reason`, and the child with the old set serves on.
    async fn assert_refused(self, reason: &str, serving: u32) {
        let output = self.reloading.output().await;
        assert_eq!(output.status.code(), Some(70), "{output:?}\n{}", self.host.stderr());
        assert!(output.stdout.contains("nothing has changed"), "{output:?}");
        assert!(output.stdout.contains(reason), "{output:?}");
        let alone = async || (self.host.child_pids() == [serving]).then_some(());
        eventually(soon(), "only the child with the old set is left", alone).await.unwrap();
        let now = status(self.host).await.unwrap();
        assert_eq!(
            (&now["ready"], &now["restarts"], &now["reloads"]),
            (&json!(true), &json!(1), &json!(0)),
            "{now}"
        );
        self.installation.answers().await;
    }
}

/// A `cardcage reload` that goes on.
struct Reloading(Cardcage);

impl Reloading {
    /// What becomes of the new child is not known yet.
    fn goes_on(&mut self) {
        assert!(self.0.exited().is_none(), "{}", self.0.stdout());
    }

    async fn output(mut self) -> Output {
        let status = self.0.wait_exit(Deadline::seconds(120)).await.unwrap();
        Output { status, stdout: self.0.stdout(), stderr: self.0.stderr() }
    }
}

async fn status(host: &Cardcage) -> Option<Value> {
    host.admin().unwrap().get("/readyz?verbose").await.ok()?.json().ok()
}

impl Installation {
    fn reload_later(&self, host: &Cardcage) -> Reloading {
        let admin = host.admin().unwrap().url("").trim_start_matches("http://").to_owned();
        Reloading(Launch::new(["reload".to_owned(), "--admin".to_owned(), admin]).start().unwrap())
    }

    /// Both hosts answer: on a connection of its own, for the one before may have gone with a child.
    async fn answers(&self) {
        let http = Http::new(self.http.url("").trim_start_matches("http://")).unwrap();
        for path in ["/hello/call", "/chaos/call"] {
            let reply = http.post_json(path, &json!({ "mode": "ok" })).await.unwrap();
            assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        }
        assert_eq!(http.get("/hello/inline").await.unwrap().status, 200);
        let id = self.accepted_by(&http, "/chaos/task", json!({ "mode": "ok" })).await;
        assert_eq!(http.final_task(&id, soon()).await.unwrap()["state"], "succeeded");
    }

    async fn accepted_by(&self, http: &Http, path: &str, body: Value) -> String {
        let reply = http.post_json(path, &body).await.unwrap();
        assert_eq!(reply.status, 202, "{}", reply.text());
        reply.task_id().unwrap()
    }

    /// The configuration with which chaos starts when there is this file.
    fn waiting_for(&self, file: &str) -> Config {
        self.config.clone().plugin_set("chaos", "starts_after", path(self.file(file)))
    }
}

fn path(file: PathBuf) -> String {
    file.display().to_string()
}

fn open(installation: &Installation, gate: &str) {
    std::fs::write(installation.file(gate), "").unwrap();
}

async fn hangs(pick: impl Fn(&Installation) -> &Cardcage) {
    let installation = Installation::new(|config, _| config.set("loading.timeout_ms", HANGS_MS)).await;
    let config = installation.config.clone().plugin_set("chaos", "init", "hang");
    let mut orphaned = Orphaned::begin(&installation, pick(&installation), &config).await;
    let serving = orphaned.old_set_serves().await;
    orphaned.assert_refused("plugin `chaos` (hung)", serving).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_serves_while_the_new_child_hangs_whoever_kills_the_old_one_and_refuses_it_in_the_end() {
    hangs(|this| &this.worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn api_serves_while_the_new_child_hangs_whoever_kills_the_old_one_and_refuses_it_in_the_end() {
    hangs(|this| &this.api).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_child_that_comes_up_after_the_old_one_was_killed_takes_over_and_no_request_or_task_is_lost() {
    let this = Installation::new(|config, folder| {
        let trace = path(folder.path().join("trace"));
        config.plugin_set("chaos", "trace", trace).set("drain.grace_ms", 19_000)
    })
    .await;
    for (host, gate) in [(&this.worker, "worker"), (&this.api, "api")] {
        // They run when the old child is killed.
        let mut torn = Vec::new();
        for _ in 0..3 {
            torn.push(this.accepted("/chaos/task", sleep(3_000)).await);
        }
        for id in &torn {
            eventually(soon(), "the task runs", async || {
                let task = this.http.get(&format!("/tasks/{id}")).await.ok()?.json().ok()?;
                (task["state"] == "running").then_some(())
            })
            .await
            .unwrap();
        }
        let mut orphaned = Orphaned::begin(&this, host, &this.waiting_for(gate)).await;
        let serving = orphaned.old_set_serves().await;
        let load = Load::begin(this.http.url("").trim_start_matches("http://"));
        load.answers(50).await;
        orphaned.reloading.goes_on();
        open(&this, gate);
        let output = orphaned.reloading.output().await;
        assert_eq!(output.status.code(), Some(0), "{output:?}\n{}", host.stderr());
        load.answers(50).await;
        followed(host, serving).await;
        let accepted = load.end().await;
        each_ran_once(&this, &accepted).await;
        let now = status(host).await.unwrap();
        assert_eq!((&now["reloads"], &now["restarts"]), (&json!(1), &json!(1)), "{now}");
        for id in &torn {
            let task = this.http.final_task(id, soon()).await.unwrap();
            let causes = task["attempts"].as_array().unwrap().iter().map(|one| one["cause"].clone());
            let causes: Vec<Value> = causes.collect();
            let expected = match gate {
                "worker" => vec!["lease_lost", "succeeded"],
                _ => vec!["succeeded"],
            };
            assert_eq!(causes, expected, "{task}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn new_child_that_fails_after_the_old_one_was_killed_is_refused_by_name_and_the_old_set_serves() {
    let this = Installation::new(|config, _| config).await;
    for (host, gate) in [(&this.worker, "worker"), (&this.api, "api")] {
        let config = this.waiting_for(gate).plugin_set("chaos", "init", "fail");
        let mut orphaned = Orphaned::begin(&this, host, &config).await;
        let serving = orphaned.old_set_serves().await;
        open(&this, gate);
        orphaned.assert_refused("plugin `chaos` (init_failed)", serving).await;
    }
}

/// An installation whose present set starts once only: whoever is started with it again waits.
async fn starting_once() -> Installation {
    let this = Installation::new(|config, folder| {
        let gate = folder.path().join("old");
        std::fs::write(&gate, "").unwrap();
        config.plugin_set("chaos", "starts_after", path(gate)).set("loading.timeout_ms", 120_000)
    })
    .await;
    std::fs::remove_file(this.file("old")).unwrap();
    this
}

#[tokio::test(flavor = "multi_thread")]
async fn new_child_that_comes_up_first_takes_over_from_one_with_the_old_set_that_never_does() {
    let this = starting_once().await;
    for (host, gate) in [(&this.worker, "worker"), (&this.api, "api")] {
        let orphaned = Orphaned::begin(&this, host, &this.waiting_for(gate)).await;
        let now = orphaned.restarted(|_| true).await;
        assert_eq!(
            (&now["ready"], &now["status"]),
            (&json!(false), &json!("starting")),
            "nobody serves: {now}"
        );
        let starting = u32::try_from(now["child_pid"].as_u64().unwrap()).unwrap();
        open(&this, gate);
        let output = orphaned.reloading.output().await;
        assert_eq!(output.status.code(), Some(0), "{output:?}\n{}", host.stderr());
        this.answers().await;
        followed(host, starting).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_while_the_new_child_and_the_one_in_the_dead_ones_place_start_ends_both_and_the_host() {
    let mut this = starting_once().await;
    let grace = Deadline::seconds(20);
    for role in ["worker", "api"] {
        let host = if role == "worker" { &this.worker } else { &this.api };
        let orphaned = Orphaned::begin(&this, host, &this.waiting_for("never")).await;
        orphaned.restarted(|now| now["ready"] == false).await;
        host.signal(Signal::TERM).unwrap();
        let output = orphaned.reloading.output().await;
        assert_eq!(output.status.code(), Some(69), "{output:?}");
        let host = if role == "worker" { &mut this.worker } else { &mut this.api };
        assert_eq!(host.wait_exit(grace).await.unwrap().code(), Some(0), "{}", host.stderr());
        assert_eq!(host.child_pids(), [] as [u32; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_while_the_old_set_serves_again_drains_it_and_ends_the_new_child() {
    let mut this = Installation::new(|config, _| config.set("loading.timeout_ms", 120_000)).await;
    let mut orphaned = Orphaned::begin(&this, &this.worker, &this.waiting_for("never")).await;
    orphaned.old_set_serves().await;
    let id = this.accepted("/chaos/task", sleep(2_000)).await;
    eventually(soon(), "the task runs", async || {
        let task = this.http.get(&format!("/tasks/{id}")).await.ok()?.json().ok()?;
        (task["state"] == "running").then_some(())
    })
    .await
    .unwrap();
    this.worker.signal(Signal::TERM).unwrap();
    let output = orphaned.reloading.output().await;
    assert_eq!(output.status.code(), Some(69), "{output:?}");
    assert_eq!(this.worker.wait_exit(soon()).await.unwrap().code(), Some(0), "{}", this.worker.stderr());
    assert_eq!(this.worker.child_pids(), [] as [u32; 0]);
    let task = this.http.final_task(&id, soon()).await.unwrap();
    assert_eq!(
        (&task["state"], task["attempts"].as_array().unwrap().len()),
        (&json!("succeeded"), 1),
        "{task}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn group_whose_child_is_killed_serves_while_another_groups_new_child_is_waited_for() {
    let groups = r#"[{ name = "calm", plugins = ["hello"] }, { name = "wild" }]"#;
    let this = Installation::new(|config, _| grouped(config, groups)).await;
    let calm = |now: &Value| {
        let seats = now["seats"].as_array().unwrap();
        seats.iter().find(|one| one["seat"]["group"] == "calm").unwrap().clone()
    };
    let before = calm(&status(&this.worker).await.unwrap());
    this.rewrite(&this.waiting_for("gate"));
    let mut reloading = this.reload_later(&this.worker);
    // Its own new child is up, and waits for the other group's.
    let up = async || (this.worker.stderr().matches("the child serves").count() == 3).then_some(());
    eventually(soon(), "the new child of the group is up", up).await.unwrap();
    signal(u32::try_from(before["child_pid"].as_u64().unwrap()).unwrap(), Signal::KILL);
    let again = eventually(soon(), "the group serves again", async || {
        let now = calm(&status(&this.worker).await?);
        (now["ready"] == true && now["restarts"] == 1).then_some(now)
    });
    let again = again.await.unwrap_or_else(|error| panic!("{error}: {}", this.worker.stderr()));
    assert_eq!(again["reloads"], 0, "{again}");
    this.answers().await;
    reloading.goes_on();
    open(&this, "gate");
    let output = reloading.output().await;
    assert_eq!(output.status.code(), Some(0), "{output:?}\n{}", this.worker.stderr());
    eventually(soon(), "the children before are gone", async || {
        (this.worker.child_pids().len() == 2).then_some(())
    })
    .await
    .unwrap();
    assert_eq!(calm(&status(&this.worker).await.unwrap())["reloads"], 1);
    this.answers().await;
}
