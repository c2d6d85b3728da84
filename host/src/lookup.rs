//! What people are told of a task: the JSON of `GET /tasks/{id}` and `cardcage tasks show`.

use crate::broker::{Broker, Error, Place, Waiting};
use cardcage_protocol::{State, TaskId, TaskRecord, Timestamp};
use serde::Deserialize as _;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// How long a holder has to say that it runs the task.
const HOLDER_WAIT: Duration = Duration::from_millis(100);

/// The task as JSON, or `None` where there is none.
///
/// # Errors
/// The broker cannot be asked: then nothing is known.
pub async fn show(broker: &Broker, id: TaskId) -> Result<Option<Value>, Error> {
    Ok(match broker.find_task(id).await? {
        None => None,
        Some(Place::Recorded(record, _)) => {
            let mut view = recorded(&record);
            // A canceller's mark may stand while a first attempt runs, which nobody records. Of a later one the holder
            // knows the progress.
            if matches!(record.state, State::Queued | State::Running)
                || (record.cancel_requested_at.is_some() && !record.state.is_final())
            {
                held(broker, id, &mut view).await?;
            }
            Some(Value::Object(view))
        }
        Some(Place::Queued(waiting)) => {
            let mut view = waiting_view(&waiting, State::Queued, None);
            held(broker, id, &mut view).await?;
            Some(Value::Object(view))
        }
        Some(Place::Parked(waiting)) => Some(Value::Object(waiting_view(&waiting, State::Parked, None))),
        Some(Place::Due(waiting)) => Some(Value::Object(waiting_view(&waiting, State::Queued, None))),
        Some(Place::Scheduled(waiting, at)) => {
            Some(Value::Object(waiting_view(&waiting, State::Scheduled, at)))
        }
    })
}

/// Whether a view is of a task that has ended.
#[must_use]
pub fn has_ended(view: &Value) -> bool {
    view.get("state").is_some_and(|state| State::deserialize(state).is_ok_and(State::is_final))
}

/// Adds what the holder says: worker, since when, which attempt.
async fn held(broker: &Broker, id: TaskId, view: &mut Map<String, Value>) -> Result<(), Error> {
    let Some(answer) = broker.ask_holder(id, HOLDER_WAIT).await? else { return Ok(()) };
    let Ok(Value::Object(holder)) = serde_json::from_slice::<Value>(&answer) else { return Ok(()) };
    let n = holder.get("attempt").cloned().unwrap_or_default();
    let attempt = json!({ "n": n, "worker": holder.get("worker"), "started_at": holder.get("since") });
    view.insert("state".into(), State::Running.to_string().into());
    let attempts = view.entry("attempts").or_insert_with(|| json!([]));
    if let Some(attempts) = attempts.as_array_mut()
        && !attempts.iter().any(|known| known.get("n") == Some(&n))
    {
        attempts.push(attempt);
    }
    view.insert("attempt".into(), n);
    if let Some(progress) = holder.get("progress").filter(|progress| !progress.is_null()) {
        view.insert("progress".into(), progress.clone());
    }
    Ok(())
}

fn links(id: TaskId, state: State) -> Value {
    let own = format!("/tasks/{id}");
    match state.is_final() {
        true => json!({ "self": own }),
        false => json!({ "self": own, "cancel": format!("{own}/cancel"), "events": format!("{own}/events") }),
    }
}

fn waiting_view(waiting: &Waiting, state: State, next_at: Option<Timestamp>) -> Map<String, Value> {
    let address = &waiting.address;
    let envelope = waiting.envelope.as_ref();
    let view = json!({
        "id": address.id,
        "plugin": address.plugin,
        "task": address.task,
        "version": envelope.map(|envelope| envelope.version.to_string()),
        "state": state.to_string(),
        "attempt": 0,
        "attempts": [],
        "enqueued_at": envelope.map(|envelope| envelope.enqueued_at),
        "parent_id": envelope.and_then(|envelope| envelope.parent_id),
        "next_at": next_at,
        "links": links(address.id, state),
    });
    match view {
        Value::Object(view) => view,
        _ => Map::new(),
    }
}

fn recorded(record: &TaskRecord) -> Map<String, Value> {
    let attempts = serde_json::to_value(&record.attempts).unwrap_or_default();
    let view = json!({
        "id": record.id,
        "plugin": record.plugin,
        "task": record.task,
        "version": record.version,
        "state": record.state.to_string(),
        "attempt": record.attempts.last().map_or(0, |attempt| attempt.n),
        "attempts": attempts,
        "enqueued_at": record.enqueued_at,
        "parent_id": record.parent_id,
        "finished_at": record.finished_at,
        "next_at": record.next_at,
        "cancel_requested_at": record.cancel_requested_at,
        "parked_schemas": record.parked.as_ref().filter(|_| record.state == State::Parked).map(|parked| &parked.schemas),
        "result": record.result,
        "error": record.error,
        "links": links(record.id, record.state),
    });
    let mut view = match view {
        Value::Object(view) => view,
        _ => Map::new(),
    };
    // Members that do not apply are left out: a task has a result, an error, or neither.
    view.retain(|name, value| !value.is_null() || name == "result" && record.state == State::Succeeded);
    view
}
