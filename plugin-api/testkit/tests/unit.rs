//! The unit level by itself: its clock, its awaits, what it refuses.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may; clippy.toml reaches only what stands inside a test function"
)]

use plugin_api::http::Request;
use plugin_api::prelude::*;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use testkit::Bench;

/// What handlers did outside.
#[derive(Debug, Clone, Default)]
struct App {
    done: Arc<Mutex<Vec<String>>>,
}

impl App {
    fn did(&self, what: impl Into<String>) {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).push(what.into());
    }

    fn all(&self) -> Vec<String> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Charges under the key of its effect, then ships; gives way between all steps.
#[task(retry(max_attempts = 2, backoff = "1h..24h"))]
async fn order(ctx: TaskContext<App>, item: String) -> TaskResult<String> {
    tokio::task::yield_now().await;
    let app = ctx.state();
    let charged: String = ctx
        .once("charge", async || {
            tokio::task::yield_now().await;
            app.did(format!("charge {}", ctx.once_key("charge")));
            Ok::<_, TaskError>("charged".to_owned())
        })
        .await?;
    tokio::task::yield_now().await;
    app.did(format!("ship {item}"));
    Ok(charged)
}

/// Charges anew in each attempt.
#[task]
async fn careless(ctx: TaskContext<App>, item: String) -> TaskResult<()> {
    ctx.state().did(format!("charge {item}"));
    tokio::task::yield_now().await;
    Ok(())
}

/// Never succeeds.
#[task(retry(max_attempts = 3, backoff = "1h..24h"), exhausted = "give_up")]
async fn hopeless(ctx: TaskContext<App>, item: String) -> TaskResult<()> {
    ctx.tasks().enqueue(careless, item).await?;
    let since = ctx.now().duration_since(ctx.enqueued_at()).unwrap_or_default();
    ctx.state().did(format!("try {} after {} h", ctx.attempt(), since.as_secs() / 3_600));
    info!(attempt = ctx.attempt(), "no hope");
    Err(TaskError::retry("never"))
}

/// Has another one run with its success.
#[task]
async fn stages(ctx: TaskContext<App>, item: String) -> TaskResult<()> {
    ctx.tasks().enqueue(careless, item).await?;
    Ok(())
}

/// Has another one run at once.
#[task]
async fn publishes(ctx: TaskContext<App>, item: String) -> TaskResult<()> {
    ctx.tasks().enqueue_now(careless, item).await?;
    Ok(())
}

/// Waits for another one, for an hour at most.
#[task]
async fn waits(ctx: TaskContext<App>, other: Uuid) -> TaskResult<bool> {
    let ended = ctx.tasks().wait(careless, other, Duration::from_secs(3_600)).await?;
    Ok(ended.is_some())
}

/// Has another one run, at its second try.
#[task]
async fn parent(ctx: TaskContext<App>, item: String) -> TaskResult<Uuid> {
    let child = ctx.tasks().enqueue(careless, format!("{item} {}", ctx.attempt())).await?;
    if ctx.attempt() == 1 { Err(TaskError::retry("again")) } else { Ok(child.id) }
}

/// Hears of it.
#[task]
async fn give_up(ctx: TaskContext<App>, dead: Exhausted<String>) -> TaskResult<()> {
    ctx.state().did(format!("give up {} ({})", dead.body.unwrap_or_default(), dead.code));
    Ok(())
}

/// Sleeps, or is stopped at its limit.
#[task(timeout = "1s", retry(max_attempts = 1, backoff = "1s..1s"))]
async fn sleeper(_ctx: TaskContext<App>, ms: u64) -> TaskResult<()> {
    tokio::time::sleep(Duration::from_millis(ms)).await;
    Ok(())
}

/// One at a time.
#[task(unique_key = "id")]
async fn unique(_ctx: TaskContext<App>, _body: Value) -> TaskResult<()> {
    Ok(())
}

/// Enqueues all of them.
#[utoipa::path(post, path = "/all", responses((status = 202, description = "Enqueued")))]
async fn all(tasks: Tasks, Json(items): Json<Vec<String>>) -> Result<AcceptedAll, Problem> {
    let each = items.iter().map(|item| tasks.enqueue(careless, item.clone()));
    tasks.enqueue_all(each).idempotency_key("all").await
}

/// Enqueues two, one after the other.
#[utoipa::path(post, path = "/two", responses((status = 202, description = "Enqueued")))]
async fn two(tasks: Tasks) -> Result<Accepted, Problem> {
    tasks.enqueue(careless, "first".into()).await?;
    tasks.enqueue(careless, "second".into()).await
}

/// Takes what the app has in its hands, gives way, and puts it back; what it did not put back is lost.
#[utoipa::path(post, path = "/lend", responses((status = 204, description = "Put back")))]
async fn lend(State(app): State<App>) -> StatusCode {
    let all = std::mem::take(&mut *app.done.lock().unwrap_or_else(PoisonError::into_inner));
    tokio::task::yield_now().await;
    app.done.lock().unwrap_or_else(PoisonError::into_inner).extend(all);
    tokio::task::yield_now().await;
    StatusCode::NO_CONTENT
}

/// Enqueues for tomorrow.
#[utoipa::path(post, path = "/tomorrow", responses((status = 202, description = "Enqueued")))]
async fn tomorrow(tasks: Tasks, Json(item): Json<String>) -> Result<Accepted, Problem> {
    tasks.enqueue(careless, item).delay(Duration::from_secs(86_400)).idempotency_key("tomorrow").await
}

/// Enqueues one of its own and one of another plugin.
#[utoipa::path(post, path = "/mixed", responses((status = 202, description = "Enqueued")))]
async fn mixed(tasks: Tasks) -> Result<AcceptedAll, Problem> {
    let all = [tasks.enqueue(careless, "a".into()), tasks.plugin("others", 1).enqueue("theirs", &json!(1))];
    tasks.enqueue_all(all).await
}

/// Stages what its body says.
#[task(retry(max_attempts = 1, backoff = "1s..1s"))]
async fn stager(ctx: TaskContext<App>, what: String) -> TaskResult<()> {
    let tasks = ctx.tasks();
    let staged = || tasks.enqueue(careless, "a".into());
    let done = match what.as_str() {
        "key" => tasks.enqueue_all([staged()]).idempotency_key("k").await.map(drop),
        "some now" => tasks.enqueue_all([staged(), tasks.enqueue_now(careless, "b".into())]).await.map(drop),
        _ => tasks.enqueue(undeclared, ()).await.map(drop),
    };
    done.map_err(|problem| TaskError::fail(format!("{problem:?}")))
}

/// How many seconds it has, softly and in all, and how many have passed when it is told that they are near.
#[task(soft_timeout = "10m", timeout = "20m")]
async fn patient(ctx: TaskContext<App>, _nothing: ()) -> TaskResult<[u64; 3]> {
    let began = ctx.now();
    let left = |end: std::time::SystemTime| {
        end.duration_since(began).unwrap_or_default().as_secs_f64().round() as u64
    };
    let (soft, hard) = (ctx.soft_deadline().map(left).unwrap_or_default(), left(ctx.deadline()));
    ctx.deadline_near().await;
    Ok([soft, hard, ctx.now().duration_since(began).unwrap_or_default().as_secs()])
}

/// Is not a task of the plugin.
#[task]
async fn undeclared(_ctx: TaskContext<App>, _nothing: ()) -> TaskResult<()> {
    Ok(())
}

fn definition(app: &App) -> Plugin<App> {
    let app = app.clone();
    Plugin::new(async move |_| Ok(app))
        .routes(routes!(tomorrow))
        .routes(routes!(lend))
        .routes(routes!(all))
        .routes(routes!(mixed))
        .routes(routes!(two))
        .task(stager)
        .task(patient)
        .task(order)
        .task(careless)
        .task(hopeless)
        .task(give_up)
        .task(stages)
        .task(publishes)
        .task(waits)
        .task(sleeper)
        .task(unique)
        .task(parent)
        .schedule("nightly", Schedule::cron("0 0 2 * * *"), careless, "night".into())
}

async fn bench() -> (Bench, App) {
    let app = App::default();
    let of = app.clone();
    (Bench::unit(move || definition(&of)).start().await.unwrap(), app)
}

#[tokio::test]
async fn hours_between_attempts_pass_at_once_and_the_handler_sees_them_passed() {
    let (bench, app) = bench().await;
    let began = Instant::now();
    let id = bench.enqueue("hopeless", &json!("a")).await.unwrap();
    let outcome = bench.outcome(id).await.unwrap();
    assert_eq!((outcome.state.as_str(), outcome.attempts, outcome.code()), ("failed", 3, "error"));
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    bench.advance(Duration::ZERO).await.unwrap();
    // What a failed attempt staged is dropped.
    let expected = ["try 1 after 0 h", "try 2 after 1 h", "try 3 after 3 h", "give up a (error)"];
    assert_eq!(app.all(), expected);
    let logs = bench.logs();
    let line = logs.lines().find(|line| line.contains("no hope")).unwrap();
    assert!(line.starts_with("INFO unit: no hope attempt=1"), "{line}");
    assert!(line.contains(&format!("task_id={id}")), "{line}");
}

#[tokio::test]
async fn only_the_attempt_that_succeeds_has_children() {
    let (bench, app) = bench().await;
    let id = bench.enqueue("parent", &json!("a")).await.unwrap();
    let child = bench.outcome(id).await.unwrap().succeeded().unwrap();
    let child: Uuid = serde_json::from_value(child).unwrap();
    bench.outcome(child).await.unwrap().succeeded().unwrap();
    assert_eq!(bench.task(child).await.unwrap().unwrap()["parent_id"], json!(id));
    assert_eq!(app.all(), ["charge a 2"]);
}

#[tokio::test]
async fn tasks_enqueued_together_run_each_and_a_repeat_runs_none() {
    let (bench, app) = bench().await;
    let first = bench.post("/all", &json!(["a", "b"])).await.unwrap();
    bench.advance(Duration::ZERO).await.unwrap();
    let mut done = app.all();
    done.sort();
    assert_eq!(done, ["charge a", "charge b"]);
    let again = bench.post("/all", &json!(["a", "b"])).await.unwrap();
    assert_eq!(again.json()["tasks"][1]["id"], first.json()["tasks"][1]["id"]);
    bench.advance(Duration::ZERO).await.unwrap();
    assert_eq!(app.all().len(), 2);
}

#[tokio::test]
async fn delayed_task_waits_for_its_time_and_not_longer() {
    let (bench, app) = bench().await;
    let first = bench.post("/tomorrow", &json!("a")).await.unwrap();
    let id = first.task_id().unwrap();
    assert_eq!(bench.post("/tomorrow", &json!("a")).await.unwrap().task_id().unwrap(), id);
    let other = bench.post("/tomorrow", &json!("b")).await.unwrap();
    assert_eq!(other.code().as_deref(), Some("idempotency_conflict"), "{}", other.text());
    bench.advance(Duration::from_secs(86_000)).await.unwrap();
    assert_eq!(bench.task(id).await.unwrap().unwrap()["state"], "scheduled");
    assert!(app.all().is_empty());
    bench.advance(Duration::from_secs(500)).await.unwrap();
    assert_eq!(bench.task(id).await.unwrap().unwrap()["state"], "succeeded");
    assert_eq!(app.all(), ["charge a"]);
}

/// `once` is at least once: a worker that dies after the effect and before its record leaves none, and only the key tells.
#[tokio::test]
async fn task_that_is_lost_at_any_await_charges_again_only_between_the_effect_and_its_record() {
    let (bench, app) = bench().await;
    let outcomes = bench.lost_at_every_await("order", &json!("a")).await.unwrap();
    for outcome in &outcomes {
        assert_eq!((outcome.state.as_str(), outcome.attempts), ("succeeded", 2), "{outcome:?}");
    }
    // Before all; at the look, before and after it; in the effect; at the keep, before and after it; after all.
    assert_eq!(outcomes.len(), 7, "{outcomes:?}");
    let all = app.all();
    let charges = |outcome: &testkit::Outcome| {
        let charge = format!("charge {}-charge", outcome.id);
        all.iter().filter(|done| **done == charge).count()
    };
    assert_eq!(outcomes.iter().map(charges).collect::<Vec<_>>(), [1, 1, 1, 1, 2, 1, 1]);
    // And the run that was not lost.
    let ships = all.iter().filter(|done| *done == "ship a").count();
    assert_eq!((all.len(), ships), (8 + 1 + 8, 8), "{all:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn awaits_of_a_task_are_as_many_whatever_threads_there_are() {
    let (bench, _) = bench().await;
    for _ in 0..20 {
        assert_eq!(bench.lost_at_every_await("order", &json!("a")).await.unwrap().len(), 7);
    }
}

#[tokio::test]
async fn task_that_is_lost_where_it_enqueues_leaves_what_it_published_and_nothing_that_it_staged() {
    for (task, left) in [("stages", 3), ("publishes", 4)] {
        let (bench, app) = bench().await;
        let outcomes = bench.lost_at_every_await(task, &json!("a")).await.unwrap();
        assert_eq!(outcomes.len(), 2, "before it is taken, and after");
        bench.advance(Duration::ZERO).await.unwrap();
        assert_eq!(app.all(), vec!["charge a"; left], "{task}");
    }
}

#[tokio::test]
async fn task_that_is_lost_where_it_waits_waits_again() {
    let (bench, _) = bench().await;
    let other = bench.enqueue("careless", &json!("a")).await.unwrap();
    bench.outcome(other).await.unwrap().succeeded().unwrap();
    let outcomes = bench.lost_at_every_await("waits", &json!(other)).await.unwrap();
    let [outcome] = outcomes.try_into().unwrap();
    assert_eq!((outcome.attempts, outcome.succeeded().unwrap()), (2, json!(true)));
}

#[tokio::test]
async fn task_that_charges_anew_in_each_attempt_is_found_out() {
    let (bench, app) = bench().await;
    let outcomes = bench.lost_at_every_await("careless", &json!("a")).await.unwrap();
    assert_eq!(outcomes.len(), 1);
    assert_eq!(
        app.all().len(),
        3,
        "once in the lost attempt, once after it, once in the run that was not lost"
    );
}

#[tokio::test]
async fn route_whose_caller_hangs_up_at_any_await_is_dropped_there_and_what_it_leaves_is_seen() {
    let (bench, app) = bench().await;
    app.did("kept");
    let request = Request::post("/lend").body(Bytes::new()).unwrap();
    let (times, reply) = bench.hung_up_at_every_await(&request).await.unwrap();
    assert_eq!((times, reply.status), (2, StatusCode::NO_CONTENT));
    assert!(app.all().is_empty(), "the first caller hung up between taking and putting back");
}

#[tokio::test]
async fn route_whose_caller_hangs_up_leaves_what_was_enqueued_by_then() {
    let (bench, app) = bench().await;
    let request = Request::post("/two").body(Bytes::new()).unwrap();
    let (times, reply) = bench.hung_up_at_every_await(&request).await.unwrap();
    assert_eq!((times, reply.status), (4, StatusCode::ACCEPTED));
    bench.advance(Duration::ZERO).await.unwrap();
    let all = app.all();
    let count = |what: &str| all.iter().filter(|done| *done == what).count();
    // Of five calls, the first is lost before anything is taken, and the next two before the second task is.
    assert_eq!((count("charge first"), count("charge second"), all.len()), (4, 2, 6), "{all:?}");
}

#[tokio::test]
async fn handler_that_takes_longer_than_its_limit_is_ended_there() {
    let (bench, _) = bench().await;
    let short = bench.enqueue("sleeper", &json!(0)).await.unwrap();
    bench.outcome(short).await.unwrap().succeeded().unwrap();
    let long = bench.enqueue("sleeper", &json!(60_000)).await.unwrap();
    let outcome = bench.outcome(long).await.unwrap();
    assert_eq!((outcome.state.as_str(), outcome.code()), ("failed", "timeout"));
}

#[tokio::test(start_paused = true)]
async fn limits_of_an_attempt_are_of_the_clock_that_was_put_forward() {
    let (bench, _) = bench().await;
    bench.advance(Duration::from_secs(86_400)).await.unwrap();
    let id = bench.enqueue("patient", &json!(null)).await.unwrap();
    let [soft, hard, waited] =
        serde_json::from_value(bench.outcome(id).await.unwrap().succeeded().unwrap()).unwrap();
    assert_eq!((soft, hard), (600, 1_200));
    let _: u64 = waited;
    assert!((600..610).contains(&waited), "{waited} s");
}

#[tokio::test]
async fn other_plugins_tasks_and_keys_of_staged_tasks_are_refused_in_a_hosts_words() {
    let (bench, _) = bench().await;
    let refused = bench.post("/mixed", &json!(null)).await.unwrap().json();
    assert_eq!(
        (refused["code"].as_str(), refused["detail"].as_str()),
        (Some("invalid_batch"), Some("They are tasks of more than one plugin: of plugin and of others.")),
        "{refused}"
    );
    for (body, words) in [
        ("key", "What a task enqueues with its success is published once without a key"),
        ("some now", "Some of them are published at once, and others with the attempt's success."),
        ("undeclared", "The plugin enqueues `undeclared`, which it does not declare with `.task(…)`."),
    ] {
        let id = bench.enqueue("stager", &json!(body)).await.unwrap();
        let error = bench.outcome(id).await.unwrap().error.unwrap();
        assert!(error.message.contains(words), "{body}: {}", error.message);
    }
}

#[tokio::test]
async fn schedule_is_fired_by_hand() {
    let (bench, app) = bench().await;
    let id = bench.fire("nightly").await.unwrap();
    bench.outcome(id).await.unwrap().succeeded().unwrap();
    assert_eq!(app.all(), ["charge night"]);
    let error = bench.fire("weekly").await.unwrap_err().to_string();
    assert!(error.contains("no schedule `weekly`"), "{error}");
}

#[tokio::test]
async fn body_that_the_handler_cannot_read_parks_and_costs_no_attempt() {
    let (bench, _) = bench().await;
    let unfit = json!({ "not": "a text" });
    let refused = bench.enqueue("careless", &unfit).await.unwrap_err().to_string();
    assert!(refused.contains("does not fit the task `careless`"), "{refused}");
    let id = bench.enqueue_unchecked("careless", &unfit).await.unwrap();
    let outcome = bench.outcome(id).await.unwrap();
    assert_eq!((outcome.state.as_str(), outcome.attempts, outcome.code()), ("parked", 0, "undecodable"));
    assert_eq!(bench.cancel(id).await.unwrap().status, StatusCode::OK);
    assert_eq!(bench.outcome(id).await.unwrap().state, "cancelled");
}

#[tokio::test]
async fn unknown_names_are_refused_by_name() {
    let (bench, _) = bench().await;
    let error = bench.enqueue("fulfill", &json!(1)).await.unwrap_err().to_string();
    assert!(error.contains("no task `fulfill`"), "{error}");
    assert!(bench.outcome(Uuid::nil()).await.unwrap_err().to_string().contains("no task"));
    assert_eq!(bench.task(Uuid::nil()).await.unwrap(), None);
    let same = bench.enqueue("unique", &json!({ "id": 1 })).await.unwrap();
    assert_eq!(bench.enqueue("unique", &json!({ "id": 1 })).await.unwrap(), same);
    assert_ne!(bench.enqueue("unique", &json!({ "id": 2 })).await.unwrap(), same);
}
