//! The commands that look and report: `plugin inspect` and `check`, as a person or a script meets them.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use cardcage_harness::{Nats, NatsOptions, Port, plugin_library};
use serde_json::Value;
use tempfile::TempDir;

/// Runs the real binary to its end.
fn cardcage(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cardcage")).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// Files made for one test.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The hello plugin, with its bytes changed.
    fn hello(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> PathBuf {
        let mut bytes = std::fs::read(hello()).unwrap();
        change(&mut bytes);
        self.file(name, bytes)
    }
}

fn hello() -> PathBuf {
    plugin_library("hello").unwrap()
}

/// Replaces the one place where `from` stands in the manifest by `to`, of the same length.
fn patch(bytes: &mut [u8], from: &str, to: &str) {
    assert_eq!(from.len(), to.len());
    let at: Vec<usize> = places(bytes, from.as_bytes());
    assert!(!at.is_empty(), "{from} is in the library");
    for at in at {
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    }
}

fn places(bytes: &[u8], needle: &[u8]) -> Vec<usize> {
    bytes
        .windows(needle.len())
        .enumerate()
        .filter(|(_, window)| *window == needle)
        .map(|(at, _)| at)
        .collect()
}

/// A libc is a library that loads and is no plugin.
fn libc() -> PathBuf {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mut files = maps.lines().filter_map(|line| line.split_whitespace().last());
    files.find(|file| file.contains("/libc.so") || file.contains("/libc-")).map(PathBuf::from).unwrap()
}

/// Every kind of file that is no plugin for this host: name, file, stable code, a word of the sentence.
fn unfit(folder: &Folder) -> Vec<(PathBuf, &'static str, &'static str)> {
    symlink(folder.path("nowhere"), folder.path("dangling.so")).unwrap();
    let machine = if cfg!(target_arch = "x86_64") { 0xB7 } else { 0x3E };
    vec![
        (folder.path("missing.so"), "unreadable", "cannot be read"),
        (folder.path("dangling.so"), "unreadable", "cannot be read"),
        (folder.0.path().to_owned(), "not_a_library", "not a regular file"),
        (folder.file("empty.so", ""), "not_a_library", "empty"),
        (
            folder.file("noise.so", (0..4096_u32).map(|n| (n * 31 % 251) as u8).collect::<Vec<_>>()),
            "not_a_library",
            "not an ELF",
        ),
        (folder.file("script.so", "#!/bin/sh\nexit 0\n"), "not_a_library", "script"),
        (folder.file("head.so", &std::fs::read(hello()).unwrap()[..40]), "truncated", "cut short"),
        (folder.hello("half.so", |bytes| bytes.truncate(bytes.len() / 2)), "truncated", "cut short"),
        (folder.hello("almost.so", |bytes| bytes.truncate(bytes.len() - 1)), "truncated", "cut short"),
        (folder.hello("other.so", |bytes| bytes[18] = machine), "wrong_architecture", "is built for"),
        (folder.hello("narrow.so", |bytes| bytes[4] = 1), "wrong_architecture", "32-bit"),
        (folder.hello("program.so", |bytes| bytes[16] = 2), "not_a_library", "no shared library"),
        (libc(), "no_manifest", "no Cardcage manifest"),
        (
            folder.hello("garbled.so", |bytes| patch(bytes, "{\"name\":\"hello\"", "{\"name\":'hello'")),
            "bad_manifest",
            "manifest",
        ),
        (
            folder.hello("escape.so", |bytes| {
                patch(bytes, r#""abi":"1.0.0","sdk":""#, r#""abi":"\u001b","sd":""#)
            }),
            "abi_major",
            "ABI",
        ),
        (
            folder.hello("newer.so", |bytes| patch(bytes, "\"abi\":\"1.0.0\"", "\"abi\":\"2.0.0\"")),
            "abi_major",
            "update the host",
        ),
        (
            folder.hello("older.so", |bytes| patch(bytes, "\"abi\":\"1.0.0\"", "\"abi\":\"0.9.0\"")),
            "abi_major",
            "current SDK",
        ),
    ]
}

#[track_caller]
fn is_one_sentence_about(text: &str, file: &Path, word: &str) {
    assert_eq!(text.trim_end().lines().count(), 1, "one line: {text}");
    assert!(text.contains(&file.display().to_string()), "it names the file: {text}");
    assert!(text.contains(word), "it says {word}: {text}");
    assert!(text.contains("; "), "it says what to do: {text}");
    assert!(!text.contains('\x1b'), "no control characters");
}

#[test]
fn inspect_shows_a_good_library_without_running_it() {
    let output = cardcage(&["plugin", "inspect", hello().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = stdout(&output);
    for word in
        ["hello", "0.1.0", "this host would load it", "rustc", "glibc", "static TLS", "libc.so.6", "sha256"]
    {
        assert!(text.contains(word), "{word} is in {text}");
    }
    assert_eq!(stderr(&output), "");

    let answer = json(&cardcage(&["plugin", "inspect", "--json", hello().to_str().unwrap()]));
    assert_eq!(answer["manifest"]["name"], "hello");
    assert_eq!(answer["refused"], Value::Null);
    assert_eq!(answer["size_bytes"], std::fs::metadata(hello()).unwrap().len());
}

#[test]
fn inspect_refuses_every_unfit_file_in_one_sentence() {
    let folder = Folder::new();
    for (file, code, word) in unfit(&folder) {
        let output = cardcage(&["plugin", "inspect", file.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(70), "{}: {output:?}", file.display());
        is_one_sentence_about(&stderr(&output), &file, word);
        let output = cardcage(&["plugin", "inspect", "--json", file.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(70));
        assert_eq!(json(&output)["refused"]["code"], code, "{}", file.display());
    }
}

#[test]
fn inspect_reads_any_damaged_library_without_crashing() {
    let folder = Folder::new();
    let original = std::fs::read(trap(&folder, "small", "")).unwrap();
    for nth in 0..60 {
        let mut bytes = original.clone();
        // The head, where everything else is found from, and the section table at the end.
        let at = if nth % 2 == 0 { nth } else { original.len() - 64 * nth };
        bytes[at..at + 4].copy_from_slice(&[0xFF; 4]);
        let file = folder.file("damaged.so", bytes);
        let output = cardcage(&["plugin", "inspect", file.to_str().unwrap()]);
        assert!(matches!(output.status.code(), Some(0 | 70)), "{nth}: {output:?}");
    }
}

/// A configuration whose broker is `url`.
fn config(url: &str, plugins: &str) -> String {
    format!("[broker]\nurl = \"{url}\"\nconnect_timeout_ms = 500\n{plugins}")
}

fn plugin(name: &str, library: &Path, more: &str) -> String {
    format!("[plugins.{name}]\nlibrary = \"{}\"\n{more}\n", library.display())
}

/// A port where nothing listens.
fn nobody() -> (Port, String) {
    let port = Port::reserve().unwrap();
    let url = format!("nats://{}", port.address());
    (port, url)
}

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

#[tokio::test(flavor = "multi_thread")]
async fn check_tells_a_broker_without_jetstream_from_one_that_is_away() {
    let folder = Folder::new();
    let (_port, url) = nobody();
    let (text, report) = check(&folder, &config(&url, &plugin("hello", &hello(), "")));
    assert_eq!(text.status.code(), Some(69), "{text:?}");
    assert!(report["broker"]["faults"][0].as_str().unwrap().contains("not connected"), "{report}");
    assert_eq!(report["plugins"][0]["refused"], Value::Null, "the plugins are checked all the same");

    let options = NatsOptions { config: "max_payload: 64KB".to_owned(), ..NatsOptions::default() };
    let nats = Nats::start_with(options).await.unwrap();
    let (text, report) = check(&folder, &config(&nats.url(), ""));
    assert_eq!(text.status.code(), Some(69), "{text:?}");
    assert!(report["broker"]["faults"][0].as_str().unwrap().contains("max_payload"), "{report}");
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

/// A library with a manifest whose constructor does `what` as soon as it is opened.
fn trap(folder: &Folder, name: &str, what: &str) -> PathBuf {
    let manifest = format!(r#"{{"name":"{name}","version":"1.0.0","abi":"1.0.0"}}"#);
    let source = format!(
        r##"
        #[used] #[unsafe(link_section = ".cardcage")]
        static MANIFEST: [u8; {length}] = *br#"{manifest}"#;
        #[used] #[unsafe(link_section = ".init_array")]
        static CONSTRUCTOR: extern "C" fn() = constructor;
        extern "C" fn constructor() {{ {what} }}
        "##,
        length = manifest.len()
    );
    let source = folder.file(&format!("{name}.rs"), source);
    let library = folder.path(&format!("lib{name}.so"));
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let compiled = Command::new(rustc)
        .args(["--edition", "2024", "--crate-type", "cdylib", "-C", "strip=symbols", "-o"])
        .args([&library, &source])
        .output()
        .unwrap();
    assert!(compiled.status.success(), "{}", stderr(&compiled));
    library
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

#[test]
fn inspect_does_not_open_the_library() {
    let folder = Folder::new();
    let library = trap(&folder, "traps", "std::process::abort()");
    let output = cardcage(&["plugin", "inspect", library.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_show_tells_an_unknown_task_from_a_broker_that_is_away() {
    const ID: &str = "019283a4-5b6c-7d8e-9f01-23456789abcd";
    let folder = Folder::new();
    let show = |id: &str, url: &str| {
        let file = folder.file("cardcage.toml", config(url, ""));
        cardcage(&["tasks", "show", id, "--config", file.to_str().unwrap()])
    };
    let (_port, url) = nobody();
    let output = show(ID, &url);
    assert_eq!(output.status.code(), Some(69), "{output:?}");
    assert!(stderr(&output).contains("cannot be looked up"), "{output:?}");

    let nats = Nats::start().await.unwrap();
    // A UUID of another version is no task's either.
    for id in [ID, "7f1a3b52-9f0e-4c7a-8e55-0242ac120002"] {
        let output = show(id, &nats.url());
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(stderr(&output).contains(&format!("there is no task {id}")), "{output:?}");
        assert_eq!(stdout(&output), "");
    }
}
