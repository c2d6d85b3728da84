//! The supervisor's own metrics, put before the child's.
//!
//! They are read from the status at each scrape: there is no second truth to keep in step.

use crate::process::Snapshot;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;

/// What the text is.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Names of the supervisor's metrics.
pub(super) mod names {
    pub(crate) const READY: &str = "cardcage_ready";
    pub(crate) const CHILD_UP: &str = "cardcage_child_up";
    pub(crate) const CHILD_RESTARTS: &str = "cardcage_child_restarts";
    pub(crate) const RELOADS: &str = "cardcage_reloads";
    pub(crate) const CHILD_CRASHES: &str = "cardcage_child_crashes";
    pub(crate) const CHILD_REPLACED: &str = "cardcage_child_replaced";
    pub(crate) const CHILD_ANSWERED: &str = "cardcage_child_metrics_answered";
    pub(crate) const PLUGINS_LOADED: &str = "cardcage_plugins_loaded";
    pub(crate) const PLUGINS_REFUSED: &str = "cardcage_plugins_refused";
    pub(crate) const PLUGINS_QUARANTINED: &str = "cardcage_plugins_quarantined";
    pub(crate) const PLUGINS_BLOCKED: &str = "cardcage_plugins_blocked";
    pub(crate) const GROUP_READY: &str = "cardcage_group_ready";
    pub(crate) const GROUP_UP: &str = "cardcage_group_child_up";
    pub(crate) const GROUP_RESTARTS: &str = "cardcage_group_child_restarts";
    pub(crate) const GROUP_CRASHES: &str = "cardcage_group_child_crashes";
    pub(crate) const DEGRADED: &str = "cardcage_degraded_reasons";
}

const END: &str = "# EOF\n";

/// The whole text; `duties` is that of what the supervisor does beside. The child's text may carry its own end mark.
pub(super) fn text(now: &Snapshot, duties: &str, child: Option<&str>) -> String {
    let mut registry = Registry::default();
    let count = |count: usize| ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
    let fact = |fact: bool| ConstGauge::new(i64::from(fact));
    let mut gauge = |name, help: &str, value: ConstGauge<i64>| registry.register(name, help, value);
    gauge(names::READY, "1 while the host should get traffic", fact(now.ready));
    gauge(names::CHILD_UP, "1 while a child process runs", fact(now.child_pid.is_some()));
    gauge(names::CHILD_ANSWERED, "1 if the child's metrics are part of this answer", fact(child.is_some()));
    gauge(names::PLUGINS_LOADED, "Plugins that are loaded", count(now.plugins.len()));
    gauge(names::PLUGINS_REFUSED, "Plugins that were refused", count(now.refused.len()));
    let quarantined = count(now.quarantined.len());
    gauge(names::PLUGINS_QUARANTINED, "Plugins that are loaded and take no work", quarantined);
    gauge(names::PLUGINS_BLOCKED, "Plugins whose runtime does not run", count(now.blocked.len()));
    gauge(names::DEGRADED, "Reasons why the host is degraded", count(now.degraded.len()));
    let restarts = ConstCounter::new(now.restarts);
    let help = "Children started in place of one that died or was replaced";
    registry.register(names::CHILD_RESTARTS, help, restarts);
    let reloads = ConstCounter::new(now.reloads);
    registry.register(names::RELOADS, "Reloads after which another child took over", reloads);
    let (ready, up) =
        (Family::<Vec<(&str, String)>, Gauge>::default(), Family::<Vec<(&str, String)>, Gauge>::default());
    let died = Family::<Vec<(&str, String)>, Counter>::default();
    let begun = Family::<Vec<(&str, String)>, Counter>::default();
    for (one, seat) in now.seats.iter().filter_map(|one| Some((one, one.seat.as_ref()?))) {
        let labels = vec![("group", seat.group.clone()), ("process", seat.process.to_string())];
        ready.get_or_create(&labels).set(i64::from(one.ready));
        up.get_or_create(&labels).set(i64::from(one.child_pid.is_some()));
        begun.get_or_create(&labels).inc_by(one.restarts);
        for ((cause, plugin), count) in &one.crashes {
            let of = [("cause", cause.as_str().to_owned()), ("plugin", plugin.clone().unwrap_or_default())];
            died.get_or_create(&labels.iter().cloned().chain(of).collect()).inc_by(*count);
        }
    }
    if !now.seats.is_empty() {
        registry.register(names::GROUP_READY, "1 while this process of the worker group takes work", ready);
        registry.register(names::GROUP_UP, "1 while this process of the worker group runs", up);
        let help = "Children of this place started in place of one that died or was replaced";
        registry.register(names::GROUP_RESTARTS, help, begun);
        let help = "Children of this place that died or left work unfinished";
        registry.register(names::GROUP_CRASHES, help, died);
    }
    let crashes = Family::<Vec<(&str, String)>, Counter>::default();
    for ((cause, plugin), count) in &now.crashes {
        let plugin = plugin.clone().unwrap_or_default();
        let labels = vec![("cause", cause.as_str().to_owned()), ("plugin", plugin)];
        crashes.get_or_create(&labels).inc_by(*count);
    }
    let replaced = Family::<Vec<(&str, &str)>, Counter>::default();
    for (why, count) in &now.replaced {
        replaced.get_or_create(&vec![("why", *why)]).inc_by(*count);
    }
    registry.register(
        names::CHILD_REPLACED,
        "Children that gave way to another one while they served",
        replaced,
    );
    registry.register(names::CHILD_CRASHES, "Children that died or left work unfinished", crashes);

    let mut text = String::new();
    if let Err(error) = encode(&mut text, &registry) {
        tracing::error!(%error, "the supervisor's metrics cannot be written");
    }
    text.truncate(text.trim_end_matches(END).len());
    text.push_str(duties);
    if let Some(child) = child {
        text.push_str(child.trim_end_matches(END));
        if !text.ends_with('\n') {
            text.push('\n');
        }
    }
    text.push_str(END);
    text
}
