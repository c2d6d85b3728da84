//! The smallest plugin: one route that runs in the API instance, one that runs on a worker, and one task.

use plugin_api::prelude::*;
use std::sync::Arc;

#[cfg(test)]
mod tests;

/// What an operator can set, in `[plugins.hello.config]`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// The word before the name.
    #[serde(default = "default_greeting")]
    greeting: String,
}

fn default_greeting() -> String {
    "Hello".into()
}

/// What is kept between requests: a connection pool, say, or as here a setting.
#[derive(Debug, Clone)]
struct App {
    greeting: Arc<str>,
}

impl App {
    async fn start(ctx: PluginContext) -> Result<App, InitError> {
        let settings: Settings = ctx.config()?;
        Ok(App { greeting: settings.greeting.into() })
    }
}

#[derive(Debug, Deserialize, IntoParams)]
struct Who {
    /// Who is greeted.
    name: Option<String>,
}

/// Greets, in the API instance.
#[utoipa::path(get, path = "/inline", params(Who),
    responses((status = 200, description = "A greeting", body = String, content_type = "text/plain")))]
async fn inline(State(app): State<App>, Query(who): Query<Who>) -> String {
    format!("{}, {}!", app.greeting, who.name.as_deref().unwrap_or("world"))
}

/// Answers with the body it got, on a worker.
#[utoipa::path(post, path = "/call", request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, description = "The same body", content_type = "application/octet-stream")))]
async fn call(headers: HeaderMap, body: Bytes) -> Response {
    let content_type = headers.get("content-type").cloned();
    let mut response = body.into_response();
    if let Some(content_type) = content_type {
        response.headers_mut().insert("content-type", content_type);
    }
    response
}

/// Ends with its body as the result.
#[task(timeout = "30s")]
async fn echo(ctx: TaskContext<App>, body: Value) -> TaskResult<Value> {
    debug!(attempt = ctx.attempt(), "echo");
    Ok(body)
}

fn definition() -> Plugin<App> {
    Plugin::new(App::start)
        .config::<Settings>()
        .inline(routes!(inline))
        .routes(routes!(call))
        .enqueue(Method::POST, "/task", echo)
        .task(echo)
}

plugin! {
    name = "hello",
    build = definition()
}
