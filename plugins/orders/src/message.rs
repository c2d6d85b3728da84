//! commercetools' subscription messages, as they come through EventBridge: an envelope whose `detail` is the message.
//!
//! # Which messages mean that an order is ready
//! * `OrderStateChanged` to `Complete`, and `OrderPaymentStateChanged` to `Paid`: the order as a whole is ready.
//! * `LineItemStateTransition`: a line has moved on in its workflow. The target state comes as an id that differs per
//!   project, so `line_ready_states` names those that count; where it names none, each of them does.
//!
//! Each means the same: enrol the learner for whatever line of the order has no enrolment yet. So it does not matter
//! which of them comes first, or that several come for one order.
//!
//! # What it refuses
//! Messages of another project: they are answered as ignored, for sending them again would not help.

use plugin_api::prelude::*;

/// A message, as far as it is needed.
#[derive(Debug, Deserialize)]
pub(crate) struct Envelope {
    pub(crate) detail: Message,
}

/// What commercetools published.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Message {
    /// Names the message. The envelope's id names one delivery: it differs where commercetools publishes again.
    pub(crate) id: String,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) project_key: Option<String>,
    pub(crate) resource: Reference,
    order_state: Option<String>,
    payment_state: Option<String>,
    to_state: Option<Reference>,
}

/// A pointer to something in commercetools.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Reference {
    pub(crate) type_id: String,
    pub(crate) id: String,
}

impl Message {
    /// Reads a message out of its envelope.
    ///
    /// # Errors
    /// It is no JSON, or lacks what every message has.
    pub(crate) fn read(body: &[u8]) -> Result<Self, serde_json::Error> {
        Ok(serde_json::from_slice::<Envelope>(body)?.detail)
    }

    /// Whether the message means that its order can be fulfilled.
    pub(crate) fn is_order_ready(&self, line_ready_states: &[String]) -> bool {
        self.resource.type_id == "order"
            && match self.kind.as_str() {
                "OrderStateChanged" => self.order_state.as_deref() == Some("Complete"),
                "OrderPaymentStateChanged" => self.payment_state.as_deref() == Some("Paid"),
                "LineItemStateTransition" => {
                    let reached = |state: &Reference| line_ready_states.contains(&state.id);
                    line_ready_states.is_empty() || self.to_state.as_ref().is_some_and(reached)
                }
                _ => false,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: &str, more: Value) -> Message {
        let mut detail = json!({"id": "m1", "type": kind, "resource": {"typeId": "order", "id": "o1"}});
        detail.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Message::read(json!({"id": "e1", "detail": detail}).to_string().as_bytes()).unwrap()
    }

    #[test]
    fn order_is_ready_when_complete_or_paid() {
        assert!(message("OrderStateChanged", json!({"orderState": "Complete"})).is_order_ready(&[]));
        assert!(!message("OrderStateChanged", json!({"orderState": "Cancelled"})).is_order_ready(&[]));
        assert!(message("OrderPaymentStateChanged", json!({"paymentState": "Paid"})).is_order_ready(&[]));
        assert!(!message("OrderPaymentStateChanged", json!({"paymentState": "Failed"})).is_order_ready(&[]));
        assert!(!message("ReturnInfoSet", json!({})).is_order_ready(&[]));
    }

    #[test]
    fn line_is_ready_in_the_states_that_are_named() {
        let moved = message("LineItemStateTransition", json!({"toState": {"typeId": "state", "id": "s2"}}));
        assert!(moved.is_order_ready(&[]));
        assert!(moved.is_order_ready(&["s1".into(), "s2".into()]));
        assert!(!moved.is_order_ready(&["s1".into()]));
    }

    #[test]
    fn message_of_something_else_than_an_order_is_not_ready() {
        let other = message(
            "OrderStateChanged",
            json!({"orderState": "Complete", "resource":
            {"typeId": "cart", "id": "c1"}}),
        );
        assert!(!other.is_order_ready(&[]));
    }
}
