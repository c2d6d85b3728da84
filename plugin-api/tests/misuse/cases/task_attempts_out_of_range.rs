//~ max_attempts lies between 1 and 1000
use plugin_api::prelude::*;

#[derive(Clone)]
struct App;

impl App {
    async fn start(_ctx: PluginContext) -> Result<App, InitError> {
        Ok(App)
    }
}

#[task(retry(max_attempts = 0))]
async fn greet(_ctx: TaskContext<App>, name: String) -> TaskResult<String> {
    Ok(name)
}

fn main() {}
