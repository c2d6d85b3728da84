//! What plugins measure, and the text of `/metrics`.

use crate::loader::Identity;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};

/// Series per child: a label value per request must not fill the memory.
const SERIES_MAX: usize = 4096;

#[derive(Debug, Clone, Copy)]
enum Value {
    Counter(f64),
    Gauge(f64),
    Summary { count: f64, sum: f64 },
}

/// Plugins' own measurements. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct PluginMetrics {
    series: Arc<Mutex<BTreeMap<String, Value>>>,
}

fn is_metric_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 64 && name.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '_'))
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

impl PluginMetrics {
    /// Adds to a counter (0), sets a gauge (1) or observes into a summary (2). What is no metric is left out.
    pub(super) fn record(
        &self,
        plugin: &Identity,
        kind: u8,
        name: &str,
        labels: &[(String, String)],
        value: f64,
    ) {
        if !is_metric_name(name) || !value.is_finite() {
            return;
        }
        let mut key = format!("cardcage_plugin_{name}{{plugin=\"{}\"", plugin.name);
        for (label, value) in labels.iter().filter(|(label, _)| is_metric_name(label) && label != "plugin") {
            let _ = write!(key, ",{label}=\"{}\"", escape(value));
        }
        key.push('}');
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = !series.contains_key(&key);
        if is_new && series.len() >= SERIES_MAX {
            return;
        }
        let first = match kind {
            0 => Value::Counter(0.0),
            1 => Value::Gauge(0.0),
            _ => Value::Summary { count: 0.0, sum: 0.0 },
        };
        match (series.entry(key).or_insert(first), kind) {
            (Value::Counter(total), 0) if value >= 0.0 => *total += value,
            (Value::Gauge(last), 1) => *last = value,
            (Value::Summary { count, sum }, 2) => {
                *count += 1.0;
                *sum += value;
            }
            // A name keeps the kind it had first.
            _ => {}
        }
    }

    /// The series as Prometheus text.
    pub(super) fn text(&self) -> String {
        let series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        for (key, value) in series.iter() {
            let _ = match value {
                Value::Counter(value) | Value::Gauge(value) => writeln!(text, "{key} {value}"),
                Value::Summary { count, sum } => {
                    let (name, labels) = key.split_once('{').unwrap_or((key, "}"));
                    writeln!(text, "{name}_count{{{labels} {count}\n{name}_sum{{{labels} {sum}")
                }
            };
        }
        text
    }
}

/// One line of a counter or gauge.
pub(super) fn line(text: &mut String, name: &str, labels: &str, value: impl std::fmt::Display) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{name}{labels} {value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_keeps_its_kind_and_odd_names_are_left_out() {
        let metrics = PluginMetrics::default();
        let plugin = Identity { name: Arc::from("p"), version: Arc::from("1.0.0"), major: 1 };
        metrics.record(&plugin, 0, "sold_total", &[("kind".into(), "a\"b".into())], 2.0);
        metrics.record(&plugin, 1, "sold_total", &[("kind".into(), "a\"b".into())], 9.0);
        metrics.record(&plugin, 0, "Sold total", &[], 1.0);
        assert_eq!(metrics.text(), "cardcage_plugin_sold_total{plugin=\"p\",kind=\"a\\\"b\"} 2\n");
    }
}
