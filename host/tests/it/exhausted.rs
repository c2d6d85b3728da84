//! A task that is run because another one was given up: once, with what became of that one, whatever is killed.

use crate::killed_between_writes::Killed;
use crate::serving::{Serving, soon};
use cardcage_harness::Launch;
use cardcage_protocol::exhausted::Exhausted;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::Duration;

async fn doomed(killed: &Killed, order: &Value) -> String {
    let reply = killed.serving.http.post_json("/chaos/doomed", order).await.unwrap();
    assert_eq!(reply.status, 202, "{}", reply.text());
    reply.task_id().unwrap()
}

fn hook_of(dead: &str) -> String {
    Exhausted::id_of(dead.parse().unwrap()).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn task_that_is_given_up_has_its_hook_run_once_with_what_became_of_it() {
    let mut killed = Killed::new().await;
    let _worker = killed.serving.worker().await;
    let mut all = HashMap::new();
    for (mode, attempts, reason) in
        [("fail", 2, "all 2 attempts are used up"), ("fail_for_good", 1, "failed for good as told")]
    {
        let order = json!({ "note": "stubborn", "mode": mode });
        let id = doomed(&killed, &order).await;
        assert_eq!(killed.end(&id).await["state"], "failed");
        let hook = hook_of(&id);
        let done = killed.end(&hook).await;
        assert_eq!((&done["state"], done["attempts"].as_array().unwrap().len()), (&json!("succeeded"), 2));
        let told = &done["result"];
        assert!(told["reason"].as_str().unwrap().contains(reason), "{told}");
        assert_eq!(
            (&told["id"], &told["plugin"], &told["task"]),
            (&json!(id), &json!("chaos"), &json!("doomed"))
        );
        let body = json!({ "note": "stubborn", "mode": mode, "ms": 0, "times": 0 });
        assert_eq!((&told["attempts"], &told["body"]), (&json!(attempts), &body));
        let broker = killed.serving.broker(Duration::from_secs(3)).await;
        let (dead, _) = broker.read_record(id.parse().unwrap()).await.unwrap().unwrap();
        assert_eq!(told["enqueued_at"], json!(dead.enqueued_at));
        assert_eq!(told["code"], json!(dead.error.unwrap().code));
        let (record, _) = broker.read_record(hook.parse().unwrap()).await.unwrap().unwrap();
        assert_eq!((record.root_id, record.parent_id), (dead.id, Some(dead.id)));
        all.extend([(id, 1), (hook, 1)]);
    }
    assert_eq!(killed.outcomes().await, all);
}

#[tokio::test(flavor = "multi_thread")]
async fn success_cancellation_and_expiry_run_no_hook() {
    let mut killed = Killed::with(|config| config.set("plugins.chaos.tasks.doomed.expires_ms", 300)).await;
    let late = doomed(&killed, &json!({ "mode": "fail" })).await;
    let broker = killed.serving.broker(Duration::from_secs(3)).await;
    let enqueued = broker.now_unix_ms();
    cardcage_harness::eventually(soon(), "its expiry passes", async || {
        (broker.now_unix_ms() > enqueued + 500).then_some(())
    })
    .await
    .unwrap();
    let _worker = killed.serving.worker().await;
    assert_eq!(killed.end(&late).await["state"], "expired");
    let mut all = HashMap::from([(late, 1)]);
    for (mode, state) in [("ok", "succeeded"), ("discard", "cancelled"), ("fail_when_cancelled", "cancelled")]
    {
        let id = doomed(&killed, &json!({ "mode": mode })).await;
        if mode == "fail_when_cancelled" {
            let cancel = Launch::new(["tasks", "cancel", id.as_str()]).config(&killed.serving.config);
            let cancel = cancel.run(soon()).await.unwrap();
            assert!(cancel.status.success(), "{}", cancel.stderr);
        }
        assert_eq!(killed.end(&id).await["state"], state, "{mode}");
        all.insert(id, 1);
    }
    // Its queue is empty, and whatever was published would have had to go through it.
    assert_eq!(killed.outcomes().await, all);
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_killed_between_any_two_writes_of_a_dead_letter_with_a_hook_has_it_run_once() {
    // At the second the hook may run in the worker when it is killed, and is then begun again.
    for (point, begun_once) in [
        ("after_record", true),
        ("after_follow_up", true),
        ("after_follow_up:2", false),
        ("before_ack", false),
    ] {
        let mut killed = Killed::new().await;
        let (id, _worker) = killed.at(point, "/chaos/doomed", &json!({ "mode": "fail_for_good" })).await;
        let hook = hook_of(&id);
        let done = killed.end(&hook).await;
        assert_eq!((&done["state"], &done["result"]["id"]), (&json!("succeeded"), &json!(id)), "{point}");
        assert_eq!(done["result"]["body"]["mode"], "fail_for_good", "{point}");
        assert_eq!(killed.end(&id).await["state"], "failed", "{point}");
        if begun_once {
            assert_eq!(killed.ran(), [format!("{hook} 1")], "{point}");
        }
        assert_eq!(killed.outcomes().await, HashMap::from([(id, 1), (hook, 1)]), "{point}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plugin_whose_hook_is_none_of_its_tasks_is_refused_by_hosts_and_by_check() {
    let serving = Serving::api(|config| config).await;
    let sentence = "declares the task `nobody` to be run when `forlorn` is exhausted, which it does not have";
    for command in ["api", "worker", "check"] {
        let launch = Launch::new([command]).config(&serving.config).env("CARDCAGE_CHAOS_DESCRIBE", "forlorn");
        let ended = launch.run(soon()).await.unwrap();
        assert_eq!(ended.status.code(), Some(70), "{command}: {ended:?}");
        let said = format!("{}{}", ended.stdout, ended.stderr);
        assert!(said.contains(sentence), "{command}: {said}");
    }
}
