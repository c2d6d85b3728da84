//! Plugins that enqueue tasks of other plugins, by name and major.

use crate::serving::{Serving, soon};
use cardcage_harness::{Config, Launch};
use serde_json::{Value, json};

fn with_payments(config: Config) -> Config {
    config.plugin("payments").unwrap().plugin_set("payments", "stripe_webhook_secrets", vec!["whsec_test"])
}

fn refund() -> Value {
    json!({ "event_id": "evt_1", "object_id": "re_1", "kind": "refund.created", "amount": 5 })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_enqueues_another_ones_task_if_the_body_fits_its_schema() {
    let (serving, _worker) = Serving::both(with_payments).await;
    let post = async |body: &Value| serving.http.post_json("/chaos/refund", body).await.unwrap();
    let reply = post(&json!({ "amount": "much" })).await;
    assert_eq!((reply.status, reply.problem_code().as_deref()), (422, Some("invalid_body")));
    assert!(reply.text().contains("does not fit the task `record_refund`"), "{}", reply.text());

    let reply = post(&refund()).await;
    assert_eq!(reply.status, 202, "{}", reply.text());
    let id = reply.task_id().unwrap();
    let done = serving.http.final_task(&id, soon()).await.unwrap();
    assert_eq!((&done["plugin"], &done["state"]), (&json!("payments"), &json!("succeeded")), "{done}");
    assert_eq!(done["result"]["event_id"], "evt_1");
    assert_eq!(post(&refund()).await.task_id().unwrap(), id, "its idempotency key holds");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_only_wants_another_one_starts_without_it_and_is_told_at_the_enqueue() {
    let (serving, _worker) = Serving::both(|config| config).await;
    let reply = serving.http.post_json("/chaos/refund", &refund()).await.unwrap();
    assert_eq!((reply.status, reply.problem_code().as_deref()), (503, Some("unknown_plugin")));
    assert!(reply.text().contains("`payments` v0 is not among those of this host"), "{}", reply.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_needs_a_major_that_is_not_there_is_refused_by_hosts_and_by_check() {
    let serving = Serving::api(|config| config).await;
    let sentence = "needs the plugin `hello` v7, and this host has 0.1.0; configure that plugin too";
    for command in ["api", "worker", "check"] {
        let launch = Launch::new([command]).config(&serving.config).env("CARDCAGE_CHAOS_DESCRIBE", "needs");
        let ended = launch.run(soon()).await.unwrap();
        assert_eq!(ended.status.code(), Some(70), "{command}: {ended:?}");
        let said = format!("{}{}", ended.stdout, ended.stderr);
        assert!(said.contains(sentence), "{command}: {said}");
    }
    // For one that is not required, the host starts without it.
    let config = serving.config.clone().set("plugins.chaos.required", false);
    let launch = Launch::new(["check"]).config(&config).env("CARDCAGE_CHAOS_DESCRIBE", "needs");
    let ended = launch.run(soon()).await.unwrap();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert!(ended.stdout.contains("refused, not required"), "{ended:?}");
}
