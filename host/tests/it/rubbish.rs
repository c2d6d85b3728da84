//! Rubbish on the subjects that hosts listen to: no reply subject, no body, no sense. Nobody falls, nothing is confused.

use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use cardcage_harness::{Deadline, Http};
use cardcage_protocol::{CallId, InstanceId, Name, Namespace, Subjects, TaskId};
use futures_util::StreamExt as _;
use serde_json::json;

use crate::serving::{Serving, child, soon};

/// Bodies that no host sends.
fn bodies(rng: &mut fastrand::Rng) -> Vec<Bytes> {
    let noise = |rng: &mut fastrand::Rng, length: usize| {
        Bytes::from((0..length).map(|_| rng.u8(..)).collect::<Vec<_>>())
    };
    let id = TaskId::generate();
    vec![
        Bytes::new(),
        Bytes::from_static(b"{"),
        Bytes::from_static(b"null"),
        Bytes::from_static(&[0xff, 0xfe, 0x00]),
        Bytes::from(id.to_string()),
        Bytes::copy_from_slice(id.as_bytes()),
        Bytes::from(json!({ "id": id.to_string(), "v": 99, "want": [[[[]]]] }).to_string()),
        Bytes::from("[".repeat(10_000)),
        noise(rng, 1),
        noise(rng, 24),
        noise(rng, 4_096),
        noise(rng, 500_000),
    ]
}

fn headers(rng: &mut fastrand::Rng) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    match rng.u8(..3) {
        0 => return None,
        1 => {
            for name in ["Cardcage-Task-Id", "Cardcage-Attempt", "Cardcage-Enqueued-At", "traceparent"] {
                headers.insert(name, "no such thing");
            }
        }
        _ => {
            for _ in 0..3 {
                headers.append("Nats-Msg-Id", "twice");
            }
            headers.insert("Status", "999 what");
        }
    }
    Some(headers)
}

/// Every subject that a host listens to without JetStream, as far as its name can be known or heard.
async fn subjects(client: &async_nats::Client, of: &Subjects, http: &Http) -> Vec<String> {
    let (chaos, call) = (Name::new("chaos").unwrap(), CallId::generate());
    let mut list = vec![
        of.find(),
        of.cancel(),
        of.presence(),
        of.api_presence(),
        of.event(&Name::new("task").unwrap()),
        of.callctl(call),
        of.task_event(TaskId::generate()),
        of.done(TaskId::generate()),
        of.call(&chaos, 0, &Name::new("call").unwrap()),
        of.call(&chaos, 0, &Name::new("nowhere").unwrap()),
        of.callctls().replace('*', "not-a-call"),
    ];
    // Names that only their owners know are heard while they talk: a streamed call, and the pulse of each connection.
    let mut heard = client.subscribe(format!("{}.>", of.namespace())).await.unwrap();
    client.flush().await.unwrap();
    let slow = json!({ "mode": "slow_stream", "ms": 100, "times": 20 });
    let call = tokio::spawn({
        let http = http.clone();
        async move { http.post_json("/chaos/call", &slow).await }
    });
    while !call.is_finished() {
        if let Ok(Some(message)) = tokio::time::timeout(Duration::from_millis(200), heard.next()).await {
            let subject = message.subject.to_string();
            let is_private = [".callio.", ".pulse."].iter().any(|part| subject.contains(part));
            if is_private && !list.contains(&subject) {
                list.push(subject);
            }
        }
    }
    assert!(list.iter().any(|subject| subject.contains(".callio.")), "{list:?}");
    let nobody = InstanceId::generate("worker").unwrap();
    list.push(of.callio(&nobody, CallId::generate()));
    list
}

#[tokio::test(flavor = "multi_thread")]
async fn rubbish_on_control_subjects_ends_no_process_and_confuses_no_answer() {
    let (serving, worker) = Serving::both(|config| config).await;
    let of = Subjects::new(Namespace::new(serving.config.namespace()).unwrap());
    let client = async_nats::connect(serving.nats.url()).await.unwrap();
    let children = [child(&serving.api), child(&worker)];
    let list = subjects(&client, &of, &serving.http).await;

    // Held while the rubbish comes, so that there is somebody to confuse.
    let held = serving.http.post_json("/chaos/task", &json!({ "mode": "sleep", "ms": 3_000 })).await.unwrap();
    let held = held.task_id().unwrap();
    let call = serving.order_later(json!({ "mode": "sleep", "ms": 3_000 }));
    let mut rng = fastrand::Rng::with_seed(1);
    for subject in &list {
        for body in bodies(&mut rng) {
            let reply = rng.bool().then(|| client.new_inbox());
            match (headers(&mut rng), reply) {
                (None, None) => client.publish(subject.clone(), body).await.unwrap(),
                (None, Some(reply)) => client.publish_with_reply(subject.clone(), reply, body).await.unwrap(),
                (Some(headers), None) => {
                    client.publish_with_headers(subject.clone(), headers, body).await.unwrap();
                }
                (Some(headers), Some(reply)) => client
                    .publish_with_reply_and_headers(subject.clone(), reply, headers, body)
                    .await
                    .unwrap(),
            }
        }
    }
    client.flush().await.unwrap();

    let answer = tokio::time::timeout(Deadline::seconds(60).left(), call).await.unwrap().unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let done = serving.http.final_task(&held, soon()).await.unwrap();
    assert_eq!(
        (&done["state"], done["attempts"].as_array().unwrap().len()),
        (&json!("succeeded"), 1),
        "{done}"
    );
    for order in [json!({ "mode": "ok" }), json!({ "mode": "slow_stream", "times": 3 })] {
        assert_eq!(serving.order(order).await.status, 200);
    }
    let next = serving.http.post_json("/chaos/task", &json!({ "mode": "ok" })).await.unwrap();
    let next = serving.http.final_task(&next.task_id().unwrap(), soon()).await.unwrap();
    assert_eq!(next["state"], "succeeded");
    assert_eq!([child(&serving.api), child(&worker)], children, "no child was replaced");
    for host in [&serving.api, &worker] {
        assert_eq!(host.admin().unwrap().get("/readyz").await.unwrap().status, 200);
        assert!(!host.stderr().contains("panicked"), "{}", host.stderr());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn huge_and_unreadable_ends_of_tasks_hurt_no_other_task() {
    let (serving, worker) = Serving::both(|config| config).await;
    let children = [child(&serving.api), child(&worker)];
    let post = async |order| {
        let reply = serving.http.post_json("/chaos/task", &order).await.unwrap();
        assert_eq!(reply.status, 202, "{}", reply.text());
        reply.task_id().unwrap()
    };
    let neighbour = post(json!({ "mode": "sleep", "ms": 1_500 })).await;
    let error = post(json!({ "mode": "big_error", "times": 5 })).await;
    let result = post(json!({ "mode": "huge_reply", "times": 5 })).await;

    let error = serving.http.final_task(&error, soon()).await.unwrap();
    let text = error["error"]["message"].as_str().unwrap();
    assert!(
        text.starts_with("xxx") && text.ends_with("x…") && text.len() <= 64 * 1024,
        "{} bytes",
        text.len()
    );
    assert_eq!((&error["state"], error["attempts"].as_array().unwrap().len()), (&json!("failed"), 1));
    let result = serving.http.final_task(&result, soon()).await.unwrap();
    assert_eq!(result["error"]["code"], "result_too_large", "{result}");
    assert_eq!((&result["state"], result["attempts"].as_array().unwrap().len()), (&json!("failed"), 1));
    assert!(result.get("result").is_none_or(serde_json::Value::is_null));
    let neighbour = serving.http.final_task(&neighbour, soon()).await.unwrap();
    assert_eq!(
        (&neighbour["state"], neighbour["attempts"].as_array().unwrap().len()),
        (&json!("succeeded"), 1)
    );
    assert_eq!([child(&serving.api), child(&worker)], children, "no child was replaced");
}
