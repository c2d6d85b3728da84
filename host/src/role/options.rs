//! Settings, as the other rooms want them.

use crate::broker;
use crate::config::{Elsewhere, Generation, Settings, Storage, Stores};
use crate::edge::EdgeLimits;
use crate::loader::{Placement, Source};
use crate::process::control::{Excluded, Role};
use crate::process::{Limits, Plan};
use crate::stream::Silence;
use cardcage_protocol::{NameError, Namespace};
use std::collections::BTreeMap;
use std::time::Duration;

/// The broker's options. `client_name` is shown in the server's lists.
///
/// # Errors
/// Where the namespace is no name, which the settings have checked already.
pub fn broker_options(settings: &Settings, client_name: &str) -> Result<broker::Options, NameError> {
    let (broker, tasks) = (&settings.broker, &settings.tasks);
    Ok(broker::Options {
        url: broker.url.clone(),
        client_name: client_name.to_owned(),
        namespace: Namespace::new(&broker.namespace)?,
        replicas: u8::try_from(broker.replicas).unwrap_or(1),
        storage: match broker.storage {
            Storage::File => broker::Storage::File,
            Storage::Memory => broker::Storage::Memory,
        },
        credentials_file: broker.credentials_file.clone(),
        connect_timeout: Duration::from_millis(broker.connect_timeout_ms),
        publish_timeout: Duration::from_millis(settings.api.enqueue_timeout_ms),
        result_ttl: Duration::from_secs(tasks.result_ttl_s),
        idempotency_ttl: Duration::from_secs(tasks.idempotency_ttl_s),
        dead_max_age: Duration::from_secs(tasks.dead_max_age_s),
        lease: Duration::from_millis(tasks.lease_ms),
        queue_max_messages: broker.queue_max_messages,
        queue_max_bytes: broker.queue_max_bytes,
        ack_pending_max: tasks.ack_pending_max,
        stores: store_bounds(&settings.stores),
    })
}

/// What a child of this role is started with.
pub(super) fn plan(role: Role, settings: &Settings) -> Result<Plan, serde_json::Error> {
    let required = settings.plugins.iter().filter(|(_, plugin)| plugin.required);
    Ok(Plan {
        settings: serde_json::to_value(settings)?,
        grace: Duration::from_millis(settings.drain.grace_ms),
        load_timeout: Duration::from_millis(settings.loading.timeout_ms),
        required: required.map(|(name, _)| name.clone()).collect(),
        limits: match role {
            // What is set under `[worker]` is about workers.
            Role::Api => Limits::default(),
            Role::Worker => Limits {
                recycle_after_tasks: settings.worker.recycle_after_tasks,
                recycle_above_mb: settings.worker.recycle_above_mb,
                memory_max_mb: settings.worker.memory_max_mb,
            },
        },
    })
}

fn store_bounds(stores: &Stores) -> broker::StoreBounds {
    broker::StoreBounds {
        records_max_messages: stores.records_max_messages,
        records_max_bytes: stores.records_max_bytes,
        dead_max_messages: stores.dead_max_messages,
        dead_max_bytes: stores.dead_max_bytes,
        delayed_max_messages: stores.delayed_max_messages,
        delayed_max_bytes: stores.delayed_max_bytes,
        parked_max_messages: stores.parked_max_messages,
        lines_max_messages: stores.lines_max_messages,
        idempotency_max_messages: stores.idempotency_max_messages,
        limits_max_messages: stores.limits_max_messages,
    }
}

pub(super) fn edge_limits(settings: &Settings) -> EdgeLimits {
    let api = &settings.api;
    EdgeLimits {
        body_max_bytes: api.body_max_bytes,
        headers_max_bytes: api.headers_max_bytes,
        reply_max_bytes: api.reply_max_bytes,
        task_body_max_bytes: settings.tasks.body_max_bytes,
        call_timeout: Duration::from_millis(api.call_timeout_ms),
        enqueue_timeout: Duration::from_millis(api.enqueue_timeout_ms),
        silence: silence(settings),
        in_flight_max: api.in_flight_max,
        followers_max: api.followers_max,
    }
}

pub(super) fn silence(settings: &Settings) -> Silence {
    Silence(Duration::from_millis(settings.api.stream_idle_timeout_ms))
}

/// The plugins to load, without those that took an earlier child down.
pub(super) fn sources(settings: &Settings, excluded: &[Excluded]) -> Vec<Source> {
    let is_excluded = |name: &str| excluded.iter().any(|excluded| excluded.plugin == name);
    settings
        .plugins
        .iter()
        .filter(|(name, _)| !is_excluded(name))
        .map(|(name, plugin)| Source {
            name: name.clone(),
            library: plugin.library.clone(),
            prefix: plugin.prefix.clone(),
            config: serde_json::Value::Object(plugin.config.expose().clone()),
            threads: plugin.threads,
            tasks: plugin.tasks.clone(),
            schedules: plugin.schedules.clone(),
            is_previous: settings.part.generation > 0,
        })
        .collect()
}

/// Libraries that another process of the host has: what they declare is wanted, and nothing is started.
pub(super) fn sources_elsewhere(generation: &Generation) -> Vec<Source> {
    let source = |(name, elsewhere): (&String, &Elsewhere)| Source {
        name: name.clone(),
        library: elsewhere.library.clone(),
        prefix: String::new(),
        config: serde_json::Value::Null,
        threads: None,
        tasks: elsewhere.tasks.clone(),
        schedules: BTreeMap::new(),
        is_previous: generation.number > 0,
    };
    generation.plugins.iter().map(source).collect()
}

fn placement(placement: crate::config::Placement) -> Placement {
    match placement {
        crate::config::Placement::Worker => Placement::Worker,
        crate::config::Placement::Inline => Placement::Inline,
    }
}

/// The operator's placements for a plugin: for all of its routes, and for single ones.
pub(super) fn placements(
    settings: &Settings,
    name: &str,
) -> (Option<Placement>, BTreeMap<String, Placement>) {
    let Some(plugin) = settings.plugins.get(name) else { return (None, BTreeMap::new()) };
    let routes = plugin.routes.iter().map(|(route, chosen)| (route.clone(), placement(*chosen))).collect();
    (plugin.placement.map(placement), routes)
}
