//! An API's child: routes, inline handlers, calls and enqueues.

use super::child::{Context, Failure, broker_failure, report, stop_plugins};
use super::metrics::{PluginMetrics, line};
use super::options;
use super::services::{HostServices, waiters};
use crate::broker::Broker;
use crate::deployed::{self, By};
use crate::edge::{Edge, Mounted, Router, Server, ServerOptions, override_faults};
use crate::exit::Exit;
use crate::loader::{Description, Placement, PluginSet, RouteDescription, Source};
use crate::process::control::ToSupervisor;
use crate::quarantine::Quarantines;
use crate::stream::Mux;
use cardcage_protocol::Name;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long a starting API waits for the broker before it serves what it can without it.
const BROKER_MOMENT: Duration = Duration::from_secs(1);

pub(super) async fn serve(mut context: Context) -> Result<Exit, Failure> {
    let broker = context.connect().await?;
    let metrics = PluginMetrics::default();
    let quarantines = Quarantines::default();
    let services = Arc::new(HostServices {
        broker: broker.clone(),
        instance: context.instance.clone(),
        enqueue_timeout: Duration::from_millis(context.settings.api.enqueue_timeout_ms),
        metrics: metrics.clone(),
        quarantines: quarantines.clone(),
        waiters: waiters(),
        progress: Arc::default(),
        staging: Arc::default(),
    });
    let set = context.load_what_runs_here(services).await?;
    let mounted = mount(&context, &set);
    let faults: Vec<String> = mounted
        .iter()
        .flat_map(|one| override_faults(&one.identity.name, one.routes.keys(), &one.description))
        .collect();
    if !faults.is_empty() {
        return Err((Exit::Config, faults.join(". ")));
    }
    let router = Router::build(&mounted, broker.subjects())
        .map_err(|error| (Exit::PluginRefused, error.to_string()))?;
    let listener =
        context.listener.take().ok_or((Exit::Unexpected, "the supervisor passed no listener".to_owned()))?;
    let bound = listener.local_addr().map(|address| address.to_string()).into_iter().collect();
    let limits = options::edge_limits(&context.settings);
    let mux = Arc::new(Mux::default());
    super::quarantine::follow(&quarantines, &broker, &context.outbox, &set);
    let edge = Arc::new(Edge::new(
        broker.clone(),
        context.instance.clone(),
        mux.clone(),
        limits,
        quarantines.clone(),
        &mounted,
        router,
    ));
    let api = &context.settings.api;
    let server_options = ServerOptions {
        header_read_timeout: Duration::from_millis(api.header_read_timeout_ms),
        write_timeout: Duration::from_millis(api.write_timeout_ms),
        headers_max_bytes: api.headers_max_bytes,
        connections_max: api.in_flight_max.saturating_mul(4),
    };
    let server = Server::new(listener, edge.clone(), server_options)
        .map_err(|error| (Exit::Unexpected, format!("the listener cannot be used: {error}")))?;
    let stop = CancellationToken::new();
    receive_frames(&context, &broker, mux).await?;
    // A broker that is there is given a moment, so that a fresh instance does not begin with refusals.
    if broker.wait_connected(BROKER_MOMENT).await.is_ok() {
        // What is wrong with the streams is told by `keep_layout`.
        let _ = tokio::time::timeout(BROKER_MOMENT, broker.ensure_layout(&plugin_names(&set))).await;
    }
    tokio::spawn(keep_layout(context.outbox.clone(), broker.clone(), plugin_names(&set)));
    tokio::spawn(deployed::keep(By::Api, broker.clone(), deployed::described(&set)));
    let departure = Arc::new(std::sync::OnceLock::new());
    let serving = tokio::spawn({
        let (may_accept, outbox) = (context.may_accept.clone(), context.outbox.clone());
        let (stop, departure) = (stop.clone(), departure.clone());
        async move {
            tokio::select! {
                () = may_accept.cancelled() => {}
                () = stop.cancelled() => {}
            }
            let leaving = server.accept_until(stop, departure).await;
            report(&outbox, &ToSupervisor::Leaving);
            leaving.end().await
        }
    });
    context.ready(&set, bound, |source, description| {
        let plugin = mounted.iter().find(|one| one.identity.name.as_ref() == source.name);
        let is_called = |route: &&RouteDescription| {
            plugin.is_some_and(|plugin| plugin.placement_of(route) == Placement::Worker)
        };
        description.routes.iter().filter(is_called).map(|route| route.name.clone()).collect()
    });
    let text = {
        let (edge, metrics) = (edge.clone(), metrics.clone());
        move || text(&edge, &metrics)
    };
    let ordered = context.drain_ordered(text).await;
    let _ = departure.set(ordered);
    stop.cancel();
    let in_time = serving.await.unwrap_or(false);
    let unfinished = u64::try_from(edge.in_flight()).unwrap_or(u64::MAX);
    stop_plugins(set, Duration::from_secs(1)).await;
    context.report(&ToSupervisor::Drained { unfinished });
    Ok(if in_time { Exit::Success } else { Exit::DrainDeadline })
}

fn mount(context: &Context, set: &PluginSet) -> Vec<Mounted> {
    let loaded = set.plugins.iter().map(|(_, plugin)| Some(plugin.clone())).chain(std::iter::repeat(None));
    let mount = |((source, description), plugin): ((&Source, &Arc<Description>), _)| {
        let (placement, routes) = options::placements(&context.settings, &source.name);
        Mounted {
            identity: description.identity(),
            description: description.clone(),
            prefix: source.prefix.clone(),
            placement,
            routes,
            plugin,
        }
    };
    set.descriptions().zip(loaded).map(mount).collect()
}

pub(super) fn plugin_names(set: &PluginSet) -> Vec<Name> {
    set.descriptions().filter_map(|(_, description)| Name::new(&description.name).ok()).collect()
}

/// Hands the frames that arrive for this instance to their calls.
///
/// Fails where the connection takes no subscription; without a broker it does, and listens from the connect on.
pub(super) async fn receive_frames(context: &Context, broker: &Broker, mux: Arc<Mux>) -> Result<(), Failure> {
    let subject = broker.subjects().callio_of_instance(&context.instance);
    let mut messages = broker.subscribe(subject).await.map_err(|error| broker_failure(&error))?;
    let broker = broker.clone();
    tokio::spawn(async move {
        while let Some(message) = messages.next().await {
            if let Some(call) = broker.subjects().parse_callio(message.subject()) {
                mux.deliver(call, message.payload());
            }
        }
    });
    Ok(())
}

/// Sees to it that the streams exist whenever the broker is there, and tells the supervisor while it is not.
async fn keep_layout(outbox: crate::process::child::Outbox, broker: Broker, plugins: Vec<Name>) {
    let mut link = broker.watch();
    let mut told: Option<String> = None;
    loop {
        let degraded = if link.borrow_and_update().connected {
            broker.ensure_layout(&plugins).await.err().map(|error| error.to_string())
        } else {
            Some("the broker cannot be reached: calls and tasks are refused with 503".to_owned())
        };
        if degraded != told {
            match &degraded {
                Some(reason) => report(&outbox, &ToSupervisor::Degraded { reasons: vec![reason.clone()] }),
                None => report(&outbox, &ToSupervisor::Restored),
            }
            told.clone_from(&degraded);
        }
        // A failure while connected is looked at again soon; otherwise the next change of the link matters.
        let again = Duration::from_secs(if degraded.is_some() { 1 } else { 30 });
        if let Ok(Err(_)) = tokio::time::timeout(again, link.changed()).await {
            return;
        }
    }
}

fn text(edge: &Edge, metrics: &PluginMetrics) -> String {
    let mut text = String::new();
    text.push_str("# TYPE cardcage_http_requests_in_flight gauge\n");
    line(&mut text, "cardcage_http_requests_in_flight", "", edge.in_flight());
    text.push_str("# TYPE cardcage_http_responses_total counter\n");
    for (class, count) in edge.answered().iter().enumerate().skip(1) {
        line(&mut text, "cardcage_http_responses_total", &format!("{{status=\"{class}xx\"}}"), count);
    }
    text.push_str(&metrics.text());
    text
}
