//! The options that bound what the broker keeps beside the queues, in a file of their own as they are many.
//!
//! Every bound is a number of messages; bytes are bounded besides where bodies make them unlike. A bound in bytes of a
//! stream is disk that the broker sets aside when it creates it: so those are unset unless an operator says otherwise.

use serde::{Deserialize, Serialize};

use super::kind::integer;
use super::options::{Preset, Row, Section, preset, section};

/// The most that a bound can be.
const MESSAGES_MAX: u64 = 1_000_000_000;
/// The same in bytes.
const BYTES_MAX: u64 = 1_099_511_627_776;

section! {
    /// How much the broker keeps beside the queues, and so at most: it holds an index of every message in memory, about a kilobyte of each.
    STORES = "stores", Stores {
        /// Records of tasks; one more drops the oldest, before its `tasks.result_ttl_s`. Keep more than end within two leases: they are how a redelivery knows that a task has ended.
        records_max_messages: u64 = 50_000_000, integer(1_000, MESSAGES_MAX);
        /// Bytes of records; more drops the oldest. Unset means that only their number is bounded; the broker sets so much disk aside.
        records_max_bytes: Option<u64> = unset(107_374_182_400), integer(16_777_216, BYTES_MAX);
        /// Dead letters, of all plugins; one more drops the oldest, before its `tasks.dead_max_age_s`.
        dead_max_messages: u64 = 1_000_000, integer(1, MESSAGES_MAX);
        /// Bytes of dead letters; more drops the oldest. Unset means that only their number is bounded; the broker sets so much disk aside.
        dead_max_bytes: Option<u64> = unset(10_737_418_240), integer(1_048_576, BYTES_MAX);
        /// Tasks that may wait for their time; one more gets 503 `schedule_full`. Retries are stored all the same.
        delayed_max_messages: u64 = 5_000_000, integer(1, MESSAGES_MAX);
        /// Bytes of them; more gets 503 `schedule_full`. Hosts count, and the broker sets nothing aside.
        delayed_max_bytes: u64 = 8_589_934_592, integer(1_048_576, BYTES_MAX);
        /// Tasks that may be parked; one more stays in its queue, leased, until there is room.
        parked_max_messages: u64 = 1_000_000, integer(1, MESSAGES_MAX);
        /// Tasks that may wait for their serial key; one more stays in its queue, leased, until there is room.
        lines_max_messages: u64 = 10_000_000, integer(1, MESSAGES_MAX);
        /// Idempotency keys; a request with a new one gets 503 `keys_full`.
        idempotency_max_messages: u64 = 50_000_000, integer(1, MESSAGES_MAX);
        /// Unique and serial keys, things done once, rates and what operators have set; a new one is refused, an enqueue under a unique key with 503 `keys_full`.
        limits_max_messages: u64 = 10_000_000, integer(1_000, MESSAGES_MAX);
    }
}
