//~ a plugin's name is made of a-z, 0-9, _ and -
use plugin_api::prelude::*;

#[derive(Clone)]
struct App;

impl App {
    async fn start(_ctx: PluginContext) -> Result<App, InitError> {
        Ok(App)
    }
}

plugin! { name = "Orders", build = Plugin::new(App::start) }

fn main() {}
