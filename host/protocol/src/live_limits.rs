//! What an operator has set for a task while hosts run: it stands over what plugin and configuration declare, in every
//! worker, until it is lifted.

use serde::{Deserialize, Deserializer, Serialize};

use crate::{Name, Rate, Timestamp};

/// The limits of one task that an operator has set. A member that is absent leaves what is declared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveLimits {
    /// The format's version.
    pub v: u32,
    /// The plugin.
    pub plugin: Name,
    /// The task, of every major.
    pub task: Name,
    /// Starts over all workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// Handlers at the same time, over all workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_running: Option<u32>,
    /// Who paused its queue; kept for people. The pause itself is the consumers', and may have ended since.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "lenient")]
    pub paused: Option<PausedBy>,
    /// When it was last changed, by the broker's time.
    pub set_at: Timestamp,
}

/// Who paused a queue, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PausedBy {
    /// As in `alice@ops-1`: the user, and the machine that the command ran on.
    pub by: String,
    /// By the broker's time.
    pub at: Timestamp,
    /// When that pause ends. Of another one, which somebody gave past cardcage, it is not told.
    pub until: Timestamp,
}

/// A word for people that cannot be read costs no limit that stands beside it.
fn lenient<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PausedBy>, D::Error> {
    let found = Option::<serde_json::Value>::deserialize(deserializer)?;
    Ok(found.and_then(|found| serde_json::from_value(found).ok()))
}

impl LiveLimits {
    /// Limits that set nothing yet.
    #[must_use]
    pub fn new(plugin: Name, task: Name, set_at: Timestamp) -> Self {
        Self { v: 1, plugin, task, rate: None, max_running: None, paused: None, set_at }
    }

    /// Whether all limits are as declared.
    #[must_use]
    pub fn limits_nothing(&self) -> bool {
        self.rate.is_none() && self.max_running.is_none()
    }

    /// Whose the pause is that ends then.
    #[must_use]
    pub fn paused_by(&self, until: Timestamp) -> Option<&PausedBy> {
        self.paused.as_ref().filter(|paused| paused.until == until)
    }

    /// Whether it says nothing at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.limits_nothing() && self.paused.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pause_of_a_form_that_is_not_known_costs_no_limit_beside_it() {
        let limits = |paused: &str| {
            let json = format!(
                r#"{{"v":1,"plugin":"p","task":"t","max_running":3,"set_at":"2026-01-01T00:00:00Z","paused":{paused}}}"#
            );
            serde_json::from_str::<LiveLimits>(&json).unwrap()
        };
        let known = r#"{"by":"a@b","at":"2026-01-01T00:00:00Z","until":"2026-01-02T00:00:00Z"}"#;
        assert_eq!(limits(known).paused.unwrap().by, "a@b");
        for unknown in [r#"{"by":"a@b","at":"2026-01-01T00:00:00Z"}"#, "7", "null"] {
            let limits = limits(unknown);
            assert_eq!((limits.max_running, limits.paused), (Some(3), None), "{unknown}");
        }
    }
}
