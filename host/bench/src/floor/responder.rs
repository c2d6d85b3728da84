//! A process that replies to requests over NATS with their payload.

use cardcage_harness::{Error, Result};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};

use super::connect;
use crate::part::{Ready, say};

/// Where it takes requests.
pub(super) const SUBJECT: &str = "floor.call";
const GROUP: &str = "workers";

/// The responder.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Responder {
    /// The broker.
    pub(crate) nats_url: String,
}

impl Responder {
    pub(crate) async fn serve(self) -> Result<()> {
        let client = connect(&self.nats_url).await?;
        let subscribing = client.queue_subscribe(SUBJECT, GROUP.to_owned()).await;
        let mut requests = subscribing.map_err(Error::doing("cannot subscribe"))?;
        // Before it says that it is ready, the server must know.
        client.flush().await.map_err(Error::doing("cannot reach nats-server"))?;
        say(&Ready { address: None }).await?;
        while let Some(request) = requests.next().await {
            if let Some(reply) = request.reply {
                let replied = client.publish(reply, request.payload).await;
                replied.map_err(Error::doing("cannot reply"))?;
            }
        }
        Err(Error::new("the subscription ended"))
    }
}
