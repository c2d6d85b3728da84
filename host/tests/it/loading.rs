//! What becomes of libraries when a host starts: those that are no plugin, those that misbehave, those that get in
//! each other's way, and those that are as they should be.

mod crashes;
mod needed;
pub(crate) mod outside;
mod refusals;
mod trust;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cardcage_harness::{Cardcage, Config, Deadline, Launch, Output, plugin_library};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Time for what should happen soon.
fn soon() -> Deadline {
    Deadline::seconds(60)
}

/// No broker is there: libraries are judged before it is looked for, and inline routes need none.
fn config() -> Config {
    Config::default().set("broker.url", "nats://127.0.0.1:1")
}

fn hello() -> PathBuf {
    plugin_library("hello").unwrap()
}

/// A library in a folder of the test's own: `hello` with its bytes changed.
fn altered(folder: &TempDir, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> PathBuf {
    let mut bytes = std::fs::read(hello()).unwrap();
    change(&mut bytes);
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// Replaces every occurrence of `from` by `to`, of the same length.
fn patch(bytes: &mut [u8], from: &str, to: &str) {
    assert_eq!(from.len(), to.len());
    let found = |window: &[u8]| window == from.as_bytes();
    let places: Vec<usize> =
        bytes.windows(from.len()).enumerate().filter(|(_, window)| found(window)).map(|(at, _)| at).collect();
    assert!(!places.is_empty(), "`{from}` is in the library");
    for at in places {
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    }
}

/// A libc is a library that loads and is no plugin.
fn libc() -> PathBuf {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mut files = maps.lines().filter_map(|line| line.split_whitespace().last());
    files.find(|file| file.contains("/libc.so") || file.contains("/libc-")).map(PathBuf::from).unwrap()
}

async fn run(launch: Launch, config: &Config) -> Output {
    launch.config(config).run(soon()).await.unwrap()
}

/// The host exited with 70 after telling in one line, and one line only, what is wrong with which file of which plugin.
#[track_caller]
fn is_refused(output: &Output, plugin: &str, file: &Path, code: &str, words: &str) {
    let stderr = &output.stderr;
    assert_eq!(output.status.code(), Some(70), "{stderr}");
    let told: Vec<&str> = stderr.lines().filter(|line| line.contains("a plugin was refused")).collect();
    let [line] = told.as_slice() else { panic!("told {} times:\n{stderr}", told.len()) };
    for part in
        [&format!("plugin=\"{plugin}\""), &file.display().to_string(), &format!("code=\"{code}\""), words]
    {
        assert!(line.contains(part), "`{part}` is missing: {line}");
    }
    let sentence = line.split("reason=").nth(1).unwrap();
    assert!(sentence.contains(": ") && sentence.contains("; "), "file, fault and remedy: {sentence}");
}

#[tokio::test]
async fn file_that_is_no_plugin_for_this_host_ends_the_start_with_70() {
    let folder = tempfile::tempdir().unwrap();
    let noise = folder.path().join("noise.so");
    std::fs::write(&noise, "These are words.").unwrap();
    let machine = if cfg!(target_arch = "x86_64") { 0xB7 } else { 0x3E };
    let truncated = altered(&folder, "truncated.so", |bytes| bytes.truncate(bytes.len() / 2));
    let foreign = altered(&folder, "foreign.so", |bytes| bytes[18] = machine);
    let newer = altered(&folder, "newer.so", |bytes| patch(bytes, "\"abi\":\"1.", "\"abi\":\"2."));
    for (file, code, words) in [
        (folder.path().join("missing.so"), "unreadable", "cannot be read"),
        (noise, "not_a_library", "not an ELF library"),
        (truncated, "truncated", "cut short"),
        (foreign, "wrong_architecture", "is built for"),
        (libc(), "no_manifest", "no Cardcage manifest"),
        (newer, "abi_major", "update the host"),
    ] {
        for role in ["api", "worker"] {
            let output = run(Launch::new([role]), &config().plugin_at("hello", &file)).await;
            is_refused(&output, "hello", &file, code, words);
        }
    }
}

#[tokio::test]
async fn plugin_whose_init_goes_wrong_ends_the_start_with_70() {
    let file = plugin_library("chaos").unwrap();
    for (how, code, words) in [
        ("fail", "init_failed", "could not start (chaos was told not to start"),
        ("panic", "init_failed", "panicked in its init (panicked in init as told)"),
        ("hang", "hung", "hung in its init: it did not return within 2000 ms"),
        ("exit", "died", "called exit(0) in its init"),
        ("abort", "died", "died of SIGABRT in its init"),
        (
            "nonsense",
            "init_failed",
            "could not start (its settings do not fit at `init`: unknown variant `nonsense`",
        ),
        (
            "nonsense",
            "init_failed",
            "`fail`, `panic`, `hang`, `exit`, `abort`, `hoard`); mend its settings under `plugins.chaos.config`",
        ),
    ] {
        let config = config().plugin("chaos").unwrap().plugin_set("chaos", "init", how);
        let output = run(Launch::new(["api"]), &config.set("loading.timeout_ms", 2_000)).await;
        is_refused(&output, "chaos", &file, code, words);
    }
}

#[tokio::test]
async fn plugin_whose_describe_goes_wrong_ends_the_start_with_70() {
    let file = plugin_library("chaos").unwrap();
    for (how, code, words) in [
        ("panic", "describe_failed", "panicked while it described itself (panicked in describe as told)"),
        ("hang", "hung", "hung in its describe"),
        ("exit", "died", "called exit(0) in its describe"),
        ("abort", "died", "died of SIGABRT in its describe"),
    ] {
        let config = config().plugin("chaos").unwrap().set("loading.timeout_ms", 2_000);
        let output = run(Launch::new(["worker"]).env("CARDCAGE_CHAOS_DESCRIBE", how), &config).await;
        is_refused(&output, "chaos", &file, code, words);
    }
}

#[tokio::test]
async fn library_whose_constructor_goes_wrong_ends_the_start_with_70() {
    let file = outside::library("outsider");
    for (how, code, words) in [
        ("hang", "hung", "hung in its open"),
        ("exit", "died", "called exit(0) in its open"),
        ("abort", "died", "died of SIGABRT in its open"),
    ] {
        let config = config().plugin_at("outsider", &file).set("loading.timeout_ms", 2_000);
        let output = run(Launch::new(["api"]).env("OUTSIDER_OPEN", how), &config).await;
        is_refused(&output, "outsider", &file, code, words);
    }
}

#[tokio::test]
async fn library_configured_under_another_plugins_name_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let copy = altered(&folder, "copy.so", |_| {});
    // The same file under two names, and two files that are the same plugin.
    for file in [hello(), copy] {
        let config = config().plugin("hello").unwrap().plugin_at("salute", &file);
        let output = run(Launch::new(["api"]), &config).await;
        let words = format!("and [plugins.hello] has {} for that plugin", hello().display());
        is_refused(&output, "salute", &file, "duplicate", &words);
    }
    let output = run(Launch::new(["worker"]), &config().plugin_at("salute", &hello())).await;
    let words = "is the plugin `hello` 0.1.0, but is configured as `salute`; write [plugins.hello]";
    is_refused(&output, "salute", &hello(), "name_mismatch", words);
}

#[tokio::test]
async fn libraries_that_are_one_plugin_are_refused_with_both_files_named() {
    let folder = tempfile::tempdir().unwrap();
    let first = altered(&folder, "hello.so", |_| {});
    // Another build of it, even of another major: a host runs one `hello`.
    for version in ["0.1.0", "2.1.0"] {
        let version = format!("\"version\":\"{version}\"");
        let copy = altered(&folder, "hello-copy.so", |bytes| patch(bytes, "\"version\":\"0.1.0\"", &version));
        let config = config().plugin_at("a", &first).plugin_at("b", &copy);
        let config = config.set("plugins.a.required", false);
        for role in ["api", "worker"] {
            let output = run(Launch::new([role]), &config).await;
            assert_eq!(output.status.code(), Some(70), "{}", output.stderr);
            let told = |plugin: &str, code: &str| {
                let line = format!("plugin=\"{plugin}\"");
                let line = output.stderr.lines().find(|told| told.contains(&line)).unwrap_or_default();
                assert!(line.contains(&format!("code=\"{code}\"")), "{plugin}: {}", output.stderr);
                line.to_owned()
            };
            assert!(told("a", "name_mismatch").contains("write [plugins.hello]"));
            let line = told("b", "duplicate");
            for part in [&first, &copy].map(|file| file.display().to_string()) {
                assert!(line.contains(&part), "{part} is missing: {line}");
            }
            assert!(line.contains("remove [plugins.b]"), "{line}");
        }
    }
}

/// `outsider` has `POST /nested/call`, and `hello` is mounted where that lands on its own `POST /call`.
fn conflicting() -> Config {
    let file = outside::library("outsider");
    config()
        .plugin("hello")
        .unwrap()
        .set("plugins.hello.prefix", "/shop/nested")
        .plugin_at("outsider", &file)
        .set("plugins.outsider.prefix", "/shop")
}

#[tokio::test]
async fn routes_that_conflict_are_refused_with_both_plugins_named() {
    let output = run(Launch::new(["api"]), &conflicting()).await;
    let hello = hello().display().to_string();
    let words = format!("serves POST /shop/nested/call, where the plugin `hello` ({hello}) serves POST");
    is_refused(&output, "outsider", &outside::library("outsider"), "route_conflict", &words);
}

#[tokio::test]
async fn prefix_that_is_taken_or_the_hosts_is_a_mistake_in_the_configuration() {
    let shared =
        config().plugin("hello").unwrap().plugin("chaos").unwrap().set("plugins.chaos.prefix", "/hello");
    let mut mistakes = vec![(shared, "plugins `chaos` and `hello` are both mounted at `/hello`".to_owned())];
    for reserved in ["tasks", "docs", "openapi.json", "problems"] {
        let config = config().plugin("hello").unwrap().set("plugins.hello.prefix", format!("/{reserved}"));
        mistakes.push((config, format!("`/{reserved}` belongs to the host")));
    }
    for (config, words) in mistakes {
        let output = run(Launch::new(["api"]), &config).await;
        assert_eq!(output.status.code(), Some(78), "{}", output.stderr);
        assert!(output.stderr.contains(&words), "{words}: {}", output.stderr);
        assert!(output.stderr.contains("cardcage.toml:"), "file and line: {}", output.stderr);
    }
}

#[tokio::test]
async fn override_that_moves_no_route_ends_the_start_of_an_api_with_78_and_is_told_once() {
    let routes = BTreeMap::from([("POST /cal", "inline"), ("POST /task", "worker")]);
    let config = config().plugin("hello").unwrap().set("plugins.hello.routes", routes);
    let output = run(Launch::new(["api"]), &config).await;
    assert_eq!(output.status.code(), Some(78), "{}", output.stderr);
    for words in ["names no route of the plugin; it has", "declares as `enqueue`", "the child cannot start"] {
        assert_eq!(output.stderr.matches(words).count(), 1, "`{words}` in {}", output.stderr);
    }
}

/// What `/readyz?verbose` says of a host that is ready.
async fn verbose(host: &Cardcage) -> Value {
    let reply = host.admin().unwrap().get("/readyz?verbose").await.unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json().unwrap()
}

/// The code and the sentence under which a plugin is shown as refused.
fn refusal<'a>(ready: &'a Value, plugin: &str) -> (&'a str, &'a str) {
    let all = ready["refused"].as_array().unwrap();
    let one = all.iter().find(|one| one["plugin"] == plugin).unwrap_or_else(|| panic!("{plugin} in {ready}"));
    assert_eq!(one["required"], false);
    (one["code"].as_str().unwrap(), one["message"].as_str().unwrap())
}

async fn greets(host: &Cardcage, path: &str) {
    let reply = host.http().unwrap().get(path).await.unwrap();
    assert_eq!((reply.status, reply.text().as_str()), (200, "Hello, world!"));
}

#[tokio::test]
async fn host_runs_without_the_plugins_that_it_does_not_require_and_names_them() {
    let folder = tempfile::tempdir().unwrap();
    let noise = folder.path().join("noise.so");
    std::fs::write(&noise, "These are words.").unwrap();
    let newer = altered(&folder, "newer.so", |bytes| patch(bytes, "\"abi\":\"1.", "\"abi\":\"2."));
    let mut config = config().plugin("hello").unwrap().plugin("chaos").unwrap();
    config = config.plugin_set("chaos", "init", "fail").set("plugins.chaos.required", false);
    // The second's manifest says `hello`, which is required; it is its own entry that counts.
    for (name, file) in [("noise", &noise), ("newer", &newer)] {
        config = config.plugin_at(name, file).set(&format!("plugins.{name}.required"), false);
    }
    let api = Cardcage::api(&config).await.unwrap();
    greets(&api, "/hello/inline").await;
    let ready = verbose(&api).await;
    for (plugin, code, file) in [
        ("noise", "not_a_library", noise),
        ("newer", "abi_major", newer),
        ("chaos", "init_failed", plugin_library("chaos").unwrap()),
    ] {
        let (shown, sentence) = refusal(&ready, plugin);
        assert_eq!(shown, code);
        assert!(
            sentence.starts_with(&format!("{}: ", file.display())) && sentence.contains("; "),
            "{sentence}"
        );
    }
    let names: Vec<_> = ready["plugins"].as_array().unwrap().iter().map(|plugin| &plugin["name"]).collect();
    assert_eq!(names, ["hello"]);
}

#[tokio::test]
async fn plugin_that_ends_or_holds_the_process_while_loading_is_left_out_where_it_is_not_required() {
    for (how, code) in [("exit", "died"), ("abort", "died"), ("hang", "hung")] {
        let config =
            config().plugin("hello").unwrap().plugin("chaos").unwrap().set("loading.timeout_ms", 2_000);
        let config = config.plugin_set("chaos", "init", how).set("plugins.chaos.required", false);
        let api = Cardcage::api(&config).await.unwrap();
        greets(&api, "/hello/inline").await;
        assert_eq!(refusal(&verbose(&api).await, "chaos").0, code, "{how}");
    }
}

#[tokio::test]
async fn plugin_in_anothers_way_is_left_out_where_it_is_not_required() {
    let api = Cardcage::api(&conflicting().set("plugins.outsider.required", false)).await.unwrap();
    greets(&api, "/shop/nested/inline").await;
    assert_eq!(refusal(&verbose(&api).await, "outsider").0, "route_conflict");
}

async fn count(api: &Cardcage, plugin: &str) -> Value {
    let reply = api.http().unwrap().post_json(&format!("/{plugin}/count"), &json!({})).await.unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json().unwrap()
}

#[tokio::test]
async fn plugins_from_a_workspace_outside_load_side_by_side_and_keep_apart() {
    let mut config = config();
    for name in ["outsider", "twin"] {
        config = config.plugin_at(name, &outside::library(name));
        config = config.plugin_set(name, "greeting", format!("I am {name}"));
    }
    let api = Cardcage::api(&config).await.unwrap();
    for n in 1..=3 {
        let counted = json!({ "plugin": "outsider", "greeting": "I am outsider", "counted": n, "calls": n });
        assert_eq!(count(&api, "outsider").await, counted);
    }
    let counted = json!({ "plugin": "twin", "greeting": "I am twin", "counted": 1, "calls": 1 });
    assert_eq!(count(&api, "twin").await, counted, "neither statics nor state are shared");
    let plugins = verbose(&api).await["plugins"].clone();
    assert_eq!((&plugins[0]["version"], &plugins[1]["name"]), (&json!("3.1.4"), &json!("twin")), "{plugins}");
}

#[tokio::test]
async fn library_overwritten_in_place_while_it_is_loaded_hurts_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let file = altered(&folder, "hello.so", |_| {});
    let api = Cardcage::api(&config().plugin_at("hello", &file)).await.unwrap();
    let child = api.child_pids();
    let length = std::fs::metadata(&file).unwrap().len();
    // The same inode: whoever had mapped it would run into the zeros.
    let overwritten = std::fs::OpenOptions::new().write(true).truncate(true).open(&file).unwrap();
    overwritten.set_len(length).unwrap();
    greets(&api, "/hello/inline").await;
    let unknown = api.http().unwrap().get("/hello/inline?name=you").await.unwrap();
    assert_eq!(unknown.text(), "Hello, you!");
    assert_eq!(api.child_pids(), child, "the child lives");
}
