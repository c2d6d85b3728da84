//~ the longest wait is shorter than the first
use plugin_api::prelude::*;

#[derive(Clone)]
struct App;

impl App {
    async fn start(_ctx: PluginContext) -> Result<App, InitError> {
        Ok(App)
    }
}

#[task(retry(backoff = "10m..2s"))]
async fn greet(_ctx: TaskContext<App>, name: String) -> TaskResult<String> {
    Ok(name)
}

fn main() {}
