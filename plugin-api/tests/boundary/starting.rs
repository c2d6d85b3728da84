//! `describe`, `init`, `health` and `stop`.

use plugin_api::abi::code;
use serde_json::{Value, json};

use super::host::{self, Started, none};
use super::plugin::{Bad, Good};

fn described() -> Value {
    let answer = (plugin_api::glue::vtable::<Good>().describe)();
    assert_eq!(answer.code, code::OK, "{}", answer.value.to_text());
    serde_json::from_slice(answer.value.as_slice()).unwrap()
}

#[test]
fn description_lists_routes_with_names_of_their_own_and_placements() {
    let described = described();
    assert_eq!((&described["name"], &described["version"]), (&json!("good"), &json!("2.3.4")));
    let routes: Vec<_> = described["routes"].as_array().unwrap().iter().collect();
    let shown = |route: &&Value| {
        let text = |name: &str| route[name].as_str().unwrap_or("-").to_owned();
        [text("name"), text("method"), text("path"), text("placement"), text("task")].join(" ")
    };
    assert_eq!(
        routes.iter().map(shown).collect::<Vec<_>>(),
        [
            "fine GET /fine inline -",
            "size POST /size worker -",
            "back POST /back worker -",
            "panic GET /panic worker -",
            "wait GET /wait worker -",
            "fine_get GET /other worker -",
            "enqueue_add-up POST /add enqueue add-up",
            "turn GET /turn inline -",
        ]
    );
    for route in routes {
        let method = route["method"].as_str().unwrap().to_ascii_lowercase();
        let operation = &described["openapi"]["paths"][route["path"].as_str().unwrap()][method];
        assert_eq!(operation["operationId"], route["name"], "documented under the same name");
    }
}

#[test]
fn raw_bytes_are_described_by_their_media_type_and_not_as_an_array_of_numbers() {
    let described = described();
    let operation = |path: &str| &described["openapi"]["paths"][path]["post"];
    let bytes = json!({ "application/octet-stream": {} });
    let body = &operation("/back")["requestBody"];
    assert_eq!((&body["content"], &body["required"]), (&bytes, &json!(true)));
    assert_eq!(operation("/back")["responses"]["200"]["content"], bytes);
    // Numbers that are sent as JSON stay numbers.
    let numbers = json!({ "type": "array", "items": { "type": "integer", "format": "int32", "minimum": 0 } });
    let either = json!({ "application/octet-stream": {}, "application/json": { "schema": numbers } });
    assert_eq!(operation("/size")["requestBody"]["content"], either);
}

#[test]
fn description_of_a_task_has_its_options_and_schemas() {
    let described = described();
    let task = &described["tasks"][0];
    let options = [
        "name",
        "description",
        "max_attempts",
        "backoff_initial_ms",
        "backoff_max_ms",
        "timeout_ms",
        "result_ttl_s",
    ];
    let values: Vec<_> = options.iter().map(|option| &task[*option]).collect();
    assert_eq!(json!(values), json!(["add-up", "Adds up.", 3, 1_000, 120_000, 30_000, 3_600]));
    assert_eq!(task["input_schema"]["properties"]["lines"]["type"], "array");
    assert_eq!(task["output_schema"]["type"], "integer");
    let body = &described["openapi"]["paths"]["/add"]["post"]["requestBody"]["content"]["application/json"];
    let name = body["schema"]["$ref"].as_str().unwrap().rsplit('/').next().unwrap();
    assert_eq!(described["openapi"]["schemas"][name], task["input_schema"]);
    let defaults = &described["tasks"][1];
    assert_eq!((&defaults["name"], &defaults["max_attempts"]), (&json!("trap"), &Value::Null));
}

#[test]
fn panic_in_the_build_expression_is_an_answer_of_describe_and_of_init() {
    let plugin = plugin_api::glue::vtable::<Bad>();
    let described = (plugin.describe)();
    assert_eq!(described.code, code::PANICKED);
    assert!(described.value.to_text().contains("/size"), "{}", described.value.to_text());
    let started = host::init(&plugin, &json!({}));
    assert_eq!((started.answer.code, started.instance.0.is_null()), (code::PANICKED, true));
}

#[test]
fn init_that_fails_says_why_and_one_that_panics_says_that() {
    let plugin = plugin_api::glue::vtable::<Good>();
    for (config, failure, text) in [
        (json!({ "limits": { "burst": "many" } }), code::FAILED, "`limits.burst`"),
        (json!({ "limits": { "brust": 1 } }), code::FAILED, "brust"),
        (json!({ "panic": true }), code::PANICKED, "init panics with 0 as told"),
    ] {
        let reply = host::init(&plugin, &config);
        let said = reply.answer.value.to_text();
        assert_eq!((reply.answer.code, reply.instance.0.is_null()), (failure, true), "{said}");
        assert!(said.contains(text), "{text} in {said}");
    }
}

#[test]
fn stopped_plugin_is_unhealthy_and_gives_tokens_back_unanswered() {
    let started = Started::new::<Good>(&json!({}));
    let health = || (started.plugin.health)(started.instance).value.to_text().into_owned();
    assert_eq!(health(), r#"{"ok":true}"#);
    (started.plugin.drain)(started.instance);
    (started.plugin.stop)(started.instance, 1_000);
    // Stopping twice is harmless.
    (started.plugin.stop)(started.instance, 1_000);
    assert_eq!(health(), r#"{"ok":false}"#);
    let held = started.call("GET", "/fine", none()).end();
    assert_eq!((held.replies.len(), held.releases), (0, 1));
}
