//! Whose round of sweeping it is.

use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use cardcage_protocol::header;

use super::publish::set;
use super::{Broker, Error};

/// Time for the write.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);

impl Broker {
    /// Begins a round that nobody else begins within `time`; `false`: somebody has.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn begin_sweep(&self, time: Duration) -> Result<bool, Error> {
        let mut headers = HeaderMap::new();
        set(&mut headers, header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, "0")?;
        set(&mut headers, header::NATS_TTL, &format!("{}s", time.as_secs().max(1)))?;
        match self.publish_stored(&self.subjects().sweep(), headers, Bytes::new(), WRITE_TIMEOUT).await {
            Ok(_) => Ok(true),
            Err(Error::Conflict { .. }) => Ok(false),
            // Keys that nobody needs any more are what a sweep removes; and two rounds at once do no harm.
            Err(Error::QueueFull { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }
}
