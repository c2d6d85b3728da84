//! Whose doing it was when a child dies while it loads plugins, and others run in it already.

use super::{config, is_refused, outside, refusal, run, soon, verbose};
use cardcage_harness::{Cardcage, Config, Launch, eventually};
use serde_json::{Value, json};
use tempfile::TempDir;

/// `chaos` and `hello` are started before `outsider`.
fn three() -> Config {
    let config = config().plugin("hello").unwrap().plugin("chaos").unwrap();
    config.plugin_at("outsider", &outside::library("outsider"))
}

#[tokio::test]
async fn plugin_that_ends_the_process_while_it_is_loaded_is_named_though_others_were_loaded_before() {
    let file = outside::library("outsider");
    for (step, how, words) in [
        ("init", "segfault", "died of SIGSEGV in its init"),
        ("init", "abort", "died of SIGABRT in its init"),
        ("init", "exit", "called exit(0) in its init"),
        ("open", "abort", "died of SIGABRT in its open"),
        ("open", "exit", "called exit(0) in its open"),
    ] {
        let variable = format!("OUTSIDER_{}", step.to_uppercase());
        for role in ["api", "worker"] {
            let output = run(Launch::new([role]).env(&variable, how), &three()).await;
            is_refused(&output, "outsider", &file, "died", words);
        }
        // The others do without it, where it is not required.
        let optional = three().set("plugins.outsider.required", false);
        let api = Launch::new(["api"]).env(&variable, how).config(&optional).ready().await.unwrap();
        let ready = verbose(&api).await;
        assert!(refusal(&ready, "outsider").1.contains(words), "{ready}");
        assert_eq!(ready["refused"].as_array().unwrap().len(), 1, "{ready}");
        assert_eq!(ready["last_crash"], Value::Null, "one word for one death: {ready}");
        assert_eq!(api.http().unwrap().get("/chaos/inline_seen").await.unwrap().status, 200);
    }
}

/// `outsider` hangs in its init, and half a second after its own start `chaos` ends the process, while there is the file.
fn doomed(folder: &TempDir) -> (std::path::PathBuf, Config) {
    let doom = folder.path().join("doom");
    let config = three().plugin_set("chaos", "doom", doom.display().to_string());
    (doom, config.set("plugins.outsider.required", false).set("loading.timeout_ms", 5_000))
}

#[tokio::test]
async fn death_that_is_the_doing_of_a_plugin_which_runs_already_is_not_laid_on_the_one_that_is_loaded() {
    for (how, cause) in [("abort", "signal"), ("exit", "exit")] {
        let folder = tempfile::tempdir().unwrap();
        let (doom, config) = doomed(&folder);
        std::fs::write(&doom, how).unwrap();
        let mut api = Launch::new(["api"]).env("OUTSIDER_INIT", "hang").config(&config).start().unwrap();
        api.wait_addresses(soon()).await.unwrap();
        let admin = api.admin().unwrap();
        let seen = eventually(soon(), "a crash is reported", async || {
            let ready = admin.get("/readyz?verbose").await.ok()?.json().ok()?;
            ready["last_crash"].is_object().then_some(ready)
        });
        let ready = seen.await.unwrap_or_else(|error| panic!("{error}: {}", api.stderr()));
        let crash = &ready["last_crash"];
        assert_eq!((&crash["plugin"], &crash["cause"]), (&json!("chaos"), &json!(cause)), "{crash}");
        assert_eq!(crash["version"], env!("CARGO_PKG_VERSION"), "{crash}");
        std::fs::remove_file(&doom).unwrap();
        api.wait_ready(soon()).await.unwrap();
        let ready = verbose(&api).await;
        assert_eq!(refusal(&ready, "outsider").0, "hung", "it was tried again, and hung: {ready}");
        let names: Vec<&Value> =
            ready["plugins"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
        assert_eq!(names, ["chaos", "hello"]);
    }
}

#[tokio::test]
async fn reload_whose_child_dies_of_a_plugin_that_ran_already_names_that_one_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (doom, config) = doomed(&folder);
    let file = folder.path().join("cardcage.toml");
    let mut before = config.to_toml().parse::<toml::Table>().unwrap();
    before["plugins"].as_table_mut().unwrap().remove("outsider");
    std::fs::write(&file, before.to_string()).unwrap();
    let api = Launch::new(["api".into(), "--config".into(), file.clone().into_os_string()]);
    let api: Cardcage = api.env("OUTSIDER_INIT", "hang").ready().await.unwrap();
    let child = verbose(&api).await["child_pid"].clone();
    std::fs::write(&file, config.to_toml()).unwrap();
    std::fs::write(&doom, "").unwrap();
    let admin = api.admin().unwrap().url("");
    let reload = Launch::new(["reload", "--admin", admin.trim_start_matches("http://")]);
    let told = reload.run(soon()).await.unwrap();
    assert_eq!(told.status.code(), Some(1), "{told:?}");
    let (version, words) =
        (env!("CARGO_PKG_VERSION"), "died of SIGABRT before it took over, by the doing of chaos");
    assert!(told.stdout.contains(&format!("{words} {version}")), "{}\n{}", told.stdout, api.stderr());
    assert!(!told.stdout.contains("outsider"), "{}", told.stdout);
    assert_eq!(verbose(&api).await["child_pid"], child);
}
