//! What passes through the broker, from its monitoring port: it shows whether two sides really do the same work on the
//! wire.

use cardcage_harness::{Error, Http, Result};
use serde::{Deserialize, Serialize};

/// Messages and bytes of all connections since the server's start, or between two readings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Traffic {
    /// Messages that the server received.
    pub(crate) in_msgs: u64,
    /// Messages that it sent.
    pub(crate) out_msgs: u64,
    pub(crate) in_bytes: u64,
    pub(crate) out_bytes: u64,
}

impl Traffic {
    /// # Errors
    /// Nobody monitors at `address`.
    pub(crate) async fn read(address: &str) -> Result<Self> {
        let reply = Http::new(address)?.get("/varz").await?;
        serde_json::from_slice(&reply.body).map_err(Error::doing("cannot understand nats-server's /varz"))
    }

    pub(crate) fn since(self, earlier: Self) -> Self {
        self.combined(earlier, u64::saturating_sub)
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        self.combined(other, u64::saturating_add)
    }

    fn combined(self, other: Self, each: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            in_msgs: each(self.in_msgs, other.in_msgs),
            out_msgs: each(self.out_msgs, other.out_msgs),
            in_bytes: each(self.in_bytes, other.in_bytes),
            out_bytes: each(self.out_bytes, other.out_bytes),
        }
    }
}
