//! Fulfils orders: takes commercetools' messages, and enrols the learner at the LMS for each line of a ready order.
//!
//! The route that takes messages runs in the API instance and only stores; the task `fulfil` talks to the two services,
//! through reqwest on the plugin's own runtime. `GET /orders/{id}` shows what a route does that depends on a service: it
//! asks within the time that its caller has, and says `degraded` when that is not enough.
//!
//! # What it refuses
//! `https` base URLs: the workspace builds reqwest without TLS. Put a TLS-speaking proxy between, or give reqwest a TLS
//! feature in the plugin's `Cargo.toml` and drop the check in `base_url`.

mod downstream;
mod fulfilment;
mod lms;
mod message;
mod order_api;
#[cfg(test)]
mod tests;

use downstream::Error;
use fulfilment::{Fulfil, fulfil};
use lms::Lms;
use message::Message;
use order_api::{OrderApi, is_id};
use plugin_api::prelude::*;

/// What a worker call keeps of its deadline for carrying the answer back.
const WAY_BACK: Duration = Duration::from_millis(100);

/// The plugin's settings.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// Where the order API is, such as `http://orders.internal:8000`.
    order_api_base_url: String,
    /// Where the LMS is.
    lms_base_url: String,
    /// The commercetools project whose messages are taken and whose orders are fetched.
    project_key: String,
    /// Ids of the workflow states in which a line is ready. Empty: every transition counts.
    #[serde(default)]
    line_ready_states: Vec<String>,
    /// The limit of one request to either service, in milliseconds. 10 to 60000.
    #[serde(default = "five_seconds_ms")]
    request_timeout_ms: u64,
}

fn five_seconds_ms() -> u64 {
    5_000
}

#[derive(Debug, Clone)]
struct App {
    orders: OrderApi,
    lms: Lms,
    line_ready_states: Vec<String>,
    timeout: Duration,
}

impl App {
    async fn start(ctx: PluginContext) -> Result<App, InitError> {
        let settings: Settings = ctx.config()?;
        if !is_id(&settings.project_key) {
            return Err(InitError::new("`project_key` is made of letters, digits, - and _"));
        }
        if !(10..=60_000).contains(&settings.request_timeout_ms) {
            return Err(InitError::new("`request_timeout_ms` lies between 10 and 60000"));
        }
        let order_api = base_url("order_api_base_url", &settings.order_api_base_url)?;
        let lms = base_url("lms_base_url", &settings.lms_base_url)?;
        // Redirects would lead a request with its body to wherever a service says.
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
        Ok(App {
            orders: OrderApi { http: http.clone(), base_url: order_api, project_key: settings.project_key },
            lms: Lms { http, base_url: lms },
            line_ready_states: settings.line_ready_states,
            timeout: Duration::from_millis(settings.request_timeout_ms),
        })
    }
}

fn base_url(name: &str, text: &str) -> Result<String, InitError> {
    let url =
        reqwest::Url::parse(text).map_err(|error| InitError::new(format!("`{name}` is no URL: {error}")))?;
    match url.scheme() {
        "http" if url.query().is_none() && url.fragment().is_none() => {
            Ok(url.as_str().trim_end_matches('/').to_owned())
        }
        "http" => {
            Err(InitError::new(format!("`{name}` has a query or a fragment: paths are appended to it")))
        }
        "https" => Err(InitError::new(format!(
            "`{name}` is https, and this build of the plugin speaks no TLS: \
             put a proxy before the service that does, and name the proxy by http"
        ))),
        other => Err(InitError::new(format!("`{name}` starts with {other}:, where http: is expected"))),
    }
}

/// A message that no task is made of.
#[derive(Debug, Serialize, ToSchema)]
struct Ignored {
    /// Always true.
    ignored: bool,
    /// The message's type.
    r#type: String,
    /// Why: `not_ready` (it does not mean that an order is ready) or `other_project`.
    reason: &'static str,
}

/// Takes a commercetools message from EventBridge.
#[utoipa::path(post, path = "/commercetools/messages",
    request_body(content = Value, content_type = "application/json", description = "An EventBridge event"),
    responses(
        (status = 202, description = "The task is stored; the body is its receipt"),
        (status = 200, description = "The message does not mean that an order is ready", body = Ignored),
        (status = 400, description = "message_unreadable"),
        (status = 503, description = "The task cannot be stored now; send again")))]
async fn accept(State(app): State<App>, tasks: Tasks, body: Bytes) -> Result<Response, Problem> {
    let message = Message::read(&body).map_err(|error| {
        warn!(%error, "message cannot be read");
        Problem::bad_request("message_unreadable", format!("the body is no EventBridge message: {error}"))
    })?;
    let is_other = message.project_key.as_ref().is_some_and(|key| *key != app.orders.project_key);
    if is_other || !message.is_order_ready(&app.line_ready_states) {
        if is_other {
            warn!(project_key = message.project_key, "message of another project ignored");
        }
        let reason = if is_other { "other_project" } else { "not_ready" };
        return Ok(Json(Ignored { ignored: true, r#type: message.kind, reason }).into_response());
    }
    let order_id = message.resource.id;
    if !is_id(&order_id) {
        return Err(Problem::bad_request("message_unreadable", "the order's id is none"));
    }
    Ok(tasks.enqueue(fulfil, Fulfil { order_id }).idempotency_key(message.id).await?.into_response())
}

/// The order as the order API has it, or `degraded` with a reason when it cannot be asked in time.
#[utoipa::path(get, path = "/{id}", params(("id" = String, Path, description = "The order's id")),
    responses(
        (status = 200, description = "The order, or `{id, degraded: true, reason}`", body = Value),
        (status = 400, description = "order_id_invalid"),
        (status = 404, description = "order_not_found")))]
async fn order(
    State(app): State<App>,
    request: RequestContext,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    if !is_id(&id) {
        return Err(Problem::bad_request(
            "order_id_invalid",
            "an order's id is made of letters, digits, - and _",
        ));
    }
    let time = request.time_left().saturating_sub(WAY_BACK).min(app.timeout);
    match app.orders.order::<Value>(&id, time).await {
        Ok(order) => Ok(Json(order)),
        Err(Error::NotFound { .. }) => {
            Err(Problem::not_found("order_not_found", "there is no order with this id"))
        }
        Err(error) => {
            warn!(%error, "order answered degraded");
            Ok(Json(json!({ "id": id, "degraded": true, "reason": error.to_string() })))
        }
    }
}

fn definition() -> Plugin<App> {
    Plugin::new(App::start).config::<Settings>().inline(routes!(accept)).routes(routes!(order)).task(fulfil)
}

plugin! {
    name = "orders",
    build = definition()
}
