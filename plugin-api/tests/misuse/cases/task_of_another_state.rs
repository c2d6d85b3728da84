//~ type mismatch resolving
use plugin_api::prelude::*;

#[derive(Clone)]
struct App;

impl App {
    async fn start(_ctx: PluginContext) -> Result<App, InitError> {
        Ok(App)
    }
}

struct Other;

#[task]
async fn greet(_ctx: TaskContext<Other>, name: String) -> TaskResult<String> {
    Ok(name)
}

plugin! { name = "good", build = Plugin::new(App::start).task(greet) }

fn main() {}
