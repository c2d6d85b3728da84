//! What goes wrong in the process of a previous library stays there, and costs no task.

use super::{Site, accepted, done, library, loaded, once, ready, run_json, running, seat, with};
use crate::serving::soon;
use cardcage_harness::{Cardcage, Deadline, Launch, eventually};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

const PREVIOUS: Option<&str> = Some("previous-1");

fn child(now: &Value, group: Option<&str>) -> i64 {
    seat(now, group)["child_pid"].as_i64().unwrap_or_else(|| panic!("{group:?} has a child: {now}"))
}

async fn until(worker: &Cardcage, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let shown = eventually(Deadline::seconds(90), what, async || {
        let now = ready(worker).await;
        wanted(&now).then_some(now)
    });
    shown.await.unwrap_or_else(|error| panic!("{error}: {}", worker.stderr()))
}

#[tokio::test(flavor = "multi_thread")]
async fn previous_library_that_crashes_in_different_tasks_is_quarantined_and_the_current_one_goes_on() {
    let quick = |config: cardcage_harness::Config| {
        config.set("tasks.quarantine_after", 2).set("tasks.lease_ms", 3_000).set("drain.grace_ms", 2_000)
    };
    let site = Site::new(quick).await;
    let config = site.of(2, &[1]);
    let worker = Cardcage::worker(&config).await.unwrap();
    let (new, old) = (site.api(&config).await, site.api(&site.of(1, &[])).await);
    let (new, old) = (new.http().unwrap(), old.http().unwrap());
    let before = child(&ready(&worker).await, None);
    let crash = json!({ "label": "x", "crash": true });
    // One after the other: what is on its way to a dying child is another matter.
    let first = accepted(&old, crash.clone()).await;
    assert_eq!(done(&old, &first).await.0, "1.4.0 did x");
    let second = accepted(&old, crash).await;
    let version = |now: &Value| now["quarantined"][0]["version"].as_str().map(str::to_owned);
    let told = |now: &Value| version(now).is_some() && now["ready"] == true;
    let now = until(&worker, "the worker is ready again, with the old version quarantined", told).await;
    assert_eq!(now["quarantined"].as_array().unwrap().len(), 1, "{now}");
    assert_eq!(version(&now).as_deref(), Some("1.4.0"), "{now}");

    // Of the old major everything waits, or is refused; of the new one nothing does.
    let waiting = accepted(&old, json!({ "label": "late" })).await;
    let (why, _) = run_json(&config, &["tasks", "why", &waiting]).await;
    assert_eq!(why["code"], "quarantined", "{why}");
    let refused = eventually(soon(), "calls of the old major are refused", async || {
        let reply = old.get("/majors/which").await.unwrap();
        (reply.status == 503).then(|| reply.problem_code())
    });
    assert_eq!(refused.await.unwrap().as_deref(), Some("plugin_quarantined"));
    let id = accepted(&new, json!({ "title": "on" })).await;
    assert_eq!(done(&new, &id).await, once("2.0.0 did on"));
    assert_eq!(new.get("/majors/which").await.unwrap().text(), "2.0.0");
    assert_eq!(child(&ready(&worker).await, None), before, "the current library's process is the same");

    let arguments = ["plugin", "release", "majors", "--version", "1.4.0"];
    let released = Launch::new(arguments).config(&config).run(soon()).await.unwrap();
    assert_eq!(released.status.code(), Some(0), "{released:?}");
    assert_eq!(done(&old, &waiting).await, once("1.4.0 did late"));
    assert_eq!(done(&old, &second).await.0, "1.4.0 did x");
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_of_the_previous_librarys_process_loses_no_task_and_is_not_noticed_beside_it() {
    let site = Site::new(|config| config.set("tasks.lease_ms", 3_000).set("drain.grace_ms", 2_000)).await;
    let config = site.of(2, &[1]);
    let worker = Cardcage::worker(&config).await.unwrap();
    let (new, old) = (site.api(&config).await, site.api(&site.of(1, &[])).await);
    let (new, old) = (new.http().unwrap(), old.http().unwrap());
    let long = accepted(&new, json!({ "title": "long", "sleep_ms": 4_000 })).await;
    running(&new, &long).await;
    let mut tasks = Vec::new();
    for n in 0..40 {
        let label = format!("{n}");
        tasks.push((accepted(&old, json!({ "label": label, "sleep_ms": 300 })).await, label));
    }
    let held = accepted(&old, json!({ "label": "held", "sleep_ms": 1_500 })).await;
    running(&old, &held).await;
    tasks.push((held.clone(), "held".to_owned()));
    let before = ready(&worker).await;
    let killed = Pid::from_raw(i32::try_from(child(&before, PREVIOUS)).unwrap()).unwrap();
    kill_process(killed, Signal::KILL).unwrap();
    for (id, label) in &tasks {
        assert_eq!(done(&old, id).await.0, format!("1.4.0 did {label}"));
    }
    let (_, attempts) = done(&old, &held).await;
    assert!(
        attempts.len() == 2 && attempts[0] != "succeeded",
        "it was cut off, and tried again: {attempts:?}"
    );
    assert_eq!(done(&new, &long).await, once("2.0.0 did long"));
    let after = ready(&worker).await;
    assert_eq!(child(&after, None), child(&before, None), "{after}");
    assert_ne!(child(&after, PREVIOUS), child(&before, PREVIOUS), "{after}");
}

#[tokio::test(flavor = "multi_thread")]
async fn previous_library_that_is_overwritten_refuses_a_reload_and_changes_nothing() {
    let site = Site::new(|config| config).await;
    let file = site.folder.path().join("libmajors-old.so");
    std::fs::copy(library(1), &file).unwrap();
    let config = with(site.config.clone(), 2, &[]);
    let config = config.set("plugins.majors.previous", vec![file.display().to_string()]);
    let worker = site.reloadable("worker", &config).await;
    let (new, old) = (site.api(&config).await, site.api(&site.of(1, &[])).await);
    let (new, old) = (new.http().unwrap(), old.http().unwrap());
    let before = worker.child_pids();
    let whole = std::fs::read(&file).unwrap();
    for (bytes, sentence) in [
        (b"no library at all".to_vec(), "libmajors-old.so"),
        (Vec::new(), "libmajors-old.so"),
        (whole[..whole.len() / 2].to_vec(), "libmajors-old.so"),
    ] {
        // In place, as `cp` does: the same inode that was loaded from.
        std::fs::write(&file, &bytes).unwrap();
        let told = site.reload("worker", &worker, &config).await;
        assert_eq!(told.status.code(), Some(70), "{told:?}");
        assert!(told.stdout.contains(sentence), "{told:?}");
        let now = ready(&worker).await;
        assert_eq!(loaded(seat(&now, None)), ["hello 0.1.0", "majors 2.0.0"], "{now}");
        assert_eq!(loaded(seat(&now, PREVIOUS)), ["majors 1.4.0"], "{now}");
        assert_eq!((worker.child_pids(), &now["ready"]), (before.clone(), &json!(true)), "{now}");
        let id = accepted(&old, json!({ "label": "still" })).await;
        assert_eq!(done(&old, &id).await, once("1.4.0 did still"));
        let id = accepted(&new, json!({ "title": "still" })).await;
        assert_eq!(done(&new, &id).await, once("2.0.0 did still"));
    }
    std::fs::write(&file, &whole).unwrap();
    let told = site.reload("worker", &worker, &config).await;
    assert_eq!(told.status.code(), Some(0), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn previous_library_that_crashes_by_itself_is_left_out_for_a_while_and_comes_back_when_it_is_well() {
    let site = Site::new(|config| config).await;
    let doom = site.folder.path().join("doom");
    std::fs::write(&doom, "").unwrap();
    let config = site.of(2, &[1]).plugin_set("majors", "doom", doom.to_str().unwrap());
    let worker = Cardcage::worker(&config).await.unwrap();
    let (new, old) = (site.api(&config).await, site.api(&site.of(1, &[])).await);
    let (new, old) = (new.http().unwrap(), old.http().unwrap());
    let before = child(&ready(&worker).await, None);
    let out = until(&worker, "the old version is left out", |now| {
        let seats = now["seats"].as_array().unwrap().iter();
        let mut previous = seats.filter(|one| one["seat"]["group"].as_str() == PREVIOUS);
        previous.any(|one| one["refused"][0]["code"] == "crash_loop")
    })
    .await;
    let crash = &seat(&out, PREVIOUS)["last_crash"];
    assert_eq!((&crash["plugin"], &crash["version"]), (&json!("majors"), &json!("1.4.0")), "{out}");
    let id = accepted(&new, json!({ "title": "on" })).await;
    assert_eq!(done(&new, &id).await, once("2.0.0 did on"));
    let waiting = accepted(&old, json!({ "label": "late" })).await;
    std::fs::remove_file(&doom).unwrap();
    assert_eq!(done(&old, &waiting).await.0, "1.4.0 did late");
    let back = ready(&worker).await;
    assert_eq!(child(&back, None), before, "{back}");
    assert_eq!(loaded(seat(&back, PREVIOUS)), ["majors 1.4.0"], "{back}");
}
