//! What a person sees. The JSON holds the same and more.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is this module's job")]

use cardcage_harness::Error;
use comfy_table::{CellAlignment, Table, presets};

use crate::cli::Settings;
use crate::figures::{Figures, Spread};
use crate::load::LOAD_CLIENT;
use crate::origin::Origin;
use crate::path::{Path, Side};
use crate::report::{Report, Row, SideFigures};
use crate::trial::{Finding, Trial};

/// Says what is about to be measured.
pub(crate) fn introduce(origin: &Origin, settings: &Settings) {
    println!("floors and load client: {} build", origin.bench_profile);
    println!("nats-server:            {}", origin.nats_server.display());
    match &origin.cardcage {
        Some(binaries) => {
            println!("cardcage:               {}, {}", binaries.host_profile, binaries.host.display());
            println!("plugin hello:           {}, {}", binaries.plugin_profile, binaries.plugin.display());
        }
        None => println!("cardcage:               not measured (--floors-only)"),
    }
    println!(
        "each side: {} turns of {:?} after {:?} of warm-up\n",
        settings.turns, settings.measured, settings.warm_up
    );
}

/// Says which turn begins.
pub(crate) fn progress(path: Path, callers: usize, side: Side, turn: u32) {
    eprintln!("{}, {callers} at a time, turn {turn}: {}", path.name(), side.name());
}

/// Says which trial begins.
pub(crate) fn trial(trial: Trial) {
    eprintln!("{trial}");
}

/// Prints the figures.
pub(crate) fn show(report: &Report) {
    let machine = &report.machine;
    println!("\n{} processors ({}), Linux {}", machine.processors, machine.model, machine.kernel);
    println!("load of the machine before the run: {}\n", machine.load_before);
    if !report.rows.is_empty() {
        println!("{}\n", figures(&report.rows));
        println!(
            "Processor time per request in microseconds, and messages and bytes through the broker per request:"
        );
        println!("{}", processor_times(&report.rows));
    }
    if !report.trials.is_empty() {
        println!("\nTrials, which have no floor:");
        println!("{}", trials(&report.trials));
    }
    for note in &report.notes {
        println!("note: {note}");
    }
}

/// Says why the run could not be finished.
pub(crate) fn complain(error: &Error) {
    eprintln!("bench: {error}");
}

fn figures(rows: &[Row]) -> Table {
    let header = ["path", "callers", "side", "requests/s", "least–most", "p50 µs", "p99 µs", "ratio", "goal"];
    let mut table = new_table(&header, 3..8);
    for row in rows {
        for SideFigures { side, figures } in &row.sides {
            let is_ours = *side == Side::Cardcage;
            let ratio = row.ratio.filter(|_| is_ours).map(ratio_text);
            let goal = row.goal.filter(|_| is_ours).map(|goal| goal_text(goal, row.ratio));
            table.add_row([
                row.path.name().to_owned(),
                row.callers.to_string(),
                side.name().to_owned(),
                format!("{:.0}", figures.requests_per_s.median),
                format!("{:.0}–{:.0}", figures.requests_per_s.min, figures.requests_per_s.max),
                format!("{:.0}", figures.p50_us.median),
                format!("{:.0}", figures.p99_us.median),
                ratio.unwrap_or_default(),
                goal.unwrap_or_default(),
            ]);
        }
    }
    table
}

fn processor_times(rows: &[Row]) -> Table {
    let mut table =
        new_table(&["path", "callers", "side", "all", "without client", "broker in/out", "by process"], 3..6);
    for row in rows {
        for SideFigures { side, figures } in &row.sides {
            let all: f64 = figures.cpu_per_request.values().map(|time| time.all_us()).sum();
            let client = figures.cpu_per_request.get(LOAD_CLIENT).map_or(0.0, |time| time.all_us());
            table.add_row([
                row.path.name().to_owned(),
                row.callers.to_string(),
                side.name().to_owned(),
                format!("{all:.1}"),
                format!("{:.1}", all - client),
                broker(figures),
                by_process(figures),
            ]);
        }
    }
    table
}

fn trials(findings: &[Finding]) -> Table {
    let mut table = new_table(&["trial", "what", "figure", "unit"], 2..3);
    for Finding { trial, what, value, unit } in findings {
        let figure = if *value < 100.0 { format!("{value:.1}") } else { format!("{value:.0}") };
        table.add_row([trial.to_string(), what.clone(), figure, (*unit).to_owned()]);
    }
    table
}

fn broker(figures: &Figures) -> String {
    let per = figures.broker_per_request;
    if per.in_msgs < 0.005 && per.out_msgs < 0.005 {
        return "-".to_owned();
    }
    format!("{:.2}/{:.2}, {:.0}/{:.0} B", per.in_msgs, per.out_msgs, per.in_bytes, per.out_bytes)
}

/// All but the client, whose part is the difference of the columns before, and those that did nothing.
fn by_process(figures: &Figures) -> String {
    let others = figures.cpu_per_request.iter().filter(|(name, _)| *name != LOAD_CLIENT);
    let busy = others.map(|(name, time)| (name, time.all_us())).filter(|(_, us)| *us >= 0.05);
    busy.map(|(name, us)| format!("{name} {us:.1}")).collect::<Vec<_>>().join(", ")
}

fn ratio_text(ratio: Spread) -> String {
    format!("{:.2} ({:.2}–{:.2})", ratio.median, ratio.min, ratio.max)
}

fn goal_text(goal: f64, ratio: Option<Spread>) -> String {
    let met = ratio.is_some_and(|ratio| ratio.median >= goal);
    format!("{goal} {}", if met { "met" } else { "MISSED" })
}

fn new_table(header: &[&str], numbers: std::ops::Range<usize>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(header.iter().copied());
    for column in numbers {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}
