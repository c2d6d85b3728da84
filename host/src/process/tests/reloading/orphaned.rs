//! The old child dies while the new one comes up.

use super::*;
use std::sync::mpsc::{Receiver, Sender, channel};

/// The first child serves until the second, the one with the new plan, is started, and dies of it. `children` says what that one
/// does, and each after it.
fn orphaned(
    children: impl Fn(usize, OwnedFd) -> Box<dyn Process> + Send + Sync + 'static,
) -> (Running, tokio::task::JoinHandle<Result<Snapshot, Unfit>>) {
    let (die, dies) = channel::<()>();
    let dies = Mutex::new(Some(dies));
    let mut options = options(move |n, control| {
        if n > 0 {
            let _ = die.send(());
            return children(n, control);
        }
        let dies = dies.lock().unwrap().take().unwrap();
        fake(control, move |child| {
            child.outbox.send(&ready()).unwrap();
            dies.recv().unwrap();
            SEGV
        })
    });
    options.listener = Some(std::net::TcpListener::bind("127.0.0.1:0").unwrap().into());
    let running = run(options);
    let status = running.handle.status.clone();
    let reloads = running.reloads.clone();
    let asked = async move {
        status.wait_for(|now| now.ready).await;
        tokio::time::timeout(LONG, reloads.reload(plan("new"))).await.expect("an answer")
    };
    let reloading = tokio::spawn(asked);
    (running, reloading)
}

/// Where a child waits for a word; each word lets one go on.
fn gate() -> (Sender<()>, Arc<Mutex<Receiver<()>>>) {
    let (open, opened) = channel();
    (open, Arc::new(Mutex::new(opened)))
}

fn pass(gate: &Mutex<Receiver<()>>) {
    gate.lock().unwrap().recv_timeout(LONG).unwrap();
}

/// Which plan it was given.
fn given(child: &Attached) -> &str {
    child.start.settings["some"].as_str().unwrap()
}

#[tokio::test]
async fn one_with_the_old_plan_serves_in_the_dead_ones_place_until_the_new_one_follows() {
    let ((begin, begins), (rise, rises)) = (gate(), gate());
    let (end, ended) = channel();
    let (running, reloading) = orphaned(move |n, control| {
        let (begins, rises, end) = (begins.clone(), rises.clone(), end.clone());
        match n {
            1 => fake(control, move |child| {
                assert_eq!(given(&child), "new");
                pass(&rises);
                good_child(child)
            }),
            2 => fake(control, move |mut child| {
                assert_eq!(given(&child), "settings");
                pass(&begins);
                child.outbox.send(&ready()).unwrap();
                assert_eq!(child.orders.blocking_recv(), Some(ToChild::Accept));
                end.send(format!("{:?}", child.orders.blocking_recv())).unwrap();
                0
            }),
            _ => panic!("nobody else is started"),
        }
    });
    let dead = running.wait_for(|now| now.restarts == 1).await;
    assert_eq!((dead.ready, dead.status), (false, Stage::Starting), "nobody serves");
    begin.send(()).unwrap();
    let now = running.wait_for(|now| now.ready).await;
    assert_eq!((now.reloads, now.plugins[0].name.as_str()), (0, "hello"));
    assert!(!reloading.is_finished(), "the new one is still on its way");
    rise.send(()).unwrap();
    let now = reloading.await.unwrap().unwrap();
    assert_eq!((now.ready, now.reloads, now.restarts), (true, 1, 1));
    assert_eq!(running.stop().await, Exit::Success);
    assert!(ended.recv().unwrap().starts_with("Some(HandOver"), "it drained as any other");
}

#[tokio::test]
async fn one_in_the_dead_ones_place_that_does_not_serve_yet_is_ended_when_the_new_one_follows() {
    let (rise, rises) = gate();
    let (running, reloading) = orphaned(move |n, control| {
        let rises = rises.clone();
        match n {
            1 => fake(control, move |child| {
                pass(&rises);
                good_child(child)
            }),
            2 => {
                rise.send(()).unwrap();
                shell(control, &[phase("hello", Step::Init)], "exec sleep 1000")
            }
            3 => fake(control, good_child),
            _ => panic!("nobody else is started"),
        }
    });
    assert_eq!(reloading.await.unwrap().unwrap().reloads, 1);
    // It waits until the one before has ended, for which that one has not the grace of one that serves.
    let now = reload(&running, "newer").await.unwrap().unwrap();
    assert_eq!((now.ready, now.reloads, now.refused.len()), (true, 2, 0));
    assert_eq!(running.stop().await, Exit::Success);
}

#[tokio::test]
async fn one_that_comes_to_serve_when_it_is_to_go_has_the_whole_grace_for_what_it_took() {
    /// Longer than one has that does not serve.
    const WORK: Duration = Duration::from_millis(2_500);
    let (rise, rises) = gate();
    let (running, reloading) = orphaned(move |n, control| {
        let rises = rises.clone();
        match n {
            1 => fake(control, move |child| {
                pass(&rises);
                good_child(child)
            }),
            2 => {
                rise.send(()).unwrap();
                fake(control, |mut child| {
                    // It never accepts: it was not ready when it was followed.
                    let mut begun = phase("hello", Step::Init);
                    if let ToSupervisor::Phase { entered: Some(phase) } = &mut begun {
                        phase.index = Some(1);
                    }
                    child.outbox.send(&begun).unwrap();
                    assert!(matches!(child.orders.blocking_recv(), Some(ToChild::HandOver { .. })));
                    child.outbox.send(&ready()).unwrap();
                    let call = child.board.claim(Kind::Call, [2; 16], "to", "hello", "call", 1, u64::MAX);
                    std::thread::sleep(WORK);
                    std::mem::forget(call);
                    0
                })
            }
            _ => panic!("nobody else is started"),
        }
    });
    assert_eq!(reloading.await.unwrap().unwrap().reloads, 1);
    let deaths = running.deaths.clone();
    assert_eq!(running.stop().await, Exit::Success);
    let (deaths, begun) = (deaths.0.lock().unwrap(), deaths.1.lock().unwrap());
    let left: Vec<_> = deaths.iter().zip(&*begun).filter(|((entries, _), _)| !entries.is_empty()).collect();
    let [((_, how), begun)] = left.as_slice() else { panic!("{left:?}") };
    assert_eq!(how, &Death::Exited(0), "it was not killed");
    assert_eq!(begun.as_slice(), ["hello"], "what it left is held against the plugins that it had begun");
}

#[tokio::test]
async fn new_one_that_is_refused_leaves_the_one_in_the_dead_ones_place_as_it_is() {
    let (fall, falls) = gate();
    let (running, reloading) = orphaned(move |n, control| {
        let falls = falls.clone();
        match n {
            1 => fake(control, move |child| {
                child.outbox.send(&phase("hello", Step::Init)).unwrap();
                pass(&falls);
                SEGV
            }),
            2 => fake(control, good_child),
            _ => panic!("nobody else is started"),
        }
    });
    let before = running.wait_for(|now| now.ready && now.restarts == 1).await;
    fall.send(()).unwrap();
    let unfit = reloading.await.unwrap().unwrap_err();
    assert_eq!(unfit.exit, Exit::PluginRefused);
    assert!(unfit.reasons[0].contains("died of SIGSEGV in its init"), "{unfit:?}");
    assert_eq!(running.handle.status.snapshot(), before, "nothing has changed");
    assert_eq!(running.stop().await, Exit::Success);
}

#[tokio::test]
async fn where_the_old_plan_cannot_start_any_more_the_new_one_is_waited_for() {
    for (rises_after_all, exit) in [(true, Exit::Success), (false, Exit::Config)] {
        let ((go, goes), (fail, fails), (accept, accepts)) = (gate(), gate(), channel());
        let (running, reloading) = orphaned(move |n, control| {
            let (goes, fails, accept) = (goes.clone(), fails.clone(), accept.clone());
            match n {
                1 => fake(control, move |mut child| {
                    pass(&goes);
                    if !rises_after_all {
                        return SEGV;
                    }
                    child.outbox.send(&ready()).unwrap();
                    accept.send(child.orders.blocking_recv()).unwrap();
                    child.orders.blocking_recv();
                    0
                }),
                2 => fake(control, move |child| {
                    pass(&fails);
                    let message = "the streams differ".to_owned();
                    let failed = ToSupervisor::Failed { exit_code: 78, message, retry: false };
                    child.outbox.send(&failed).unwrap();
                    78 << 8
                }),
                _ => panic!("nobody else is started"),
            }
        });
        running.wait_for(|now| now.restarts == 1 && now.child_pid.is_some()).await;
        fail.send(()).unwrap();
        running.wait_for(|now| now.child_pid.is_none()).await;
        assert!(!running.exit.is_finished() && !reloading.is_finished());
        go.send(()).unwrap();
        let outcome = reloading.await.unwrap();
        assert_eq!(outcome.is_ok(), rises_after_all, "{outcome:?}");
        if rises_after_all {
            running.wait_for(|now| now.ready).await;
            assert_eq!(accepts.recv_timeout(LONG).unwrap(), Some(ToChild::Accept));
            running.stop.request();
        }
        assert_eq!(running.exit().await, exit);
    }
}

#[tokio::test]
async fn stop_ends_the_new_one_and_the_one_in_the_dead_ones_place() {
    let (running, reloading) =
        orphaned(|_, control| shell(control, &[phase("hello", Step::Init)], "exec sleep 1000"));
    running.wait_for(|now| now.restarts == 1 && now.child_pid.is_some()).await;
    assert_eq!(running.stop().await, Exit::Success);
    assert_eq!(reloading.await.unwrap().unwrap_err().exit, Exit::Unavailable);
}
