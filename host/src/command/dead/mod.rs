//! `cardcage dead list|show|replay|purge`: the tasks that were given up.
//!
//! Invariants: one letter is acted on at once, several only with `--yes`, after their count was shown. What is acted on
//! is what was there when the command began: letters that its own replays cause are not taken up again.
//!
//! What it refuses: to act on everything because nothing was said; that takes `--all`.

mod act;
mod view;

use serde_json::json;

use super::output;
use super::session::{Session, broker_trouble, told};
use crate::broker::LetterFilter;
use crate::cli::{Configuration, DeadCommand, LetterArgs};
use crate::exit::Exit;
use cardcage_protocol::{TaskId, Timestamp};

/// Does what was asked.
pub async fn run(command: DeadCommand) -> Exit {
    let done = match command {
        DeadCommand::List { filter, limit, json, configuration } => {
            list(filter, limit, json, configuration).await
        }
        DeadCommand::Show { id, json, configuration } => show(id, json, configuration).await,
        DeadCommand::Replay(action) => act::run(action, act::Act::Replay).await,
        DeadCommand::Purge(action) => act::run(action, act::Act::Purge).await,
    };
    done.map_or_else(|exit| exit, |()| Exit::Success)
}

async fn list(
    filter: LetterArgs,
    limit: usize,
    json: bool,
    configuration: Configuration,
) -> Result<(), Exit> {
    let session = Session::open(configuration, "dead list").await?;
    let filter = meant(&filter, &session);
    let (letters, extent) = session
        .broker
        .newest_letters(&filter, limit)
        .await
        .map_err(|error| broker_trouble("dead letters cannot be read", &error))?;
    if json {
        let letters: Vec<_> = letters.iter().map(view::entry).collect();
        output::json(
            &json!({ "letters": letters, "complete": extent.complete, "looked_at": extent.looked_at }),
        );
        return Ok(());
    }
    if letters.is_empty() {
        output::result("no dead letters");
    } else {
        output::result(&view::table(&letters, session.now()));
    }
    if !extent.complete {
        let count = letters.len();
        output::trouble(&format!(
            "the newest {count} are shown; there are more: narrow it down with --plugin, --task, --code or --since, or \
             raise --limit"
        ));
    }
    Ok(())
}

async fn show(id: TaskId, json: bool, configuration: Configuration) -> Result<(), Exit> {
    let session = Session::open(configuration, "dead show").await?;
    let letter = find(&session, id).await?;
    if json {
        output::json(&view::whole(&letter));
    } else {
        output::result(&view::text(&letter));
    }
    Ok(())
}

/// One letter, or a sentence about why there is none.
async fn find(session: &Session, id: TaskId) -> Result<crate::broker::Letter, Exit> {
    let found = session.broker.find_letter(id).await;
    let found = found.map_err(|error| broker_trouble("dead letters cannot be read", &error))?;
    found.ok_or_else(|| {
        told(
            Exit::Unexpected,
            &format!(
                "there is no dead letter of task {id}: it did not fail, its letter was replayed or purged, or it is \
                 older than `tasks.dead_max_age_s`; `cardcage tasks show {id}` tells where the task stands"
            ),
        )
    })
}

fn meant(filter: &LetterArgs, session: &Session) -> LetterFilter {
    let age_ms = |span: crate::cli::Span| u64::try_from(span.0.as_millis()).unwrap_or(u64::MAX);
    LetterFilter {
        plugin: filter.plugin.clone(),
        task: filter.task.clone(),
        code: filter.code.clone(),
        since: filter
            .since
            .map(|span| Timestamp::from_unix_ms(session.now().unix_ms().saturating_sub(age_ms(span)))),
    }
}
