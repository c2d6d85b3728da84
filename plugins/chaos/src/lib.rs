//! Misbehaves on request, so that tests can see that the host does not. Never load it into a host that matters: its
//! routes end the process that serves them.
//!
//! | route | runs | does |
//! |---|---|---|
//! | `POST /chaos/call` | worker | what its body says (`order::Mode`) |
//! | `POST /chaos/task` | enqueue | the same, as the task `chaos` |
//! | `POST /chaos/short` | enqueue | the same, as the task `short`, whose attempts have 1 s |
//! | `POST /chaos/keyed` | enqueue | the same, as the task `keyed`, whose body may have a `unique` and a `serial` key |
//! | `POST /chaos/doomed` | enqueue | the same, as the task `doomed`, for which `give_up` is run when it is given up |
//! | `POST /chaos/delayed?delay_ms=` | inline | enqueues the task `chaos` for later, with the request's `Idempotency-Key` |
//! | `POST /chaos/batch` | inline | enqueues several tasks together, as its body says (`batch.rs`) |
//! | `POST /chaos/ranked/{priority}` | worker | enqueues the task `ranked`, which has priorities and runs one at a time |
//! | `POST /chaos/effects` | enqueue | things that are done once per task, as the task `effects` |
//! | `POST /chaos/wait?ms=` | worker | enqueues the task `chaos` and waits for its end; with `id`, for that task's |
//! | `POST /chaos/refund` | worker | enqueues the task `record_refund` of the plugin payments |
//! | `POST /chaos/at?unix_ms=` | worker | enqueues the task `chaos` for that time |
//! | `POST /chaos/inline_wait?ms=` | inline | the same, in the API instance |
//! | `POST /chaos/reach` | inline | calls a route of another plugin, as its body says |
//! | `POST /chaos/reach_task` | enqueue | the same, or an enqueue, as the task `reach` |
//! | `POST /chaos/echo_stream` | worker | streams the request's body back |
//! | `GET /chaos/seen` | worker | how many handlers started, finished, panicked, were cancelled |
//! | `GET /chaos/inline_seen` | inline | the same, in the API instance |
//! | `GET /chaos/inline_block?ms=` | inline | holds its thread |
//!
//! The environment variable `CARDCAGE_CHAOS_SCHEDULES` holds the schedules that it declares, as JSON (`schedules.rs`);
//! `CARDCAGE_CHAOS_NEEDS` a plugin that it needs, by name and major, as in `orders 1`.
//!
//! The setting `init` makes its start go wrong, and `starts_after` makes it wait for a file; the environment variable `CARDCAGE_CHAOS_DESCRIBE` (`panic`, `hang`,
//! `exit`, `abort`, `abort_if=FILE` once there is that file, `needs` for a plugin that nobody has, or `forlorn` for a hook that nobody has) makes `describe` go wrong, which has no settings to read.

mod batch;
mod doomed;
#[cfg(test)]
mod levels;
mod neighbour;
mod order;
mod ranked;
mod reach;
mod schedules;
mod seen;
#[cfg(test)]
mod tests;
mod trace;

use order::{Mode, Order};
use plugin_api::prelude::*;
use seen::{Seen, Snapshot};
use trace::Trace;

const DESCRIBE: &str = "CARDCAGE_CHAOS_DESCRIBE";
const NEEDS: &str = "CARDCAGE_CHAOS_NEEDS";

/// The plugin's settings.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    /// How the start goes.
    init: Init,
    /// The start waits until there is this file.
    starts_after: Option<std::path::PathBuf>,
    /// While there is such a file, a thread of the plugin's own ends the process half a second after the start: by `exit(0)` where
    /// the file says `exit`, else by `abort`.
    doom: Option<std::path::PathBuf>,
    /// A file that every attempt which came to a good end is appended to: what happened, whatever was recorded.
    trace: Option<std::path::PathBuf>,
}

/// How `init` goes.
#[derive(Debug, Default, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Init {
    /// Well.
    #[default]
    Ok,
    /// It answers an error.
    Fail,
    /// It panics.
    Panic,
    /// It never answers.
    Hang,
    /// It calls `exit(0)`.
    Exit,
    /// It calls `abort`.
    Abort,
    /// It fills 256 MiB of memory and never answers.
    Hoard,
}

#[derive(Debug, Clone, Default)]
struct App {
    seen: Seen,
    trace: Trace,
}

impl App {
    async fn start(ctx: PluginContext) -> Result<App, InitError> {
        let settings = ctx.config::<Settings>()?;
        while settings.starts_after.as_ref().is_some_and(|gate| !gate.exists()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        match settings.init {
            Init::Ok => {}
            Init::Fail => return Err(InitError::new("chaos was told not to start: set its `init` to `ok`")),
            Init::Panic => order::panic_now("panicked in init as told"),
            Init::Hang => std::future::pending().await,
            Init::Exit => std::process::exit(0),
            Init::Abort => std::process::abort(),
            Init::Hoard => {
                let _hoard = std::hint::black_box(vec![1_u8; 256 << 20]);
                std::future::pending().await
            }
        }
        if let Some(doom) = settings.doom.and_then(|doom| std::fs::read_to_string(doom).ok()) {
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(500));
                if doom == "exit" { std::process::exit(0) } else { std::process::abort() }
            });
        }
        let trace = settings.trace.as_deref().map_or(Ok(Trace::default()), Trace::open);
        let trace = trace.map_err(|error| InitError::new(format!("chaos cannot open its trace: {error}")))?;
        Ok(App { seen: Seen::default(), trace })
    }
}

/// Does what the body says.
#[utoipa::path(post, path = "/call", request_body = Order, responses((status = 200, description = "As told")))]
async fn call(State(app): State<App>, Json(order): Json<Order>) -> Result<Response, Problem> {
    let run = app.seen.start();
    order.carry_out().await;
    let problem = |status, code: &'static str| Err(Problem::new(status, code, "As told"));
    let answer = match order.mode {
        Mode::SlowStream => return Ok(order::slow_stream(&order, run).into_response()),
        Mode::BrokenStream => Ok(order::broken_stream(&order).into_response()),
        Mode::Fail => problem(StatusCode::INTERNAL_SERVER_ERROR, "failed"),
        Mode::FailForGood => problem(StatusCode::UNPROCESSABLE_ENTITY, "failed_for_good"),
        Mode::Discard => problem(StatusCode::CONFLICT, "discarded"),
        Mode::FailUntil if app.seen.next_failure() < u64::from(order.times) => {
            problem(StatusCode::SERVICE_UNAVAILABLE, "failed_until")
        }
        Mode::RetryAfter => {
            let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "retry_after", "As told");
            Err(problem.retry_after_s(order.ms.div_ceil(1000)))
        }
        Mode::BigError => {
            Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "big", "As told").detail(order.text()))
        }
        Mode::HugeReply => Ok(order.text().into_response()),
        Mode::NonUtf8 => Ok(non_utf8()),
        Mode::Spawn => order::use_runtime()
            .await
            .map(|spawned| Json(spawned).into_response())
            .map_err(|error| Problem::internal(format!("the runtime does not work: {error}"))),
        mode => Ok(Json(json!({ "mode": mode, "pid": std::process::id() })).into_response()),
    };
    run.finish();
    answer
}

fn non_utf8() -> Response {
    let mut response = Bytes::from_static(&[0xff, 0xfe, 0x00]).into_response();
    if let Ok(value) = axum::http::HeaderValue::from_bytes(&[0xff, 0xfe]) {
        response.headers_mut().insert("x-chaos", value);
    }
    response
}

/// Streams the body back as it comes.
#[utoipa::path(post, path = "/echo_stream",
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, description = "The same body", content_type = "application/octet-stream")))]
async fn echo_stream(body: axum::body::Body) -> axum::body::Body {
    body
}

/// What became of the handlers of the worker that answers.
#[utoipa::path(get, path = "/seen", responses((status = 200, body = Snapshot)))]
async fn seen(State(app): State<App>) -> Json<Snapshot> {
    Json(app.seen.snapshot())
}

/// What became of the handlers of the API instance that answers.
#[utoipa::path(get, path = "/inline_seen", responses((status = 200, body = Snapshot)))]
async fn inline_seen(State(app): State<App>) -> Json<Snapshot> {
    Json(app.seen.snapshot())
}

#[derive(Debug, Deserialize, IntoParams)]
struct Block {
    /// Milliseconds.
    ms: u64,
}

/// Holds its thread, in the API instance.
#[utoipa::path(get, path = "/inline_block", params(Block), responses((status = 200, description = "After that time")))]
async fn inline_block(Query(block): Query<Block>) -> &'static str {
    std::thread::sleep(Duration::from_millis(block.ms));
    "blocked"
}

#[derive(Debug, Deserialize, IntoParams)]
struct Delay {
    /// Milliseconds.
    delay_ms: u64,
}

/// Enqueues the task `chaos` for later.
#[utoipa::path(post, path = "/delayed", params(Delay), request_body = Order,
    responses((status = 202, description = "Stored")))]
async fn delayed(
    tasks: Tasks,
    Query(delay): Query<Delay>,
    headers: HeaderMap,
    Json(order): Json<Order>,
) -> Result<Accepted, Problem> {
    let enqueue = tasks.enqueue(chaos, order).delay(Duration::from_millis(delay.delay_ms));
    match headers.get("idempotency-key").and_then(|key| key.to_str().ok()) {
        Some(key) => enqueue.idempotency_key(key).await,
        None => enqueue.await,
    }
}

/// Does what the body says.
#[task(retry(max_attempts = 6, backoff = "100ms..1s"))]
async fn chaos(ctx: TaskContext<App>, order: Order) -> TaskResult<Value> {
    attempt(&ctx, &order).await
}

/// Does what the body says, within a second.
#[task(retry(max_attempts = 3, backoff = "100ms..1s"), timeout = "1s")]
async fn short(ctx: TaskContext<App>, order: Order) -> TaskResult<Value> {
    attempt(&ctx, &order).await
}

/// Does what the body says, under its keys.
#[task(retry(max_attempts = 6, backoff = "100ms..1s"), unique_key = "unique", serial_key = "serial")]
async fn keyed(ctx: TaskContext<App>, body: Keyed) -> TaskResult<Value> {
    let Keyed { mode, ms, times, note, .. } = body;
    attempt(&ctx, &Order { mode, ms, times, note, ..Order::child() }).await
}

/// The body of a task with keys; see `Order`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Keyed {
    mode: Mode,
    #[serde(default)]
    ms: u64,
    #[serde(default)]
    times: u32,
    #[serde(default)]
    note: Option<String>,
    /// One task with it is queued or running at a time.
    #[serde(default)]
    unique: Option<String>,
    /// One task with it is running at a time.
    #[serde(default)]
    serial: Option<String>,
}

/// Does what the order says; a result says when it `ran`: from and to, in microseconds since 1970 by this machine's clock.
async fn attempt(ctx: &TaskContext<App>, order: &Order) -> TaskResult<Value> {
    let from = unix_us();
    let mut result = carry_out(ctx, order).await?;
    if let Some(told) = result.as_object_mut() {
        told.insert("ran".to_owned(), json!([from, unix_us()]));
    }
    Ok(result)
}

fn unix_us() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

async fn carry_out(ctx: &TaskContext<App>, order: &Order) -> TaskResult<Value> {
    let run = ctx.state().seen.start();
    if order.together {
        let children = (0..order.children).map(|_| ctx.tasks().enqueue(chaos, Order::child()));
        let all = ctx.tasks().enqueue_all(children.map(|child| child.delay(order.time())));
        all.await.map_err(|problem| TaskError::fail(format!("the children are refused: {problem:?}")))?;
        return finish(ctx, order, run).await;
    }
    for _ in 0..order.children {
        let child = Order::child();
        let enqueue = match order.now {
            true => ctx.tasks().enqueue_now(chaos, child),
            false => ctx.tasks().enqueue(chaos, child),
        };
        enqueue
            .delay(order.time())
            .await
            .map_err(|problem| TaskError::fail(format!("a child is refused: {problem:?}")))?;
    }
    finish(ctx, order, run).await
}

async fn finish(ctx: &TaskContext<App>, order: &Order, run: seen::Run) -> TaskResult<Value> {
    let result = misbehave(ctx, order).await;
    if result.is_ok() {
        ctx.state().trace.note(ctx.id(), ctx.attempt())?;
    }
    run.finish();
    result
}

async fn misbehave(ctx: &TaskContext<App>, order: &Order) -> TaskResult<Value> {
    let attempt = ctx.attempt();
    let mut told = json!({ "mode": order.mode, "attempt": attempt, "pid": std::process::id() });
    if let (Some(traceparent), Some(told)) = (ctx.traceparent(), told.as_object_mut()) {
        told.insert("traceparent".to_owned(), traceparent.into());
    }
    if let (Some(note), Some(told)) = (&order.note, told.as_object_mut()) {
        told.insert("note".to_owned(), note.as_str().into());
    }
    let is_about_size = matches!(order.mode, Mode::HugeReply | Mode::BigError);
    match order.mode {
        Mode::FailUntil if attempt < order.times => return Err(TaskError::retry("failed as told")),
        Mode::FailUntil => return Ok(told),
        Mode::Enqueue => {
            let another = Order { mode: Mode::Ok, ..order.clone() };
            let enqueued = ctx.tasks().enqueue(chaos, another).delay(order.time()).await;
            return enqueued.map(|_| told).map_err(|_| TaskError::retry("it cannot be enqueued"));
        }
        Mode::Progress => {
            let total = u64::from(order.count());
            for done in 1..=total {
                ctx.progress((done, total), "misbehaving");
                tokio::time::sleep(order.time()).await;
            }
            return Ok(told);
        }
        _ if !is_about_size && !order.holds_for(attempt) => return Ok(told),
        Mode::UntilNear => {
            return match ctx.asked_to_stop().await {
                StopReason::DeadlineNear => Err(TaskError::retry("half done as told")),
                reason => Err(TaskError::discard(format!("stopped: {reason:?}"))),
            };
        }
        Mode::AwaitCancel | Mode::FailWhenCancelled => ctx.cancelled().await,
        _ => order.carry_out().await,
    }
    match order.mode {
        Mode::Fail => Err(TaskError::retry("failed as told").with(told)),
        Mode::FailWhenCancelled => Err(TaskError::retry("stopped half-way")),
        Mode::FailForGood => Err(TaskError::fail("failed for good as told").with(told)),
        Mode::Discard => Err(TaskError::discard("discarded as told")),
        Mode::RetryAfter => Err(TaskError::retry_after(order.time(), "failed as told")),
        Mode::BigError if order.ms > 0 => Err(TaskError::retry(order.text())),
        Mode::BigError => Err(TaskError::fail(order.text())),
        Mode::NonUtf8 => Err(TaskError::fail(Order::no_text()).with(told)),
        Mode::HugeReply => Ok(order.text().into()),
        Mode::Spawn => Ok(serde_json::to_value(order::use_runtime().await?)?),
        Mode::SlowStream | Mode::BrokenStream => Err(TaskError::fail("only a call can do that")),
        _ => Ok(told),
    }
}

fn describe_as_told() {
    let told = std::env::var(DESCRIBE);
    if told.as_deref().is_ok_and(|told| {
        told.strip_prefix("abort_if=").is_some_and(|file| std::path::Path::new(file).exists())
    }) {
        std::process::abort();
    }
    match told.as_deref() {
        Ok("panic") => order::panic_now("panicked in describe as told"),
        Ok("hang") => loop {
            std::thread::park();
        },
        Ok("exit") => std::process::exit(0),
        Ok("abort") => std::process::abort(),
        _ => {}
    }
}

fn definition() -> Plugin<App> {
    describe_as_told();
    let plugin = Plugin::new(App::start).wants("payments", 0).wants("hello", 0);
    let needy = std::env::var(DESCRIBE).is_ok_and(|how| how == "needs");
    let plugin = if needy { plugin.needs("hello", 7) } else { plugin };
    let needs = std::env::var(NEEDS).unwrap_or_default();
    let needs = needs.split_once(' ').and_then(|(name, major)| Some((name, major.parse().ok()?)));
    let plugin = needs.into_iter().fold(plugin, |plugin, (name, major)| plugin.needs(name, major));
    let forlorn = std::env::var(DESCRIBE).is_ok_and(|how| how == "forlorn");
    let plugin = if forlorn { plugin.task(doomed::forlorn) } else { plugin };
    let plugin = plugin
        .config::<Settings>()
        .routes(routes!(call))
        .routes(routes!(echo_stream))
        .routes(routes!(ranked::rank))
        .routes(routes!(reach::wait))
        .routes(routes!(reach::refund))
        .routes(routes!(reach::at))
        .routes(routes!(seen))
        .inline(routes!(inline_seen))
        .inline(routes!(inline_block))
        .inline(routes!(reach::inline_wait))
        .inline(routes!(neighbour::reach_inline))
        .inline(routes!(delayed))
        .inline(routes!(batch::batch))
        .enqueue(Method::POST, "/task", chaos)
        .enqueue(Method::POST, "/short", short)
        .enqueue(Method::POST, "/keyed", keyed)
        .enqueue(Method::POST, "/effects", reach::effects)
        .enqueue(Method::POST, "/reach_task", neighbour::reach)
        .enqueue(Method::POST, "/doomed", doomed::doomed)
        .task(chaos)
        .task(short)
        .task(keyed)
        .task(ranked::ranked)
        .task(reach::effects)
        .task(neighbour::reach)
        .task(doomed::doomed)
        .task(doomed::give_up);
    schedules::declare(plugin)
}

plugin! {
    name = "chaos",
    build = definition()
}
