//! Whether this broker can serve at all: said in sentences, before anything is stored in it.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Broker, Error};

/// The oldest version that fires message schedules as the host needs it.
const VERSION_MIN: (u32, u32) = (2, 15);
/// JetStream is off for the server or the account.
const JETSTREAM_NOT_ENABLED: [u32; 2] = [10076, 10039];
/// Time for the check. Shorter than a start may take, so that the sentence comes before the supervisor gives up.
const CHECK_TIMEOUT: Duration = Duration::from_secs(3);

/// What the broker said about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFacts {
    /// Its version.
    pub version: String,
    /// Its name.
    pub name: String,
    /// The largest message that it takes, in bytes.
    pub max_payload_bytes: usize,
}

/// Why this broker cannot serve. An operator must act; a retry does not help (except for [`CheckError::Broker`]).
#[derive(Debug, Clone, thiserror::Error)]
pub enum CheckError {
    /// The server is too old.
    #[error(
        "nats-server {version} at {url} is too old: it would accept delayed tasks and never deliver them; install 2.15.1 \
         or newer"
    )]
    Version {
        /// What it reports.
        version: String,
        /// Where it is.
        url: String,
    },
    /// JetStream is off.
    #[error(
        "nats-server at {url} has JetStream off, so no task can be stored; start it with `-js` and a store directory"
    )]
    NoJetStream {
        /// Where it is.
        url: String,
    },
    /// JetStream is off for this account.
    #[error(
        "JetStream is off for the account used at {url}, so no task can be stored; enable it for the account ({description})"
    )]
    NoJetStreamForAccount {
        /// Where it is.
        url: String,
        /// The server's words.
        description: String,
    },
    /// Messages must be smaller than the host's bounds allow.
    #[error(
        "nats-server at {url} takes messages of at most {have} bytes; the host needs max_payload of at least {need} bytes"
    )]
    MaxPayload {
        /// Where it is.
        url: String,
        /// What it takes.
        have: usize,
        /// What is needed.
        need: usize,
    },
    /// The broker did not answer.
    #[error(transparent)]
    Broker(#[from] Error),
}

impl Broker {
    /// Checks version, message size and JetStream. The connection must be up.
    ///
    /// # Errors
    /// Everything that is missing, at once.
    pub async fn check_server(&self) -> Result<ServerFacts, Vec<CheckError>> {
        let Some(info) = self.client().try_server_info() else {
            return Err(vec![CheckError::Broker(Error::unavailable("not connected"))]);
        };
        let url = self.options().address();
        let mut errors = Vec::new();
        if parse_version(&info.version).is_none_or(|version| version < VERSION_MIN) {
            errors.push(CheckError::Version { version: info.version.clone(), url: url.clone() });
        }
        let need = cardcage_protocol::limits::MESSAGE_MAX_BYTES;
        if info.max_payload < need {
            errors.push(CheckError::MaxPayload { url: url.clone(), have: info.max_payload, need });
        }
        match self.api("INFO", &json!(null), CHECK_TIMEOUT).await {
            Ok(answer) if answer.get("limits").is_some_and(Value::is_object) => {}
            Ok(_) => errors.push(Error::unreadable("JetStream's account info", "it has no limits").into()),
            Err(Error::NoResponders { .. }) => errors.push(CheckError::NoJetStream { url }),
            Err(Error::Refused { code, description }) if JETSTREAM_NOT_ENABLED.contains(&code) => {
                errors.push(CheckError::NoJetStreamForAccount { url, description });
            }
            Err(error) => errors.push(error.into()),
        }
        if errors.is_empty() {
            Ok(ServerFacts {
                version: info.version,
                name: info.server_name,
                max_payload_bytes: info.max_payload,
            })
        } else {
            Err(errors)
        }
    }
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.trim_start_matches('v').split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(parse_version("2.9.10").unwrap() < VERSION_MIN);
        assert!(parse_version("2.15.1-RC.1").unwrap() >= VERSION_MIN);
        assert!(parse_version("v3.0.0").unwrap() >= VERSION_MIN);
        assert_eq!(parse_version("dev"), None);
    }
}
