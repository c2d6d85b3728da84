//! `cardcage schedules list|pause|resume|run`: what the broker starts by itself.
//!
//! Invariants: only the broker is asked, so all of it works without any worker; a pause is part of the schedule's record,
//! outlives hosts and broker, and no starting host lifts it. What a paused schedule had fired and nobody taken up is
//! dropped; what it has started goes on.

use std::sync::Arc;

use cardcage_protocol::{
    Cadence, LastFiring, Name, Priority, ScheduleRecord, TaskAddress, TaskEnvelope, TaskId, Timestamp,
};
use serde_json::{Value, json};

use super::output;
use super::session::{Session, age, broker_trouble, told};
use crate::broker::{Broker, Error, UniqueClaim};
use crate::cli::{Configuration, ScheduleArgs, ScheduleName, SchedulesCommand};
use crate::exit::Exit;
use crate::terms::unique_hash;

/// How often a schedule that others write is tried anew.
const ROUNDS: usize = 16;

/// Does what was asked.
pub async fn run(command: SchedulesCommand) -> Exit {
    let done = match command {
        SchedulesCommand::List { plugin, json, configuration } => list(plugin, json, configuration).await,
        SchedulesCommand::Pause(args) => pause(args, true).await,
        SchedulesCommand::Resume(args) => pause(args, false).await,
        SchedulesCommand::Run(args) => start(args).await,
    };
    done.map_or_else(|exit| exit, |()| Exit::Success)
}

/// A schedule, and what is known of its slots.
struct Entry {
    record: ScheduleRecord,
    last: Option<LastFiring>,
    next: Option<Timestamp>,
}

impl Entry {
    fn new(record: ScheduleRecord, last: Option<LastFiring>, now: Timestamp) -> Self {
        let next = if record.is_active() { next(&record, last.as_ref(), now) } else { None };
        Self { record, last, next }
    }

    fn state(&self) -> &'static str {
        let ScheduleRecord { definition, paused_at, absent_since, .. } = &self.record;
        match (definition.disabled, paused_at, absent_since) {
            (true, ..) => "disabled",
            (_, Some(_), _) => "paused",
            (_, _, Some(_)) => "absent",
            _ => "active",
        }
    }

    fn cadence(&self) -> String {
        self.record.definition.cadence().map_or_else(|error| error.to_string(), |cadence| cadence.to_string())
    }

    fn json(&self) -> Value {
        let ScheduleRecord {
            plugin,
            name,
            declared_by,
            declared_at,
            definition,
            paused_at,
            absent_since,
            ..
        } = &self.record;
        json!({
            "plugin": plugin,
            "schedule": name,
            "task": definition.task,
            "major": definition.major,
            "state": self.state(),
            "every": definition.every,
            "cron": definition.cron,
            "time_zone": definition.time_zone,
            "overlap": definition.overlap,
            "missed": definition.missed,
            "next_at": self.next,
            "last_at": self.last.as_ref().map(|last| last.at),
            "last_task": self.last.as_ref().map(|last| last.task_id),
            "paused_at": paused_at,
            "absent_since": absent_since,
            "declared_by": declared_by,
            "declared_at": declared_at,
        })
    }
}

/// A cron expression says it; of an interval, the last firing does, as long as nobody has started it anew since.
fn next(record: &ScheduleRecord, last: Option<&LastFiring>, now: Timestamp) -> Option<Timestamp> {
    match record.definition.cadence().ok()? {
        cadence @ Cadence::Cron { .. } => cadence.next_after(now),
        Cadence::Every { seconds } => {
            let told = last.filter(|last| last.at >= record.declared_at).and_then(|last| last.next);
            let first = record.declared_at.plus_ms(seconds.saturating_mul(1_000));
            // Slots that nobody takes up leave no trace here: then it is not known.
            Some(told.unwrap_or(first)).filter(|next| next.plus_ms(1_000) >= now)
        }
    }
}

async fn list(plugin: Option<Name>, json: bool, configuration: Configuration) -> Result<(), Exit> {
    let session = Session::open(configuration, "schedules list").await?;
    let trouble = |error: Error| broker_trouble("schedules cannot be read", &error);
    let mut held = session.broker.recurring(plugin.as_ref()).await.map_err(trouble)?;
    held.sort_by(|(a, _), (b, _)| (&a.plugin, &a.name).cmp(&(&b.plugin, &b.name)));
    let mut entries = Vec::with_capacity(held.len());
    for (record, _) in held {
        let last = session.broker.last_firing(&record.plugin, &record.name).await.map_err(trouble)?;
        entries.push(Entry::new(record, last.map(|(last, _)| last), session.now()));
    }
    if json {
        let each: Vec<Value> = entries.iter().map(Entry::json).collect();
        output::json(&json!({ "schedules": each }));
    } else if entries.is_empty() {
        output::result("no schedules");
    } else {
        output::result(&table(&entries, session.now()));
    }
    Ok(())
}

fn table(entries: &[Entry], now: Timestamp) -> String {
    let mut table = output::table();
    table.set_header(["schedule", "task", "fires", "state", "next", "last", "last task", "declared by"]);
    for entry in entries {
        let ScheduleRecord { plugin, name, definition, declared_by, .. } = &entry.record;
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        table.add_row([
            format!("{plugin}.{name}"),
            format!("{} v{}", definition.task, definition.major),
            output::shown(&entry.cadence()),
            entry.state().to_owned(),
            or_none(entry.next.map(|next| next.to_string())),
            age(entry.last.as_ref().map(|last| last.at), now),
            or_none(entry.last.as_ref().map(|last| last.task_id.to_string())),
            output::shown(declared_by),
        ]);
    }
    table.trim_fmt()
}

fn trouble(name: &ScheduleName) -> impl Fn(Error) -> Exit {
    let what = format!("{name} cannot be changed");
    move |error| broker_trouble(&what, &error)
}

async fn find(broker: &Broker, name: &ScheduleName) -> Result<(ScheduleRecord, u64), Exit> {
    let held = broker.recurring(Some(&name.plugin)).await.map_err(trouble(name))?;
    held.into_iter().find(|(record, _)| record.name == name.schedule).ok_or_else(|| {
        told(
            Exit::Unexpected,
            &format!("there is no schedule {name}: `cardcage schedules list` shows those that workers have declared"),
        )
    })
}

async fn pause(args: ScheduleArgs, paused: bool) -> Result<(), Exit> {
    let ScheduleArgs { schedule, json, configuration } = args;
    let command = if paused { "schedules pause" } else { "schedules resume" };
    let session = Session::open(configuration, command).await?;
    let record = change(&session, &schedule, paused).await?;
    if paused {
        session.broker.drop_firings(&record.plugin, &record.name).await.map_err(trouble(&schedule))?;
    }
    let entry = Entry::new(record, None, session.now());
    if json {
        output::json(&json!({
            "plugin": schedule.plugin,
            "schedule": schedule.schedule,
            "state": entry.state(),
            "paused_at": entry.record.paused_at,
        }));
        return Ok(());
    }
    output::result(&match entry.state() {
        "active" => format!("{schedule} goes on"),
        "paused" => format!("{schedule} is paused until it is resumed"),
        state => format!("{schedule} is no longer paused, but {state}"),
    });
    Ok(())
}

/// Writes the pause, or its end, unless it stands so already.
async fn change(session: &Session, name: &ScheduleName, paused: bool) -> Result<ScheduleRecord, Exit> {
    for _ in 0..ROUNDS {
        let (record, sequence) = find(&session.broker, name).await?;
        if record.paused_at.is_some() == paused {
            return Ok(record);
        }
        let record = ScheduleRecord { paused_at: paused.then(|| session.now()), ..record };
        match session.broker.write_recurring(&record, sequence).await {
            Ok(()) => return Ok(record),
            // A worker has declared it anew meanwhile.
            Err(Error::Conflict { .. }) => {}
            Err(error) => return Err(trouble(name)(error)),
        }
    }
    Err(told(Exit::Unavailable, &format!("{name} is written by others all the time; try again")))
}

/// Publishes one task as a slot would, whatever the schedule's state.
async fn start(args: ScheduleArgs) -> Result<(), Exit> {
    let ScheduleArgs { schedule, json, configuration } = args;
    let session = Session::open(configuration, "schedules run").await?;
    let (record, _) = find(&session.broker, &schedule).await?;
    let ScheduleRecord { plugin, declared_by, definition, .. } = record;
    let trouble = |error: Error| broker_trouble(&format!("{schedule} cannot be run"), &error);
    let (id, now, wait) = (TaskId::generate(), session.now(), session.publish_timeout());
    if let Some(key) = &definition.unique_key {
        let hash = unique_hash(&plugin, &definition.task, key);
        let claim = session.broker.claim_unique(&hash, id, std::time::Duration::ZERO, wait);
        if let UniqueClaim::Held(holder) | UniqueClaim::Unstored(holder) = claim.await.map_err(trouble)? {
            let sentence = format!("the task {holder} has the unique key of {schedule}, and has not ended");
            return Err(told(Exit::Unexpected, &sentence));
        }
    }
    let address = TaskAddress {
        plugin,
        major: definition.major,
        task: definition.task.clone(),
        priority: Priority::Normal,
        id,
    };
    let mut envelope =
        TaskEnvelope::new(address, Arc::from(declared_by), now, definition.body.to_string().into());
    envelope.expires_at = definition.expires_ms.map(|expires_ms| now.plus_ms(expires_ms));
    envelope.unique_key = definition.unique_key;
    envelope.serial_key = definition.serial_key;
    session.broker.publish_task(&envelope, wait).await.map_err(trouble)?;
    if json {
        output::json(&json!({ "id": id, "task": definition.task }));
    } else {
        output::result(&format!("{id} is queued: `cardcage tasks show {id}`"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(definition: &Value) -> ScheduleRecord {
        serde_json::from_value(json!({
            "v": 1, "plugin": "p", "name": "s", "declared_by": "1.0.0",
            "declared_at": "2026-01-31T12:00:00.000Z", "definition": definition,
        }))
        .unwrap()
    }

    #[test]
    fn next_slot_is_told_where_it_is_known_and_nothing_where_it_is_not() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let now = at("2026-01-31T12:00:30.000Z");
        let every = record(&json!({ "task": "t", "major": 1, "every": "1m", "body": null }));
        assert_eq!(
            next(&every, None, now),
            Some(at("2026-01-31T12:01:00.000Z")),
            "counted from its declaration"
        );
        let mut last = LastFiring {
            v: 1,
            task_id: TaskId::generate(),
            at: at("2026-01-31T12:00:20.000Z"),
            taken_up_at: at("2026-01-31T12:00:20.000Z"),
            next: Some(at("2026-01-31T12:01:20.000Z")),
        };
        assert_eq!(next(&every, Some(&last), now), last.next, "as the broker said");
        last.at = at("2026-01-31T11:59:50.000Z");
        assert_eq!(
            next(&every, Some(&last), now),
            Some(at("2026-01-31T12:01:00.000Z")),
            "of an earlier definition"
        );
        assert_eq!(next(&every, None, at("2026-01-31T12:09:00.000Z")), None, "nobody took its slots up");
        let cron = record(
            &json!({ "task": "t", "major": 1, "cron": "0 0 8 * * *", "time_zone": "Europe/Berlin", "body": null }),
        );
        assert_eq!(next(&cron, None, now), Some(at("2026-02-01T07:00:00.000Z")));
    }
}
