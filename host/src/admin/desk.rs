//! Where a reload is asked for, and where its result is read.
//!
//! A reload takes as long as its plugins do to load, and an admin connection lasts ten seconds at most. So asking answers at
//! once with a number, and whoever asked reads until that number's result is there. Those who ask while a reload is
//! under way share the one after it: that one reads the configuration again.

use crate::process::control::Refusal;
use cardcage_protocol::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// How a reload ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadResult {
    /// Its number: 1 is the first that this supervisor did.
    pub number: u64,
    /// When it ended.
    pub at: Timestamp,
    /// The exit code of a start with this configuration: 0 where it was taken.
    pub exit_code: u8,
    /// Why nothing has changed, one sentence each; empty where it was taken.
    pub reasons: Vec<String>,
    /// Options that were changed and stay as they were until a restart.
    pub needs_restart: Vec<String>,
    /// What is loaded now, as `name version`.
    pub plugins: Vec<String>,
    /// Plugins that are not, one sentence each.
    pub refused: Vec<String>,
    /// Why nothing has changed, or what is not loaded, as far as plugins are: with file and code.
    #[serde(default)]
    pub refusals: Vec<Refusal>,
}

/// What `GET /reload` answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadState {
    /// The number of the one that is under way.
    pub running: Option<u64>,
    /// How the last one ended.
    pub last: Option<ReloadResult>,
}

/// What `POST /reload` answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadAccepted {
    /// The reload that reads what is there now.
    pub number: u64,
}

#[derive(Debug, Default)]
struct Slip {
    wished: u64,
    state: ReloadState,
}

/// The desk. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Desk(watch::Sender<Slip>);

impl Default for Desk {
    fn default() -> Self {
        Self(watch::Sender::new(Slip::default()))
    }
}

impl Desk {
    /// Asks for a reload; answers the number of the one that reads what is there now.
    pub fn ask(&self) -> u64 {
        let mut number = 0;
        self.0.send_modify(|slip| {
            let begun = slip.state.running.or(slip.state.last.as_ref().map(|last| last.number)).unwrap_or(0);
            slip.wished = begun + 1;
            number = slip.wished;
        });
        number
    }

    /// How things stand.
    #[must_use]
    pub fn state(&self) -> ReloadState {
        self.0.borrow().state.clone()
    }

    /// Waits for a reload to do, and begins it; answers its number.
    pub async fn next(&self) -> u64 {
        let mut slips = self.0.subscribe();
        let ended = |slip: &Slip| slip.state.last.as_ref().map_or(0, |last| last.number);
        // The sender is in `self`: it does not end.
        let number = slips.wait_for(|slip| slip.wished > ended(slip)).await.map_or(0, |slip| slip.wished);
        self.0.send_modify(|slip| slip.state.running = Some(number));
        number
    }

    /// Says how the one that was begun ended.
    pub fn end(&self, result: ReloadResult) {
        self.0.send_modify(|slip| slip.state = ReloadState { running: None, last: Some(result) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(number: u64) -> ReloadResult {
        ReloadResult {
            number,
            at: Timestamp::now(),
            exit_code: 0,
            reasons: vec![],
            needs_restart: vec![],
            plugins: vec![],
            refused: vec![],
            refusals: vec![],
        }
    }

    #[tokio::test]
    async fn those_who_ask_during_a_reload_share_the_one_after_it() {
        let desk = Desk::default();
        assert_eq!((desk.ask(), desk.ask()), (1, 1), "not begun yet");
        assert_eq!(desk.next().await, 1);
        assert_eq!(desk.state().running, Some(1));
        assert_eq!((desk.ask(), desk.ask()), (2, 2), "the first has read the configuration already");
        desk.end(result(1));
        assert_eq!((desk.state().running, desk.state().last.unwrap().number), (None, 1));
        assert_eq!(desk.next().await, 2);
        desk.end(result(2));
        let none = futures_util::FutureExt::now_or_never(desk.next());
        assert_eq!(none, None, "nobody asked for a third");
    }
}
