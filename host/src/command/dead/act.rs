//! Replaying and purging, one letter or many.

use cardcage_protocol::TaskId;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde_json::{Value, json};

use super::super::output;
use super::super::progress::Progress;
use super::super::session::{Session, broker_trouble, told};
use super::{find, meant};
use crate::broker::{Error, Letter, LetterFilter};
use crate::cli::DeadAction;
use crate::exit::Exit;

/// Letters that are acted on at the same time.
const AT_ONCE: usize = 32;

/// Letters that were passed over and are shown one by one.
const SKIPPED_SHOWN: usize = 10;

/// What to do with a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    Replay,
    Purge,
}

impl Act {
    const fn command(self) -> &'static str {
        match self {
            Self::Replay => "dead replay",
            Self::Purge => "dead purge",
        }
    }

    const fn participle(self) -> &'static str {
        match self {
            Self::Replay => "replayed",
            Self::Purge => "purged",
        }
    }
}

/// What came of one letter.
struct Done {
    id: TaskId,
    /// The new task, of a replay.
    task: Option<TaskId>,
}

/// A letter that nothing came of, and why.
type Failed = (TaskId, Error);

/// Why no more were begun.
enum Stopped {
    At(Failed),
    /// They could not be read.
    Unread(Error),
}

/// What came of many.
#[derive(Default)]
struct Outcome {
    done: Vec<Done>,
    /// For reasons of their own: the others are none the worse for them.
    skipped: Vec<Failed>,
    /// After which no more were begun.
    stopped: Option<Stopped>,
}

pub(super) async fn run(action: DeadAction, act: Act) -> Result<(), Exit> {
    if action.id.is_none() && action.filter.is_empty() && !action.all {
        return Err(told(
            Exit::Usage,
            &format!(
                "`cardcage {}` needs the id of a task, a filter (--plugin, --task, --code, --since) or --all",
                act.command()
            ),
        ));
    }
    let (json, yes) = (action.json, action.yes);
    let session = Session::open(action.configuration.clone(), act.command()).await?;
    if let Some(id) = action.id {
        return one(&session, id, act, &action).await;
    }
    let filter = meant(&action.filter, &session);
    let limit = action.limit.map_or(u64::MAX, |limit| u64::try_from(limit).unwrap_or(u64::MAX));
    let count = count(&session, &filter, limit).await?;
    if action.dry_run || !yes {
        if json {
            output::json(&json!({ "would_be": act.participle(), "count": count, "dry_run": true }));
        } else {
            output::result(&format!("{count} dead letters would be {}", act.participle()));
        }
        if action.dry_run || count == 0 {
            return Ok(());
        }
        return Err(told(Exit::Usage, "nothing was done: repeat the command with --yes"));
    }
    let Outcome { done, skipped, stopped } = all(&session, filter, limit, count, act).await;
    report(act, &done, &skipped, json);
    if let Some(stopped) = stopped {
        let left = count.saturating_sub(u64::try_from(done.len()).unwrap_or(u64::MAX));
        let (what, error) = match stopped {
            Stopped::At((id, error)) => (format!("{id} could not be {}", act.participle()), error),
            Stopped::Unread(error) => ("dead letters cannot be read".to_owned(), error),
        };
        let what = format!("{what}; {left} are left, and the command can be repeated");
        return Err(broker_trouble(&what, &error));
    }
    if skipped.is_empty() { Ok(()) } else { Err(Exit::Unexpected) }
}

async fn one(session: &Session, id: TaskId, act: Act, action: &DeadAction) -> Result<(), Exit> {
    let letter = find(session, id).await?;
    if action.dry_run {
        match action.json {
            true => output::json(&json!({ "would_be": act.participle(), "count": 1, "dry_run": true })),
            false => output::result(&format!("1 dead letter would be {}", act.participle())),
        }
        return Ok(());
    }
    let done = perform(session, &letter, act).await;
    let done = done
        .map_err(|error| broker_trouble(&format!("task {id} could not be {}", act.participle()), &error))?;
    report(act, &[done], &[], action.json);
    Ok(())
}

async fn perform(session: &Session, letter: &Letter, act: Act) -> Result<Done, Error> {
    match act {
        Act::Replay => {
            let replayed = session.broker.replay_letter(letter, session.publish_timeout()).await?;
            Ok(Done { id: letter.id, task: Some(replayed.id) })
        }
        Act::Purge => {
            session.broker.remove_letter(letter).await?;
            Ok(Done { id: letter.id, task: None })
        }
    }
}

async fn count(session: &Session, filter: &LetterFilter, limit: u64) -> Result<u64, Exit> {
    let trouble = |error: Error| broker_trouble("dead letters cannot be read", &error);
    let mut letters = session.broker.letters(filter.clone()).await.map_err(trouble)?;
    let mut count = 0_u64;
    while count < limit {
        let page = letters.next_page().await.map_err(trouble)?;
        if page.is_empty() {
            break;
        }
        count += u64::try_from(page.len()).unwrap_or(0);
    }
    Ok(count.min(limit))
}

/// Acts on `limit` of them. One that cannot be for a reason of its own is passed over; at any other failure no more are begun.
async fn all(session: &Session, filter: LetterFilter, limit: u64, count: u64, act: Act) -> Outcome {
    let mut outcome = Outcome::default();
    let mut progress = Progress::new(act.participle(), count);
    let mut letters = match session.broker.letters(filter).await {
        Ok(letters) => letters,
        Err(error) => return Outcome { stopped: Some(Stopped::Unread(error)), ..outcome },
    };
    while outcome.stopped.is_none() {
        let mut page = match letters.next_page().await {
            Ok(page) if page.is_empty() => break,
            Ok(page) => page.into_iter(),
            Err(error) => return Outcome { stopped: Some(Stopped::Unread(error)), ..outcome },
        };
        let mut acts = FuturesUnordered::new();
        loop {
            // As many as may still be done: what is passed over makes room for another.
            let begun = u64::try_from(outcome.done.len() + acts.len()).unwrap_or(u64::MAX);
            if outcome.stopped.is_none()
                && acts.len() < AT_ONCE
                && begun < limit
                && let Some(letter) = page.next()
            {
                acts.push(async move {
                    let performed = perform(session, &letter, act).await;
                    performed.map_err(|error| (letter.id, error))
                });
                continue;
            }
            match acts.next().await {
                None => break,
                Some(Ok(one)) => outcome.done.push(one),
                Some(Err(failed)) if failed.1.is_of_one_task() => outcome.skipped.push(failed),
                Some(Err(failed)) => outcome.stopped = Some(Stopped::At(failed)),
            }
            progress.at(u64::try_from(outcome.done.len()).unwrap_or(0));
        }
        if u64::try_from(outcome.done.len()).unwrap_or(u64::MAX) >= limit {
            break;
        }
    }
    outcome
}

fn report(act: Act, done: &[Done], skipped: &[Failed], json: bool) {
    let count = done.len();
    if json {
        let each: Vec<Value> = done
            .iter()
            .map(|done| match done.task {
                Some(task) => json!({ "id": done.id, "task": task }),
                None => json!({ "id": done.id }),
            })
            .collect();
        let passed_over: Vec<Value> =
            skipped.iter().map(|(id, error)| json!({ "id": id, "error": error.to_string() })).collect();
        output::json(&json!({
            act.participle(): each, "count": count, "skipped": passed_over, "dry_run": false,
        }));
        return;
    }
    for (id, error) in skipped.iter().take(SKIPPED_SHOWN) {
        output::trouble(&format!("{id} was not {}: {error}", act.participle()));
    }
    if let Some(more) = skipped.len().checked_sub(SKIPPED_SHOWN).filter(|more| *more > 0) {
        output::trouble(&format!("{more} more were not {}; --json names them", act.participle()));
    }
    match (act, done) {
        (Act::Replay, [Done { id, task: Some(task) }]) => {
            output::result(&format!("{id} is replayed as {task}; `cardcage tasks show {task}` follows it"));
        }
        _ => output::result(&format!(
            "{count} dead {} {}",
            if count == 1 { "letter" } else { "letters" },
            act.participle()
        )),
    }
}
