//! What the broker keeps beside the queues, and a word where it comes near its bound.

use cardcage_protocol::Timestamp;
use serde_json::{Value, json};

use crate::broker::Store;
use crate::command::session::age;

/// From here on a store is worth a word.
const NEARLY_FULL: f64 = 0.8;

pub(super) fn entry(store: &Store) -> Value {
    json!({
        "store": store.name,
        "messages": store.messages,
        "bytes": store.bytes,
        "max_messages": store.max_messages,
        "max_bytes": store.max_bytes,
        "oldest_at": store.oldest,
        "when_full": if store.drops_oldest { "drops_oldest" } else { "refuses" },
    })
}

/// One sentence about a store that is full, or nearly so.
pub(super) fn warning(store: &Store, now: Timestamp) -> Option<String> {
    let Store { name, messages, max_messages, .. } = *store;
    let fill = store.fill();
    if fill < NEARLY_FULL {
        return None;
    }
    let remedy = format!("raise stores.{name}_max_messages, or its bound in bytes");
    Some(if fill < 1.0 {
        format!("the store {name} is nearly full ({messages} of {max_messages} messages): {remedy}")
    } else if store.drops_oldest {
        let oldest = age(store.oldest, now);
        format!(
            "the store {name} is full ({messages} of {max_messages} messages), and its oldest, now {oldest} old, go before \
             their time: {remedy}"
        )
    } else {
        format!(
            "the store {name} is full ({messages} of {max_messages} messages), and refuses what is new: {remedy}"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_worth_a_word_from_four_fifths_on() {
        let store = |messages, drops_oldest| Store {
            name: "dead",
            messages,
            bytes: 0,
            max_messages: 10,
            max_bytes: None,
            oldest: Some(Timestamp::from_unix_ms(0)),
            drops_oldest,
        };
        let says = |messages, drops| warning(&store(messages, drops), Timestamp::from_unix_ms(600_000));
        assert_eq!(says(7, true), None);
        assert!(says(8, true).unwrap().contains("nearly full (8 of 10"));
        assert!(says(10, true).unwrap().contains("now 10m old"));
        assert!(says(10, false).unwrap().contains("refuses what is new"));
    }
}
