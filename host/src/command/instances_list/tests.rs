use std::slice::from_ref;

use cardcage_protocol::InstanceId;
use cardcage_protocol::presence::{PresentBody, PresentPath};
use serde_json::Value;

use super::drift::Drift;
use super::*;
use crate::loader::Description;

fn name(name: &str) -> Name {
    Name::new(name).unwrap()
}

fn drift(apis: &[Presence], workers: &[Presence]) -> Vec<Drift> {
    super::drift::find(apis, workers, &Schemas::default()).drift
}

fn present(instance: &str, version: &str, tasks: &[&str], routes: &[&str], status: &str) -> Presence {
    let major = version.split('.').next().unwrap().parse().unwrap();
    Presence {
        group: None,
        v: 1,
        instance: InstanceId::new(instance).unwrap(),
        host: "h".into(),
        pid: 1,
        version: "0.1.0".into(),
        started_at: Timestamp::from_unix_ms(0),
        status: status.into(),
        consuming: instance.starts_with("worker"),
        busy: 0,
        slots: 0,
        plugins: vec![PresentPlugin {
            name: name("orders"),
            version: version.into(),
            major,
            tasks: tasks.iter().map(|task| name(task)).collect(),
            routes: routes.iter().map(|route| name(route)).collect(),
            paths: Vec::new(),
            bodies: Vec::new(),
            busy: 0,
            slots: 0,
            is_previous: false,
            quarantined_at: None,
        }],
        running: Vec::new(),
    }
}

#[test]
fn what_an_api_offers_and_no_worker_of_that_major_runs_drifts() {
    let api = present("api-1", "1.2.0", &["fulfil", "refund"], &["call", "status"], "serving");
    let old = present("worker-1", "1.1.0", &["fulfil"], &["call"], "serving");
    let drifts = drift(from_ref(&api), from_ref(&old));
    assert_eq!(
        (drifts.len(), &drifts[0].tasks, &drifts[0].routes),
        (1, &vec![name("refund")], &vec![name("status")])
    );
    let new = present("worker-2", "1.2.0", &["fulfil", "refund"], &["call", "status"], "serving");
    assert_eq!(drift(from_ref(&api), &[old, new.clone()]), []);
    let next = present("worker-3", "2.0.0", &["fulfil", "refund"], &["call", "status"], "serving");
    assert_eq!(drift(from_ref(&api), &[next])[0].tasks.len(), 2, "another major");
    let mut quarantined = new;
    quarantined.plugins[0].quarantined_at = Some(Timestamp::from_unix_ms(1));
    assert_eq!(drift(&[api], &[quarantined])[0].routes.len(), 2);
    let draining = present("api-2", "1.2.0", &["fulfil"], &[], "draining");
    assert_eq!(drift(&[draining], &[]), []);
}

#[test]
fn drift_is_red_where_colours_are_and_only_there() {
    let api = [present("api-1", "1.2.0", &["fulfil"], &["call"], "serving")];
    let drift = Found { drift: drift(&api, &[]), not_compared: Vec::new() };
    let now = Timestamp::from_unix_ms(0);
    let styled = text(&api, &[], &drift, now, true);
    let red: Vec<&str> = styled.lines().filter(|line| line.starts_with("\u{1b}[31m")).collect();
    assert_eq!(red.len(), 2, "{styled:?}");
    assert!(
        red.iter()
            .all(|line| line.ends_with("\u{1b}[0m") && line.contains("no live worker can run orders 1.2.0"))
    );
    assert!(!text(&api, &[], &drift, now, false).contains('\u{1b}'));
}

/// With a task `fulfil` whose body is read by this schema, as its description has it too.
fn reading(instance: &str, version: &str, schema: &Value, upcasts: bool) -> (Presence, Description) {
    let task = json!({ "name": "fulfil", "input_schema": schema, "upcasts": upcasts });
    let description =
        json!({ "name": "orders", "version": version, "routes": [], "tasks": [task], "openapi": {} });
    let description: Description = serde_json::from_value(description).unwrap();
    let mut presence = present(instance, version, &["fulfil"], &[], "serving");
    let schema = description.tasks[0].reader_hash(version);
    presence.plugins[0].bodies = vec![PresentBody { task: name("fulfil"), schema, upcasts }];
    (presence, description)
}

fn amount(schema: &Value) -> Value {
    json!({ "type": "object", "properties": { "amount": schema } })
}

/// What is red of an API and a worker, and how much could not be compared.
fn told(api: &(Presence, Description), worker: &(Presence, Description)) -> (Vec<Reason>, usize) {
    let schemas = Schemas::of([api.1.clone(), worker.1.clone()]);
    let found = super::drift::find(from_ref(&api.0), from_ref(&worker.0), &schemas);
    (found.drift.into_iter().flat_map(|drift| drift.reasons).collect(), found.not_compared.len())
}

#[test]
fn bodies_that_no_worker_reads_drift_and_wider_schemas_and_upcasters_do_not() {
    let (narrow, wide) = (amount(&json!({ "type": "integer" })), amount(&json!({})));
    let api = reading("api-1", "1.2.0", &wide, false);
    let (red, left) = told(&api, &reading("worker-1", "1.1.0", &narrow, false));
    assert_eq!((red.len(), left), (1, 0), "{red:?}");
    assert_eq!((red[0].kind, red[0].code, &red[0].name), (Kind::Task, Code::BodyUnfit, &name("fulfil")));
    let why =
        "of its body `amount` may be of any type, and only integer is taken by 1.1.0; such a task is parked";
    assert_eq!(red[0].why, why);
    assert!(red[0].remedy.starts_with("bring workers to orders 1.2.0"), "{}", red[0].remedy);
    assert_eq!(told(&api, &reading("worker-1", "1.3.0", &wide, false)), (vec![], 0), "the same schema");
    assert_eq!(told(&api, &reading("worker-1", "1.3.0", &narrow, true)), (vec![], 0), "it may upcast");
    let api = reading("api-1", "1.1.0", &narrow, false);
    assert_eq!(told(&api, &reading("worker-1", "1.2.0", &wide, false)), (vec![], 0), "it takes more");
}

#[test]
fn one_worker_that_reads_all_is_enough_and_what_is_told_is_of_those_that_take_work() {
    let (narrow, wide) = (amount(&json!({ "type": "integer" })), amount(&json!({})));
    let (api, offered) = reading("api-1", "1.2.0", &wide, false);
    let (old, deployed) = reading("worker-1", "1.1.0", &narrow, false);
    let (mut new, _) = reading("worker-2", "1.2.0", &wide, false);
    let schemas = Schemas::of([offered, deployed]);
    let find = |new: &Presence| {
        let found = super::drift::find(from_ref(&api), &[old.clone(), new.clone()], &schemas);
        (found.drift, found.not_compared.len())
    };
    assert_eq!(find(&new), (vec![], 0));
    new.consuming = false;
    assert_eq!(find(&new).0[0].unfit, [name("fulfil")]);
    new.consuming = true;
    new.plugins[0].quarantined_at = Some(Timestamp::from_unix_ms(1));
    let (drift, _) = find(&new);
    assert_eq!((&drift[0].unfit, &drift[0].tasks), (&vec![name("fulfil")], &vec![]));
    assert_eq!(drift[0].reasons[0].workers, ["1.1.0".to_owned()].into());
}

#[test]
fn who_tells_no_hash_is_held_against_nobody_and_a_schema_that_is_not_known_is_told_as_not_compared() {
    let (narrow, wide) = (amount(&json!({ "type": "integer" })), amount(&json!({})));
    let (api, worker) =
        (reading("api-1", "1.2.0", &wide, false), reading("worker-1", "1.1.0", &narrow, false));
    // As a host of before writes it.
    let older = |presence: &Presence| -> Presence {
        let mut json = serde_json::to_value(presence).unwrap();
        assert!(json["plugins"][0].as_object_mut().unwrap().remove("bodies").is_some(), "{json}");
        serde_json::from_value(json).unwrap()
    };
    assert_eq!(told(&api, &(older(&worker.0), worker.1.clone())), (vec![], 0));
    assert_eq!(told(&(older(&api.0), api.1.clone()), &worker), (vec![], 0));
    let other = reading("worker-2", "1.1.0", &json!({}), false).1;
    assert_eq!(told(&api, &(worker.0.clone(), other)), (vec![], 1), "another build of the version");
    let found = super::drift::find(from_ref(&api.0), from_ref(&worker.0), &Schemas::default());
    let text = text(&[api.0], &[worker.0], &found, Timestamp::from_unix_ms(0), true);
    let last = text.lines().last().unwrap();
    assert!(last.starts_with("not compared: api-1 accepts fulfil of orders 1.2.0"), "{text}");
}

#[test]
fn each_reason_has_a_code_of_its_own_and_is_told_once_for_all_that_have_it() {
    let api = present("api-1", "1.2.0", &["fulfil", "refund"], &["call"], "serving");
    let first = |worker: Option<&Presence>| -> (Code, String) {
        let drift = drift(from_ref(&api), worker.map_or(&[], from_ref));
        let reason = drift[0].reasons.first().unwrap();
        (reason.code, reason.why.clone())
    };
    assert_eq!(first(None), (Code::NoWorker, "no live worker has orders v1".to_owned()));
    let mut worker = present("worker-1", "1.1.0", &["fulfil"], &["call"], "serving");
    assert_eq!(first(Some(&worker)), (Code::NotThere, "not known to 1.1.0".to_owned()));
    worker.consuming = false;
    let words = "workers with orders 1.1.0 take nothing now".to_owned();
    assert_eq!(first(Some(&worker)), (Code::TakesNothing, words));
    worker.plugins[0].quarantined_at = Some(Timestamp::from_unix_ms(1));
    assert_eq!(first(Some(&worker)), (Code::Quarantined, "orders 1.1.0 is quarantined".to_owned()));
    let found = Found { drift: drift(from_ref(&api), &[]), not_compared: Vec::new() };
    let text = text(&[api], &[], &found, Timestamp::from_unix_ms(0), false);
    let told: Vec<&str> = text.lines().skip(2).collect();
    let expected = [
        "no live worker can run orders 1.2.0: api-1 accepts its tasks fulfil, refund",
        "  fulfil, refund: no live worker has orders v1",
        "  remedy: start workers with orders 1.2.0",
        "no live worker can run orders 1.2.0: api-1 serves its routes call",
        "  call: no live worker has orders v1",
        "  remedy: start workers with orders 1.2.0",
    ];
    assert_eq!(told, expected, "{text}");
}

#[test]
fn route_that_workers_have_elsewhere_is_not_there_whatever_its_parameters_are_called() {
    let at = |instance: &str, paths: &[&str]| {
        let mut presence = present(instance, "1.0.0", &[], &["call"], "serving");
        let path = |at: &&str| PresentPath { route: name("call"), at: (*at).to_owned() };
        presence.plugins[0].paths = paths.iter().map(path).collect();
        presence
    };
    let code = |api: &[&str], worker: &[&str]| {
        let drift = drift(&[at("api-1", api)], &[at("worker-1", worker)]);
        drift.first().map(|drift| (drift.routes.clone(), drift.reasons[0].code))
    };
    assert_eq!(code(&["GET /orders/{id}"], &["GET /orders/{order}"]), None);
    let elsewhere = Some((vec![name("call")], Code::OtherPath));
    assert_eq!(code(&["GET /orders/{id}"], &["POST /orders/{id}"]), elsewhere);
    assert_eq!(code(&["GET /orders/{id}"], &["GET /orders/{*id}"]), elsewhere);
    assert_eq!(code(&["GET /orders"], &["GET /order"]), elsewhere);
    assert_eq!((code(&[], &["GET /order"]), code(&["GET /orders"], &[])), (None, None), "it has not told");
}
