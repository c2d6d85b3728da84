//! A plugin of somebody else's: built in a workspace outside this repository, with only the SDK in common with the
//! host. The tests build it twice, the second time with `"outsider"` replaced by another name.

use plugin_api::prelude::*;
use plugin_api::{log, tokio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tracing::Instrument;

/// Would be shared if two libraries were ever one.
static COUNTED: AtomicU64 = AtomicU64::new(0);
/// How often the fields of a disabled event were evaluated.
static EVALUATED: AtomicU64 = AtomicU64::new(0);

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    greeting: String,
}

#[derive(Debug, Clone)]
struct App {
    greeting: String,
    calls: Arc<AtomicU64>,
}

impl App {
    async fn start(ctx: PluginContext) -> Result<App, InitError> {
        let settings: Settings = ctx.config()?;
        match std::env::var("OUTSIDER_INIT").as_deref() {
            Ok("hang") => std::future::pending().await,
            Ok("fail") => return Err(InitError::new("failed as told")),
            Ok("exit") => std::process::exit(0),
            Ok("abort") => std::process::abort(),
            // SAFETY: there is nothing at that address, which is what is wanted.
            Ok("segfault") => unsafe { std::ptr::without_provenance_mut::<u8>(8).write_volatile(1) },
            _ => {}
        }
        Ok(App { greeting: settings.greeting, calls: Arc::default() })
    }
}

/// A constructor: runs inside `dlopen`, before the host could ask anything.
extern "C" fn constructor() {
    match std::env::var("OUTSIDER_OPEN").as_deref() {
        Ok("hang") => loop {
            std::thread::park();
        },
        Ok("exit") => std::process::exit(0),
        Ok("abort") => std::process::abort(),
        _ => {}
    }
}

#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = constructor;

/// Says whose state this is.
#[utoipa::path(post, path = "/count", responses((status = 200, body = Value)))]
async fn count(State(app): State<App>) -> Json<Value> {
    let counted = COUNTED.fetch_add(1, Ordering::SeqCst) + 1;
    let calls = app.calls.fetch_add(1, Ordering::SeqCst) + 1;
    Json(json!({ "plugin": "outsider", "greeting": app.greeting, "counted": counted, "calls": calls }))
}

/// Below the prefix `/hello` of another plugin, it would be in that plugin's way.
#[utoipa::path(post, path = "/nested/call", responses((status = 200, body = String)))]
async fn nested() -> &'static str {
    "nested"
}

fn evaluated() -> u64 {
    EVALUATED.fetch_add(1, Ordering::SeqCst)
}

/// Logs in every way there is; answers how many disabled events were evaluated.
#[utoipa::path(post, path = "/log", responses((status = 200, body = Value)))]
async fn log_all() -> Json<Value> {
    info!(colour = "green", n = 7, "said with tracing");
    log::warn!("said with log");
    debug!(n = evaluated(), "said too quietly");
    log::debug!("said too quietly {}", evaluated());
    let aside = async { info!("said in a spawned task") };
    let _ = tokio::spawn(aside.instrument(tracing::info_span!("aside", size = 3))).await;
    Json(json!({ "evaluated": EVALUATED.load(Ordering::SeqCst) }))
}

/// Logs from a task.
#[task(timeout = "30s")]
async fn log_task(ctx: TaskContext<App>, _body: Value) -> TaskResult<Value> {
    info!(attempt = ctx.attempt(), "said in a task");
    Ok(json!({ "greeting": ctx.state().greeting }))
}

/// It needs `chaos` where it is told so.
fn plugin() -> Plugin<App> {
    let plugin = Plugin::new(App::start);
    if std::env::var_os("OUTSIDER_NEEDS_CHAOS").is_some() { plugin.needs("chaos", 0) } else { plugin }
}

plugin! {
    name = "outsider",
    build = plugin()
        .inline(routes!(count))
        .inline(routes!(nested))
        .inline(routes!(log_all))
        .enqueue(Method::POST, "/log-task", log_task)
        .task(log_task)
}
