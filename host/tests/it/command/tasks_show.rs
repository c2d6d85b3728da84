//! `cardcage tasks show`: where a task is, told without an API.

use cardcage_harness::Nats;

use super::{Folder, cardcage, config, nobody, stderr, stdout};

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
