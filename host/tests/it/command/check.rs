//! `cardcage check`: everything that speaks against a configuration, at once.

use std::process::Output;

use cardcage_harness::{Cardcage, Config, Nats, NatsOptions};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::{
    Folder, cardcage, config, hello, is_one_sentence_about, json, nobody, plugin, stdout, trap, unfit,
};

fn check(folder: &Folder, config: &str) -> (Output, Value) {
    let file = folder.file("cardcage.toml", config);
    let text = cardcage(&["check", "--config", file.to_str().unwrap()]);
    let report = cardcage(&["check", "--json", "--config", file.to_str().unwrap()]);
    assert_eq!(text.status.code(), report.status.code(), "both forms end the same way");
    let report = json(&report);
    assert_eq!(report["exit_code"].as_i64(), text.status.code().map(i64::from));
    (text, report)
}

#[tokio::test(flavor = "multi_thread")]
async fn check_finds_all_in_order_and_leaves_the_broker_as_it_was() {
    let nats = Nats::start().await.unwrap();
    let folder = Folder::new();
    let (text, report) = check(&folder, &config(&nats.url(), &plugin("hello", &hello(), "")));
    assert_eq!(text.status.code(), Some(0), "{text:?}");
    assert!(stdout(&text).contains("All is in order"), "{text:?}");
    assert_eq!(report["plugins"][0]["version"], "0.1.0");
    assert_eq!(report["plugins"][0]["tasks"], serde_json::json!(["echo"]));
    assert!(report["broker"]["server_version"].as_str().unwrap().starts_with("2."), "{report}");
    assert!(
        report["broker"]["notes"][0].as_str().unwrap().contains("will create"),
        "it created nothing: {report}"
    );
}

#[test]
fn check_tells_a_broker_that_is_away_and_checks_the_plugins_all_the_same() {
    let folder = Folder::new();
    let (_port, url) = nobody();
    let (text, report) = check(&folder, &config(&url, &plugin("hello", &hello(), "")));
    assert_eq!(text.status.code(), Some(69), "{text:?}");
    assert!(report["broker"]["faults"][0].as_str().unwrap().contains("not connected"), "{report}");
    assert_eq!(report["plugins"][0]["refused"], Value::Null);
}

/// What `check` says of the broker at this address.
fn fault(url: &str) -> String {
    let (text, report) = check(&Folder::new(), &config(url, ""));
    assert_eq!(text.status.code(), Some(69), "{text:?}");
    let faults = report["broker"]["faults"].as_array().unwrap();
    assert_eq!(faults.len(), 1, "{report}");
    faults[0].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_differ_from_what_is_on_the_broker_are_named_by_check_and_refuse_a_worker() {
    let nats = Nats::start().await.unwrap();
    let folder = Folder::new();
    let before = Config::new(&nats).plugin("hello").unwrap();
    let worker = Cardcage::worker(&before).await.unwrap();
    drop(worker);
    for (key, value, told) in [
        ("tasks.lease_ms", 40_000, "tasks.lease_ms is 30000 on the broker and 40000 in the settings"),
        ("tasks.ack_pending_max", 77, "tasks.ack_pending_max is 10000 on the broker and 77 in the settings"),
        (
            "broker.queue_max_messages",
            5,
            "broker.queue_max_messages is 1000000 on the broker and 5 in the settings",
        ),
    ] {
        let after = before.clone().set(key, value);
        let file = folder.file("cardcage.toml", after.to_toml());
        let report = cardcage(&["check", "--json", "--config", file.to_str().unwrap()]);
        assert_eq!(report.status.code(), Some(78), "{report:?}");
        let differences = json(&report)["broker"]["differences"].to_string();
        assert!(differences.contains(told) && differences.contains("set it back"), "{report:?}");
        let worker = cardcage(&["worker", "--config", file.to_str().unwrap()]);
        assert_eq!(worker.status.code(), Some(78), "{worker:?}");
        let log = String::from_utf8_lossy(&worker.stderr);
        assert!(log.contains(told) && log.contains("set it back"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn check_tells_a_broker_that_takes_only_small_messages() {
    let options = NatsOptions { config: "max_payload: 64KB".to_owned(), ..NatsOptions::default() };
    let nats = Nats::start_with(options).await.unwrap();
    assert!(fault(&nats.url()).contains("max_payload of at least"));
}

#[tokio::test(flavor = "multi_thread")]
async fn check_tells_a_broker_without_jetstream_and_an_account_without_it() {
    let off = Nats::start_with(NatsOptions { jetstream_off: true, ..NatsOptions::default() }).await.unwrap();
    assert!(fault(&off.url()).contains("has JetStream off"));
    let accounts =
        "accounts { plain { users: [{ user: someone, password: secret }] } }\nno_auth_user: someone";
    let options = NatsOptions { config: accounts.to_owned(), ..NatsOptions::default() };
    let nats = Nats::start_with(options).await.unwrap();
    assert!(fault(&nats.url()).contains("JetStream is off for the account"));
}

#[tokio::test(flavor = "multi_thread")]
async fn check_tells_a_broker_that_is_too_old() {
    let nats = Nats::start().await.unwrap();
    let url = older(nats.url().strip_prefix("nats://").unwrap().to_owned(), "2.9.10").await;
    let fault = fault(&url);
    assert!(
        fault.contains("2.9.10") && fault.contains("too old") && fault.contains("2.15.1 or newer"),
        "{fault}"
    );
}

/// A server that says it is of another version, and is the real one in everything else.
async fn older(real: String, version: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut server = BufReader::new(TcpStream::connect(&real).await.unwrap());
            tokio::spawn(async move {
                let mut greeting = String::new();
                server.read_line(&mut greeting).await.unwrap();
                let (before, after) = greeting.split_once("\"version\":\"").unwrap();
                let after = &after[after.find('"').unwrap()..];
                let greeting = format!("{before}\"version\":\"{version}{after}");
                client.write_all(greeting.as_bytes()).await.unwrap();
                // Ends when either side does.
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    format!("nats://{address}")
}

#[test]
fn check_refuses_every_unfit_library_and_goes_on() {
    let folder = Folder::new();
    let (_port, url) = nobody();
    let unfit = unfit(&folder);
    let mut plugins = plugin("hello", &hello(), "");
    for (nth, (file, ..)) in unfit.iter().enumerate() {
        plugins.push_str(&plugin(&format!("p{nth}"), file, ""));
    }
    let (text, report) = check(&folder, &config(&url, &plugins));
    assert_eq!(text.status.code(), Some(70), "a refused plugin comes before a broker that is away: {text:?}");
    assert!(stdout(&text).contains("hello") && stdout(&text).contains("good"));
    for (nth, (file, code, word)) in unfit.iter().enumerate() {
        let reported =
            report["plugins"].as_array().unwrap().iter().find(|one| one["name"] == format!("p{nth}"));
        let refused = &reported.unwrap()["refused"];
        assert_eq!(refused["code"], *code, "{}", file.display());
        let line = format!("plugin `p{nth}` ({code}): ");
        assert!(stdout(&text).contains(&line), "{line} is missing in {text:?}");
        is_one_sentence_about(refused["message"].as_str().unwrap(), file, word);
    }
}

#[test]
fn check_warns_of_a_refused_plugin_that_is_not_required() {
    let folder = Folder::new();
    let (_port, url) = nobody();
    let empty = folder.file("empty.so", "");
    let plugins = plugin("hello", &hello(), "") + &plugin("extra", &empty, "required = false");
    let (text, _) = check(&folder, &config(&url, &plugins));
    assert_eq!(text.status.code(), Some(69), "only the broker is left to complain of: {text:?}");
    assert!(stdout(&text).contains("warning: plugin `extra`"), "{text:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_does_not_find_all_in_order_where_a_plugin_that_is_not_required_is_refused() {
    let nats = Nats::start().await.unwrap();
    let folder = Folder::new();
    let empty = folder.file("empty.so", "");
    let plugins = plugin("hello", &hello(), "") + &plugin("extra", &empty, "required = false");
    let (text, report) = check(&folder, &config(&nats.url(), &plugins));
    assert_eq!(text.status.code(), Some(0), "{text:?}");
    assert_eq!(report["plugins"][0]["refused"]["code"], "not_a_library", "{report}");
    assert!(stdout(&text).contains("A host would start degraded, without 1 plugin"), "{text:?}");
    assert!(!stdout(&text).contains("All is in order"), "{text:?}");
}

#[test]
fn check_names_both_plugins_of_a_conflict() {
    let folder = Folder::new();
    let (_port, url) = nobody();
    // The same library under another name is not that plugin.
    let plugins = plugin("hello", &hello(), "") + &plugin("again", &hello(), "");
    let (text, report) = check(&folder, &config(&url, &plugins));
    assert_eq!(text.status.code(), Some(70), "{text:?}");
    let refused = report["plugins"][0]["refused"]["message"].as_str().unwrap();
    assert!(refused.contains("`hello`") && refused.contains("`again`"), "{refused}");
    assert_eq!(report["plugins"][0]["refused"]["code"], "duplicate", "{report}");
    assert_eq!(refused.matches(hello().to_str().unwrap()).count(), 2, "both files: {refused}");

    // Two plugins at one place are a mistake in the configuration already.
    let plugins =
        plugin("hello", &hello(), "prefix = \"/x\"") + &plugin("again", &hello(), "prefix = \"/x\"");
    let (text, _) = check(&folder, &config(&url, &plugins));
    assert_eq!(text.status.code(), Some(78), "{text:?}");
    assert!(stdout(&text).contains("are both mounted at"), "{text:?}");
}

#[test]
fn check_refuses_overrides_that_move_no_route() {
    let folder = Folder::new();
    let (_port, url) = nobody();
    let routes = "[plugins.hello.routes]\n\"POST /call\" = \"inline\"\n\"POST /cal\" = \"inline\"\n\"POST /task\" = \"worker\"";
    let (text, report) = check(&folder, &config(&url, &plugin("hello", &hello(), routes)));
    assert_eq!(text.status.code(), Some(78), "{text:?}");
    let faults = report["configuration"]["overrides"].as_array().unwrap();
    assert_eq!(faults.len(), 2, "{report}");
    assert!(faults[0].as_str().unwrap().contains("\"POST /call\""), "it says what there is: {report}");
    assert!(faults[1].as_str().unwrap().contains("enqueue"), "{report}");
    let moved =
        report["plugins"][0]["routes"].as_array().unwrap().iter().find(|one| one["path"] == "/hello/call");
    assert_eq!(moved.unwrap()["placement"], "inline");
}

#[test]
fn check_shows_every_configuration_mistake_with_its_place() {
    let folder = Folder::new();
    let text = "[api]\nlisten = 8080\nbody_max_byte = 5\n\n[tasks]\nlease_ms = 10\n";
    let (text, report) = check(&folder, text);
    assert_eq!(text.status.code(), Some(78), "{text:?}");
    let shown = stdout(&text);
    for word in [
        "cardcage.toml:2",
        "cardcage.toml:3",
        "cardcage.toml:6",
        "^",
        "did you mean `body_max_bytes`?",
        "not checked",
    ] {
        assert!(shown.contains(word), "{word} is in {shown}");
    }
    assert_eq!(report["configuration"]["mistakes"], 3);
    assert_eq!(report["plugins"], Value::Null);

    let (text, _) = check(&folder, "[api\nlisten = 1");
    assert_eq!(text.status.code(), Some(78));
    assert!(stdout(&text).contains("this is not TOML"), "{text:?}");

    let missing = cardcage(&["check", "--config", folder.path("absent.toml").to_str().unwrap()]);
    assert_eq!(missing.status.code(), Some(78));
    assert!(stdout(&missing).contains("absent.toml"), "{missing:?}");
}

#[test]
fn check_with_unknown_arguments_is_a_usage_error() {
    assert_eq!(cardcage(&["check", "--nonsense"]).status.code(), Some(2));
}

#[test]
fn check_survives_plugins_that_crash_exit_hang_and_talk() {
    let folder = Folder::new();
    let (_port, url) = nobody();
    let traps = [
        ("aborts", "std::process::abort()", "died", "SIGABRT"),
        ("exits", "std::process::exit(0)", "died", "exit(0)"),
        ("hangs", "loop { std::thread::park() }", "hung", "500 ms"),
        // What it prints must not be mistaken for the child's report.
        ("talks", r#"println!("{{\"step\":null}} and nonsense")"#, "abi_layout", "root module"),
    ];
    let mut plugins = "[loading]\ntimeout_ms = 500\n".to_owned() + &plugin("hello", &hello(), "");
    for (name, what, ..) in traps {
        plugins.push_str(&plugin(name, &trap(&folder, name, what), "required = false"));
    }
    let (text, report) = check(&folder, &config(&url, &plugins));
    assert_eq!(text.status.code(), Some(69), "they are not required: {text:?}");
    let plugins = report["plugins"].as_array().unwrap();
    for (name, _, code, word) in traps {
        let refused = &plugins.iter().find(|one| one["name"] == name).unwrap()["refused"];
        assert_eq!(refused["code"], code, "{name}: {report}");
        let message = refused["message"].as_str().unwrap();
        is_one_sentence_about(message, &folder.path(&format!("lib{name}.so")), word);
    }
    let hello = plugins.iter().find(|one| one["name"] == "hello").unwrap();
    assert_eq!(hello["refused"], Value::Null, "the others are described all the same: {report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_holds_a_plugins_settings_against_its_schema_and_shows_no_value() {
    let nats = Nats::start().await.unwrap();
    let folder = Folder::new();
    let config = Config::new(&nats).plugin("chaos").unwrap();
    let unfit = config.clone().set("plugins.chaos.config.init", "hunter2");
    let (text, report) = check(&folder, &unfit.to_toml());
    assert_eq!(text.status.code(), Some(70), "{text:?}");
    let refused = report["plugins"][0]["refused"].to_string();
    assert!(refused.contains("plugins.chaos.config.init") && refused.contains("init_failed"), "{report}");
    assert!(!stdout(&text).contains("hunter2") && !refused.contains("hunter2"), "{report}");
    // As the host would.
    let file = folder.file("unfit.toml", unfit.to_toml());
    let worker = cardcage(&["worker", "--config", file.to_str().unwrap()]);
    assert_eq!(worker.status.code(), Some(70), "{worker:?}");
}
