//! `cardcage plugin describe FILE`: what a library declares, asked of the plugin itself.
//!
//! Invariants: plugin code runs in a child only, under the deadline of `loading.timeout_ms`; a library that inspection
//! refuses is not opened; a refusal is one sentence on stderr and exit code 70, also with `--json`, where stdout holds the
//! same as `{"refused": {…}}`.
//!
//! What it refuses to do: it starts nothing (`init` has side effects) and takes no side: whether the plugin fits
//! beside others is for `check`.

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use super::check::describe_file;
use super::inspect::Refused;
use super::output;
use super::session::settings;
use crate::cli::DescribeArgs;
use crate::exit::Exit;
use crate::loader::{Description, Manifest, Refusal, ScheduleDescription, TaskDescription, inspect};

/// The answer for programs.
#[derive(Serialize)]
struct Answer<'a> {
    file: &'a Path,
    sha256: &'a str,
    manifest: &'a Manifest,
    #[serde(flatten)]
    description: &'a Description,
}

/// The same of a library that is refused.
#[derive(Serialize)]
struct Unfit<'a> {
    file: &'a Path,
    refused: Refused,
}

/// Describes the library and writes what it declares.
pub async fn run(args: DescribeArgs) -> Exit {
    let DescribeArgs { file, json, configuration } = args;
    let settings = match settings(configuration) {
        Ok(settings) => settings,
        Err(exit) => return exit,
    };
    // Its name is what the child is asked for; the child inspects the bytes that it opens.
    let (inspection, bytes) = match inspect::file(&file) {
        Ok(inspected) => inspected,
        Err(refusal) => return refused(&file, &refusal, json),
    };
    let description = match describe_file(&inspection.manifest.name, &file, &settings).await {
        Ok(description) => description,
        Err(Ok(refusal)) => return refused(&file, &refusal, json),
        Err(Err(unexpected)) => {
            output::trouble(&output::shown(&unexpected));
            return Exit::Unexpected;
        }
    };
    if json {
        output::json(&Answer {
            file: &file,
            sha256: &inspect::sha256(&bytes),
            manifest: &inspection.manifest,
            description: &description,
        });
    } else {
        output::result(&text(&description));
    }
    Exit::Success
}

fn refused(file: &Path, refusal: &Refusal, json: bool) -> Exit {
    if json {
        output::json(&Unfit { file, refused: Refused::from(refusal) });
    }
    output::refusal(refusal);
    Exit::PluginRefused
}

/// A section of its own for each kind of thing that there is.
fn text(description: &Description) -> String {
    let mut text = format!("{} {}\n", description.name, output::shown(&description.version));
    routes(&mut text, description);
    tasks(&mut text, &description.tasks);
    schedules(&mut text, &description.schedules);
    let needs = description.needs.iter().map(|need| format!("  {} v{}\n", need.plugin, need.major));
    section(&mut text, "Needs", &needs.collect::<String>());
    for task in &description.tasks {
        schema(&mut text, &format!("Body of the task {}", task.name), &task.input_schema);
        schema(&mut text, &format!("Result of the task {}", task.name), &task.output_schema);
    }
    schema(&mut text, "Settings", description.config_schema.as_ref().unwrap_or(&Value::Null));
    text
}

fn section(text: &mut String, title: &str, body: &str) {
    if !body.is_empty() {
        let _ = write!(text, "\n{title}:\n{body}");
    }
}

fn table(header: Vec<&str>, rows: Vec<Vec<String>>) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut table = output::table();
    table.set_header(header);
    for row in rows {
        table.add_row(row.iter().map(|cell| output::shown(cell)));
    }
    table.trim_fmt().lines().map(|line| format!(" {line}\n")).collect()
}

fn routes(text: &mut String, description: &Description) {
    let rows = description.routes.iter().map(|route| {
        let placement = match &route.task {
            Some(task) => format!("{} {task}", route.placement.as_str()),
            None => route.placement.as_str().to_owned(),
        };
        vec![route.method.clone(), route.path.clone(), placement]
    });
    section(text, "Routes", &table(vec!["method", "path", "placement"], rows.collect()));
}

fn tasks(text: &mut String, tasks: &[TaskDescription]) {
    let number = |number: Option<u64>, unit: &str| {
        number.map_or_else(|| "default".to_owned(), |number| format!("{number}{unit}"))
    };
    let rows = tasks.iter().map(|task| {
        vec![
            task.name.clone(),
            number(task.max_attempts.map(u64::from), ""),
            number(task.timeout_ms, " ms"),
            task.description.lines().next().unwrap_or_default().to_owned(),
        ]
    });
    section(text, "Tasks", &table(vec!["task", "attempts", "timeout", ""], rows.collect()));
}

fn schedules(text: &mut String, schedules: &[ScheduleDescription]) {
    let rows = schedules.iter().map(|schedule| {
        let zone = schedule.time_zone.as_ref().map(|zone| format!(" {zone}")).unwrap_or_default();
        let when = match (&schedule.every, &schedule.cron) {
            (Some(every), _) => format!("every {every}"),
            (None, Some(cron)) => format!("{cron}{zone}"),
            (None, None) => String::new(),
        };
        vec![schedule.name.clone(), schedule.task.clone(), when]
    });
    section(text, "Schedules", &table(vec!["schedule", "task", "when"], rows.collect()));
}

fn schema(text: &mut String, title: &str, schema: &Value) {
    if schema.is_null() {
        return;
    }
    let pretty = serde_json::to_string_pretty(schema).unwrap_or_default();
    let lines: String = output::shown_lines(&pretty).lines().map(|line| format!("  {line}\n")).collect();
    section(text, title, &lines);
}
