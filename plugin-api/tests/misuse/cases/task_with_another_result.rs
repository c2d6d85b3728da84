//~ a task is `async fn name(ctx: TaskContext<State>, input: Input) -> TaskResult<Output>`
use plugin_api::prelude::*;

#[derive(Clone)]
struct App;

impl App {
    async fn start(_ctx: PluginContext) -> Result<App, InitError> {
        Ok(App)
    }
}

#[task]
async fn greet(_ctx: TaskContext<App>, name: String) -> Result<String, String> {
    Ok(name)
}

fn main() {}
