//! Bad input, and what a host says to it: every kind of unfit file, at once and one by one, and the page of each code.

use std::path::{Path, PathBuf};
use std::process::Command;

use cardcage_harness::{Cardcage, Config, Launch, Nats, plugin_library, workspace_root};
use serde_json::{Value, json};

use super::{config, greets, hello, is_refused, refusal, run, verbose};
use crate::command::{Folder, trap, unfit};
use crate::serving::wait_metric;

#[tokio::test]
async fn every_unfit_file_ends_the_start_of_a_host_with_70_and_one_sentence() {
    let folder = Folder::new();
    for (nth, (file, code, words)) in unfit(&folder).into_iter().enumerate() {
        let role = if nth % 2 == 0 { "api" } else { "worker" };
        let output = run(Launch::new([role]), &config().plugin_at("hello", &file)).await;
        is_refused(&output, "hello", &file, code, words);
    }
}

#[tokio::test]
async fn host_names_every_unfit_file_that_it_does_not_require_and_serves_the_rest() {
    let folder = Folder::new();
    let unfit = unfit(&folder);
    let mut config = config().plugin("hello").unwrap();
    for (nth, (file, ..)) in unfit.iter().enumerate() {
        let name = format!("unfit{nth}");
        config = config.plugin_at(&name, file).set(&format!("plugins.{name}.required"), false);
    }
    let api = Cardcage::api(&config).await.unwrap();
    greets(&api, "/hello/inline").await;
    let ready = verbose(&api).await;
    for (nth, (file, code, words)) in unfit.iter().enumerate() {
        let (told, sentence) = refusal(&ready, &format!("unfit{nth}"));
        assert_eq!(told, *code, "{sentence}");
        assert!(sentence.starts_with(&file.display().to_string()) && sentence.contains(words), "{sentence}");
    }
    let names: Vec<&Value> =
        ready["plugins"].as_array().unwrap().iter().map(|plugin| &plugin["name"]).collect();
    assert_eq!(names, ["hello"]);
}

#[tokio::test]
async fn host_without_a_plugin_that_it_does_not_require_is_ready_and_degraded_and_says_why() {
    let folder = Folder::new();
    let empty = folder.file("empty.so", "");
    let nats = Nats::start().await.unwrap();
    let config = Config::new(&nats).plugin("hello").unwrap();
    let config = config.plugin_at("extra", &empty).set("plugins.extra.required", false);
    for host in [Cardcage::api(&config).await.unwrap(), Cardcage::worker(&config).await.unwrap()] {
        // An API is told of its broker a moment later.
        wait_metric(&host, "cardcage_degraded_reasons 1").await;
        let reply = host.admin().unwrap().get("/readyz").await.unwrap();
        let told = (reply.status, reply.text());
        assert_eq!(told, (200, "ready, degraded: 1 reason, in /readyz?verbose\n".to_owned()));
        let ready = verbose(&host).await;
        let (_, sentence) = refusal(&ready, "extra");
        assert_eq!(ready["degraded"], json!([format!("plugin `extra` is refused: {sentence}")]), "{ready}");
        assert_eq!(ready["ready"], true);
    }
}

#[tokio::test]
async fn plugin_that_describes_itself_once_and_never_again_takes_only_those_with_it_that_need_it() {
    let folder = Folder::new();
    let once = folder.file("once", "");
    std::fs::remove_file(&once).unwrap();
    let fickle = plugin_library("fickle").unwrap();
    let config = config().plugin("hello").unwrap().plugin("chaos").unwrap().plugin_at("fickle", &fickle);
    let config = config.set("plugins.fickle.required", false).set("plugins.chaos.required", false);
    // The process that describes libraries has its answer, and the child that is to run it has not.
    let launch = Launch::new(["api"]).config(&config).env("CARDCAGE_CHAOS_NEEDS", "fickle 0");
    let launch = launch.env("CARDCAGE_FICKLE_DESCRIBE", format!("once={}", once.display()));
    let api = launch.ready().await.unwrap();
    greets(&api, "/hello/inline").await;
    let ready = verbose(&api).await;
    let (code, sentence) = refusal(&ready, "fickle");
    assert!(code == "describe_failed" && sentence.contains("panicked as told"), "{code}: {sentence}");
    let (code, sentence) = refusal(&ready, "chaos");
    assert!(
        code == "needs_plugin" && sentence.contains("needs the plugin `fickle` v0"),
        "{code}: {sentence}"
    );
    assert_eq!(ready["plugins"].as_array().unwrap().len(), 1, "{ready}");
}

#[tokio::test]
async fn every_code_of_a_refusal_has_a_page_that_says_what_to_do() {
    let api = Cardcage::api(&config().plugin_at("hello", &hello())).await.unwrap();
    let http = api.http().unwrap();
    let all: Value = http.get("/problems").await.unwrap().json().unwrap();
    let listed = all["refusals"].as_array().unwrap();
    assert_eq!(listed.len(), cardcage::loader::Code::ALL.len());
    for code in cardcage::loader::Code::ALL {
        let reply = http.get(&format!("/problems/{}", code.as_str())).await.unwrap();
        assert_eq!(reply.status, 200, "{}", code.as_str());
        let page: Value = reply.json().unwrap();
        assert_eq!(page["code"], code.as_str());
        for member in ["title", "what_to_do"] {
            assert!(page[member].as_str().unwrap().ends_with('.'), "{page}");
        }
        assert!(listed.contains(&page));
    }
    assert_eq!(http.get("/problems/no_such_code").await.unwrap().status, 404);
}

#[tokio::test]
async fn library_with_a_manifest_and_no_interface_or_a_strangers_is_refused_after_it_was_opened() {
    let folder = Folder::new();
    let bare = trap(&folder, "bare", "");
    for (name, file, words) in [
        ("bare", bare, "exports no root module"),
        ("foreign", foreign(), "does not fit this host's plugin interface"),
    ] {
        for role in ["api", "worker"] {
            let output = run(Launch::new([role]), &config().plugin_at(name, &file)).await;
            is_refused(&output, name, &file, "abi_layout", words);
        }
    }
}

#[tokio::test]
async fn library_that_lacks_a_symbol_is_refused_when_it_is_opened() {
    let folder = Folder::new();
    let lacking = "unsafe extern \"C\" { fn is_in_no_library(); } unsafe { is_in_no_library() }";
    let file = trap(&folder, "lacking", lacking);
    for role in ["api", "worker"] {
        let output = run(Launch::new([role]), &config().plugin_at("lacking", &file)).await;
        is_refused(&output, "lacking", &file, "open_failed", "is_in_no_library");
    }
}

/// A library of another plugin system on the same foundation: it has a root module, of an interface that is not ours.
const FOREIGN: &str = r##"
use abi_stable::StableAbi;
use abi_stable::export_root_module;
use abi_stable::library::RootModule;
use abi_stable::package_version_strings;
use abi_stable::prefix_type::PrefixTypeTrait;
use abi_stable::sabi_types::VersionStrings;

#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = ForeignRef)))]
#[sabi(missing_field(panic))]
pub struct Foreign {
    #[sabi(last_prefix_field)]
    pub answer: extern "C" fn() -> u32,
}

impl RootModule for ForeignRef {
    abi_stable::declare_root_module_statics! {ForeignRef}
    const BASE_NAME: &'static str = "foreign";
    const NAME: &'static str = "foreign";
    const VERSION_STRINGS: VersionStrings = package_version_strings!();
}

extern "C" fn answer() -> u32 {
    42
}

#[export_root_module]
pub fn root() -> ForeignRef {
    Foreign { answer }.leak_into_prefix()
}

#[used]
#[link_section = ".cardcage"]
#[export_name = "FOREIGN_MANIFEST"]
pub static MANIFEST: [u8; 50] = *br#"{"name":"foreign","version":"1.0.0","abi":"1.0.0"}"#;
"##;

fn foreign() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("foreign");
    std::fs::create_dir_all(folder.join("src")).unwrap();
    // Another test process may be at it.
    let lock = std::fs::File::create(folder.join("lock")).unwrap();
    lock.lock().unwrap();
    let manifest = "[package]\nname = \"foreign\"\nversion = \"1.0.0\"\nedition = \"2021\"\n\n[lib]\ncrate-type = [\"cdylib\"]\n\n\
                    [dependencies]\nabi_stable = { version = \"0.11.3\", default-features = false }\n\n[profile.dev]\ndebug = false\n\n[workspace]\n";
    let written = |path: &str, text: &str| {
        let path = folder.join(path);
        if std::fs::read_to_string(&path).is_ok_and(|there| there == text) {
            return;
        }
        std::fs::write(path, text).unwrap();
    };
    written("Cargo.toml", manifest);
    written("src/lib.rs", FOREIGN);
    // The versions that are on this machine already: the build is offline.
    if !folder.join("Cargo.lock").exists() {
        std::fs::copy(workspace_root().join("Cargo.lock"), folder.join("Cargo.lock")).unwrap();
    }
    // What plugins outside this repository have built is built already.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("outside/target");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        // As in `outside`: a stranger has flags of their own.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_BUILD_TARGET")
        .args(["build", "--offline", "--target-dir"])
        .arg(&target)
        .current_dir(&folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    target.join("debug/libforeign.so")
}
