//! The tasks: what moved is recorded.
//!
//! Stripe repeats events and sends them in any order, so each record stands for itself, named by its event. This example
//! has no ledger to write to: the record is the task's result, where `GET /tasks/{id}` shows it.

use crate::App;
use plugin_api::prelude::*;

/// Money came in, or was promised.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Payment {
    pub(crate) event_id: String,
    /// The event's type.
    pub(crate) kind: String,
    /// The payment intent, checkout session or invoice.
    pub(crate) object_id: String,
    /// In the currency's smallest unit; a checkout session may have none.
    pub(crate) amount: Option<i64>,
    pub(crate) currency: Option<String>,
    pub(crate) customer: Option<String>,
    /// As Stripe names it: `succeeded`, `paid`, `unpaid` and so on.
    pub(crate) status: Option<String>,
}

/// A payment did not go through.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct FailedPayment {
    pub(crate) event_id: String,
    /// The payment intent.
    pub(crate) object_id: String,
    /// In the currency's smallest unit.
    pub(crate) amount: Option<i64>,
    pub(crate) currency: Option<String>,
    pub(crate) customer: Option<String>,
    /// Stripe's code for why.
    pub(crate) reason: Option<String>,
}

/// Money went back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Refund {
    pub(crate) event_id: String,
    /// The event's type. `charge.refunded` counts all refunds of the charge so far, `refund.created` is one of them.
    pub(crate) kind: String,
    /// The charge or the refund.
    pub(crate) object_id: String,
    pub(crate) charge: Option<String>,
    /// In the currency's smallest unit.
    pub(crate) amount: Option<i64>,
    pub(crate) currency: Option<String>,
    pub(crate) customer: Option<String>,
}

/// A cardholder objects to a charge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Dispute {
    pub(crate) event_id: String,
    /// The dispute.
    pub(crate) object_id: String,
    pub(crate) charge: Option<String>,
    /// In the currency's smallest unit.
    pub(crate) amount: Option<i64>,
    pub(crate) currency: Option<String>,
    pub(crate) customer: Option<String>,
    /// Stripe's word for why.
    pub(crate) reason: Option<String>,
}

/// What was recorded.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Recorded {
    /// `payment`, `failed_payment`, `refund` or `dispute`.
    pub(crate) kind: &'static str,
    /// In the currency's smallest unit.
    pub(crate) amount: Option<i64>,
    pub(crate) currency: Option<String>,
    pub(crate) customer: Option<String>,
    pub(crate) event_id: String,
}

impl Recorded {
    fn log(self, object_id: &str) -> Self {
        info!(kind = self.kind, object_id, event_id = self.event_id, "money recorded");
        self
    }
}

/// Records a payment.
#[task(retry(max_attempts = 10, backoff = "1s..10m"), timeout = "30s")]
pub(crate) async fn record_payment(_ctx: TaskContext<App>, payment: Payment) -> TaskResult<Recorded> {
    let Payment { event_id, object_id, amount, currency, customer, .. } = payment;
    Ok(Recorded { kind: "payment", amount, currency, customer, event_id }.log(&object_id))
}

/// Records a payment that did not go through.
#[task(retry(max_attempts = 10, backoff = "1s..10m"), timeout = "30s")]
pub(crate) async fn record_failed_payment(
    _ctx: TaskContext<App>,
    payment: FailedPayment,
) -> TaskResult<Recorded> {
    let FailedPayment { event_id, object_id, amount, currency, customer, .. } = payment;
    Ok(Recorded { kind: "failed_payment", amount, currency, customer, event_id }.log(&object_id))
}

/// Records a refund.
#[task(retry(max_attempts = 10, backoff = "1s..10m"), timeout = "30s")]
pub(crate) async fn record_refund(_ctx: TaskContext<App>, refund: Refund) -> TaskResult<Recorded> {
    let Refund { event_id, object_id, amount, currency, customer, .. } = refund;
    Ok(Recorded { kind: "refund", amount, currency, customer, event_id }.log(&object_id))
}

/// Records a dispute.
#[task(retry(max_attempts = 10, backoff = "1s..10m"), timeout = "30s")]
pub(crate) async fn record_dispute(_ctx: TaskContext<App>, dispute: Dispute) -> TaskResult<Recorded> {
    let Dispute { event_id, object_id, amount, currency, customer, .. } = dispute;
    Ok(Recorded { kind: "dispute", amount, currency, customer, event_id }.log(&object_id))
}
