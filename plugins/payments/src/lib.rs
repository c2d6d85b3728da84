//! Takes Stripe's webhooks: verifies, enqueues, answers. The work is done by tasks, on workers.
//!
//! The route runs in the API instance, because Stripe wants a quick 2xx and sends again until it gets one. A 2xx is a
//! promise, so it is given only once the broker has stored the task; a second delivery of the same event finds the
//! first one's task by the event's id and starts nothing.
//!
//! # What it refuses
//! An event whose signature does not hold, and to look at any part of an event before its signature holds.

mod event;
mod record;
mod signature;
#[cfg(test)]
mod tests;

use event::{Event, Work};
use plugin_api::prelude::*;
use record::{record_dispute, record_failed_payment, record_payment, record_refund};
use signature::Verifier;

/// The plugin's settings.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// The endpoint's signing secrets (`whsec_…`), any of which may sign: two while one is being replaced.
    stripe_webhook_secrets: Vec<String>,
    /// How old, or how far ahead, a signature may be, in seconds. 1 to 86400.
    #[serde(default = "five_minutes_s")]
    signature_tolerance_s: u64,
}

fn five_minutes_s() -> u64 {
    300
}

#[derive(Debug, Clone)]
struct App {
    verifier: Verifier,
}

impl App {
    async fn start(ctx: PluginContext) -> Result<App, InitError> {
        let settings: Settings = ctx.config()?;
        if settings.stripe_webhook_secrets.is_empty() {
            return Err(InitError::new(
                "`stripe_webhook_secrets` is empty: name at least one signing secret of the webhook endpoint",
            ));
        }
        if let Some(place) =
            settings.stripe_webhook_secrets.iter().position(|secret| secret.trim().is_empty())
        {
            return Err(InitError::new(format!(
                "`stripe_webhook_secrets[{place}]` is an empty secret, which anyone can sign with: \
                 check the variable or file that it comes from, or remove it"
            )));
        }
        if !(1..=86_400).contains(&settings.signature_tolerance_s) {
            return Err(InitError::new(
                "`signature_tolerance_s` lies between 1 and 86400 (Stripe's default is 300)",
            ));
        }
        let secrets = settings.stripe_webhook_secrets.iter().map(|secret| secret.trim());
        let tolerance = Duration::from_secs(settings.signature_tolerance_s);
        Ok(App { verifier: Verifier::new(secrets, tolerance) })
    }
}

/// An event that no task is made of.
#[derive(Debug, Serialize, ToSchema)]
struct Ignored {
    /// Always true.
    ignored: bool,
    /// The event's type.
    r#type: String,
}

/// Takes a Stripe event.
#[utoipa::path(post, path = "/stripe/webhook",
    params(("Stripe-Signature" = String, Header, description = "`t=<unix>,v1=<hex>`, several `v1` allowed")),
    request_body(content = Value, content_type = "application/json", description = "A Stripe event, as it was signed"),
    responses(
        (status = 202, description = "The task is stored; the body is its receipt"),
        (status = 200, description = "There is no task for events of this type", body = Ignored),
        (status = 400, description = "signature_missing, signature_invalid, signature_expired or event_unreadable"),
        (status = 503, description = "The task cannot be stored now; Stripe sends again")))]
async fn webhook(
    State(app): State<App>,
    tasks: Tasks,
    request: RequestContext,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let header = headers.get("stripe-signature").map(|value| value.to_str().unwrap_or_default());
    app.verifier.verify(header, &body, request.now()).map_err(|error| {
        warn!(reason = error.code(), "webhook refused");
        Problem::bad_request(error.code(), error.to_string())
    })?;
    let event = Event::read(&body).map_err(|error| {
        warn!(%error, "signed event cannot be read");
        Problem::bad_request("event_unreadable", "the body is signed, but is no event that can be read")
    })?;
    let enqueue = match event.work {
        Work::Payment(payment) => tasks.enqueue(record_payment, payment),
        Work::FailedPayment(payment) => tasks.enqueue(record_failed_payment, payment),
        Work::Refund(refund) => tasks.enqueue(record_refund, refund),
        Work::Dispute(dispute) => tasks.enqueue(record_dispute, dispute),
        Work::Ignored => return Ok(Json(Ignored { ignored: true, r#type: event.kind }).into_response()),
    };
    Ok(enqueue.idempotency_key(event.id).await?.into_response())
}

fn definition() -> Plugin<App> {
    Plugin::new(App::start)
        .config::<Settings>()
        .inline(routes!(webhook))
        .task(record_payment)
        .task(record_failed_payment)
        .task(record_refund)
        .task(record_dispute)
}

plugin! {
    name = "payments",
    build = definition()
}
