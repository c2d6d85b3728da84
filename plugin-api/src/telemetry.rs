//! Sends the plugin's `tracing` events, its `log` records and its panics to the host.
//!
//! Host and plugin have a `tracing` each, which share nothing, so events cross the boundary as records. The host's
//! filter comes with `init`: an event it does not want costs a cached comparison.
//! Events carry the route or task being polled; a span made there keeps it, so that work which the handler spawned
//! and instrumented is attributed too.

use crate::context::HostHandle;
use crate::glue::current;
use cardcage_abi::{FfiBytes, LogRecord, SpanRecord};
use serde_json::{Map, Value, json};
use std::sync::Once;
use std::time::{SystemTime, UNIX_EPOCH};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_log::AsLog;
use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

pub(crate) fn install(host: HostHandle, filter: &str) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let filter = EnvFilter::builder().parse_lossy(filter);
        // `log` asks this level first, and evaluates the arguments of what passes it.
        let level = filter.max_level_hint().unwrap_or(LevelFilter::TRACE).as_log();
        let subscriber = tracing_subscriber::registry().with(filter).with(HostLayer { host });
        // Fails only where the author set one already; then theirs stays.
        let _ = tracing::subscriber::set_global_default(subscriber);
        let _ = tracing_log::LogTracer::builder().with_max_level(level).init();
        std::panic::set_hook(Box::new(|info| {
            let text = info.payload_as_str().unwrap_or("a panic without a text");
            let at = info.location().map(ToString::to_string).unwrap_or_default();
            tracing::error!(target: "panic", panic = text, at, "plugin code panicked");
        }));
    });
}

/// What [`install`] sets for a whole process, for one test: events at this level and above go to this host.
pub(crate) fn dispatch(host: HostHandle, filter: &str) -> tracing::Dispatch {
    let filter = EnvFilter::builder().parse_lossy(filter);
    tracing::Dispatch::new(tracing_subscriber::registry().with(filter).with(HostLayer { host }))
}

struct HostLayer {
    host: HostHandle,
}

struct Fields(Map<String, Value>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.insert(field.name().into(), format!("{value:?}").into());
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().into(), value.into());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().into(), value.into());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().into(), value.into());
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.insert(field.name().into(), value.into());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().into(), value.into());
    }
}

struct SpanData {
    fields: Fields,
    work: Option<(&'static str, Value)>,
    start_unix_ns: u64,
}

fn unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn work() -> Option<(&'static str, Value)> {
    let work = current()?;
    let id = uuid::Uuid::from_bytes(work.id);
    Some(match work.kind {
        "task" => ("task", json!({ "task": &*work.name, "task_id": id })),
        _ => ("route", json!({ "route": &*work.name, "request_id": id.simple().to_string() })),
    })
}

fn level(level: Level) -> u8 {
    match level {
        Level::ERROR => 1,
        Level::WARN => 2,
        Level::INFO => 3,
        Level::DEBUG => 4,
        Level::TRACE => 5,
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for HostLayer {
    fn on_new_span(&self, attrs: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        let Some(span) = ctx.span(id) else { return };
        let mut fields = Fields(Map::new());
        attrs.record(&mut fields);
        let inherited =
            || span.parent().and_then(|p| p.extensions().get::<SpanData>().and_then(|d| d.work.clone()));
        let work = work().or_else(inherited);
        span.extensions_mut().insert(SpanData { fields, work, start_unix_ns: unix_ns() });
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, ctx: Context<'_, S>) {
        if let Some(span) = ctx.span(id)
            && let Some(data) = span.extensions_mut().get_mut::<SpanData>()
        {
            values.record(&mut data.fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, ctx: Context<'_, S>) {
        let mut fields = Fields(Map::new());
        event.record(&mut fields);
        let normalised = tracing_log::NormalizeEvent::normalized_metadata(event);
        let meta = normalised.as_ref().unwrap_or_else(|| event.metadata());
        let message = fields.0.remove("message").unwrap_or_default();
        fields.0.retain(|name, _| !name.starts_with("log."));
        let mut work = work();
        let mut spans = Vec::new();
        if let Some(scope) = ctx.event_scope(event) {
            for span in scope.from_root() {
                if let Some(data) = span.extensions().get::<SpanData>() {
                    spans.push(json!({ "name": span.name(), "fields": data.fields.0 }));
                    work = work.or_else(|| data.work.clone());
                }
            }
        }
        let body = json!({
            "message": message,
            "fields": fields.0,
            "spans": spans,
            "work": work.map(|(_, work)| work),
        });
        let record = LogRecord {
            level: level(*meta.level()),
            target: FfiBytes::from(meta.target().to_owned()),
            body: FfiBytes::from(body.to_string()),
            ext: FfiBytes::empty(),
        };
        (self.host.vtable.log())(self.host.ctx, record);
    }

    fn on_close(&self, id: Id, ctx: Context<'_, S>) {
        let Some(span) = ctx.span(&id) else { return };
        let Some(data) = span.extensions_mut().remove::<SpanData>() else { return };
        let body = json!({
            "name": span.name(),
            "target": span.metadata().target(),
            "id": id.into_u64(),
            "parent": span.parent().map(|parent| parent.id().into_u64()),
            "fields": data.fields.0,
            "work": data.work.map(|(_, work)| work),
        });
        let record = SpanRecord {
            start_unix_ns: data.start_unix_ns,
            end_unix_ns: unix_ns(),
            body: FfiBytes::from(body.to_string()),
            ext: FfiBytes::empty(),
        };
        (self.host.vtable.span())(self.host.ctx, record);
    }
}
