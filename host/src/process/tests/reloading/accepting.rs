//! Who accepts connections while one child follows another.

use super::*;
use crate::process::assent::Assent;
use crate::process::connected::Connected;
use crate::process::retiree::Retiree;
use crate::process::supervisor::{LEAVE_MAX, accepts_no_more};
use std::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::{mpsc, oneshot};

/// Children with a listener that say on `told` what they are ordered; what the n-th does at each order, `obey` says.
fn children(
    obey: impl Fn(usize, &ToChild, &Attached) -> Obeyed + Clone + Send + Sync + 'static,
) -> (Running, Receiver<String>) {
    let (tell, told) = channel();
    let mut options = options(move |n, control| {
        let (tell, obey) = (tell.clone(), obey.clone());
        fake(control, move |mut child| {
            child.outbox.send(&ready()).unwrap();
            while let Some(order) = child.orders.blocking_recv() {
                say(&tell, n, &order);
                if let Obeyed::Ended(status) = obey(n, &order, &child) {
                    return status;
                }
            }
            0
        })
    });
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    options.listener = Some(listener.into());
    (run(options), told)
}

enum Obeyed {
    Lives,
    Ended(i32),
}

fn say(tell: &Sender<String>, n: usize, order: &ToChild) {
    let word = match order {
        ToChild::Accept => "accepts",
        ToChild::HandOver { .. } => "hands over",
        ToChild::Drain { .. } => "drains",
        _ => "?",
    };
    tell.send(format!("{n} {word}")).unwrap();
}

/// The next so many orders.
fn next(told: &Receiver<String>, count: usize) -> Vec<String> {
    (0..count).map(|_| told.recv_timeout(LONG).unwrap()).collect()
}

/// Stops a host whose first child does not obey.
async fn ends_though_the_old_one_does_not(running: Running, told: &Receiver<String>) {
    running.stop.request();
    assert_eq!(next(told, 1), ["1 drains"]);
    running.wait_for(|now| now.child_pid.is_none()).await;
    assert_eq!(running.stop().await, Exit::Success);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_new_child_is_told_to_accept_when_the_old_one_accepts_no_more() {
    let (leave, leaves) = channel::<()>();
    let leaves = Arc::new(Mutex::new(leaves));
    let (running, told) = children(move |n, order, child| match (n, order) {
        (0, ToChild::HandOver { .. }) => {
            leaves.lock().unwrap().recv_timeout(LONG).unwrap();
            child.outbox.send(&ToSupervisor::Leaving).unwrap();
            // It has answers to give, and lives on.
            Obeyed::Lives
        }
        (_, ToChild::Drain { .. } | ToChild::HandOver { .. }) => Obeyed::Ended(0),
        _ => Obeyed::Lives,
    });
    assert_eq!(next(&told, 1), ["0 accepts"]);
    let reloading = reload(&running, "new");
    assert_eq!(next(&told, 1), ["0 hands over"]);
    // Long enough for a word that comes too early.
    assert!(told.recv_timeout(Duration::from_millis(200)).is_err() && !reloading.is_finished());
    leave.send(()).unwrap();
    assert_eq!(next(&told, 1), ["1 accepts"]);
    assert_eq!(reloading.await.unwrap().unwrap().reloads, 1);
    ends_though_the_old_one_does_not(running, &told).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_new_child_accepts_beside_an_old_one_that_does_not_answer() {
    let (running, told) = children(|n, order, _| match (n, order) {
        (0, ToChild::HandOver { .. }) => Obeyed::Lives,
        (_, ToChild::Drain { .. } | ToChild::HandOver { .. }) => Obeyed::Ended(0),
        _ => Obeyed::Lives,
    });
    running.wait_for(|now| now.ready).await;
    assert_eq!(reload(&running, "new").await.unwrap().unwrap().reloads, 1);
    assert_eq!(next(&told, 3), ["0 accepts", "0 hands over", "1 accepts"]);
    ends_though_the_old_one_does_not(running, &told).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_new_child_accepts_where_the_old_one_dies_of_the_order() {
    let (running, told) = children(|n, order, _| match (n, order) {
        (0, ToChild::HandOver { .. }) => Obeyed::Ended(SEGV),
        (_, ToChild::Drain { .. } | ToChild::HandOver { .. }) => Obeyed::Ended(0),
        _ => Obeyed::Lives,
    });
    running.wait_for(|now| now.ready).await;
    assert_eq!(reload(&running, "new").await.unwrap().unwrap().reloads, 1);
    assert_eq!(next(&told, 3), ["0 accepts", "0 hands over", "1 accepts"]);
    assert_eq!(running.stop().await, Exit::Success);
}

#[tokio::test]
async fn child_that_says_that_it_leaves_or_ends_is_known_to_accept_no_more_while_it_still_has_its_grace() {
    for says_it in [true, false] {
        let (end, ended) = watch::channel(None);
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let fake = Box::new(Fake { ended, end: end.clone() });
        let child = Connected::new(fake, ours, Vec::new(), tokio::time::Instant::now()).unwrap();
        let (accepting, left) = oneshot::channel();
        let limits = Limits::default();
        let retiree = Retiree { child, grace: LONG, limits, hands_over: true, accepting: Some(accepting) };
        let (_, successor) = oneshot::channel();
        let (_stop, shutdown) = Shutdown::manual();
        let retiring = tokio::spawn(retiree.run(successor, shutdown));
        if says_it {
            control::send_blocking(&mut &theirs, &ToSupervisor::Leaving).unwrap();
        } else {
            end.send_replace(Some(ExitStatus::from_raw(SEGV)));
        }
        // Nobody sends: it is the other end that goes.
        assert!(tokio::time::timeout(LONG, left).await.expect("it is known").is_err());
        assert!(!(says_it && retiring.is_finished()), "it has connections to serve");
        end.send_replace(Some(ExitStatus::from_raw(0)));
        retiring.await.unwrap();
    }
}

/// Its clock goes on by itself while everybody waits.
#[tokio::test(start_paused = true)]
async fn the_new_child_waits_for_a_second_at_most_and_for_nobody_who_has_ended() {
    let end = |status: Option<ExitStatus>| {
        let (end, ended) = watch::channel(status);
        Fake { ended, end }
    };
    let began = tokio::time::Instant::now();
    let waited = async |left, mut process: Fake, shutdown| {
        let began = tokio::time::Instant::now();
        accepts_no_more(left, &mut process, shutdown).await;
        began.elapsed()
    };
    let (stop, shutdown) = Shutdown::manual();
    let (accepting, left) = oneshot::channel::<()>();
    assert_eq!(waited(left, end(None), shutdown.clone()).await, LEAVE_MAX, "the old one says nothing");
    drop(accepting);
    let (accepting, left) = oneshot::channel::<()>();
    drop(accepting);
    assert_eq!(waited(left, end(None), shutdown.clone()).await, Duration::ZERO, "it accepts no more");
    let (_accepting, left) = oneshot::channel::<()>();
    let dead = Some(ExitStatus::from_raw(SEGV));
    assert_eq!(waited(left, end(dead), shutdown.clone()).await, Duration::ZERO, "the new one is dead");
    let (_accepting, left) = oneshot::channel::<()>();
    stop.request();
    assert_eq!(waited(left, end(None), shutdown).await, Duration::ZERO, "nobody follows");
    assert_eq!(began.elapsed(), LEAVE_MAX);
}

#[tokio::test(flavor = "multi_thread")]
async fn child_that_is_not_to_follow_is_never_told_to_accept() {
    let (running, told) = children(|_, order, _| match order {
        ToChild::Drain { .. } | ToChild::HandOver { .. } => Obeyed::Ended(0),
        _ => Obeyed::Lives,
    });
    running.wait_for(|now| now.ready).await;
    let (up, mut ups) = mpsc::channel(1);
    let (go, gone) = watch::channel(None);
    let (reloads, assent) = (running.reloads.clone(), Assent { up, go: gone });
    let reloading = tokio::spawn(async move { reloads.reload_with(plan("new"), Some(assent)).await });
    ups.recv().await.unwrap();
    go.send_replace(Some(false));
    assert_eq!(reloading.await.unwrap().unwrap_err().exit, Exit::PluginRefused);
    assert_eq!(next(&told, 2), ["0 accepts", "1 hands over"]);
    assert_eq!(running.stop().await, Exit::Success);
}
