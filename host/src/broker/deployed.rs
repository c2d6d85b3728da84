//! Descriptions of deployed plugin versions, in the bucket of limits: one entry per plugin and version, and
//! one more where API instances accept its tasks.
//!
//! Invariants: an entry is at most as long as a message may be, and vanishes when nobody has said it for a while.
//! Refuses: telling what runs now. That is asked of the workers (`ask_workers`); here is only how they describe themselves.

use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use cardcage_protocol::{Name, header};

use super::publish::set;
use super::{Broker, Error};
use crate::deployed::{By, Deployed};
use crate::loader::OpenApiPart;

/// Time for one write.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest entry; the broker takes messages of 1 MiB with their headers.
const ENTRY_MAX_BYTES: usize = 900 * 1024;

impl Broker {
    /// Says how a plugin version describes itself, for `kept`. One that is too long goes without its OpenAPI document.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; [`Error::Unreadable`] where it is too long all the same. A repeat is harmless.
    pub async fn say_deployed(&self, by: By, deployed: &Deployed, kept: Duration) -> Result<(), Error> {
        let what = "a plugin's description";
        let encode = |deployed: &Deployed| {
            serde_json::to_vec(deployed).map_err(|error| Error::unreadable(what, error))
        };
        let mut json = encode(deployed)?;
        if json.len() > ENTRY_MAX_BYTES {
            let mut cut = Deployed { is_cut: true, ..deployed.clone() };
            cut.description.openapi = OpenApiPart::default();
            json = encode(&cut)?;
        }
        if json.len() > ENTRY_MAX_BYTES {
            return Err(Error::unreadable(what, "it is too long for a message"));
        }
        let description = &deployed.description;
        let plugin = Name::new(&description.name).map_err(|error| Error::unreadable(what, error))?;
        let mut headers = HeaderMap::new();
        set(&mut headers, header::NATS_TTL, &format!("{}s", kept.as_secs().max(1)))?;
        let subject = match by {
            By::Worker => self.subjects().deployed(&plugin, &description.version),
            By::Api => self.subjects().offered(&plugin, &description.version),
        };
        self.publish_stored(&subject, headers, Bytes::from(json), WRITE_TIMEOUT).await.map(|_| ())
    }

    /// All plugin versions that workers, or API instances, have described lately.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn deployed(&self, by: By) -> Result<Vec<Deployed>, Error> {
        let subjects = match by {
            By::Worker => self.subjects().all_deployed(),
            By::Api => self.subjects().all_offered(),
        };
        let entries = self.limit_entries(&subjects, "a plugin's description").await?;
        Ok(entries.into_iter().map(|(deployed, ..)| deployed).collect())
    }
}
