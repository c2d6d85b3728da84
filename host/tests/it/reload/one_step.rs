//! All routes of a host change at once: who connects after the new set has answered is answered by it.

use super::{Installation, followed};
use crate::serving::{child, pause, soon};
use cardcage_harness::{Http, eventually};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Callers beside each other, each on a new connection for each request.
const CALLERS: usize = 8;

/// Which set answers: those with an even number have hello.
#[derive(Default)]
struct Seen {
    /// The set that is in force, or that is to be.
    asked_for: AtomicUsize,
    /// The latest that has answered, or was said to be in force.
    answered: AtomicUsize,
    replies: AtomicUsize,
    stop: AtomicBool,
}

impl Seen {
    /// One request on a connection of its own.
    async fn ask(&self, address: &str) {
        let earliest = self.asked_for.load(Ordering::SeqCst).saturating_sub(1);
        let before = self.answered.load(Ordering::SeqCst);
        let reply = Http::new(address).unwrap().get("/hello/inline").await.unwrap();
        let set = self.asked_for.load(Ordering::SeqCst);
        self.replies.fetch_add(1, Ordering::SeqCst);
        if set > earliest + 1 {
            // Another one was asked for meanwhile, and by what it has it may be that one or the one before the last.
            return;
        }
        let has_hello = match (reply.status, reply.problem_code().as_deref()) {
            (200, None) => true,
            (404, Some("no_such_route")) => false,
            _ => panic!("{}: {}", reply.status, reply.text()),
        };
        let set = if set.is_multiple_of(2) == has_hello { set } else { set - 1 };
        assert!(before <= set, "set {set} answered who connected after set {before} had answered");
        self.answered.fetch_max(set, Ordering::SeqCst);
    }

    /// So many more are answered.
    async fn more(&self, replies: usize) {
        let wanted = self.replies.load(Ordering::SeqCst) + replies;
        eventually(soon(), "callers are answered", async || {
            (self.replies.load(Ordering::SeqCst) >= wanted).then_some(())
        })
        .await
        .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_connects_after_the_new_set_has_answered_is_never_answered_by_the_old_one() {
    let installation = Installation::new(|config, _| config).await;
    let Installation { api, http, .. } = &installation;
    let address = http.url("").trim_start_matches("http://").to_owned();
    let seen = Arc::new(Seen::default());
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (seen, address) = (seen.clone(), address.clone());
            tokio::spawn(async move {
                while !seen.stop.load(Ordering::SeqCst) {
                    seen.ask(&address).await;
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            })
        })
        .collect();
    for set in 1..=8 {
        seen.more(2 * CALLERS).await;
        let before = child(api);
        let mut config = installation.config.to_toml().parse::<toml::Table>().unwrap();
        if set % 2 == 1 {
            config["plugins"].as_table_mut().unwrap().remove("hello");
        }
        std::fs::write(installation.file("cardcage.toml"), config.to_string()).unwrap();
        seen.asked_for.store(set, Ordering::SeqCst);
        let output = installation.reload(&[api]).await;
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        seen.answered.fetch_max(set, Ordering::SeqCst);
        seen.ask(&address).await;
        followed(api, before).await;
        assert!(callers.iter().all(|caller| !caller.is_finished()), "a caller was answered by the wrong set");
    }
    seen.stop.store(true, Ordering::SeqCst);
    for caller in callers {
        caller.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn child_that_is_frozen_holds_up_the_new_one_for_a_moment_and_loses_no_caller() {
    let installation = Installation::new(|config, _| config.set("drain.grace_ms", 1_000)).await;
    let Installation { api, http, .. } = &installation;
    let address = http.url("").trim_start_matches("http://").to_owned();
    let before = child(api);
    pause(before).await;
    let waiting: Vec<_> = (0..CALLERS)
        .map(|_| {
            let http = Http::new(&address).unwrap();
            tokio::spawn(async move { http.get("/hello/inline").await })
        })
        .collect();
    let asked = Instant::now();
    let output = installation.reload(&[api]).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(asked.elapsed() >= Duration::from_secs(1), "the old one was given its time to answer");
    for caller in waiting {
        assert_eq!(caller.await.unwrap().unwrap().status, 200);
    }
    followed(api, before).await;
}
