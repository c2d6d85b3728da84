//~ a plugin's name has 1 to 64 characters
use plugin_api::prelude::*;

#[derive(Clone)]
struct App;

impl App {
    async fn start(_ctx: PluginContext) -> Result<App, InitError> {
        Ok(App)
    }
}

plugin! { name = "", build = Plugin::new(App::start) }

fn main() {}
