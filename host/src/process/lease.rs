//! Renews the leases of the tasks that a child is running.
//!
//! A lease is the host's word that an attempt is alive, so it hangs on signs of life that no plugin can
//! hold up or fake by accident: an OS thread of the supervisor renews, the board says what is running,
//! the heartbeat of the child's own OS thread says that the child still runs at all.
//!
//! Invariants: nothing is renewed for a child whose heartbeat is older than 10 s (dead, stopped or
//! starved), nor past an entry's hard deadline.

use crate::crash::{Board, Entry};
use futures_util::future::BoxFuture;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::{mpsc, oneshot};

/// The oldest heartbeat that counts as alive.
pub(super) const ALIVE: Duration = Duration::from_secs(10);

/// Tells the broker that tasks are alive.
pub trait Renewer: Send + Sync {
    /// Renews the leases behind these ack subjects. Always called on the keeper's own runtime, so that
    /// a connection made in here depends on no other thread. It is given a quarter of the lease.
    fn renew(&self, ack_subjects: Vec<String>) -> BoxFuture<'_, ()>;
}

/// Where a keeper is told of boards that come later.
#[derive(Clone, Debug)]
pub struct MoreBoards(mpsc::UnboundedSender<Board>);

impl MoreBoards {
    /// Has the tasks on this board renewed from the next round on, for as long as the keeper lives. A board that is not used
    /// any more has none.
    pub fn watch(&self, board: Board) {
        // A keeper that has ended renews nothing.
        let _ = self.0.send(board);
    }
}

/// Renews leases until it is dropped.
#[derive(Debug)]
pub struct LeaseKeeper {
    more: MoreBoards,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl LeaseKeeper {
    /// Starts renewing, every quarter of `lease`: the tasks on the boards that it [is told of](MoreBoards::watch).
    ///
    /// # Errors
    /// When the machine refuses the thread or its runtime.
    pub fn start(lease: Duration, renewer: Arc<dyn Renewer>) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, mut stopped) = oneshot::channel();
        let period = (lease / 4).max(Duration::from_millis(1));
        let (sender, mut more) = mpsc::unbounded_channel();
        let keep = async move {
            let mut watched: Vec<(Board, Rounds)> = Vec::new();
            let mut clock = tokio::time::interval(period);
            clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                clock.tick().await;
                while let Ok(board) = more.try_recv() {
                    watched.push((board, Rounds::default()));
                }
                let due: Vec<String> = watched
                    .iter_mut()
                    .flat_map(|(board, rounds)| {
                        rounds.due(board.live(), board.heartbeat_age(), now_unix_ms())
                    })
                    .collect();
                if !due.is_empty() && tokio::time::timeout(period, renewer.renew(due)).await.is_err() {
                    tracing::warn!("renewing leases took too long; the next round tries again");
                }
            }
        };
        let run = move || {
            runtime.block_on(async {
                tokio::select! {
                    () = keep => {}
                    _ = &mut stopped => {}
                }
            });
            // A renewer's blocking work must not hold up the exit.
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new().name("leases".to_owned()).spawn(run)?;
        Ok(Self { more: MoreBoards(sender), stop: Some(stop), thread: Some(thread) })
    }

    /// Where it is told of boards.
    #[must_use]
    pub fn boards(&self) -> MoreBoards {
        self.more.clone()
    }
}

impl Drop for LeaseKeeper {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic in a renewer has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}

pub(super) fn now_unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// What a keeper remembers from round to round.
#[derive(Debug, Default)]
struct Rounds {
    /// Past their hard deadline; each was logged once.
    expired: HashSet<([u8; 16], u32)>,
    stale: bool,
}

impl Rounds {
    /// The ack subjects to renew now.
    fn due(&mut self, live: Vec<Entry>, heartbeat_age: Option<Duration>, now_unix_ms: u64) -> Vec<String> {
        let tasks: Vec<Entry> = live.into_iter().filter(|entry| entry.kind.is_task()).collect();
        self.expired.retain(|known| tasks.iter().any(|task| (task.id, task.attempt) == *known));
        let stale = heartbeat_age.is_none_or(|age| age > ALIVE) && !tasks.is_empty();
        if stale && !self.stale {
            let age_ms = heartbeat_age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
            tracing::error!(
                tasks = tasks.len(),
                age_ms,
                "the child shows no sign of life; its leases run out"
            );
        }
        self.stale = stale;
        if stale {
            return Vec::new();
        }
        tasks.into_iter().filter(|task| self.in_time(task, now_unix_ms)).map(|task| task.subject).collect()
    }

    fn in_time(&mut self, task: &Entry, now_unix_ms: u64) -> bool {
        let in_time = now_unix_ms < task.hard_deadline_unix_ms;
        if !in_time && self.expired.insert((task.id, task.attempt)) {
            let id = uuid::Uuid::from_bytes(task.id);
            tracing::warn!(
                plugin = task.plugin, task = task.name, %id, attempt = task.attempt,
                "a task is past its hard limit; its lease runs out"
            );
        }
        in_time
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crash::Kind;

    fn task(n: u8, hard_deadline_unix_ms: u64) -> Entry {
        Entry {
            kind: Kind::Task,
            id: [n; 16],
            subject: format!("ack.{n}"),
            plugin: "orders".into(),
            name: "fulfil".into(),
            attempt: 1,
            hard_deadline_unix_ms,
            since_unix_ms: 0,
        }
    }

    const FRESH: Option<Duration> = Some(Duration::from_secs(1));

    #[test]
    fn tasks_are_renewed_and_calls_are_not() {
        let mut call = task(2, 100);
        call.kind = Kind::Call;
        assert_eq!(Rounds::default().due(vec![task(1, 100), call], FRESH, 50), ["ack.1"]);
    }

    #[test]
    fn nothing_is_renewed_for_a_child_without_a_fresh_heartbeat() {
        let mut rounds = Rounds::default();
        for age in [None, Some(Duration::from_millis(10_001))] {
            assert!(rounds.due(vec![task(1, 100)], age, 50).is_empty());
        }
        assert_eq!(rounds.due(vec![task(1, 100)], FRESH, 50), ["ack.1"], "it came back");
    }

    #[test]
    fn a_task_past_its_hard_deadline_is_remembered_while_it_is_live() {
        let mut rounds = Rounds::default();
        assert_eq!(rounds.due(vec![task(1, 100), task(2, 200)], FRESH, 100), ["ack.2"]);
        assert_eq!(rounds.expired.len(), 1);
        assert!(rounds.due(vec![task(2, 200)], FRESH, 200).is_empty());
        assert_eq!(rounds.expired.iter().map(|(id, _)| id[0]).collect::<Vec<_>>(), [2]);
    }

    struct Channel(std::sync::mpsc::Sender<Vec<String>>);

    impl Renewer for Channel {
        fn renew(&self, ack_subjects: Vec<String>) -> BoxFuture<'_, ()> {
            let _ = self.0.send(ack_subjects);
            Box::pin(std::future::ready(()))
        }
    }

    #[test]
    fn the_keeper_renews_again_and_again_and_stops_when_dropped() {
        let board = Board::create().unwrap();
        board.beat();
        let claim = board.claim(Kind::Task, [1; 16], "ack.1", "p", "t", 1, u64::MAX).unwrap();
        let (sender, rounds) = std::sync::mpsc::channel();
        let keeper = LeaseKeeper::start(Duration::from_millis(30), Arc::new(Channel(sender))).unwrap();
        keeper.boards().watch(board);
        for _ in 0..3 {
            assert_eq!(rounds.recv_timeout(Duration::from_secs(10)).unwrap(), ["ack.1"]);
        }
        drop(keeper);
        while rounds.try_recv().is_ok() {}
        assert!(rounds.recv().is_err(), "the renewer is gone with the keeper");
        drop(claim);
    }
}
