//! What a person sees. The JSON holds the same and more.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is this module's job")]

use cardcage_harness::Error;
use comfy_table::{CellAlignment, Table, presets};

use crate::cli::Settings;
use crate::figures::{Figures, Spread};
use crate::origin::Origin;
use crate::path::{Path, Side};
use crate::report::{Report, Row};

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

/// Prints the figures.
pub(crate) fn show(report: &Report) {
    let machine = &report.machine;
    println!("\n{} processors ({}), Linux {}", machine.processors, machine.model, machine.kernel);
    println!("load of the machine before the run: {}\n", machine.load_before);
    println!("{}\n", figures(&report.rows));
    println!("Processor time per request, in microseconds (user + system):");
    println!("{}", processor_times(&report.rows));
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
        for (side, figures) in &row.sides {
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
    let mut table = new_table(&["path", "callers", "side", "all", "by process"], 3..4);
    for row in rows {
        for (side, figures) in &row.sides {
            let all: f64 = figures.cpu_per_request.values().map(|time| time.user_us + time.system_us).sum();
            table.add_row([
                row.path.name().to_owned(),
                row.callers.to_string(),
                side.name().to_owned(),
                format!("{all:.1}"),
                by_process(figures),
            ]);
        }
    }
    table
}

fn by_process(figures: &Figures) -> String {
    let one = |(name, time): (&String, &crate::figures::PerRequest)| {
        format!("{name} {:.1} + {:.1}", time.user_us, time.system_us)
    };
    figures.cpu_per_request.iter().map(one).collect::<Vec<_>>().join(", ")
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
