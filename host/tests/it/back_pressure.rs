//! What one plugin's callers ask for too much of is nobody else's trouble.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cardcage_harness::eventually;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::declarations::{accepted, quick};
use crate::serving::{Serving, soon};

/// Callers who go on asking for a plugin's tasks, whatever they are told.
struct Flood {
    callers: JoinSet<()>,
    is_over: Arc<AtomicBool>,
    refused: Arc<AtomicU64>,
}

impl Flood {
    fn of(serving: &Serving, path: &'static str, order: &Value) -> Self {
        let (is_over, refused) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut callers = JoinSet::new();
        for _ in 0..8 {
            let (http, order) = (serving.http.clone(), order.clone());
            let (is_over, refused) = (is_over.clone(), refused.clone());
            callers.spawn(async move {
                while !is_over.load(Ordering::Relaxed) {
                    let reply = http.post_json(path, &order).await.unwrap();
                    match (reply.status, reply.problem_code().as_deref()) {
                        (202, _) => {}
                        (503, Some("queue_full")) => {
                            refused.fetch_add(1, Ordering::Relaxed);
                            // As one who has read `Retry-After`, only more impatient.
                            tokio::time::sleep(Duration::from_millis(20)).await;
                        }
                        other => panic!("{other:?}"),
                    }
                }
            });
        }
        Self { callers, is_over, refused }
    }

    async fn end(mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        while let Some(caller) = self.callers.join_next().await {
            caller.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn flood_and_backlog_of_one_plugin_neither_slow_nor_refuse_the_tasks_of_another() {
    let (serving, _worker) = Serving::both(|config| {
        quick(config).set("worker.task_concurrency", 4).set("broker.queue_max_messages", 400)
    })
    .await;
    // All of it together takes the four handlers of the plugin more than a minute.
    let flood = Flood::of(&serving, "/chaos/task", &json!({ "mode": "sleep", "ms": 700 }));
    eventually(soon(), "the plugin's queue is full", async || {
        (flood.refused.load(Ordering::Relaxed) > 20).then_some(())
    })
    .await
    .unwrap();
    let mut slowest = Duration::ZERO;
    for _ in 0..20 {
        let began = Instant::now();
        let id = accepted(&serving, "/hello/task", &json!({ "any": "body" })).await;
        assert_eq!(serving.http.final_task(&id, soon()).await.unwrap()["state"], "succeeded");
        slowest = slowest.max(began.elapsed());
    }
    let refused = flood.refused.load(Ordering::Relaxed);
    flood.end().await;
    assert!(slowest < Duration::from_secs(5), "a task of another plugin took {slowest:?}");
    assert!(refused > 40, "the queue was full all the while: {refused}");
}
