//! A Stripe event, read just as far as the tasks need it.
//!
//! What becomes a task's body is taken from the event's `data.object` only. The envelope around it differs between two
//! deliveries of one event (`pending_webhooks`), and a body under the same idempotency key must not.

use crate::record::{Dispute, FailedPayment, Payment, Refund};
use plugin_api::prelude::*;

/// What an event asks for.
#[derive(Debug, PartialEq)]
pub(crate) enum Work {
    Payment(Payment),
    FailedPayment(FailedPayment),
    Refund(Refund),
    Dispute(Dispute),
    /// Nothing: there is no task for this type.
    Ignored,
}

/// An event: its id, its type, and the work in it.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) id: String,
    pub(crate) kind: String,
    pub(crate) work: Work,
}

#[derive(Deserialize)]
struct Raw<'a> {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(borrow)]
    data: Data<'a>,
}

#[derive(Deserialize)]
struct Data<'a> {
    #[serde(borrow)]
    object: &'a serde_json::value::RawValue,
}

/// The members of the several objects that some task needs. Amounts are in the currency's smallest unit.
#[derive(Deserialize)]
struct Object {
    id: String,
    amount: Option<i64>,
    amount_received: Option<i64>,
    amount_refunded: Option<i64>,
    amount_total: Option<i64>,
    amount_paid: Option<i64>,
    currency: Option<String>,
    customer: Option<Reference>,
    charge: Option<Reference>,
    status: Option<String>,
    payment_status: Option<String>,
    reason: Option<String>,
    last_payment_error: Option<PaymentError>,
}

#[derive(Deserialize)]
struct PaymentError {
    code: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
}

/// An id, or the object that it names.
#[derive(Deserialize)]
#[serde(untagged)]
enum Reference {
    Id(String),
    Object { id: String },
}

impl Reference {
    fn id(self) -> String {
        match self {
            Self::Id(id) | Self::Object { id } => id,
        }
    }
}

impl Event {
    /// Reads an event. An object is looked into only where there is a task for it.
    ///
    /// # Errors
    /// It is no JSON, or lacks what its type must have.
    pub(crate) fn read(body: &[u8]) -> Result<Self, serde_json::Error> {
        let raw: Raw<'_> = serde_json::from_slice(body)?;
        let work = work(&raw)?;
        Ok(Self { id: raw.id, kind: raw.kind, work })
    }
}

fn work(raw: &Raw<'_>) -> Result<Work, serde_json::Error> {
    let object = || serde_json::from_str::<Object>(raw.data.object.get());
    let event_id = raw.id.clone();
    Ok(match raw.kind.as_str() {
        kind @ ("payment_intent.succeeded" | "checkout.session.completed" | "invoice.paid") => {
            let object = object()?;
            let (amount, status) = match kind {
                "payment_intent.succeeded" => (object.amount_received, object.status),
                "checkout.session.completed" => (object.amount_total, object.payment_status),
                _ => (object.amount_paid, object.status),
            };
            Work::Payment(Payment {
                event_id,
                kind: kind.to_owned(),
                object_id: object.id,
                amount,
                currency: object.currency,
                customer: object.customer.map(Reference::id),
                status,
            })
        }
        "payment_intent.payment_failed" => {
            let object = object()?;
            Work::FailedPayment(FailedPayment {
                event_id,
                object_id: object.id,
                amount: object.amount,
                currency: object.currency,
                customer: object.customer.map(Reference::id),
                reason: object.last_payment_error.and_then(|error| error.code.or(error.kind)),
            })
        }
        kind @ ("charge.refunded" | "refund.created") => {
            let object = object()?;
            let is_charge = kind == "charge.refunded";
            let charge = if is_charge { Some(object.id.clone()) } else { object.charge.map(Reference::id) };
            Work::Refund(Refund {
                event_id,
                kind: kind.to_owned(),
                object_id: object.id,
                charge,
                amount: if is_charge { object.amount_refunded } else { object.amount },
                currency: object.currency,
                customer: object.customer.map(Reference::id),
            })
        }
        "charge.dispute.created" => {
            let object = object()?;
            Work::Dispute(Dispute {
                event_id,
                object_id: object.id,
                charge: object.charge.map(Reference::id),
                amount: object.amount,
                currency: object.currency,
                customer: object.customer.map(Reference::id),
                reason: object.reason,
            })
        }
        _ => Work::Ignored,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, object: &Value) -> Vec<u8> {
        json!({"id": "evt_1", "type": kind, "data": {"object": object}}).to_string().into_bytes()
    }

    #[test]
    fn each_type_takes_the_amount_that_moved() {
        let object = json!({"id": "x_1", "amount": 1, "amount_received": 2, "amount_refunded": 3, "amount_total": 4,
            "amount_paid": 5, "currency": "usd", "customer": {"id": "cus_1"}, "charge": "ch_1"});
        let amount = |kind: &str| match Event::read(&event(kind, &object)).unwrap().work {
            Work::Payment(payment) => payment.amount,
            Work::FailedPayment(payment) => payment.amount,
            Work::Refund(refund) => {
                assert_eq!(
                    refund.charge.as_deref(),
                    Some(if kind == "refund.created" { "ch_1" } else { "x_1" })
                );
                refund.amount
            }
            Work::Dispute(dispute) => {
                assert_eq!(dispute.customer.as_deref(), Some("cus_1"));
                dispute.amount
            }
            Work::Ignored => None,
        };
        let amounts = [
            ("payment_intent.payment_failed", Some(1)),
            ("payment_intent.succeeded", Some(2)),
            ("charge.refunded", Some(3)),
            ("checkout.session.completed", Some(4)),
            ("invoice.paid", Some(5)),
            ("refund.created", Some(1)),
            ("charge.dispute.created", Some(1)),
            ("customer.deleted", None),
        ];
        for (kind, expected) in amounts {
            assert_eq!(amount(kind), expected, "{kind}");
        }
    }

    #[test]
    fn second_delivery_makes_the_same_work_whatever_stands_around_the_object() {
        let object = json!({"id": "pi_1", "amount_received": 2, "currency": "usd"});
        let again = json!({"id": "evt_1", "type": "payment_intent.succeeded", "data": {"object": object},
            "pending_webhooks": 3, "request": {"id": "req_1"}});
        let first = Event::read(&event("payment_intent.succeeded", &object)).unwrap();
        assert_eq!(first.work, Event::read(again.to_string().as_bytes()).unwrap().work);
    }

    #[test]
    fn what_is_no_event_is_an_error() {
        for body in ["", "{}", "[]", r#"{"id": "evt_1", "type": "invoice.paid"}"#] {
            assert!(Event::read(body.as_bytes()).is_err(), "{body}");
        }
        assert!(Event::read(&event("invoice.paid", &json!({"id": 7}))).is_err());
        // An object that no task looks into may be anything.
        assert!(Event::read(&event("customer.deleted", &json!({"id": 7}))).is_ok());
    }
}
