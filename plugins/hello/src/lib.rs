//! The smallest plugin: one route that runs in the API instance, one that runs on a worker, and one task.

use plugin_api::prelude::*;

/// Nothing to keep between requests.
#[derive(Debug, Clone)]
struct App;

impl App {
    async fn start(_ctx: PluginContext) -> Result<App, InitError> {
        Ok(App)
    }
}

/// Greets, in the API instance.
#[utoipa::path(get, path = "/inline", params(("name" = Option<String>, Query, description = "Who is greeted")),
    responses((status = 200, description = "A greeting", body = String, content_type = "text/plain")))]
async fn inline(Query(query): Query<std::collections::HashMap<String, String>>) -> String {
    format!("Hello, {}!", query.get("name").map_or("world", String::as_str))
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

plugin! {
    name = "hello",
    build = Plugin::new(App::start)
        .inline(routes!(inline))
        .routes(routes!(call))
        .enqueue(Method::POST, "/task", echo)
        .task(echo)
}
