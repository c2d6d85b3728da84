//! What a supervisor makes of its children's ends.

use super::*;

#[tokio::test]
async fn plugin_that_exits_with_zero_in_init_is_refused_and_the_others_serve() {
    let running = run(options(|n, control| match n {
        0 => shell(control, &[phase("hello", Step::Open), phase("hello", Step::Init)], "exit 0"),
        _ => fake(control, |child| {
            assert_eq!(child.start.excluded[0].plugin, "hello");
            good_child(child)
        }),
    }));
    let now = running.wait_for(|now| now.ready).await;
    assert_eq!((now.refused.len(), now.restarts), (1, 1));
    let Refusal { plugin, file, code, message, required } = &now.refused[0];
    assert_eq!((plugin.as_str(), file.as_str(), code.as_str()), ("hello", "libhello.so", "died"));
    assert!(message.contains("libhello.so: called exit(0) in its init"), "{message}");
    assert!(!required);
    assert_eq!(running.stop().await, Exit::Success);
}

#[tokio::test]
async fn required_plugin_that_aborts_in_describe_ends_the_supervisor_with_70() {
    let running =
        run(options(|_, control| shell(control, &[phase("orders", Step::Describe)], "kill -ABRT $$")));
    let status = running.handle.status.clone();
    assert_eq!(running.exit().await, Exit::PluginRefused);
    let now = status.snapshot();
    assert_eq!((now.status, now.ready, now.child_pid), (Stage::Ended, false, None));
    assert_eq!((now.refused[0].code.as_str(), now.refused[0].required), ("died", true));
    assert!(now.refused[0].message.contains("died of SIGABRT"), "{}", now.refused[0].message);
}

#[tokio::test]
async fn plugin_that_hangs_while_loading_is_killed_and_refused() {
    let mut options = options(|n, control| match n {
        0 => shell(control, &[phase("hello", Step::Open)], "exec sleep 1000"),
        _ => fake(control, good_child),
    });
    options.plan.load_timeout = Duration::from_millis(100);
    let running = run(options);
    let now = running.wait_for(|now| now.ready).await;
    assert_eq!(now.refused[0].code, "hung");
    assert!(now.refused[0].message.contains("within 100 ms"), "{}", now.refused[0].message);
    assert_eq!(running.stop().await, Exit::Success);
}

#[tokio::test]
async fn child_that_loads_a_plugin_it_must_leave_out_ends_the_supervisor() {
    let running = run(options(|_, control| shell(control, &[phase("hello", Step::Init)], "exit 0")));
    assert_eq!(running.exit().await, Exit::PluginRefused);
}

#[tokio::test]
async fn refused_plugins_are_shown_and_a_required_one_ends_the_supervisor() {
    let refused = |plugin: &str| {
        let (code, message) = ("abi".to_owned(), "it is too old".to_owned());
        ToSupervisor::Refused(Refusal {
            plugin: plugin.into(),
            file: "f".into(),
            code,
            message,
            required: false,
        })
    };
    let running = run(options(move |_, control| {
        fake(control, move |child| {
            child.outbox.send(&refused("hello")).unwrap();
            good_child(child)
        })
    }));
    let now = running.wait_for(|now| now.ready).await;
    assert_eq!((now.refused[0].plugin.as_str(), now.plugins[0].name.as_str()), ("hello", "hello"));
    assert_eq!(running.stop().await, Exit::Success);

    let running = run(options(move |_, control| {
        fake(control, move |child| {
            child.outbox.send(&refused("orders")).unwrap();
            good_child(child)
        })
    }));
    assert_eq!(running.exit().await, Exit::PluginRefused);
}

#[tokio::test]
async fn crash_while_serving_is_answered_from_the_board_and_a_new_child_serves() {
    let running = run(options(|n, control| {
        fake(control, move |child| {
            if n > 0 {
                assert_eq!(child.board.live(), [], "the board is emptied between two children");
                return good_child(child);
            }
            let claim = child.board.claim(Kind::Call, [7; 16], "_INBOX.7", "chaos", "call", 0, 9).unwrap();
            std::mem::forget(claim);
            child.board.thread_slot().unwrap().enter(1, [7; 16]);
            child.outbox.send(&ready()).unwrap();
            SEGV
        })
    }));
    let now = running.wait_for(|now| now.ready && now.restarts == 1).await;
    assert_eq!(now.plugins.len(), 1);
    let (entries, how) = running.deaths.0.lock().unwrap()[0].clone();
    assert_eq!((entries.len(), entries[0].subject.as_str()), (1, "_INBOX.7"));
    assert_eq!(how, Death::Signalled("SIGSEGV".into()));
    assert_eq!(running.board.polling(), []);
    let deaths = running.deaths.clone();
    assert_eq!(running.stop().await, Exit::Success);
    assert_eq!(deaths.0.lock().unwrap().len(), 1, "a clean end has no aftermath");
}

#[tokio::test]
async fn child_that_says_it_cannot_start_gives_the_exit_code_unless_it_asks_for_another_try() {
    let failed = |retry| ToSupervisor::Failed { exit_code: 69, message: "no broker".into(), retry };
    let running = run(options(move |_, control| shell(control, &[failed(false)], "exit 69")));
    assert_eq!(running.exit().await, Exit::Unavailable);

    let running = run(options(move |n, control| match n {
        0 => shell(control, &[failed(true)], "exit 69"),
        _ => fake(control, good_child),
    }));
    running.wait_for(|now| now.ready).await;
    assert_eq!(running.stop().await, Exit::Success);
}

#[tokio::test]
async fn children_that_never_serve_end_the_supervisor_with_1() {
    let running = run(options(|_, control| shell(control, &[], "exit 3")));
    assert_eq!(running.exit().await, Exit::Unexpected);
}

#[tokio::test]
async fn drain_makes_unready_closes_the_listener_and_ends_with_0() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let gone = Mutex::new(Some(gone));
    let mut options = options(move |_, control| {
        let gone = gone.lock().unwrap().take().unwrap();
        fake(control, move |mut child| {
            let passed = std::net::TcpListener::from(child.listener.take().unwrap());
            assert_eq!(passed.local_addr().unwrap(), address);
            assert_eq!(child.start.settings, serde_json::json!({"some": "settings"}));
            child.outbox.send(&ready()).unwrap();
            assert_eq!(child.orders.blocking_recv(), Some(ToChild::Accept));
            assert_eq!(child.orders.blocking_recv(), Some(ToChild::Drain { grace_ms: 30_000 }));
            drop(passed);
            gone.recv().unwrap();
            0
        })
    });
    options.listener = Some(listener.into());
    let running = run(options);
    running.wait_for(|now| now.ready).await;
    running.stop.request();
    let now = running.wait_for(|now| now.status == Stage::Draining).await;
    assert!(!now.ready);
    let refused = async {
        while tokio::net::TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, refused).await.expect("the port stayed open during the drain");
    go.send(()).unwrap();
    assert_eq!(running.exit().await, Exit::Success);
}

#[tokio::test]
async fn grace_exceeded_and_second_signal_both_end_with_75() {
    let hangs = |_, control| shell(control, &[ready()], "exec sleep 1000");
    let mut short = options(hangs);
    short.plan.grace = Duration::from_millis(10);
    let running = run(short);
    running.wait_for(|now| now.ready).await;
    assert_eq!(running.stop().await, Exit::DrainDeadline);

    let mut long = options(hangs);
    long.plan.grace = Duration::from_secs(3600);
    let running = run(long);
    running.wait_for(|now| now.ready).await;
    running.stop.request();
    running.wait_for(|now| now.status == Stage::Draining).await;
    assert_eq!(running.stop().await, Exit::DrainDeadline);
}

#[tokio::test]
async fn stop_before_the_child_serves_ends_with_0() {
    let mut options = options(|_, control| shell(control, &[phase("orders", Step::Init)], "exec sleep 1000"));
    options.plan.grace = Duration::from_millis(10);
    let running = run(options);
    running.wait_for(|now| now.child_pid.is_some()).await;
    assert_eq!(running.stop().await, Exit::Success);
}

#[tokio::test]
async fn worker_is_ready_only_while_it_consumes_and_shows_what_is_degraded() {
    let mut options = options(|_, control| {
        fake(control, |mut child| {
            let say = |report| child.outbox.send(&report).unwrap();
            say(ready());
            say(ToSupervisor::Consuming { active: true });
            say(ToSupervisor::Degraded { reasons: vec!["slow".into()] });
            let mut step = 0;
            while let Some(order) = child.orders.blocking_recv() {
                match order {
                    ToChild::Metrics { id } => {
                        step += 1;
                        say(ToSupervisor::MetricsText { id, text: format!("scrape {step}\n") });
                        say(ToSupervisor::Consuming { active: false });
                        say(ToSupervisor::Restored);
                    }
                    _ => break,
                }
            }
            0
        })
    });
    options.role = Role::Worker;
    let running = run(options);
    running.wait_for(|now| now.ready && now.degraded == ["slow"]).await;
    assert_eq!(running.handle.metrics.text(LONG).await.as_deref(), Some("scrape 1\n"));
    running.wait_for(|now| !now.ready && now.consuming == Some(false) && now.degraded.is_empty()).await;
    assert_eq!(running.handle.metrics.text(LONG).await.as_deref(), Some("scrape 2\n"));
    assert_eq!(running.stop().await, Exit::Success);
}

#[tokio::test]
async fn child_that_sends_garbage_is_killed_and_replaced() {
    let running = run(options(|n, control| match n {
        0 => shell(control, &[ready()], "printf '\\377\\377\\377\\377' >&0; exec sleep 1000"),
        _ => fake(control, good_child),
    }));
    running.wait_for(|now| now.ready && now.restarts == 1).await;
    assert!(matches!(running.deaths.0.lock().unwrap()[0].1, Death::Killed(_)));
    assert_eq!(running.stop().await, Exit::Success);
}

#[tokio::test]
async fn worker_whose_handler_holds_a_thread_is_replaced_before_it_goes() {
    let (serves, served) = std::sync::mpsc::channel::<()>();
    let (serves, served) = (Mutex::new(Some(serves)), Mutex::new(Some(served)));
    let mut options = options(move |n, control| match n {
        0 => {
            let served = served.lock().unwrap().take().unwrap();
            fake(control, move |mut child| {
                let claim = child.board.claim(Kind::Task, [7; 16], "ack.7", "chaos", "short", 1, 1).unwrap();
                std::mem::forget(claim);
                child.board.thread_slot().unwrap().enter(1, [7; 16]);
                child.outbox.send(&ready()).unwrap();
                assert_eq!(child.orders.blocking_recv(), Some(ToChild::Drain { grace_ms: 30_000 }));
                served.try_recv().expect("it drains only when the other one serves");
                75 << 8
            })
        }
        _ => {
            let serves = serves.lock().unwrap().take().expect("one replacement");
            fake(control, move |child| {
                assert_eq!(child.board.live(), [], "it has a board of its own");
                child.outbox.send(&ToSupervisor::Consuming { active: false }).unwrap();
                serves.send(()).unwrap();
                child.outbox.send(&ToSupervisor::Consuming { active: true }).unwrap();
                good_child(child)
            })
        }
    });
    options.role = Role::Worker;
    let running = run(options);
    let deaths = running.deaths.clone();
    let buried = async {
        while deaths.0.lock().unwrap().len() < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, buried).await.expect("the first child was never buried");
    let told = deaths.0.lock().unwrap().clone();
    assert_eq!((told[0].0[0].subject.as_str(), &told[0].1), ("ack.7", &Death::Killed("overran")));
    assert_eq!((told[1].0.len(), &told[1].1), (1, &Death::Exited(75)));
    let now = running.wait_for(|now| now.status == Stage::Serving).await;
    assert_eq!(now.restarts, 1);
    assert_eq!(running.stop().await, Exit::Success);
}
