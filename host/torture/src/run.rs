//! One run, from the first start to the evidence.

use std::sync::Arc;
use std::time::Duration;

use cardcage_harness::{Error, Result};
use cardcage_protocol::{Namespace, Subjects};
use tokio::time::{Instant, sleep};

use crate::caller::Callers;
use crate::company::Company;
use crate::harvest::{self, Harvest};
use crate::judge::{self, Evidence};
use crate::ledger::Ledger;
use crate::report::Report;
use crate::{Settings, deed, plan, report, storm};

/// The tasks that are submitted are of these plugins.
const PLUGINS: [&str; 2] = ["hello", "chaos"];
/// Without a single new end for so long, what is missing is not coming. Longer than leases, backoffs and delays together.
const STANDSTILL: Duration = Duration::from_secs(45);
/// However much still moves, nothing is waited for any longer.
const PATIENCE: Duration = Duration::from_secs(600);
/// Between two looks at the records.
const LOOK: Duration = Duration::from_millis(500);

/// Tortures and judges.
pub(crate) async fn run(settings: &Settings) -> Result<Report> {
    let seed = settings.seed.unwrap_or_else(|| fastrand::u64(..));
    report::introduce(seed, settings);
    let folder = tempfile::Builder::new().prefix("cardcage-torture-").tempdir();
    let folder = folder.map_err(Error::doing("cannot make a folder"))?;
    let trace = folder.path().join("trace");
    std::fs::write(&trace, "").map_err(Error::doing("cannot make the plugin's trace"))?;

    let mut company = Company::assemble(&trace).await?;
    let namespace: Namespace = company.namespace().parse().map_err(Error::doing("no namespace"))?;
    let harvest = Harvest::begin(&company.nats.url(), Subjects::new(namespace)).await?;
    let ledger = Arc::new(Ledger::default());
    let callers = Callers::new(seed, company.apis()?, Arc::clone(&ledger));

    let mut at_work = callers.begin(settings.rate);
    let outcome = async {
        let deeds = storm::rage(&mut company, &plan::draw(seed, settings.seconds)).await?;
        company.heal().await?;
        Ok(deeds)
    };
    let outcome: Result<_> = outcome.await;
    callers.end();
    let evidence = async {
        let deeds = outcome?;
        while at_work.join_next().await.is_some() {}
        company.pause_schedule().await?;
        let left_over = settle(&harvest, &ledger).await?;
        let evidence = Evidence {
            entries: ledger.entries(),
            endings: harvest.endings().await?,
            letters: harvest.letters().await?,
            runs: harvest::runs(&trace)?,
            kills: deed::kills(&deeds),
            answers: ledger.answers(),
            left_over,
            seconds: settings.seconds,
        };
        Ok((deeds, evidence))
    };
    let evidence: Result<_> = evidence.await;
    let report = evidence.map(|(deeds, evidence)| {
        Report::new(seed, &deeds, &evidence, ledger.answers(), judge::judge(&evidence))
    });
    let is_passed = report.as_ref().is_ok_and(Report::is_passed);
    if let Some(folder) = settings.logs.as_deref().filter(|_| !is_passed) {
        company.keep_logs(folder)?;
    }
    report
}

/// Waits until every promise has an end and nothing waits any more, or until nothing moves. Says what still waits.
async fn settle(harvest: &Harvest, ledger: &Ledger) -> Result<u64> {
    let mut last = (0, 0);
    let (begun, mut moved) = (Instant::now(), Instant::now());
    loop {
        let endings = harvest.endings().await?;
        let left_over = harvest.left_over(&PLUGINS).await?;
        let entries = ledger.entries();
        let owed = entries.iter().flat_map(|entry| &entry.promised).any(|id| !endings.contains_key(id));
        if !owed && left_over == 0 {
            return Ok(0);
        }
        let now = (endings.len(), left_over);
        if now != last {
            (last, moved) = (now, Instant::now());
        }
        if moved.elapsed() > STANDSTILL || begun.elapsed() > PATIENCE {
            return Ok(left_over);
        }
        sleep(LOOK).await;
    }
}
