//! What a task declares, with the host's defaults for what it leaves open.

use plugin_api::testing::Started;
use serde_json::Value;
use std::time::Duration;

/// The declaration of one task.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    pub(super) max_attempts: u32,
    backoff_initial: Duration,
    backoff_max: Duration,
    pub(super) timeout: Duration,
    pub(super) soft_timeout: Option<Duration>,
    pub(super) expires: Option<Duration>,
    pub(super) lost_is_final: bool,
    pub(super) exhausted: Option<String>,
    unique_key: Option<String>,
    pub(super) priorities: bool,
}

impl Terms {
    /// The declaration of `task`; `None` where the plugin has none of that name.
    pub(super) fn of(plugin: &Started, task: &str) -> Option<Self> {
        let tasks = plugin.description().get("tasks")?.as_array()?;
        let declared = tasks.iter().find(|one| one.get("name").is_some_and(|name| name == task))?;
        let number = |name: &str| declared.get(name).and_then(Value::as_u64);
        let ms = |name: &str| number(name).map(Duration::from_millis);
        let text = |name: &str| declared.get(name).and_then(Value::as_str).map(str::to_owned);
        let backoff_initial = ms("backoff_initial_ms").unwrap_or(Duration::from_secs(1));
        let timeout = ms("timeout_ms").unwrap_or(Duration::from_secs(600));
        Some(Self {
            max_attempts: number("max_attempts").and_then(|n| u32::try_from(n).ok()).unwrap_or(5).max(1),
            backoff_initial,
            backoff_max: ms("backoff_max_ms").unwrap_or(Duration::from_secs(300)).max(backoff_initial),
            timeout,
            soft_timeout: ms("soft_timeout_ms").filter(|soft| *soft < timeout),
            expires: ms("expires_ms"),
            lost_is_final: text("on_lost").is_some_and(|what| what == "fail"),
            exhausted: text("exhausted"),
            unique_key: text("unique_key"),
            priorities: declared.get("priorities").and_then(Value::as_bool).unwrap_or_default(),
        })
    }

    /// The longest wait that a host would choose after so many attempts.
    pub(super) fn backoff(&self, attempts: u32) -> Duration {
        let factor = 2_u32.saturating_pow(attempts.saturating_sub(1));
        self.backoff_initial.saturating_mul(factor).min(self.backoff_max)
    }

    /// The value of the body's unique key, where there is one.
    pub(super) fn unique_value(&self, body: &Value) -> Option<Value> {
        let path = self.unique_key.as_deref()?;
        path.split('.').try_fold(body, |value, name| value.get(name)).filter(|key| !key.is_null()).cloned()
    }
}
