//! A plugin that crashes its host's child again and again by itself is left out for a while, and the others go on.

use crate::serving::{Serving, restored};
use cardcage_harness::{Cardcage, Deadline, eventually};
use serde_json::{Value, json};

async fn status(host: &Cardcage) -> Option<Value> {
    host.admin().unwrap().get("/readyz?verbose").await.ok()?.json().ok()
}

fn names(status: &Value) -> Vec<&str> {
    status["plugins"].as_array().unwrap().iter().map(|plugin| plugin["name"].as_str().unwrap()).collect()
}

async fn until(host: &Cardcage, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let shown = eventually(Deadline::seconds(90), what, async || {
        let now = status(host).await?;
        wanted(&now).then_some(now)
    })
    .await;
    shown.unwrap_or_else(|error| panic!("{error}: {}", host.stderr()))
}

#[tokio::test(flavor = "multi_thread")]
async fn plugin_that_crashes_by_itself_is_left_out_the_others_go_on_and_it_comes_back_when_it_is_well() {
    let folder = tempfile::tempdir().unwrap();
    let doom = folder.path().join("doom");
    let serving = Serving::api(|c| c).await;
    restored(&serving.api).await;
    std::fs::write(&doom, "").unwrap();
    let config = serving.config.clone().plugin_set("chaos", "doom", doom.to_str().unwrap());
    // Both plugins are required; a worker ends for want of one that does not start.
    let worker = Cardcage::worker(&config).await.unwrap();

    let left_out = until(&worker, "chaos is left out", |now| {
        now["ready"] == true && now["refused"][0]["code"] == "crash_loop"
    })
    .await;
    assert_eq!((names(&left_out), &left_out["refused"][0]["plugin"]), (vec!["hello"], &json!("chaos")));
    assert_eq!(left_out["last_crash"]["plugin"], "chaos", "{left_out}");
    let child = left_out["child_pid"].clone();
    let reply = serving.http.post_json("/hello/call", &json!({})).await.unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text());
    // Its tasks wait, and are not refused.
    let waiting = serving.http.post_json("/chaos/task", &json!({ "mode": "ok" })).await.unwrap();
    assert_eq!(waiting.status, 202, "{}", waiting.text());

    std::fs::remove_file(&doom).unwrap();
    let back = until(&worker, "chaos is back", |now| names(now).contains(&"chaos")).await;
    assert_eq!((&back["ready"], &back["refused"]), (&json!(true), &json!([])), "{back}");
    assert_ne!(back["child_pid"], child, "in another child, which took over");
    assert_eq!(back["last_crash"], left_out["last_crash"], "nothing has crashed meanwhile");
    let done = serving.http.final_task(&waiting.task_id().unwrap(), Deadline::seconds(60)).await.unwrap();
    assert_eq!(done["state"], "succeeded", "{done}");
}
