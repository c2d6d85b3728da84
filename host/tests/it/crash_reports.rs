//! What a supervisor says of a child that died: of what, by whose doing, and where.

use crate::reload::Installation;
use crate::serving::{Serving, child, signal, soon};
use cardcage_harness::{Cardcage, Config, Signal, eventually};
use serde_json::{Value, json};

pub(crate) fn config(config: Config) -> Config {
    config
        .set("tasks.lease_ms", 120_000)
        .set("drain.grace_ms", 5_000)
        .set("tasks.crash_limit", 1)
        .set("tasks.quarantine_after", 0)
}

pub(crate) async fn accepted(serving: &Serving, order: Value) -> String {
    let reply = serving.http.post_json("/chaos/task", &order).await.unwrap();
    assert_eq!(reply.status, 202, "{}", reply.text());
    reply.task_id().unwrap()
}

/// The report of the next crash after `old`, once the host is ready again.
pub(crate) async fn crash_after(host: &Cardcage, old: &Value) -> Value {
    let admin = host.admin().unwrap();
    let mut last = String::new();
    let told = eventually(soon(), "a crash is reported, and the host is ready again", async || {
        let reply = admin.get("/readyz?verbose").await;
        last = reply.as_ref().map_or_else(ToString::to_string, |reply| reply.text());
        let mut ready = reply.ok()?.json().ok()?;
        let report = ready["last_crash"].take();
        (report.is_object() && report != *old && ready["ready"] == true).then_some(report)
    })
    .await;
    told.unwrap_or_else(|error| panic!("{error}: {last}"))
}

async fn metrics(host: &Cardcage) -> String {
    host.admin().unwrap().get("/metrics").await.unwrap().text()
}

/// That the offset is one in the library's code.
fn assert_in_library(report: &Value) {
    use object::{Object as _, ObjectSegment as _, SegmentFlags, elf::PF_X};
    let offset = report["library_offset"].as_str().unwrap_or_else(|| panic!("no offset: {report}"));
    let offset = u64::from_str_radix(offset.trim_start_matches("0x"), 16).unwrap();
    let bytes = std::fs::read(cardcage_harness::plugin_library("chaos").unwrap()).unwrap();
    let library = object::File::parse(&*bytes).unwrap();
    let is_in = |segment: object::Segment<'_, '_>| {
        let is_code = matches!(segment.flags(), SegmentFlags::Elf { p_flags, .. } if p_flags.0 & PF_X.0 != 0);
        is_code && (segment.address()..segment.address() + segment.size()).contains(&offset)
    };
    assert!(library.segments().any(is_in), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn crash_in_a_task_is_reported_with_plugin_version_task_id_and_offset() {
    let (serving, worker) = Serving::both(config).await;
    let mut last = Value::Null;
    for (mode, how) in [
        ("segfault", "SIGSEGV"),
        ("read_beyond_end", "SIGBUS"),
        ("overflow_stack", "SIGSEGV"),
        ("abort", "SIGABRT"),
    ] {
        let neighbour = accepted(&serving, json!({ "mode": "sleep", "ms": 2_000 })).await;
        let id = accepted(&serving, json!({ "mode": mode })).await;
        let report = crash_after(&worker, &last).await;
        assert_eq!((&report["cause"], &report["plugin"]), (&json!("signal"), &json!("chaos")), "{report}");
        assert_eq!(report["version"], env!("CARGO_PKG_VERSION"), "{report}");
        assert_eq!(report["work"], json!({ "kind": "task", "name": "chaos", "id": id }), "{mode}: {report}");
        assert_eq!(report["is_stack_overflow"], mode == "overflow_stack", "{report}");
        assert!(report["how"].as_str().unwrap().contains(how), "{mode}: {report}");
        assert_in_library(&report);
        // Known, not suspected: also where the stack overflowed.
        let done = serving.http.final_task(&id, soon()).await.unwrap();
        assert_eq!(done["error"]["code"], "crashed", "{mode}: {done}");
        let spared = serving.http.final_task(&neighbour, soon()).await.unwrap();
        assert_eq!(spared["state"], "succeeded", "{spared}");
        last = report;
    }
    let metrics = metrics(&worker).await;
    let line = "cardcage_child_crashes_total{cause=\"signal\",plugin=\"chaos\"} 4";
    assert!(metrics.lines().any(|found| found == line), "{metrics}");
    let log = worker.stderr();
    assert!(log.contains("library_offset") && log.contains("is_stack_overflow"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn crash_on_a_thread_of_the_plugins_own_is_reported_with_the_plugin() {
    let (serving, worker) = Serving::both(config).await;
    let mut last = Value::Null;
    for (mode, cause) in [
        ("segfault_aside", "signal"),
        ("overflow_stack_aside", "signal"),
        ("abort_aside", "signal"),
        ("exit_aside", "exit"),
    ] {
        accepted(&serving, json!({ "mode": mode, "ms": 100 })).await;
        let report = crash_after(&worker, &last).await;
        assert_eq!((&report["plugin"], &report["work"]), (&json!("chaos"), &Value::Null), "{report}");
        assert_eq!(
            (&report["cause"], &report["is_stack_overflow"]),
            (&json!(cause), &json!(mode == "overflow_stack_aside")),
            "{report}"
        );
        assert_in_library(&report);
        last = report;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn crash_in_a_call_is_reported_with_its_route_on_a_worker_and_in_the_api() {
    let (serving, worker) = Serving::both(config).await;
    assert_eq!(serving.order(json!({ "mode": "segfault" })).await.status, 502);
    let report = crash_after(&worker, &Value::Null).await;
    assert_eq!((&report["plugin"], &report["work"]["kind"]), (&json!("chaos"), &json!("route")), "{report}");
    assert_eq!(report["work"]["name"], "call", "{report}");

    let inline = |c: Config| config(c).set("plugins.chaos.placement", "inline");
    let serving = Serving::api(inline).await;
    // The connection goes with the child.
    assert!(serving.http.post_json("/chaos/call", &json!({ "mode": "overflow_stack" })).await.is_err());
    let report = crash_after(&serving.api, &Value::Null).await;
    assert_eq!((&report["plugin"], &report["work"]["kind"]), (&json!("chaos"), &json!("route")), "{report}");
    assert_eq!((&report["work"]["name"], &report["is_stack_overflow"]), (&json!("call"), &json!(true)));
    let id = report["work"]["id"].as_str().unwrap();
    assert_eq!(id.len(), 32, "a request's: {report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_by_somebody_and_an_exit_are_told_apart_from_faults() {
    let (serving, worker) = Serving::both(config).await;
    signal(child(&worker), Signal::KILL);
    let killed = crash_after(&worker, &Value::Null).await;
    assert_eq!((&killed["cause"], &killed["plugin"]), (&json!("killed"), &Value::Null), "{killed}");
    let id = accepted(&serving, json!({ "mode": "exit" })).await;
    let exited = crash_after(&worker, &killed).await;
    assert_eq!((&exited["cause"], &exited["plugin"]), (&json!("exit"), &json!("chaos")), "{exited}");
    assert_eq!(exited["work"]["id"], id, "{exited}");
    assert_in_library(&exited);
}

#[tokio::test(flavor = "multi_thread")]
async fn crash_in_a_plugins_stop_is_reported_with_the_plugin_though_nothing_was_in_flight() {
    let installation = Installation::new(|config, _| {
        let fickle = config.plugin("fickle").unwrap();
        fickle.plugin_set("fickle", "fault", "crash_at_stop")
    })
    .await;
    let worker = &installation.worker;
    let reload = installation.reload(&[worker]).await;
    assert!(reload.status.success(), "{reload:?}");
    // The child before the reload.
    let report = crash_after(worker, &Value::Null).await;
    assert_eq!((&report["cause"], &report["plugin"]), (&json!("signal"), &json!("fickle")), "{report}");
    let line = "cardcage_child_crashes_total{cause=\"signal\",plugin=\"fickle\"} 1";
    let metrics = metrics(worker).await;
    assert!(metrics.lines().any(|found| found == line), "{metrics}");
}
