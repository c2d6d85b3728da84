use plugin_api::prelude::*;

#[derive(Clone)]
struct App;

impl App {
    async fn start(_ctx: PluginContext) -> Result<App, InitError> {
        Ok(App)
    }
}

/// Greets.
#[task(name = "greet-all", retry(max_attempts = 8, backoff = "2s..10m"), timeout = "30s", result_ttl = "1d")]
async fn greet(_ctx: TaskContext<App>, name: String) -> TaskResult<String> {
    Ok(name)
}

plugin! { name = "good", build = Plugin::new(App::start).task(greet).enqueue(Method::POST, "/greet", greet) }

fn main() {}
