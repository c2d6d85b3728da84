//! What should become of each sample. Written down here, not asked of the plugins: the demo checks them.

use serde_json::Value;

/// Stripe's event types that the payments plugin has a task for.
const STRIPE_HANDLED: [&str; 7] = [
    "payment_intent.succeeded",
    "payment_intent.payment_failed",
    "checkout.session.completed",
    "charge.refunded",
    "refund.created",
    "charge.dispute.created",
    "invoice.paid",
];

/// The message types that start a fulfilment in the orders plugin.
const FULFILMENTS: [&str; 2] = ["OrderStateChanged", "LineItemStateTransition"];

/// What should become of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expected {
    /// 202, and the task succeeds, with this many attempts.
    Succeeded { attempts: usize },
    /// 202 with the receipt of a task that is there already.
    SameTask(String),
    /// 200 with `{"ignored": true}`, and no task.
    Ignored,
    /// This status, and no task.
    Status(u16),
}

/// What should become of a Stripe event.
pub(crate) fn of_event(event: &Value) -> Expected {
    let kind = event.get("type").and_then(Value::as_str).unwrap_or_default();
    if STRIPE_HANDLED.contains(&kind) { Expected::Succeeded { attempts: 1 } } else { Expected::Ignored }
}

/// What should become of a commercetools message.
pub(crate) fn of_message(message: &Value) -> Expected {
    if is_fulfilment(message) { Expected::Succeeded { attempts: 1 } } else { Expected::Ignored }
}

/// Whether a commercetools message starts a fulfilment.
pub(crate) fn is_fulfilment(message: &Value) -> bool {
    let kind = message.pointer("/detail/type").and_then(Value::as_str).unwrap_or_default();
    FULFILMENTS.contains(&kind)
}

impl std::fmt::Display for Expected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Succeeded { attempts: 1 } => write!(f, "succeeded at once"),
            Self::Succeeded { attempts } => write!(f, "succeeded at attempt {attempts}"),
            Self::SameTask(_) => write!(f, "the same task"),
            Self::Ignored => write!(f, "200, ignored"),
            Self::Status(status) => write!(f, "{status}"),
        }
    }
}
