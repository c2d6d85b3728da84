//! Bodies of earlier versions that a later one upcasts: with three builds of a plugin, `skew` 1.0, 1.1 and 1.2, of which the
//! last one's schema accepts no body of the others, and its upcaster does.

use crate::parked::{Skewed, payment};
use crate::serving::{soon, wait_metric};
use cardcage_harness::{Cardcage, Deadline, eventually, plugin_library};
use serde_json::{Value, json};

async fn upcasting_worker(skewed: &Skewed) -> Cardcage {
    let library = plugin_library("skew-upcast").unwrap();
    Cardcage::worker(&skewed.serving.config.clone().plugin_at("skew", &library)).await.unwrap()
}

async fn pay(skewed: &Skewed, amount: Value) -> String {
    let reply = skewed.serving.http.post_json("/skew/pay", &json!({ "amount": amount })).await.unwrap();
    assert_eq!(reply.status, 202, "{}", reply.text());
    reply.task_id().unwrap()
}

/// Waits until the task has succeeded in its first attempt; answers its result.
async fn paid(skewed: &Skewed, id: &str) -> String {
    let done = skewed.serving.http.final_task(id, Deadline::seconds(60)).await.unwrap();
    let attempts = done["attempts"].as_array().unwrap();
    assert_eq!(
        (&done["state"], attempts.len(), &attempts[0]["n"]),
        (&json!("succeeded"), 1, &json!(1)),
        "{done}"
    );
    done["result"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_earlier_versions_run_upcast_in_their_first_attempt() {
    let skewed = Skewed::new().await;
    let worker = upcasting_worker(&skewed).await;
    let (new, old) = (skewed.pay().await, pay(&skewed, json!(7)).await);
    assert_eq!(paid(&skewed, &new).await, "1.2 paid 5 eur");
    assert_eq!(paid(&skewed, &old).await, "1.2 paid 7 cent");
    wait_metric(&worker, "cardcage_tasks_total{what=\"parked\"} 0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parked_body_comes_back_when_a_version_comes_that_upcasts_it() {
    let skewed = Skewed::new().await;
    let old = skewed.old_worker().await;
    let id = skewed.pay().await;
    skewed.parked(&id).await;
    drop(old);
    let _worker = upcasting_worker(&skewed).await;
    assert_eq!(paid(&skewed, &id).await, "1.2 paid 5 eur");
    eventually(soon(), "nothing is left", async || {
        let left = (skewed.messages("PARKED").await, skewed.messages("TASKS_skew").await);
        (left == (0, 0)).then_some(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn body_that_the_upcaster_cannot_help_is_parked_says_why_and_is_tried_once_by_its_version() {
    let skewed = Skewed::new().await;
    for (amount, why) in [
        (
            json!({ "units": 5_000_000_000_u64, "currency": "eur" }),
            "upcaster makes of it does not fit at `units`",
        ),
        (json!(null), "the upcaster does not know it either"),
    ] {
        let old = skewed.old_worker().await;
        // Not through the API, whose version refuses the second one.
        let broker = skewed.serving.broker(std::time::Duration::from_secs(3)).await;
        let envelope = payment(&json!({ "amount": amount }));
        broker.publish_task(&envelope, std::time::Duration::from_secs(10)).await.unwrap();
        let hopeless = envelope.id.to_string();
        skewed.parked(&hopeless).await;
        drop(old);

        let first = upcasting_worker(&skewed).await;
        wait_metric(&first, "cardcage_tasks_total{what=\"parked\"} 1").await;
        skewed.parked(&hopeless).await;
        let task = skewed.show(&hopeless).await;
        assert!(task["error"]["message"].as_str().unwrap().contains(why), "{task}");
        assert_eq!(task["attempts"], json!([]), "it was no attempt");
        drop(first);

        let old = skewed.old_worker().await;
        let good = skewed.pay().await;
        eventually(soon(), "both are parked", async || (skewed.messages("PARKED").await == 2).then_some(()))
            .await
            .unwrap();
        drop(old);
        // The hopeless one was parked earlier, so it is judged before the one that comes back.
        let second = upcasting_worker(&skewed).await;
        assert_eq!(paid(&skewed, &good).await, "1.2 paid 5 eur");
        wait_metric(&second, "cardcage_tasks_total{what=\"unparked\"} 1").await;
        skewed.parked(&hopeless).await;
        skewed.json(&["tasks", "cancel", &hopeless]).await;
    }
}
