//! What it wants of other plugins, as a test says.

use crate::App;
use plugin_api::OtherPlugin;
use plugin_api::prelude::*;

/// What is wanted of another plugin.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reach {
    /// The other plugin.
    plugin: String,
    major: u32,
    /// In a task: enqueues its task of this name.
    #[serde(default)]
    enqueue: Option<String>,
    /// Else calls it.
    #[serde(default)]
    method: String,
    #[serde(default)]
    path: String,
    #[serde(default)]
    body: Value,
    /// Waits no longer than this.
    #[serde(default)]
    timeout_ms: Option<u64>,
}

/// Reaches for another plugin.
#[task(retry(max_attempts = 1, backoff = "100ms..1s"))]
pub(crate) async fn reach(ctx: TaskContext<App>, to: Reach) -> TaskResult<Value> {
    let done = match &to.enqueue {
        Some(task) => {
            let other = ctx.tasks().plugin(to.plugin.clone(), to.major);
            other.enqueue(task.clone(), &to.body).await.map(|_| Value::Null)
        }
        None => call(ctx.plugin(to.plugin.clone(), to.major), &to).await,
    };
    done.map_err(|problem| TaskError::fail(problem.to_string()))
}

/// Calls another plugin, from the API instance.
#[utoipa::path(post, path = "/reach", request_body = Reach, responses((status = 200, description = "What it answered")))]
pub(crate) async fn reach_inline(ctx: RequestContext, Json(to): Json<Reach>) -> Result<Json<Value>, Problem> {
    call(ctx.plugin(to.plugin.clone(), to.major), &to).await.map(Json)
}

async fn call(other: OtherPlugin, to: &Reach) -> Result<Value, Problem> {
    let method = Method::from_bytes(to.method.as_bytes())
        .map_err(|error| Problem::bad_request("no_method", error.to_string()))?;
    let call = other.request(method, &to.path).header("x-by", "chaos").json(&to.body);
    let answer = match to.timeout_ms {
        Some(ms) => call.timeout(Duration::from_millis(ms)).await?,
        None => call.await?,
    };
    let headers: serde_json::Map<String, Value> = answer
        .headers()
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into()))
        .collect();
    let body = String::from_utf8_lossy(answer.body());
    Ok(json!({ "status": answer.status().as_u16(), "headers": headers, "body": body }))
}
