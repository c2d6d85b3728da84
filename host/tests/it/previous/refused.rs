//! What may not be a previous library, and what a lock says of those that may.

use super::{Site, library, loaded, ready, run_json, seat, with};
use crate::serving::soon;
use cardcage_harness::{Cardcage, Config, Deadline, Launch, Output, plugin_library};
use serde_json::json;
use std::path::Path;

async fn run(config: &Config, arguments: &[&str]) -> Output {
    Launch::new(arguments.iter().copied()).config(config).run(Deadline::seconds(60)).await.unwrap()
}

fn previous(config: Config, files: &[&Path]) -> Config {
    let files: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    with(config, 2, &[]).set("plugins.majors.previous", files)
}

#[tokio::test(flavor = "multi_thread")]
async fn another_plugin_the_same_major_and_a_file_that_is_not_there_are_refused_with_a_sentence() {
    let site = Site::new(|config| config).await;
    let (hello, one, two) = (plugin_library("hello").unwrap(), library(1), library(2));
    let missing = site.folder.path().join("gone.so");
    for (files, code, sentence) in [
        (
            vec![hello.as_path()],
            "name_mismatch",
            "is a previous library of `majors`; take it out of `plugins.majors.previous`",
        ),
        (vec![two.as_path()], "same_major", "is majors 2.0.0, of the same major as"),
        (vec![one.as_path(), one.as_path()], "same_major", "is majors 1.4.0, of the same major as"),
        (vec![missing.as_path()], "unreadable", "gone.so: cannot be read"),
    ] {
        let config = previous(site.config.clone(), &files);
        for command in [["worker"].as_slice(), &["check"], &["plugin", "verify"]] {
            let ended = run(&config, command).await;
            assert_eq!(ended.status.code(), Some(70), "{command:?} {code}: {ended:?}");
            let said = format!("{}{}", ended.stdout, ended.stderr);
            assert!(said.contains(sentence), "{command:?} {code}: {said}");
        }
        // An API has no use for it, and does not ask.
        let mut api = Cardcage::api(&config).await.unwrap();
        assert_eq!(loaded(&ready(&api).await), ["hello 0.1.0", "majors 2.0.0"]);
        api.stop(soon()).await.unwrap();

        // Where the plugin may be done without, the rest serves and says what is missing.
        let config = config.set("plugins.majors.required", false);
        let worker = Cardcage::worker(&config).await.unwrap();
        let now = ready(&worker).await;
        assert_eq!(loaded(seat(&now, None)), ["hello 0.1.0", "majors 2.0.0"], "{now}");
        let refused = now["refused"].as_array().unwrap();
        assert_eq!(
            (refused.len(), &refused[0]["plugin"], &refused[0]["code"]),
            (1, &json!("majors"), &json!(code)),
            "{now}"
        );
        assert!(refused[0]["message"].as_str().unwrap().contains(sentence), "{now}");
        let ended = run(&config, &["check"]).await;
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        assert!(
            ended.stdout.contains("majors (previous)") && ended.stdout.contains("refused, not required"),
            "{ended:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lock_covers_previous_libraries() {
    let site = Site::new(|config| config).await;
    let lock = site.folder.path().join("plugins.lock").display().to_string();
    let locked = |config: Config| config.set("plugins.require_lock", lock.clone());
    let config = locked(site.of(2, &[]));
    assert_eq!(run(&config, &["plugin", "lock"]).await.status.code(), Some(0));
    // The lock knows the current library only.
    let config = locked(site.of(2, &[1]));
    for command in [["plugin", "verify"].as_slice(), &["worker"]] {
        let ended = run(&config, command).await;
        assert_eq!(ended.status.code(), Some(70), "{command:?}: {ended:?}");
        assert!(ended.stderr.contains("is majors 1.4.0 with the hash"), "{command:?}: {ended:?}");
    }
    let written = run(&config, &["plugin", "lock"]).await;
    assert!(written.stdout.contains("+ majors 1.4.0"), "{written:?}");
    let (verified, code) = run_json(&config, &["plugin", "verify"]).await;
    let of = |one: &serde_json::Value| (one["version"].clone(), one["is_previous"].clone());
    let majors: Vec<_> = verified["plugins"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|one| one["name"] == "majors")
        .map(of)
        .collect();
    assert_eq!((code, majors), (0, vec![(json!("2.0.0"), json!(false)), (json!("1.4.0"), json!(true))]));
    let worker = Cardcage::worker(&config).await.unwrap();
    assert_eq!(loaded(seat(&ready(&worker).await, Some("previous-1"))), ["majors 1.4.0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn reload_with_a_previous_library_that_is_refused_changes_nothing() {
    let site = Site::new(|config| config).await;
    let worker = site.reloadable("worker", &site.of(1, &[])).await;
    let before = worker.child_pids();
    let config = previous(site.config.clone(), &[library(2).as_path()]);
    // Also where the plugin may be done without: it serves now.
    for config in [config.clone(), config.set("plugins.majors.required", false)] {
        let told = site.reload("worker", &worker, &config).await;
        assert_eq!(told.status.code(), Some(70), "{told:?}");
        assert!(told.stdout.contains("of the same major as"), "{told:?}");
        let now = ready(&worker).await;
        assert_eq!(loaded(&now), ["hello 0.1.0", "majors 1.4.0"], "{now}");
        assert_eq!((worker.child_pids(), &now["ready"]), (before.clone(), &json!(true)), "{now}");
    }
}
