//! The plugin under test.

use std::sync::atomic::{AtomicUsize, Ordering};

use plugin_api::axum::body::Body;
use plugin_api::prelude::*;
use plugin_api::{Definition, ErasedPlugin};

/// How many `Dropped` were dropped.
pub(crate) static DROPPED: AtomicUsize = AtomicUsize::new(0);

#[derive(Debug, Clone)]
pub(crate) struct App;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Settings {
    panic: bool,
    limits: Limits,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Limits {
    burst: u32,
}

impl App {
    pub(crate) async fn start(ctx: PluginContext) -> Result<App, InitError> {
        let settings: Settings = ctx.config()?;
        assert!(!settings.panic, "init panics with {} as told", settings.limits.burst);
        Ok(App)
    }
}

#[utoipa::path(get, path = "/fine", responses((status = 200)))]
async fn fine(ctx: RequestContext) -> Response {
    info!("fine was called");
    let mut response = format!("{:02x}", ctx.request_id[15]).into_response();
    response.headers_mut().insert("x-fine", "yes".parse().unwrap());
    response
}

#[utoipa::path(post, path = "/size",
    request_body(content((Vec<u8> = "application/octet-stream"), (Vec<u8> = "application/json"))),
    responses((status = 200)))]
async fn size(body: Bytes) -> String {
    body.len().to_string()
}

#[utoipa::path(post, path = "/back", request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream")))]
async fn back(body: Body) -> Body {
    body
}

#[utoipa::path(get, path = "/panic", responses((status = 200)))]
async fn panic() -> String {
    panic!("the handler panicked")
}

#[utoipa::path(get, path = "/wait", responses((status = 200)))]
async fn wait() -> String {
    struct Dropped;
    impl Drop for Dropped {
        fn drop(&mut self) {
            DROPPED.fetch_add(1, Ordering::SeqCst);
            panic!("the destructor panicked too");
        }
    }
    let _dropped = Dropped;
    info!("waiting for ever");
    std::future::pending().await
}

#[derive(Debug, Deserialize)]
struct Turn {
    how: Option<String>,
}

/// Names its thread; does so after a while, or panics, where told.
#[utoipa::path(get, path = "/turn", responses((status = 200)))]
async fn turn(Query(turn): Query<Turn>) -> String {
    let first = std::thread::current().name().unwrap_or_default().to_owned();
    match turn.how.as_deref() {
        Some("wait") => plugin_api::tokio::time::sleep(Duration::from_millis(1)).await,
        Some("block") => std::thread::sleep(Duration::from_secs(1)),
        Some("panic") => panic!("it took a bad turn"),
        _ => {}
    }
    format!("{first}, {}", std::thread::current().name().unwrap_or_default())
}

pub(crate) mod other {
    use super::*;

    /// Of the same name as another handler.
    #[utoipa::path(get, path = "/other", responses((status = 200)))]
    pub(crate) async fn fine() -> &'static str {
        "other"
    }
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Order {
    lines: Vec<u32>,
}

/// Adds up.
#[task(name = "add-up", retry(max_attempts = 3, backoff = "1s..2m"), timeout = "30s", result_ttl = "1h")]
async fn add_up(ctx: TaskContext<App>, order: Order) -> TaskResult<u32> {
    match order.lines.as_slice() {
        [] => Err(TaskError::discard("nothing to add up")),
        [0] => Err(TaskError::retry_after(Duration::from_millis(1500), "come again").with(json!({ "n": 0 }))),
        [1] => Err(TaskError::fail("one is no sum")),
        [2] => panic!("the task panicked"),
        [3] => Err("three".parse::<u32>().unwrap_err())?,
        [4] => {
            info!("waiting for its cancellation");
            ctx.cancelled().await;
            Ok(4)
        }
        lines => {
            let (mut sum, total) = (0, lines.len() as u64);
            for (done, line) in (1..).zip(lines) {
                sum += line;
                ctx.progress((done, total), "adding up");
            }
            Ok(sum)
        }
    }
}

/// Its body cannot be read without a panic.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Trap;

impl<'de> Deserialize<'de> for Trap {
    fn deserialize<D: plugin_api::serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        panic!("reading panicked")
    }
}

#[task]
async fn trap(_ctx: TaskContext<App>, _body: Trap) -> TaskResult<()> {
    Ok(())
}

pub(crate) struct Good;

impl Definition for Good {
    const NAME: &'static str = "good";
    const VERSION: &'static str = "2.3.4";
    fn build() -> Box<dyn ErasedPlugin> {
        Plugin::new(App::start)
            .inline(routes!(fine))
            .routes(routes!(size))
            .routes(routes!(back))
            .routes(routes!(panic))
            .routes(routes!(wait))
            .routes(routes!(other::fine))
            .enqueue(Method::POST, "/add", add_up)
            .inline(routes!(turn))
            .task(add_up)
            .task(trap)
            .erase()
    }
}

/// Its `build` expression panics: two handlers for one route.
pub(crate) struct Bad;

impl Definition for Bad {
    const NAME: &'static str = "bad";
    const VERSION: &'static str = "0.1.0";
    fn build() -> Box<dyn ErasedPlugin> {
        Plugin::new(App::start).routes(routes!(size)).routes(routes!(size)).erase()
    }
}
