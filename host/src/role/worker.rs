//! A worker's child: calls and tasks.

use super::api::{plugin_names, receive_frames};
use super::child::{Context, Failure, broker_failure, report, stop_plugins};
use super::metrics::{PluginMetrics, line};
use super::options;
use super::services::{HostServices, waiters};
use crate::broker::{Broker, ConsumerSpec};
use crate::config::{PluginSettings, Settings};
use crate::deployed::{self, By};
use crate::exit::Exit;
use crate::live_limits::AllLiveLimits;
use crate::loader::{Description, Placement, Plugin, PluginSet, TaskDescription};
use crate::process::child::Outbox;
use crate::process::control::ToSupervisor;
use crate::quarantine::Quarantines;
use crate::stream::Mux;
use crate::worker::calls::{self, CallOptions, Calls};
use crate::worker::places::Places;
use crate::worker::schedules::{Declared, ScheduleKeeper};
use crate::worker::tasks::{TaskEngine, TaskEngineOptions};
use cardcage_protocol::Name;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(super) async fn serve(mut context: Context) -> Result<Exit, Failure> {
    let broker = context.connect().await?;
    let metrics = PluginMetrics::default();
    let (progress, staging) = (Arc::new(OnceLock::new()), Arc::new(OnceLock::new()));
    let quarantines = Quarantines::default();
    let services = Arc::new(HostServices {
        broker: broker.clone(),
        instance: context.instance.clone(),
        enqueue_timeout: Duration::from_millis(context.settings.api.enqueue_timeout_ms),
        metrics: metrics.clone(),
        quarantines: quarantines.clone(),
        waiters: waiters(),
        progress: progress.clone(),
        staging: staging.clone(),
    });
    let set = context.load(services).await?;
    let patience = Duration::from_millis(context.settings.broker.startup_timeout_ms);
    broker.wait_connected(patience).await.map_err(|error| broker_failure(&error))?;
    check_broker(&broker).await?;
    broker.ensure_layout(&plugin_names(&set)).await.map_err(|error| broker_failure(&error))?;
    let consumers = consumers(&broker, set.plugins.iter().map(|(_, plugin)| &*plugin.description));
    broker.compare_consumers(&consumers).await.map_err(|error| broker_failure(&error))?;

    // Before anything is taken: a version that crashed too often gets nothing, also after a restart.
    quarantines.refresh(&broker).await.map_err(|error| broker_failure(&error))?;
    super::quarantine::follow(&quarantines, &broker, &context.outbox, &set);
    let live_limits = AllLiveLimits::default();
    live_limits.refresh(&broker).await.map_err(|error| broker_failure(&error))?;
    tokio::spawn(live_limits.clone().follow(broker.clone()));

    let mux = Arc::new(Mux::default());
    let call_options = CallOptions {
        concurrency: context.settings.worker.call_concurrency,
        of_plugin: of_plugin(&context.settings, |plugin| plugin.call_concurrency),
        silence: options::silence(&context.settings),
    };
    let calls =
        Calls::new(broker.clone(), context.board, context.instance.clone(), mux.clone(), call_options);
    let stop = CancellationToken::new();
    // Before the first call can come: its frames and its cancellation must find somebody.
    receive_frames(&context, &broker, mux).await?;
    receive_cancels(&broker, calls.clone()).await?;
    let mut serving = serve_calls(&broker, &calls, &set, &quarantines, &stop).await?;
    let engine = TaskEngine::start(TaskEngineOptions {
        broker: broker.clone(),
        board: context.board,
        instance: context.instance.clone(),
        plugins: plugins(&set),
        tasks: context.settings.tasks.clone(),
        time_scale: context.settings.retry.time_scale,
        task_concurrency: context.settings.worker.task_concurrency,
        of_plugin: of_plugin(&context.settings, |plugin| plugin.task_concurrency),
        quarantines,
        live_limits,
    });
    let _ = progress.set(engine.progress_reports());
    let _ = staging.set(engine.staging());
    context.ready(&set, Vec::new(), |_, description| {
        // Also those that their author, or an operator elsewhere, runs inline.
        let routes = description.routes.iter().filter(|route| route.placement != Placement::Enqueue);
        routes.map(|route| route.name.clone()).collect()
    });
    let absent_after = Duration::from_secs(context.settings.tasks.schedule_absent_s);
    // What fires is the current library's to say.
    let schedules = (!context.is_previous())
        .then(|| tokio::spawn(ScheduleKeeper::new(broker.clone(), declared(&set), absent_after).run()));
    let deployed = tokio::spawn(deployed::keep(By::Worker, broker.clone(), deployed::described(&set)));
    let consuming = tokio::spawn(tell_consuming(context.outbox.clone(), engine.watch_consuming()));
    let grace = context.drain_ordered(|| text(&calls, &engine, &metrics)).await.grace;

    consuming.abort();
    if let Some(schedules) = schedules {
        schedules.abort();
    }
    deployed.abort();
    stop.cancel();
    let began = tokio::time::Instant::now();
    let calls_ended = async {
        while serving.join_next().await.is_some() {}
        calls.idle(grace.saturating_sub(began.elapsed())).await
    };
    let (calls_left, tasks_left) = tokio::join!(calls_ended, engine.drain(grace));
    let unfinished = calls_left.saturating_add(tasks_left);
    // Replies and acknowledgements leave before the process does.
    let _ = broker.flush(Duration::from_secs(2)).await;
    stop_plugins(set, Duration::from_secs(1)).await;
    context.report(&ToSupervisor::Drained { unfinished: u64::try_from(unfinished).unwrap_or(u64::MAX) });
    Ok(if unfinished == 0 { Exit::Success } else { Exit::DrainDeadline })
}

/// The plugins for which the operator has chosen a number of their own.
fn of_plugin(
    settings: &Settings,
    chosen: impl Fn(&PluginSettings) -> Option<usize>,
) -> BTreeMap<String, usize> {
    let chosen = settings.plugins.iter().filter_map(|(name, plugin)| Some((name.clone(), chosen(plugin)?)));
    chosen.collect()
}

async fn check_broker(broker: &Broker) -> Result<(), Failure> {
    let checked = broker.check_server().await;
    checked.map(|_| ()).map_err(|errors| {
        let text = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        (Exit::Unavailable, text)
    })
}

async fn serve_calls(
    broker: &Broker,
    calls: &Arc<Calls>,
    set: &PluginSet,
    quarantines: &Quarantines,
    stop: &CancellationToken,
) -> Result<JoinSet<()>, Failure> {
    let mut serving = JoinSet::new();
    for plugin in plugins(set) {
        let (Some(subject), Ok(name)) =
            (calls::subject(broker.subjects(), &plugin), Name::new(&plugin.identity.name))
        else {
            continue;
        };
        let gate = quarantines.gate(&name, &plugin.identity.version);
        let places = Places::new(calls, plugin, subject, gate);
        // Now, so that a worker that says it is ready is one that can be called.
        let messages = places.subscribe().await.map_err(|error| broker_failure(&error))?;
        serving.spawn(places.serve(messages, stop.clone()));
    }
    Ok(serving)
}

/// The consumers of plugins that describe themselves so.
pub fn consumers<'a>(
    broker: &Broker,
    plugins: impl IntoIterator<Item = &'a Description>,
) -> Vec<ConsumerSpec> {
    let specs = |description: &Description| {
        // Names and version were checked with the description.
        let plugin = Name::new(&description.name).ok()?;
        let name = |task: &TaskDescription| Some((Name::new(&task.name).ok()?, task.priorities));
        let tasks: Vec<(Name, bool)> = description.tasks.iter().filter_map(name).collect();
        Some(ConsumerSpec::all(broker.options(), broker.subjects(), &plugin, description.major(), &tasks))
    };
    plugins.into_iter().filter_map(specs).flatten().collect()
}

/// What each plugin declares of schedules; one that declares none may have declared some before.
fn declared(set: &PluginSet) -> Vec<Declared> {
    let declared = |plugin: &Plugin| {
        Some(Declared {
            plugin: Name::new(&plugin.description.name).ok()?,
            version: plugin.description.version.clone(),
            schedules: plugin.description.schedule_definitions(),
        })
    };
    set.plugins.iter().filter_map(|(_, plugin)| declared(plugin)).collect()
}

fn plugins(set: &PluginSet) -> Vec<Arc<Plugin>> {
    set.plugins.iter().map(|(_, plugin)| plugin.clone()).collect()
}

/// Tells the supervisor whether tasks are consumed: a worker that does not is unready.
async fn tell_consuming(outbox: Outbox, mut consuming: watch::Receiver<bool>) {
    loop {
        let active = *consuming.borrow_and_update();
        report(&outbox, &ToSupervisor::Consuming { active });
        if consuming.changed().await.is_err() {
            return;
        }
    }
}

/// Listens for callers that wait no more.
async fn receive_cancels(broker: &Broker, calls: Arc<Calls>) -> Result<(), Failure> {
    let subscribed = broker.subscribe(broker.subjects().callctls()).await;
    let mut messages = subscribed.map_err(|error| broker_failure(&error))?;
    let broker = broker.clone();
    tokio::spawn(async move {
        while let Some(message) = messages.next().await {
            if let Some(call) = broker.subjects().parse_callctl(message.subject()) {
                calls.cancel(call);
            }
        }
    });
    Ok(())
}

fn text(calls: &Calls, engine: &TaskEngine, metrics: &PluginMetrics) -> String {
    let mut text = String::new();
    let counters = &calls.counters;
    text.push_str("# TYPE cardcage_calls_in_flight gauge\n");
    line(&mut text, "cardcage_calls_in_flight", "", calls.in_flight());
    text.push_str("# TYPE cardcage_calls_total counter\n");
    for (what, count) in [
        ("started", &counters.started),
        ("busy", &counters.busy),
        ("expired", &counters.expired),
        ("cancelled", &counters.cancelled),
    ] {
        line(
            &mut text,
            "cardcage_calls_total",
            &format!("{{what=\"{what}\"}}"),
            count.load(Ordering::Relaxed),
        );
    }
    text.push_str("# TYPE cardcage_tasks_in_flight gauge\n");
    line(&mut text, "cardcage_tasks_in_flight", "", engine.in_flight());
    text.push_str("# TYPE cardcage_tasks_settling gauge\n");
    line(&mut text, "cardcage_tasks_settling", "", u8::from(engine.is_settling()));
    text.push_str("# TYPE cardcage_tasks_total counter\n");
    for (what, count) in engine.counters().all() {
        line(&mut text, "cardcage_tasks_total", &format!("{{what=\"{what}\"}}"), count);
    }
    text.push_str(&metrics.text());
    text
}
