//! Everything that the demo needs to run: broker, downstream services, api, worker.

use std::time::Duration;

use cardcage_harness::downstream::{Lms, OrderApi};
use cardcage_harness::{Cardcage, Config, Deadline, Error, Http, Nats, Result};

use crate::samples::Samples;

/// The secret that signs the demo's Stripe events.
pub(crate) const STRIPE_SECRET: &str = "whsec_cardcage_demo";

/// The grace of a drain is 30 s by default; the demo leaves nothing to drain.
const STOP: Duration = Duration::from_secs(35);

/// What is running. Fields are dropped in order: hosts first, then what they depend on.
pub(crate) struct Stage {
    pub(crate) api: Cardcage,
    pub(crate) worker: Cardcage,
    pub(crate) http: Http,
    pub(crate) orders: OrderApi,
    pub(crate) lms: Lms,
    pub(crate) nats: Nats,
}

impl Stage {
    /// Starts it all and waits until it is ready.
    pub(crate) async fn set(samples: &Samples) -> Result<Self> {
        let nats = Nats::start().await?;
        let orders = OrderApi::start(samples.project()).await?;
        for (id, order) in &samples.orders {
            orders.serve_as(id, order.clone());
        }
        let lms = Lms::start().await?;
        let config = Config::new(&nats)
            .plugin("hello")?
            .plugin("payments")?
            .plugin_set("payments", "stripe_webhook_secrets", vec![STRIPE_SECRET])
            .plugin("orders")?
            .plugin_set("orders", "order_api_base_url", orders.base_url())
            .plugin_set("orders", "lms_base_url", lms.base_url())
            .plugin_set("orders", "project_key", samples.project());
        let (api, worker) = tokio::join!(Cardcage::api(&config), Cardcage::worker(&config));
        let api = api?;
        let http = api.http()?;
        Ok(Self { api, worker: worker?, http, orders, lms, nats })
    }

    /// Stops the hosts in order; a host that cannot stop in order is a fault that the demo shows.
    pub(crate) async fn strike(mut self) -> Result<()> {
        for (role, host) in [("api", &mut self.api), ("worker", &mut self.worker)] {
            let status = host.stop(Deadline::after(STOP)).await?;
            if !status.success() {
                return Err(Error::new(format!(
                    "cardcage {role} did not exit in order ({status})\n{}",
                    host.stderr()
                )));
            }
        }
        Ok(())
    }
}
