//! What a person and a program see of a run.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is this module's job")]

use std::collections::BTreeMap;
use std::process::ExitCode;

use cardcage_harness::Error;
use comfy_table::{Table, presets};
use serde::Serialize;

use crate::Settings;
use crate::deed::Deed;
use crate::judge::{Evidence, Verdict};

/// Objections of one sort that are printed; the JSON has them all.
const SHOWN: usize = 10;

/// A judged run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    passed: bool,
    seed: u64,
    seconds: u64,
    verdict: Verdict,
    kills: BTreeMap<String, u64>,
    /// Answers to submissions, by status and code.
    answers: BTreeMap<String, u64>,
    deeds: Vec<String>,
}

impl Report {
    pub(crate) fn new(
        seed: u64,
        deeds: &[Deed],
        evidence: &Evidence,
        answers: BTreeMap<String, u64>,
        verdict: Verdict,
    ) -> Self {
        Self {
            passed: verdict.is_passed(),
            seed,
            seconds: evidence.seconds,
            kills: evidence.kills.iter().map(|(target, count)| (format!("{target:?}"), *count)).collect(),
            answers,
            deeds: deeds.iter().map(ToString::to_string).collect(),
            verdict,
        }
    }

    /// Whether the judge has nothing to object to.
    pub(crate) fn is_passed(&self) -> bool {
        self.passed
    }
}

/// Says what is about to happen, and how to see it again.
pub(crate) fn introduce(seed: u64, settings: &Settings) {
    println!(
        "torture: {} s with seed {seed} (again: --seconds {} --seed {seed})",
        settings.seconds, settings.seconds
    );
}

/// Prints the report, writes it where asked, and says how to exit.
pub(crate) fn show(report: &Report, settings: &Settings) -> ExitCode {
    let verdict = &report.verdict;
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["what", "count", "must be"]);
    let counted = |map: &BTreeMap<String, u64>| {
        map.iter().map(|(what, count)| format!("{count} {}", what.trim())).collect::<Vec<_>>().join(", ")
    };
    table.add_row(["kills".to_owned(), counted(&report.kills), String::new()]);
    table.add_row(["answers".to_owned(), counted(&report.answers), String::new()]);
    table.add_row(["ends".to_owned(), counted(&verdict.states), String::new()]);
    for (what, count) in [
        ("accepted", verdict.accepted),
        ("refused", verdict.refused),
        ("refused, and ran", verdict.refused_and_ended),
        ("duplicates", verdict.duplicates),
        ("slots", verdict.slots),
    ] {
        table.add_row([what.to_owned(), count.to_string(), String::new()]);
    }
    let objections = [
        ("lost", &verdict.lost),
        ("phantom", &verdict.phantom),
        ("corrupt", &verdict.corrupt),
        ("double-final", &verdict.double_final),
        ("denied", &verdict.denied),
        ("vacuous", &verdict.vacuous),
    ];
    for (what, list) in objections {
        table.add_row([what.to_owned(), list.len().to_string(), "0".to_owned()]);
    }
    println!("{table}");
    for (what, list) in objections {
        for objection in list.iter().take(SHOWN) {
            println!("{what}: {objection}");
        }
    }
    if let Some(file) = &settings.json {
        let written = serde_json::to_vec_pretty(report)
            .map_err(|error| error.to_string())
            .and_then(|json| std::fs::write(file, json).map_err(|error| error.to_string()));
        if let Err(error) = written {
            eprintln!("torture: cannot write {}: {error}", file.display());
            return ExitCode::FAILURE;
        }
    }
    println!("{}", if report.passed { "passed" } else { "NOT PASSED" });
    if report.passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Says why there is nothing to judge.
pub(crate) fn complain(error: &Error) -> ExitCode {
    eprintln!("torture: {error}");
    ExitCode::FAILURE
}
