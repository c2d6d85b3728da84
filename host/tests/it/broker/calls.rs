//! Calls: each reaches one worker, also while workers come and go.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cardcage::broker::Incoming;
use cardcage_harness::{Deadline, Nats, eventually};

use super::{connect, options};

fn number(message: &Incoming) -> u64 {
    u64::from_be_bytes(message.payload().as_ref().try_into().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_is_on_its_way_when_a_worker_stops_listening_is_dropped() {
    let nats = Nats::start().await.unwrap();
    let (caller, going, staying) =
        (connect(options(&nats)).await, connect(options(&nats)).await, connect(options(&nats)).await);
    let subject = "calls.of.a.plugin";
    let mut stays = staying.subscribe_shared(subject.to_owned(), "workers").await.unwrap();
    staying.flush(Duration::from_secs(10)).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let taken = Arc::new(AtomicU64::new(0));
    let calls = tokio::spawn({
        let (stop, taken) = (stop.clone(), taken.clone());
        async move {
            let mut sent = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                caller
                    .publish(subject.to_owned(), Bytes::copy_from_slice(&sent.to_be_bytes()))
                    .await
                    .unwrap();
                sent += 1;
                // As many under way as a busy host has, and no flood.
                while sent > taken.load(Ordering::Relaxed) + 2_000 && !stop.load(Ordering::Relaxed) {
                    tokio::task::yield_now().await;
                }
            }
            caller.flush(Duration::from_secs(10)).await.unwrap();
            sent
        }
    });
    let others = tokio::spawn({
        let taken = taken.clone();
        async move {
            let mut seen = HashSet::new();
            while let Some(message) = stays.next().await {
                if message.payload().is_empty() {
                    return seen;
                }
                seen.insert(number(&message));
                taken.fetch_add(1, Ordering::Relaxed);
            }
            panic!("the one that stays has lost its subscription");
        }
    });
    let mut seen = HashSet::new();
    for _ in 0..200 {
        let mut open = going.subscribe_shared(subject.to_owned(), "workers").await.unwrap();
        for _ in 0..20 {
            let message = open.next().await.unwrap();
            assert!(seen.insert(number(&message)), "two have got one call");
            taken.fetch_add(1, Ordering::Relaxed);
        }
        open.drain().await.unwrap();
        while let Some(message) = open.next().await {
            assert!(seen.insert(number(&message)), "two have got one call");
            taken.fetch_add(1, Ordering::Relaxed);
        }
    }
    stop.store(true, Ordering::Relaxed);
    let sent = calls.await.unwrap();
    let all = eventually(Deadline::seconds(10), "every call has come to somebody", async || {
        (taken.load(Ordering::Relaxed) == sent).then_some(())
    });
    let all = all.await;
    going.publish(subject.to_owned(), Bytes::new()).await.unwrap();
    seen.extend(others.await.unwrap());
    let lost = (0..sent).filter(|call| !seen.contains(call)).count();
    assert!(all.is_ok(), "of {sent} calls so many came to nobody: {lost}");
}
