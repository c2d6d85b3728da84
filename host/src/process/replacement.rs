//! Why a child that serves gives way to another one, and who is told.

use super::aftermath::{AFTERMATH_MAX, Aftermath};
use super::overdue::Overdue;
use super::wear::Verdict;

/// Why a child must be replaced.
pub(super) enum Why {
    /// A handler holds a thread past its limit.
    Overdue(Overdue),
    /// It has served its time.
    Worn(Verdict),
}

/// Says why, and hands back what the child cannot; answers the word for metrics.
pub(super) async fn tell(why: Why, hooks: &dyn Aftermath) -> &'static str {
    match why {
        Why::Overdue(overdue) => {
            tell_overdue(overdue, hooks).await;
            "overdue"
        }
        Why::Worn(Verdict::Tasks(tasks)) => {
            tracing::info!(tasks, "the child has run its number of tasks; it is replaced");
            "tasks"
        }
        Why::Worn(Verdict::Memory(resident_mb)) => {
            tracing::info!(resident_mb, "the child has grown over its limit; it is replaced");
            "memory"
        }
    }
}

async fn tell_overdue(overdue: Overdue, hooks: &dyn Aftermath) {
    let Overdue { entry, is_held } = overdue;
    tracing::error!(
        plugin = entry.plugin,
        name = entry.name,
        id = %uuid::Uuid::from_bytes(entry.id),
        "a handler holds its thread past its time limit; the child is replaced"
    );
    if is_held && entry.kind.is_task() {
        let handing_back = hooks.overran(entry);
        if tokio::time::timeout(AFTERMATH_MAX, handing_back).await.is_err() {
            tracing::error!("a task that is over its limit could not be handed back; its lease runs out");
        }
    }
}
