//! `cardcage plugin new`.

use cardcage_harness::{Cardcage, Config, Deadline, Nats, eventually};
use serde_json::{Value, json};

use super::*;

/// The commands of the README's first block.
fn commands(readme: &str) -> Vec<Vec<String>> {
    let block = readme.split("```sh\n").nth(1).unwrap().split("```").next().unwrap();
    let command =
        |line: &str| line.split('#').next().unwrap().split_whitespace().map(str::to_owned).collect();
    block.lines().map(command).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn new_plugin_builds_as_written_in_a_folder_of_its_own_and_its_task_succeeds() {
    let folder = elsewhere("new");
    let output = cardcage(&folder, &["plugin", "new", "my-shop"]);
    assert!(output.status.success(), "{output:?}");
    let told = text(&output.stdout);
    for step in ["cd my-shop", "cargo test", "cargo build", "target/debug/libcardcage_plugin_my_shop.so"] {
        assert!(told.contains(step), "{step}: {told}");
    }
    let repo = folder.join("my-shop");
    for file in ["Cargo.toml", "src/lib.rs", "src/tests.rs", "README.md", "justfile", ".gitignore", "vendor"]
    {
        assert!(repo.join(file).exists(), "{file}");
    }
    let ignored = std::fs::read_to_string(repo.join(".gitignore")).unwrap();
    assert!(["/target", "/packages"].iter().all(|folder| ignored.lines().any(|line| line == *folder)));
    let readme = std::fs::read_to_string(repo.join("README.md")).unwrap();
    let commands = commands(&readme);
    assert_eq!(
        commands,
        [vec!["cargo", "test"], vec!["cargo", "build"], vec!["cargo", "test", "--", "--include-ignored"]]
    );
    for command in &commands {
        let arguments: Vec<&str> = command[1..].iter().map(String::as_str).collect();
        let told = cargo(&repo, &arguments);
        let is_told = |test: &str, end: &str| {
            let line = told.lines().find(|line| line.contains(test)).unwrap_or_default();
            assert!(line.contains(end), "{test} {end}: {told}");
        };
        match arguments.as_slice() {
            ["build"] => {}
            ["test"] => {
                is_told("whoever_gives_a_name_is_greeted_by_it", "... ok");
                is_told("order_comes_to_its_end_in_this_process", "... ok");
                is_told("order_comes_to_its_end_in_hosts_with_a_real_broker", "... ignored");
            }
            _ => {
                for level in ["this_process", "hosts_with_a_broker_double", "hosts_with_a_real_broker"] {
                    is_told(&format!("order_comes_to_its_end_in_{level}"), "... ok");
                }
                is_told("plugin_stands_what_any_plugin_must", "... ok");
            }
        }
    }
    // What is checked of every change to it is true of it as it is written.
    let workflow = std::fs::read_to_string(repo.join(".github/workflows/ci.yml")).unwrap();
    let checks = |what: &str| {
        workflow.lines().find_map(|line| line.trim().strip_prefix(&format!("- run: cargo {what}")))
    };
    for what in ["fmt", "clippy"] {
        let more = checks(what).unwrap_or_else(|| panic!("{what}: {workflow}"));
        let arguments: Vec<&str> = std::iter::once(what).chain(more.split_whitespace()).collect();
        assert!(arguments.len() > 1, "{what} fails the change: {workflow}");
        cargo(&repo, &arguments);
    }
    // And its recipes are what the README and the workflow say.
    let recipes = std::fs::read_to_string(repo.join("justfile")).unwrap();
    for line in ["cargo test -- --include-ignored", "cargo fmt --check", "cardcage plugin package"] {
        assert!(recipes.contains(line), "{line}: {recipes}");
    }
    let library = outside::target().join("debug/libcardcage_plugin_my_shop.so");

    let nats = Nats::start().await.unwrap();
    let config = Config::new(&nats)
        .plugin_at("my-shop", &library)
        .plugin_set("my-shop", "greeting", "Good day")
        .set("broker.namespace", "kit");
    let api = Cardcage::api(&config).await.unwrap();
    let _worker = Cardcage::worker(&config).await.unwrap();
    let reply = api.http().unwrap().get("/my-shop/inline?name=Ada").await.unwrap();
    assert_eq!((reply.status, reply.text().as_str()), (200, "Good day, Ada!"));
    let reply = api.http().unwrap().post_json("/my-shop/task", &json!({ "order": 7 })).await.unwrap();
    assert_eq!(reply.status, 202, "{}", reply.text());
    let receipt: Value = reply.json().unwrap();
    let path = format!("/tasks/{}", receipt["id"].as_str().unwrap());
    let ended = eventually(Deadline::seconds(60), "the task succeeds", async || {
        let task: Value = api.http().unwrap().get(&path).await.ok()?.json().ok()?;
        (task["state"] == "succeeded").then_some(task)
    });
    assert_eq!(ended.await.unwrap()["result"], json!({ "order": 7 }));
}

#[test]
fn new_plugin_with_an_sdk_by_path_checks_against_it() {
    let folder = elsewhere("by-path");
    let sdk = workspace_root().to_str().unwrap();
    let output = cardcage(&folder, &["plugin", "new", "shop", "--path", "here", "--sdk", sdk, "--json"]);
    assert!(output.status.success(), "{output:?}");
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["vendored_sdk"], false);
    assert_eq!(told["library"], "libcardcage_plugin_shop.so");
    assert!(!folder.join("here/vendor").exists());
    cargo(&folder.join("here"), &["check"]);
}

#[test]
fn name_folder_or_sdk_that_will_not_do_is_refused_and_nothing_is_written() {
    let folder = elsewhere("refused");
    let full = folder.join("full");
    std::fs::create_dir(&full).unwrap();
    std::fs::write(full.join("mine"), "mine").unwrap();
    std::fs::write(folder.join("file"), "mine").unwrap();
    for (arguments, words) in [
        (vec!["My.Shop"], "use 1 to 64 of the characters"),
        (vec!["full"], "full holds something already"),
        (vec!["shop", "--path", "file"], "file cannot be used"),
        (vec!["tasks"], "served at /tasks, which belongs to the host"),
        (vec!["api"], "is part of the SDK"),
        (vec!["shop", "--sdk", "full"], "neither the SDK's folder nor a checkout"),
    ] {
        let output = cardcage(&folder, &[&["plugin", "new"], arguments.as_slice()].concat());
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains(words), "{words}: {told}");
    }
    let mut there: Vec<_> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    there.sort();
    assert_eq!(there, ["file", "full"]);
    assert_eq!(std::fs::read_dir(&full).unwrap().count(), 1);
}
