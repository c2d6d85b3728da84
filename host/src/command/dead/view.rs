//! Dead letters as people and scripts see them.

use std::fmt::Write as _;

use cardcage_protocol::Timestamp;
use serde_json::{Value, json};

use super::super::output;
use super::super::session::{age, brief, plain};
use super::super::tasks_show::attempts_table;
use crate::broker::Letter;

/// Longest reason in a list, in characters.
const REASON_CHARS: usize = 60;
/// A body that is longer as text is shown in part; `--json` has all of it.
const BODY_SHOWN_CHARS: usize = 4_000;

/// One line of the JSON list.
pub(super) fn entry(letter: &Letter) -> Value {
    let attempts = u64::from(letter.attempts_omitted)
        .saturating_add(u64::try_from(letter.attempts.len()).unwrap_or(u64::MAX));
    json!({
        "id": letter.id,
        "plugin": letter.plugin,
        "task": letter.task,
        "died_at": letter.died_at,
        "code": letter.code,
        "reason": letter.reason,
        "attempts": attempts,
    })
}

/// All of a letter.
pub(super) fn whole(letter: &Letter) -> Value {
    let mut view = entry(letter);
    let Some(members) = view.as_object_mut() else { return view };
    members.insert("attempts".into(), json!(letter.attempts));
    members.insert("attempts_omitted".into(), letter.attempts_omitted.into());
    match &letter.envelope {
        Err(reason) => {
            members.insert("unreadable".into(), reason.as_str().into());
        }
        Ok(envelope) => {
            let headers: serde_json::Map<String, Value> =
                envelope.headers().into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
            members.insert("version".into(), (&*envelope.version).into());
            members.insert("major".into(), envelope.major.into());
            members.insert("enqueued_at".into(), json!(envelope.enqueued_at));
            members.insert("root_id".into(), json!(envelope.root_id));
            members.insert("parent_id".into(), json!(envelope.parent_id));
            members.insert("headers".into(), headers.into());
            match serde_json::from_slice::<Value>(&envelope.body) {
                Ok(body) => members.insert("body".into(), body),
                Err(_) => members
                    .insert("body_text".into(), String::from_utf8_lossy(&envelope.body).into_owned().into()),
            };
        }
    }
    view
}

pub(super) fn table(letters: &[Letter], now: Timestamp) -> String {
    let mut table = output::table();
    table.set_header(["task", "of", "died", "attempts", "code", "reason"]);
    for letter in letters {
        let attempts = u64::from(letter.attempts_omitted) + letter.attempts.len() as u64;
        table.add_row([
            letter.id.to_string(),
            format!("{}.{}", letter.plugin, letter.task),
            format!("{} ago", age(Some(letter.died_at), now)),
            attempts.to_string(),
            output::shown(&letter.code),
            brief(&letter.reason, REASON_CHARS),
        ]);
    }
    table.trim_fmt()
}

pub(super) fn text(letter: &Letter) -> String {
    let view = whole(letter);
    let mut table = output::table();
    for (shown, member) in [
        ("task", "id"),
        ("plugin", "plugin"),
        ("version", "version"),
        ("name", "task"),
        ("enqueued at", "enqueued_at"),
        ("died at", "died_at"),
        ("code", "code"),
        ("reason", "reason"),
        ("root", "root_id"),
        ("parent", "parent_id"),
        ("attempts left out", "attempts_omitted"),
        ("unreadable", "unreadable"),
    ] {
        if let Some(value) =
            plain(view.get(member)).filter(|value| member != "attempts_omitted" || value != "0")
        {
            table.add_row([shown.to_owned(), value]);
        }
    }
    let mut text = table.trim_fmt();
    text.push('\n');
    if let Some(attempts) = view.get("attempts").and_then(Value::as_array).filter(|all| !all.is_empty()) {
        let _ = write!(text, "\n{}\n", attempts_table(attempts));
    }
    let body = match (view.get("body"), view.get("body_text")) {
        (Some(body), _) => serde_json::to_string_pretty(body).unwrap_or_default(),
        (None, Some(Value::String(text))) => text.clone(),
        _ => return text,
    };
    let mut shown: String = body.chars().take(BODY_SHOWN_CHARS).collect();
    if shown.len() < body.len() {
        shown.push_str("…\n(cut; --json shows all of it)");
    }
    let _ = write!(text, "\n body:\n{}\n", output::shown_lines(&shown));
    text
}
