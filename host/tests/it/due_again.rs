//! A due task that a killed broker hands out again, as if for the first time, when its queue has forgotten it.

use crate::killed_between_writes::Killed;
use crate::serving::{chaos_envelope, restored, soon, wait_metric};
use cardcage_harness::{Deadline, Launch, eventually};
use cardcage_protocol::TaskEnvelope;
use serde_json::json;
use std::time::Duration;

async fn run(killed: &Killed, arguments: &[&str]) {
    let asked = Launch::new(arguments.iter().copied()).config(&killed.serving.config);
    let asked = asked.run(soon()).await.unwrap();
    assert_eq!(asked.status.code(), Some(0), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn due_task_that_comes_again_after_its_end_is_not_run_however_long_its_queue_stands() {
    let mut killed = Killed::new().await;
    let mut worker = killed.serving.worker().await;
    let order = json!({ "mode": "ok" });
    let path = "/chaos/delayed?delay_ms=300";
    let reply = killed.serving.http.post_json(path, &order).await.unwrap();
    let id = reply.task_id().unwrap();
    assert_eq!(killed.end(&id).await["state"], "succeeded");
    run(&killed, &["queues", "pause", "chaos.chaos"]).await;

    killed.serving.nats.kill9();
    killed.serving.nats.restart().await.unwrap();
    restored(&killed.serving.api).await;
    worker.wait_ready(soon()).await.unwrap();
    let broker = killed.serving.broker(Duration::from_secs(3)).await;
    let envelope: TaskEnvelope = chaos_envelope(id.parse().unwrap(), "chaos", order.to_string());
    let client = async_nats::connect(killed.serving.nats.url()).await.unwrap();
    let context = async_nats::jetstream::new(client);
    let mut headers = async_nats::HeaderMap::new();
    envelope.for_each_header(|name, value| headers.insert(name, value));
    let due = broker.subjects().due(&envelope.address());
    context.publish_with_headers(due, headers, envelope.body.clone()).await.unwrap().await.unwrap();
    let messages = async |stream: String| {
        context.get_stream(stream).await.unwrap().get_info().await.unwrap().state.messages
    };
    let (schedule, queue) =
        (broker.subjects().schedule_stream(), broker.subjects().tasks_stream(&envelope.plugin));
    eventually(soon(), "it stands in its queue again", async || {
        (messages(schedule.clone()).await == 0 && messages(queue.clone()).await == 1).then_some(())
    })
    .await
    .unwrap();
    // By then a first delivery is taken for one again.
    wait_metric(&worker, "cardcage_tasks_settling 0").await;
    run(&killed, &["queues", "resume", "chaos.chaos"]).await;
    eventually(Deadline::seconds(60), "it has left its queue", async || {
        (messages(queue.clone()).await == 0).then_some(())
    })
    .await
    .unwrap();
    assert_eq!(killed.ran(), [format!("{id} 1")]);
}
