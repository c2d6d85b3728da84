//! `cardcage tasks run PLUGIN.TASK --json BODY`: one attempt of one task, here, in the foreground.
//!
//! For the author at the desk: no broker, no supervisor, no other process, so that a debugger sees the handler, its panic
//! stops where it is, and its logs are on this terminal.
//!
//! Invariants: nothing is published (`rehearsal`). No time limit ends the handler, though it is told its deadline; Ctrl-C
//! cancels it as an operator would, and a second one ends the process. stdout carries the outcome as JSON and nothing
//! else: what the plugin prints goes to stderr.
//!
//! What it refuses to do: it loads no other plugin, also none that the task's own needs, and does not try again.

mod rehearsal;

use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cardcage_protocol::{TaskId, Timestamp};
use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::output;
use super::session::{settings, told};
use super::tasks_enqueue::{body, described};
use crate::cli::{RunArgs, TaskName};
use crate::config::Settings;
use crate::exit::Exit;
use crate::loader::{
    self, Attempt, Lending, LoadOptions, Outcome, Plugin, Served, Source, TaskDescription, TaskStart, Trust,
};

/// Time for the plugin to stop after its task.
const STOP_MAX: Duration = Duration::from_secs(1);

/// Runs one task. Does not return: the plugin's threads may still run, and what an ordinary exit would tear down under them
/// could crash.
pub async fn run(args: RunArgs) -> Exit {
    let (Ok(exit) | Err(exit)) = rehearse(args).await;
    loader::exit_now(i32::from(exit.code()))
}

async fn rehearse(args: RunArgs) -> Result<Exit, Exit> {
    let RunArgs { target, body: text, attempt, configuration } = args;
    let (bytes, value) = body(&text)?;
    let settings = settings(configuration)?;
    crate::logging::start(&settings.log);
    let stdout = take_stdout().map_err(|error| told(Exit::Unexpected, &format!("no stdout: {error}")))?;
    let source = source(&settings, &target)?;
    let (services, rehearsal) = rehearsal::services();
    let options = LoadOptions {
        cache_dir: settings.loading.cache_dir.clone(),
        trust: Trust::read(&settings.trust),
        log_filter: settings.log.filter.clone(),
        threads: 1,
        services,
        runtime: tokio::runtime::Handle::current(),
        board: None,
        lending: Lending::none(),
        is_alone: true,
        beside: Arc::default(),
        served: Served::default(),
    };
    let plugin = load(source, options).await?;
    described(&plugin.description, &target, &value)?;
    let (index, task) = place(&plugin, &target)?;
    let limit_ms = task.timeout_ms.unwrap_or(u64::MAX).min(settings.tasks.timeout_ms);
    let now = Timestamp::now();
    let started = Instant::now();
    // From here on, so that none is missed or ends the process.
    let mut ctrl_c = signal(SignalKind::interrupt())
        .map_err(|error| told(Exit::Unexpected, &format!("no Ctrl-C: {error}")))?;
    tracing::info!(task = %target, version = %plugin.identity.version, attempt, limit_ms, "the task starts");
    let running = plugin.start(Attempt {
        task_id: *TaskId::generate().as_bytes(),
        task: index,
        attempt,
        deadline_unix_ms: now.plus_ms(limit_ms).unix_ms(),
        soft_deadline_unix_ms: task.soft_timeout_ms.map(|soft_ms| now.plus_ms(soft_ms).unix_ms()),
        enqueued_unix_ms: now.unix_ms(),
        headers: Bytes::new(),
        body: bytes,
    });
    let outcome = ended(running, &mut ctrl_c).await?;
    let took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    if took_ms > limit_ms {
        tracing::warn!(took_ms, limit_ms, "a worker would have ended the task at its time limit");
    }
    let (exit, mut answer) = answer(&outcome);
    if let Some(answer) = answer.as_object_mut() {
        answer.insert("enqueued".to_owned(), rehearsal.enqueued().into());
        answer.insert("took_ms".to_owned(), took_ms.into());
    }
    stop(plugin).await;
    // Back where results go.
    if let Err(error) = rustix::stdio::dup2_stdout(stdout) {
        return Err(told(Exit::Unexpected, &format!("no stdout: {error}")));
    }
    output::json(&answer);
    Ok(exit)
}

/// Takes stdout away from plugin code, which finds stderr there.
fn take_stdout() -> std::io::Result<File> {
    let stdout: OwnedFd = std::io::stdout().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdout(std::io::stderr().as_fd())?;
    Ok(File::from(stdout))
}

fn source(settings: &Settings, target: &TaskName) -> Result<Source, Exit> {
    let name = target.plugin.as_str();
    let Some(plugin) = settings.plugins.get(name) else {
        let known: Vec<&str> = settings.plugins.keys().map(String::as_str).collect();
        let known = if known.is_empty() { "no plugin".to_owned() } else { known.join(", ") };
        let text = format!("there is no plugin `{name}` in the configuration; it has {known}");
        return Err(told(Exit::Unexpected, &text));
    };
    Ok(Source {
        name: name.to_owned(),
        library: plugin.library.clone(),
        prefix: plugin.prefix.clone(),
        config: Value::Object(plugin.config.expose().clone()),
        threads: plugin.threads,
        tasks: plugin.tasks.clone(),
        schedules: plugin.schedules.clone(),
        is_previous: false,
    })
}

async fn load(source: Source, options: LoadOptions) -> Result<Arc<Plugin>, Exit> {
    // A plugin's start blocks.
    let loading = tokio::task::spawn_blocking(move || loader::load_all(&[source], &options, &mut |_| {}));
    let mut set = loading.await.map_err(|error| told(Exit::Unexpected, &error.to_string()))?;
    match (set.plugins.pop(), set.refused.first()) {
        (Some((_, plugin)), _) => Ok(plugin),
        (None, Some(refusal)) => Err(told(Exit::PluginRefused, &refusal.to_string())),
        (None, None) => Err(told(Exit::Unexpected, "the plugin was neither loaded nor refused")),
    }
}

fn place<'a>(plugin: &'a Plugin, target: &TaskName) -> Result<(u32, &'a TaskDescription), Exit> {
    let mut tasks = plugin.description.tasks.iter().enumerate();
    let found = tasks.find(|(_, task)| target.task == *task.name.as_str());
    let placed = found.and_then(|(place, task)| Some((u32::try_from(place).ok()?, task)));
    placed.ok_or_else(|| told(Exit::Unexpected, &format!("there is no task {target}")))
}

/// Waits for the handler; Ctrl-C tells it that its task was cancelled, a second one waits no longer.
async fn ended(mut running: TaskStart, ctrl_c: &mut Signal) -> Result<Outcome, Exit> {
    tokio::select! {
        outcome = &mut running => return Ok(outcome),
        _ = ctrl_c.recv() => {}
    }
    tracing::warn!("the handler is told that its task was cancelled; once more ends it at once");
    running.cancel_softly();
    tokio::select! {
        outcome = &mut running => Ok(outcome),
        _ = ctrl_c.recv() => Err(told(Exit::Unexpected, "the task was given up")),
    }
}

async fn stop(plugin: Arc<Plugin>) {
    let stopping = tokio::task::spawn_blocking(move || {
        plugin.drain();
        plugin.stop(STOP_MAX);
    });
    // One that does not stop is cut off by the end of the process.
    let _ = tokio::time::timeout(STOP_MAX, stopping).await;
}

/// The outcome for programs and people, and the exit code that stands for it.
fn answer(outcome: &Outcome) -> (Exit, Value) {
    let error = |exit, what: &str, text: &Bytes| (exit, json!({ "outcome": what, "error": said(text) }));
    match outcome {
        Outcome::Succeeded(result) => match serde_json::from_slice::<Value>(result) {
            Ok(result) => (Exit::Success, json!({ "outcome": "succeeded", "result": result })),
            Err(fault) => {
                let text = format!("the result is not JSON: {fault}");
                (Exit::TaskFailed, json!({ "outcome": "failed", "error": { "message": text } }))
            }
        },
        Outcome::Retry(text) => error(Exit::TaskRetry, "retry", text),
        Outcome::RetryAfter(delay_ms, text) => {
            let error = said(text);
            (Exit::TaskRetry, json!({ "outcome": "retry", "delay_ms": delay_ms, "error": error }))
        }
        Outcome::Panicked(text) => error(Exit::TaskRetry, "panicked", text),
        Outcome::Failed(text) => error(Exit::TaskFailed, "failed", text),
        Outcome::Undecodable(text) => error(Exit::TaskFailed, "undecodable", text),
        Outcome::Discarded(text) => error(Exit::TaskDiscarded, "discarded", text),
        Outcome::Dropped => {
            (Exit::TaskRetry, json!({ "outcome": "dropped", "error": { "message": "it did not answer" } }))
        }
    }
}

/// What a handler said of its end: JSON where it is, else its text.
fn said(text: &Bytes) -> Value {
    let plain = || json!({ "message": String::from_utf8_lossy(text) });
    serde_json::from_slice::<Value>(text).ok().filter(Value::is_object).unwrap_or_else(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_an_exit_code_and_an_error_of_any_bytes() {
        let text = Bytes::from_static(b"{\"message\":\"no\"}");
        for (outcome, exit) in [
            (Outcome::Succeeded(Bytes::from_static(b"7")), Exit::Success),
            (Outcome::Succeeded(Bytes::from_static(b"{")), Exit::TaskFailed),
            (Outcome::Retry(text.clone()), Exit::TaskRetry),
            (Outcome::RetryAfter(5, text.clone()), Exit::TaskRetry),
            (Outcome::Panicked(text.clone()), Exit::TaskRetry),
            (Outcome::Failed(text.clone()), Exit::TaskFailed),
            (Outcome::Discarded(text.clone()), Exit::TaskDiscarded),
            (Outcome::Dropped, Exit::TaskRetry),
        ] {
            assert_eq!(answer(&outcome).0, exit, "{outcome:?}");
        }
        assert_eq!(answer(&Outcome::Failed(text)).1["error"]["message"], "no");
        let odd = answer(&Outcome::Failed(Bytes::from_static(&[0xff, b'x']))).1;
        assert_eq!(odd["error"]["message"], "\u{fffd}x");
    }
}
