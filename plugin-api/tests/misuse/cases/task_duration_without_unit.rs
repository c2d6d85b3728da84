//~ `30` is no duration: write a number and ms, s, m, h or d, as in `30s`
use plugin_api::prelude::*;

#[derive(Clone)]
struct App;

impl App {
    async fn start(_ctx: PluginContext) -> Result<App, InitError> {
        Ok(App)
    }
}

#[task(timeout = "30")]
async fn greet(_ctx: TaskContext<App>, name: String) -> TaskResult<String> {
    Ok(name)
}

fn main() {}
