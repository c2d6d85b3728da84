//~ known options: name, retry(max_attempts, backoff), timeout, result_ttl
use plugin_api::prelude::*;

#[derive(Clone)]
struct App;

impl App {
    async fn start(_ctx: PluginContext) -> Result<App, InitError> {
        Ok(App)
    }
}

#[task(colour = "red")]
async fn greet(_ctx: TaskContext<App>, name: String) -> TaskResult<String> {
    Ok(name)
}

fn main() {}
