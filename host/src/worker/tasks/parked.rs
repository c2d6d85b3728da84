//! Brings back the parked tasks that this version can read: whose body its schema accepts, or which it may upcast.
//!
//! Looked at when the worker starts and about once per lease from then on: in a mixed installation the version that
//! cannot read a task may take it while one that can is long there. Each parked message is judged once per process, for
//! its schema does not change; only what could not be moved is looked at again.
//!
//! A canceller that was killed half-way leaves a parked message of a task that has ended, or that is only marked. Such a
//! message would outlive its record and look like a task again; so each round also reads the records of some parked
//! tasks, a bounded number, in turn.
//!
//! Refuses: a task that was parked by this very schema, or by this version where it upcasts. What it accepted and the
//! handler's type did not would be parked again at once. So whether a version can upcast a body, which only its own code
//! knows, is found out once by a delivery, and costs no attempt.

use super::unit::Unit;
use crate::broker::{Error, ParkedTask};
use crate::unpark::{Unparked, unpark};
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long a look waits for the connection.
const CONNECT_WAIT: Duration = Duration::from_secs(2);
/// Parked tasks that one request brings.
const LOOK_MAX: usize = 4096;
/// Parked tasks whose records are read in one round.
const TIDY_MAX: usize = 256;

/// Brings tasks back until it is dropped.
pub(super) async fn watch(unit: Arc<Unit>) {
    let Some(task) = unit.room.plugin.description.tasks.get(unit.place) else { return };
    let validator = match jsonschema::validator_for(&task.input_schema) {
        Ok(validator) => validator,
        Err(error) => {
            let (plugin, task) = (unit.room.name.as_str(), unit.name.as_str());
            tracing::warn!(plugin, task, %error, "parked tasks do not come back: the task's schema cannot be compiled");
            return;
        }
    };
    let shared = &unit.shared;
    let (mut from, mut tidied) = (1, 1);
    loop {
        if shared.broker.wait_connected(CONNECT_WAIT).await.is_ok() {
            match look(&unit, &validator, from).await {
                Ok(next) => from = next,
                Err(error) => tracing::debug!(%error, "parked tasks cannot be looked at now"),
            }
            match tidy(&unit, tidied).await {
                Ok(next) => tidied = next,
                Err(error) => {
                    tracing::debug!(%error, "what is left of parked tasks cannot be looked for now")
                }
            }
        }
        // Drawn, so that the workers do not all look at once.
        tokio::time::sleep(shared.lease.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
    }
}

/// Looks at what was parked from sequence `from` on; returns where the next look begins.
async fn look(unit: &Unit, validator: &jsonschema::Validator, from: u64) -> Result<u64, Error> {
    let (shared, plugin, task) = (&unit.shared, &unit.room.name, &unit.name);
    let (mut next, mut unsettled) = (from, None);
    while let Some((page, end)) = shared.broker.parked_page(plugin, task, next, LOOK_MAX).await? {
        for parked in page.iter().filter(|parked| is_readable(unit, validator, parked)) {
            // A quarantined version would only have it wait in another place; one that drains takes nothing.
            if unit.room.gate.is_closed() || shared.stop.is_cancelled() {
                return Ok(unsettled.unwrap_or(parked.sequence));
            }
            let id = parked.address.id;
            match unpark(&shared.broker, parked).await {
                Ok(Unparked::Queued) => {
                    shared.counters.unparked.fetch_add(1, Ordering::Relaxed);
                    tracing::info!(%plugin, %task, %id, "a parked task came back: this version may read it");
                }
                Ok(Unparked::Gone) => {}
                Ok(Unparked::Busy) => unsettled = unsettled.or(Some(parked.sequence)),
                Err(error) => {
                    tracing::warn!(%plugin, %task, %id, %error, "a parked task cannot be brought back yet");
                    unsettled = unsettled.or(Some(parked.sequence));
                }
            }
        }
        next = end;
    }
    Ok(unsettled.unwrap_or(next))
}

fn is_readable(unit: &Unit, validator: &jsonschema::Validator, parked: &ParkedTask) -> bool {
    let upcasts = || unit.room.plugin.description.tasks.get(unit.place).is_some_and(|task| task.upcasts);
    parked.address.major == unit.room.plugin.identity.major
        && !parked.schemas.contains(&unit.schema)
        && serde_json::from_slice::<Value>(&parked.body)
            .is_ok_and(|body| upcasts() || validator.is_valid(&body))
}

/// Ends what was cancelled among some parked tasks, and removes what has ended; returns where the next round begins.
async fn tidy(unit: &Unit, from: u64) -> Result<u64, Error> {
    let (broker, plugin, task) = (&unit.shared.broker, &unit.room.name, &unit.name);
    let Some((page, next)) = broker.parked_page(plugin, task, from, TIDY_MAX).await? else { return Ok(1) };
    for parked in &page {
        let id = parked.address.id;
        let record = match broker.read_record(id).await {
            // It costs itself, and none of those behind it.
            Err(Error::Unreadable { .. }) => continue,
            other => other?.map(|(record, _)| record),
        };
        let is_over =
            record.is_some_and(|record| record.state.is_final() || record.cancel_requested_at.is_some());
        if is_over && unpark(broker, parked).await? == Unparked::Gone {
            tracing::info!(%plugin, %task, %id, "what was left of a parked task that is over was removed");
        }
    }
    Ok(next)
}
