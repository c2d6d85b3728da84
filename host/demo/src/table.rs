//! What a person sees: the table, the objections under it, and how to go on.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is this module's job")]

use cardcage_harness::Error;
use comfy_table::{Table, presets};

use crate::script::Row;
use crate::stage::{STRIPE_SECRET, Stage};

/// Prints the table and says whether all of it is as expected, the enrolments included.
pub(crate) fn show(rows: &[Row], stage: &Stage) -> bool {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["sample", "HTTP", "task id", "attempts", "outcome", "expected", ""]);
    for row in rows {
        table.add_row([
            row.sample.clone(),
            row.status.to_string(),
            row.task.clone().unwrap_or_else(|| "-".to_owned()),
            row.attempts.map_or_else(|| "-".to_owned(), |count| count.to_string()),
            row.outcome.clone(),
            row.expected.clone(),
            if row.objection.is_none() { "ok" } else { "NOT AS EXPECTED" }.to_owned(),
        ]);
    }
    println!("{table}");
    let doubled = stage.downstream.lms.double_enrolments();
    println!("{} enrolments at the LMS, {doubled} of them double", stage.downstream.lms.enrolments().len());

    let objections: Vec<&Row> = rows.iter().filter(|row| row.objection.is_some()).collect();
    for row in &objections {
        println!("{}: {}", row.sample, row.objection.as_deref().unwrap_or_default());
    }
    if !objections.is_empty() {
        eprintln!(
            "--- the api's log:\n{}\n--- the worker's log:\n{}",
            stage.api.stderr(),
            stage.worker.stderr()
        );
    }
    println!("{} of {} as expected", rows.len() - objections.len(), rows.len());
    objections.is_empty() && doubled == 0
}

/// Says where everything is, for `--keep`.
pub(crate) fn invite(stage: &Stage) {
    println!("\nStill running; Ctrl-C ends it.");
    println!("  api        {}", stage.http.url("/"));
    println!("  broker     {}", stage.nats.url());
    println!("  order API  {}", stage.downstream.orders.base_url());
    println!("  LMS        {}", stage.downstream.lms.base_url());
    println!("  events are signed with {STRIPE_SECRET}");
    println!("Try: curl {}", stage.http.url("/hello/inline?name=you"));
}

/// Says why the demo could not be played to its end.
pub(crate) fn complain(error: &Error) {
    eprintln!("demo: {error}");
}
