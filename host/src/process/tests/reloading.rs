//! A new plan while a child serves.

mod accepting;
mod orphaned;

use super::*;

fn plan(settings: &str) -> Plan {
    Plan {
        settings: serde_json::json!({"some": settings, "plugins": {"hello": {}, "chaos": {}}}),
        grace: LONG,
        load_timeout: LONG,
        required: BTreeSet::new(),
        limits: Limits::default(),
    }
}

fn reload(running: &Running, settings: &str) -> tokio::task::JoinHandle<Result<Snapshot, Unfit>> {
    let (reloads, plan) = (running.reloads.clone(), plan(settings));
    tokio::spawn(async move { tokio::time::timeout(LONG, reloads.reload(plan)).await.expect("an answer") })
}

/// Serves, and says on `events` what it is asked for.
fn telling(child: Attached, events: &std::sync::mpsc::Sender<String>) -> i32 {
    let name = child.start.settings["some"].as_str().unwrap().to_owned();
    let mut child = child;
    child.outbox.send(&ready()).unwrap();
    events.send(format!("{name} serves")).unwrap();
    child.outbox.send(&ToSupervisor::Consuming { active: true }).unwrap();
    assert_eq!(child.orders.blocking_recv(), Some(ToChild::Accept));
    let order = child.orders.blocking_recv();
    events.send(format!("{name}: {order:?}")).unwrap();
    0
}

#[tokio::test(flavor = "multi_thread")]
async fn the_new_child_serves_before_the_old_one_hands_over() {
    let (events, told) = std::sync::mpsc::channel();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut options = options(move |_, control| {
        let events = events.clone();
        fake(control, move |child| {
            assert!(child.listener.is_some(), "each has the socket");
            assert_eq!(child.board.live(), []);
            telling(child, &events)
        })
    });
    options.role = Role::Worker;
    options.listener = Some(listener.into());
    let running = run(options);
    running.wait_for(|now| now.ready).await;
    for (nth, settings) in ["first", "second", "third"].into_iter().enumerate() {
        let now = reload(&running, settings).await.unwrap().unwrap();
        assert!(now.ready);
        assert_eq!((now.reloads, now.restarts), (nth as u64 + 1, 0));
    }
    // The last but one goes on its own time.
    let mut so_far: Vec<String> = (0..7).map(|_| told.recv_timeout(LONG).unwrap()).collect();
    let deaths = running.deaths.clone();
    assert_eq!(running.stop().await, Exit::Success);
    so_far.extend(told);
    let told = so_far;
    let expected = [
        "settings serves",
        "first serves",
        "settings: Some(HandOver",
        "second serves",
        "first: Some(HandOver",
        "third serves",
        "second: Some(HandOver",
        "third: Some(Drain",
    ];
    assert_eq!(told.len(), expected.len(), "{told:?}");
    assert!(told.iter().zip(expected).all(|(told, expected)| told.starts_with(expected)), "{told:?}");
    assert_eq!(deaths.0.lock().unwrap().len(), 0, "nobody died");
}

#[tokio::test]
async fn new_child_that_loses_a_plugin_or_fails_or_dies_changes_nothing() {
    let refused = |plugin: &str| {
        let (code, message) = ("abi".to_owned(), format!("{plugin} is too old"));
        let (plugin, file) = (plugin.to_owned(), "f".to_owned());
        ToSupervisor::Refused(Refusal { plugin, file, code, message, required: false })
    };
    let failed = ToSupervisor::Failed { exit_code: 78, message: "the streams differ".into(), retry: false };
    let running = run(options(move |n, control| match n {
        0 => fake(control, good_child),
        // It serves hello now, so that hello is needed, though no settings require it.
        1 => shell(control, &[phase("hello", Step::Init)], "kill -SEGV $$"),
        2 => shell(control, &[refused("hello"), ready()], "exec sleep 1000"),
        3 => shell(control, std::slice::from_ref(&failed), "exit 78"),
        4 => shell(control, &[], "exit 3"),
        // Chaos did not serve, and may be done without.
        5 => shell(control, &[phase("chaos", Step::Init)], "exit 1"),
        6 => fake(control, |child| {
            assert_eq!(child.start.needed, ["hello"]);
            assert_eq!(child.start.excluded[0].plugin, "chaos");
            good_child(child)
        }),
        _ => panic!("nobody else is started"),
    }));
    let before = running.wait_for(|now| now.ready).await;
    for (exit, reason) in [
        (Exit::PluginRefused, "died of SIGSEGV in its init"),
        (Exit::PluginRefused, "hello is too old"),
        (Exit::Config, "the streams differ"),
        (Exit::Unexpected, "exited with code 3"),
    ] {
        let unfit = reload(&running, "new").await.unwrap().unwrap_err();
        assert_eq!(unfit.exit, exit, "{unfit:?}");
        assert!(unfit.reasons[0].contains(reason), "{unfit:?}");
        assert_eq!(running.handle.status.snapshot(), before, "nothing has changed");
    }
    let now = reload(&running, "new").await.unwrap().unwrap();
    assert_eq!((now.reloads, now.refused[0].plugin.as_str()), (1, "chaos"));
    assert_eq!(running.stop().await, Exit::Success);
}

#[tokio::test]
async fn stop_during_a_reload_ends_both_children() {
    let (begins, begun) = std::sync::mpsc::channel::<()>();
    let running = run(options(move |n, control| match n {
        0 => fake(control, good_child),
        _ => {
            begins.send(()).unwrap();
            shell(control, &[phase("chaos", Step::Init)], "exec sleep 1000")
        }
    }));
    running.wait_for(|now| now.ready).await;
    let mut options = plan("new");
    options.grace = Duration::from_millis(10);
    let reloads = running.reloads.clone();
    let reloading = tokio::spawn(async move { reloads.reload(options).await });
    let begun = async {
        while begun.try_recv().is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, begun).await.expect("the new child was never started");
    assert_eq!(running.stop().await, Exit::Success);
    assert_eq!(reloading.await.unwrap().unwrap_err().exit, Exit::Unavailable);
}
