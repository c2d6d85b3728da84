//! What is sent, in which order, and how each answer is judged.
//!
//! One after the other: a fault that is laid for one sample must meet that sample. Nothing here expects a time.

use bytes::Bytes;
use cardcage_harness::downstream::Fault;
use cardcage_harness::{Deadline, Reply, Result, stripe};
use http::Method;
use serde_json::{Value, json};

use crate::expected::{self, Expected};
use crate::samples::{Sample, Samples};
use crate::stage::{STRIPE_SECRET, Stage};

/// Longer than a retry's backoff and a restart of everything.
const FINAL_WITHIN_S: u64 = 60;

const STRIPE: &str = "/payments/stripe/webhook";
const COMMERCETOOLS: &str = "/orders/commercetools/messages";
const JSON: (&str, &str) = ("content-type", "application/json");

/// One line of the table.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) sample: String,
    pub(crate) status: u16,
    pub(crate) task: Option<String>,
    pub(crate) attempts: Option<usize>,
    pub(crate) outcome: String,
    pub(crate) expected: String,
    /// Why it is not as expected; `None` if it is.
    pub(crate) objection: Option<String>,
}

/// Sends everything and returns a row for each request.
pub(crate) async fn play(stage: &Stage, samples: &Samples) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    hello(stage, &mut rows).await?;
    payments(stage, samples, &mut rows).await?;
    orders(stage, samples, &mut rows).await?;
    Ok(rows)
}

async fn hello(stage: &Stage, rows: &mut Vec<Row>) -> Result<()> {
    let reply = stage.http.get("/hello/inline?name=demo").await?;
    rows.push(judge(stage, "hello: inline route", reply, Expected::Status(200)).await?);

    let body = json!({"greeting": "carried to a worker and back"});
    let reply = stage.http.post_json("/hello/call", &body).await?;
    let echoed = reply.json().is_ok_and(|answer| answer == body);
    let mut row = judge(stage, "hello: call on a worker", reply, Expected::Status(200)).await?;
    if !echoed && row.objection.is_none() {
        row.objection = Some("the answer is not the body that was sent".to_owned());
    }
    rows.push(row);

    let reply = stage.http.post_json("/hello/task", &json!({"greeting": "kept until it is done"})).await?;
    rows.push(judge(stage, "hello: durable task", reply, Expected::Succeeded { attempts: 1 }).await?);
    Ok(())
}

async fn payments(stage: &Stage, samples: &Samples, rows: &mut Vec<Row>) -> Result<()> {
    let mut repeatable = None;
    for sample in &samples.stripe {
        let reply = send_event(stage, &sample.raw, &signed(STRIPE_SECRET, &sample.raw)?).await?;
        let row = judge(stage, &sample.name, reply, expected::of_event(&sample.json)).await?;
        repeatable = repeatable.or_else(|| row.task.clone().map(|task| (sample, task)));
        rows.push(row);
    }
    if let Some((sample, task)) = repeatable {
        // Stripe delivers at least once, each time with a signature of its own.
        let reply = send_event(stage, &sample.raw, &signed(STRIPE_SECRET, &sample.raw)?).await?;
        rows.push(judge(stage, &format!("{}, again", sample.name), reply, Expected::SameTask(task)).await?);
    }
    if let Some(sample) = samples.stripe.first() {
        let forged = signed("whsec_someone_else", &sample.raw)?;
        let reply = send_event(stage, &sample.raw, &forged).await?;
        rows.push(judge(stage, &format!("{}, forged", sample.name), reply, Expected::Status(400)).await?);
    }
    Ok(())
}

async fn orders(stage: &Stage, samples: &Samples, rows: &mut Vec<Row>) -> Result<()> {
    let mut repeatable: Option<(&Sample, String)> = None;
    for sample in &samples.messages {
        let mut expected = expected::of_message(&sample.json);
        let mut name = sample.name.clone();
        if repeatable.is_none() && expected::is_fulfilment(&sample.json) {
            stage.downstream.orders.faults().next(1, Fault::Status(503));
            expected = Expected::Succeeded { attempts: 2 };
            name.push_str(" (order API: 503 once)");
        }
        let reply = send_message(stage, sample).await?;
        let row = judge(stage, &name, reply, expected).await?;
        repeatable = repeatable.or_else(|| row.task.clone().map(|task| (sample, task)));
        rows.push(row);
    }
    if let Some((sample, task)) = repeatable {
        let reply = send_message(stage, sample).await?;
        rows.push(judge(stage, &format!("{}, again", sample.name), reply, Expected::SameTask(task)).await?);
    }
    Ok(())
}

/// The signature's header, signed now.
fn signed(secret: &str, body: &[u8]) -> Result<String> {
    stripe::header(secret, stripe::now_unix_s()?, body)
}

async fn send_event(stage: &Stage, raw: &[u8], signature: &str) -> Result<Reply> {
    let headers = [JSON, ("stripe-signature", signature)];
    stage.http.send(Method::POST, STRIPE, &headers, Bytes::copy_from_slice(raw)).await
}

async fn send_message(stage: &Stage, sample: &Sample) -> Result<Reply> {
    stage.http.send(Method::POST, COMMERCETOOLS, &[JSON], Bytes::copy_from_slice(&sample.raw)).await
}

/// Follows the task of a receipt to its end, and compares with what was expected.
async fn judge(stage: &Stage, sample: &str, reply: Reply, expected: Expected) -> Result<Row> {
    let mut row = Row {
        sample: sample.to_owned(),
        status: reply.status,
        task: None,
        attempts: None,
        outcome: "answered".to_owned(),
        expected: expected.to_string(),
        objection: None,
    };
    let mut task = Value::Null;
    if reply.status == 202 {
        let id = reply.task_id()?;
        task = stage.http.final_task(&id, Deadline::seconds(FINAL_WITHIN_S)).await?;
        row.attempts = attempts(&task);
        row.outcome = task.get("state").and_then(Value::as_str).unwrap_or("unknown").to_owned();
        row.task = Some(id);
    } else if reply.json().is_ok_and(|body| body.get("ignored") == Some(&Value::Bool(true))) {
        row.outcome = "ignored".to_owned();
    } else if let Some(code) = reply.problem_code() {
        row.outcome = format!("refused: {code}");
    }
    let as_expected = match &expected {
        Expected::Succeeded { attempts } => row.outcome == "succeeded" && row.attempts == Some(*attempts),
        Expected::SameTask(id) => row.task.as_ref() == Some(id) && row.outcome == "succeeded",
        Expected::Ignored => row.status == 200 && row.outcome == "ignored",
        Expected::Status(status) => row.status == *status,
    };
    if !as_expected {
        row.objection = Some(if task.is_null() { reply.text() } else { task.to_string() });
    }
    Ok(row)
}

/// The number of attempts, whether they are listed or counted.
fn attempts(task: &Value) -> Option<usize> {
    let attempts = task.get("attempts")?;
    let listed = attempts.as_array().map(Vec::len);
    listed.or_else(|| attempts.as_u64().and_then(|count| usize::try_from(count).ok()))
}
