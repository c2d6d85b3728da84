//! `cardcage tasks enqueue PLUGIN.TASK --json BODY`: a task by hand, accepted as the API accepts one.
//!
//! Invariant: it publishes through [`crate::enqueue`], so what an API's caller is promised is promised here: a receipt
//! means that the broker has stored the task.

use std::io::Read as _;
use std::sync::Arc;

use bytes::Bytes;
use cardcage_protocol::limits::TASK_BODY_MAX_BYTES;
use cardcage_protocol::presence::{Presence, Question};
use cardcage_protocol::{Priority, Problem, ProblemCode};
use serde_json::{Value, json};

use super::output;
use super::session::{Session, broker_trouble, told};
use crate::broker::TaskConsumer;
use crate::cli::{EnqueueArgs, TaskName};
use crate::enqueue::{self, NewTask};
use crate::exit::Exit;
use crate::loader::{Description, Identity};
use crate::terms::Terms;

/// At most so many mistakes of a body are told.
const MISTAKES_TOLD: usize = 8;

/// Enqueues one task.
pub async fn run(args: EnqueueArgs) -> Exit {
    match enqueue(args).await {
        Ok(receipt) => {
            output::json(&receipt);
            Exit::Success
        }
        Err(exit) => exit,
    }
}

async fn enqueue(args: EnqueueArgs) -> Result<Value, Exit> {
    let (body, value) = body(&args.body)?;
    let session = Session::open(args.configuration, "tasks enqueue").await?;
    let (identity, terms) = identity(&session, &args.target, &value).await?;
    let new = NewTask {
        identity: &identity,
        task: &args.target.task,
        route: "",
        idempotency_key: args.key,
        traceparent: None,
        root: None,
        fixed: None,
        parent: None,
        terms,
        priority: args.priority.into(),
        delay: args.delay.map(|span| span.0),
        body,
    };
    let delayed = new.delay.is_some_and(|delay| !delay.is_zero());
    let published = enqueue::publish(&session.broker, new, session.publish_timeout()).await;
    let published = published.map_err(|problem| refused(&problem))?;
    Ok(json!({
        "id": published.id,
        "state": if delayed { "scheduled" } else { "queued" },
        "duplicate": published.duplicate,
        "links": { "self": format!("/tasks/{}", published.id) },
    }))
}

/// The body as it was typed or stands in a file, and read.
pub(super) fn body(text: &str) -> Result<(Bytes, Value), Exit> {
    let body = match text.strip_prefix('@') {
        None => text.to_owned(),
        Some(file) => {
            whole(file).map_err(|error| told(Exit::Usage, &format!("{file} cannot be read: {error}")))?
        }
    };
    let value: Value = serde_json::from_str(&body)
        .map_err(|error| told(Exit::Usage, &format!("the body is no JSON: {error}")))?;
    Ok((Bytes::from(body), value))
}

/// The text of a file or, as shells hand over what a command writes, of a pipe.
fn whole(file: &str) -> std::io::Result<String> {
    let (mut text, max_bytes) = (String::new(), TASK_BODY_MAX_BYTES as u64);
    let length = std::fs::File::open(file)?.take(max_bytes + 1).read_to_string(&mut text)?;
    if length as u64 > max_bytes {
        let fault = format!("it has more than the {max_bytes} bytes that a body may have");
        return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, fault));
    }
    Ok(text)
}

/// Whose task it is: by the configured library, which knows the schema too, else by the workers that are there.
async fn identity(session: &Session, target: &TaskName, body: &Value) -> Result<(Identity, Terms), Exit> {
    match super::check::describe_one(&session.settings, target.plugin.as_str()).await {
        Some(Ok(description)) => described(&description, target, body),
        Some(Err(refusal)) => Err(told(Exit::PluginRefused, &refusal)),
        None => {
            let workers = session.broker.ask_workers(Question::default()).await;
            let workers = workers.map_err(|error| broker_trouble("workers cannot be asked", &error))?;
            // What the task declares beside its name is known to its library only. Where it has priorities is seen by
            // its queues.
            let identity = present(&workers, target)?;
            let queues = session.broker.task_consumers(&target.plugin).await;
            let queues = queues.map_err(|error| broker_trouble("queues cannot be read", &error))?;
            let is_lane = |one: &TaskConsumer| {
                one.task == target.task && one.major == identity.major && one.priority != Priority::Normal
            };
            let priorities = queues.iter().any(is_lane);
            Ok((identity, Terms { priorities, ..Terms::default() }))
        }
    }
}

/// Holds a body against the task's schema.
pub(super) fn described(
    description: &Description,
    target: &TaskName,
    body: &Value,
) -> Result<(Identity, Terms), Exit> {
    let Some(task) = description.tasks.iter().find(|task| target.task == *task.name.as_str()) else {
        let names: Vec<&str> = description.tasks.iter().map(|task| task.name.as_str()).collect();
        return Err(told(Exit::Unexpected, &unknown(target, &names)));
    };
    let schema = jsonschema::validator_for(&task.input_schema).map_err(|error| {
        told(
            Exit::PluginRefused,
            &format!("the schema of {target} is no JSON Schema ({error}): mend the plugin"),
        )
    })?;
    let mistakes: Vec<String> = schema
        .iter_errors(body)
        .take(MISTAKES_TOLD)
        .map(|error| match error.instance_path().to_string() {
            at if at.is_empty() => error.to_string(),
            at => format!("at {at}: {error}"),
        })
        .collect();
    if !mistakes.is_empty() {
        let text = format!("the body does not fit {target}: {}", mistakes.join("; "));
        return Err(told(Exit::Usage, &text));
    }
    Ok((identity_of(target, &description.version)?, Terms::of(task)))
}

/// The highest version that is there.
fn present(workers: &[Presence], target: &TaskName) -> Result<Identity, Exit> {
    let plugins =
        || workers.iter().flat_map(|worker| &worker.plugins).filter(|one| one.name == target.plugin);
    let known =
        plugins().filter(|plugin| plugin.tasks.contains(&target.task)).max_by_key(|plugin| plugin.major);
    if let Some(plugin) = known {
        return identity_of(target, &plugin.version);
    }
    let mut names: Vec<&str> = plugins().flat_map(|plugin| &plugin.tasks).map(AsRef::as_ref).collect();
    names.sort_unstable();
    names.dedup();
    if plugins().next().is_some() {
        return Err(told(Exit::Unexpected, &unknown(target, &names)));
    }
    let plugin = &target.plugin;
    Err(told(
        Exit::Unexpected,
        &format!("there is no plugin `{plugin}`: it is not in the configuration, and no live worker has it"),
    ))
}

fn unknown(target: &TaskName, names: &[&str]) -> String {
    let TaskName { plugin, task } = target;
    match names {
        [] => format!("the plugin `{plugin}` has no tasks"),
        names => format!("the plugin `{plugin}` has no task `{task}`; it has {}", names.join(", ")),
    }
}

fn identity_of(target: &TaskName, version: &str) -> Result<Identity, Exit> {
    let major = version.split('.').next().and_then(|major| major.parse().ok());
    let Some(major) = major else {
        return Err(told(Exit::PluginRefused, &format!("the version {version:?} of {target} has no major")));
    };
    Ok(Identity { name: Arc::from(target.plugin.as_str()), version: Arc::from(version), major })
}

fn refused(problem: &Problem) -> Exit {
    let exit = match problem.code {
        code if code.is_retryable() => Exit::Unavailable,
        ProblemCode::Internal => Exit::Unexpected,
        _ => Exit::Usage,
    };
    let detail = problem.detail.as_deref().unwrap_or_else(|| problem.code.title());
    told(exit, &format!("the task was not enqueued ({}): {detail}", problem.code.as_str()))
}
