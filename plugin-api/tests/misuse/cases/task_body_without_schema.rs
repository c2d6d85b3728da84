//~ JsonSchema` is not satisfied
use plugin_api::prelude::*;

#[derive(Clone)]
struct App;

impl App {
    async fn start(_ctx: PluginContext) -> Result<App, InitError> {
        Ok(App)
    }
}

#[derive(Serialize, Deserialize)]
struct Order {
    id: u32,
}

#[task]
async fn accept(_ctx: TaskContext<App>, order: Order) -> TaskResult<u32> {
    Ok(order.id)
}

fn main() {}
