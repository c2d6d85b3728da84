//! Children that have served their time: replaced without anybody's notice, or ended where memory leaves no time for that.

use crate::serving::{Serving, child, soon};
use cardcage_harness::{Cardcage, Config, Launch, eventually};
use serde_json::{Value, json};

/// A lease so long that nothing in these tests waits for its end.
fn config(config: Config) -> Config {
    config.set("tasks.lease_ms", 120_000).set("drain.grace_ms", 10_000)
}

async fn accepted(serving: &Serving, body: Value) -> String {
    let reply = serving.http.post_json("/chaos/task", &body).await.unwrap();
    assert_eq!(reply.status, 202, "{}", reply.text());
    reply.task_id().unwrap()
}

fn causes(task: &Value) -> Vec<&str> {
    let attempts = task["attempts"].as_array().unwrap();
    attempts.iter().map(|attempt| attempt["cause"].as_str().unwrap_or("none")).collect()
}

async fn replaced(host: &Cardcage, why: &str) -> u64 {
    let metrics = host.admin().unwrap().get("/metrics").await.unwrap().text();
    let name = format!("cardcage_child_replaced_total{{why=\"{why}\"}} ");
    metrics.lines().find_map(|line| line.strip_prefix(&name)).map_or(0, |count| count.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn child_that_has_run_its_number_of_tasks_gives_way_and_no_task_notices() {
    let (serving, worker) = Serving::both(|c| config(c).set("worker.recycle_after_tasks", 20)).await;
    let (first, admin) = (child(&worker), worker.admin().unwrap());
    let mut ids = Vec::new();
    eventually(soon(), "the child is replaced twice", async || {
        // Some are at work whenever the old child is told to go.
        for ms in [1, 300] {
            ids.push(accepted(&serving, json!({ "mode": "sleep", "ms": ms })).await);
        }
        assert_eq!(admin.get("/readyz").await.unwrap().status, 200, "it is ready all the time");
        assert_eq!(serving.http.post_json("/hello/call", &json!({})).await.unwrap().status, 200);
        (replaced(&worker, "tasks").await >= 2).then_some(())
    })
    .await
    .unwrap();
    for id in &ids {
        let done = serving.http.final_task(id, soon()).await.unwrap();
        assert_eq!((&done["state"], causes(&done)), (&json!("succeeded"), vec!["succeeded"]), "{done}");
    }
    eventually(soon(), "the old ones have gone", async || {
        let children = worker.child_pids();
        (children.len() == 1 && children[0] != first).then_some(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn child_that_has_grown_gives_way_and_what_it_ran_comes_to_its_end() {
    let (serving, worker) = Serving::both(|c| config(c).set("worker.recycle_above_mb", 250)).await;
    let first = child(&worker);
    let id = accepted(&serving, json!({ "mode": "hoard", "times": 256, "ms": 4_000 })).await;
    let done = serving.http.final_task(&id, soon()).await.unwrap();
    assert_eq!((&done["state"], causes(&done)), (&json!("succeeded"), vec!["succeeded"]), "{done}");
    eventually(soon(), "another child has its place", async || {
        let children = worker.child_pids();
        (children.len() == 1 && children[0] != first).then_some(())
    })
    .await
    .unwrap();
    assert_eq!(replaced(&worker, "memory").await, 1);
    let ready = worker.admin().unwrap().get("/readyz?verbose").await.unwrap().json().unwrap();
    assert_eq!((&ready["last_crash"], &ready["ready"]), (&Value::Null, &json!(true)), "{ready}");
}

#[tokio::test(flavor = "multi_thread")]
async fn child_over_its_memory_ceiling_is_ended_and_the_report_says_memory() {
    let limits = |c| config(c).set("worker.memory_max_mb", 250).set("tasks.lost_limit", 2);
    let (serving, worker) = Serving::both(limits).await;
    let id = accepted(&serving, json!({ "mode": "hoard", "times": 256, "ms": 60_000 })).await;
    let done = serving.http.final_task(&id, soon()).await.unwrap();
    assert_eq!((&done["state"], &done["error"]["code"]), (&json!("failed"), &json!("lease_lost")), "{done}");
    assert!(done.to_string().contains("memory ceiling"), "{done}");
    let admin = worker.admin().unwrap();
    let report = eventually(soon(), "the worker is ready again", async || {
        let mut ready = admin.get("/readyz?verbose").await.ok()?.json().ok()?;
        (ready["ready"] == true).then(|| ready["last_crash"].take())
    })
    .await
    .unwrap();
    assert_eq!(report["cause"], "memory", "{report}");
    assert_eq!(serving.order(json!({ "mode": "ok" })).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn plugin_that_fills_its_memory_in_its_start_is_refused_and_the_others_run() {
    let limits = |c| config(c).set("worker.memory_max_mb", 250).set("plugins.chaos.required", false);
    let serving = Serving::api(limits).await;
    let config = serving.config.clone().plugin_set("chaos", "init", "hoard");
    let worker = Cardcage::worker(&config).await.unwrap();
    let ready = worker.admin().unwrap().get("/readyz?verbose").await.unwrap().json().unwrap();
    let refused = &ready["refused"];
    assert_eq!((refused.as_array().unwrap().len(), &refused[0]["code"]), (1, &json!("died")), "{ready}");
    let message = refused[0]["message"].as_str().unwrap();
    assert!(message.contains("in its init when its process went over `worker.memory_max_mb`"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_ceiling_of_workers_ends_no_child_of_an_api() {
    // Less than any child has.
    let serving = Serving::api(|c| config(c).set("worker.memory_max_mb", 16)).await;
    let (first, admin) = (child(&serving.api), serving.api.admin().unwrap());
    // As soon as a worker's is looked at, which is no sooner than an API's.
    let mut worker = Launch::new(["worker"]).config(&serving.config).start().unwrap();
    worker.wait_addresses(soon()).await.unwrap();
    eventually(soon(), "a worker's child is ended for its memory", async || {
        worker.stderr().contains("the child is over its memory ceiling").then_some(())
    })
    .await
    .unwrap();
    let ready = admin.get("/readyz?verbose").await.unwrap().json().unwrap();
    assert_eq!((&ready["child_pid"], &ready["restarts"]), (&json!(first), &json!(0)), "{ready}");
    assert_eq!(serving.http.get("/hello/inline").await.unwrap().status, 200);
}
