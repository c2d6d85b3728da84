//! Everything that the demo needs to run: broker, downstream services, api, worker.

use std::time::Duration;

use cardcage_harness::downstream::{Lms, OrderApi};
use cardcage_harness::{Cardcage, Config, Deadline, Error, Http, Nats, Result};

use crate::samples::Samples;

/// The secret that signs the demo's Stripe events.
pub(crate) const STRIPE_SECRET: &str = "whsec_cardcage_demo";

const ANY_PORT: &str = "127.0.0.1:0";

/// The grace of a drain is 30 s by default; the demo leaves nothing to drain.
const STOP: Duration = Duration::from_secs(35);

/// The fake downstream services.
pub(crate) struct Downstream {
    pub(crate) orders: OrderApi,
    pub(crate) lms: Lms,
}

impl Downstream {
    /// Starts both; the order API serves the samples' orders.
    pub(crate) async fn at(samples: &Samples, order_api_address: &str, lms_address: &str) -> Result<Self> {
        let orders = OrderApi::start_at(order_api_address, samples.project()).await?;
        for (id, order) in &samples.orders {
            orders.serve_as(id, order.clone());
        }
        Ok(Self { orders, lms: Lms::start_at(lms_address).await? })
    }
}

/// What is running. Fields are dropped in order: hosts first, then what they depend on.
pub(crate) struct Stage {
    pub(crate) api: Cardcage,
    pub(crate) worker: Cardcage,
    pub(crate) http: Http,
    pub(crate) downstream: Downstream,
    pub(crate) nats: Nats,
}

impl Stage {
    /// Starts it all and waits until it is ready.
    pub(crate) async fn set(samples: &Samples) -> Result<Self> {
        let nats = Nats::start().await?;
        let downstream = Downstream::at(samples, ANY_PORT, ANY_PORT).await?;
        let config = Config::new(&nats)
            .plugin("hello")?
            .plugin("payments")?
            .plugin_set("payments", "stripe_webhook_secrets", vec![STRIPE_SECRET])
            .plugin("orders")?
            .plugin_set("orders", "order_api_base_url", downstream.orders.base_url())
            .plugin_set("orders", "lms_base_url", downstream.lms.base_url())
            .plugin_set("orders", "project_key", samples.project());
        let (api, worker) = tokio::join!(Cardcage::api(&config), Cardcage::worker(&config));
        let api = api?;
        let http = api.http()?;
        Ok(Self { api, worker: worker?, http, downstream, nats })
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
