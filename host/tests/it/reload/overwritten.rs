//! Libraries that are overwritten in place, as a careless copy does, while hosts serve them.

use super::{Installation, followed};
use crate::serving::{child, soon};
use cardcage_harness::{Cardcage, Signal, eventually, plugin_library};
use serde_json::json;
use std::path::Path;

async fn is_back(host: &Cardcage, before: u32) {
    let admin = host.admin().unwrap();
    let back = eventually(soon(), "another child serves", async || {
        let ready = admin.get("/readyz?verbose").await.ok()?.json().ok()?;
        (ready["ready"] == true && ready["child_pid"].is_u64() && ready["child_pid"] != before).then_some(())
    });
    assert!(back.await.is_ok(), "{}", host.stderr());
    followed(host, before).await;
}

async fn serves(installation: &Installation, version: &str) {
    for host in [&installation.api, &installation.worker] {
        let found = installation.version_of(host, "skew").await;
        assert_eq!(found.as_deref(), Some(version), "{}", host.stderr());
    }
    let id = installation.accepted("/skew/pay", json!({ "amount": 3 })).await;
    let task = installation.http.final_task(&id, soon()).await.unwrap();
    assert_eq!(task["state"], "succeeded", "{task}");
}

/// Each host's child dies, one after the other: of a kill, and where the worker's is asked to, of its own doing.
async fn die(installation: &Installation, by_itself: bool) {
    let Installation { api, worker, http, .. } = installation;
    let before = child(worker);
    match by_itself {
        true => {
            let reply = http.post_json("/chaos/call", &json!({ "mode": "segfault" })).await.unwrap();
            assert_eq!(reply.status, 502, "{}", reply.text());
        }
        false => assert_eq!(worker.signal_children(Signal::KILL), 1),
    }
    is_back(worker, before).await;
    let before = child(api);
    assert_eq!(api.signal_children(Signal::KILL), 1);
    is_back(api, before).await;
}

fn copies(cache: &Path) -> usize {
    let files = std::fs::read_dir(cache).unwrap().map(|file| file.unwrap().path());
    files.filter(|file| file.extension().is_some_and(|ending| ending == "so")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn child_that_dies_is_followed_by_one_with_the_same_libraries_whatever_lies_in_their_place_by_now() {
    let installation = Installation::new(|config, folder| {
        let cache = folder.path().join("cache").display().to_string();
        config.set("loading.cache_dir", cache).set("tasks.quarantine_after", 0)
    })
    .await;
    let Installation { api, worker, .. } = &installation;
    let library = |name: &str| std::fs::read(plugin_library(name).unwrap()).unwrap();
    let (old, new) = (library("skew-old"), library("skew-new"));
    for (nth, bytes) in [&b"noise"[..], &new[..new.len() / 2], b"", &new].into_iter().enumerate() {
        installation.overwrite_skew(bytes);
        die(&installation, nth % 2 == 0).await;
        serves(&installation, "1.0.0").await;
    }
    // Somebody tidies up: the copies are gone, too.
    let cache = installation.file("cache");
    assert!(copies(&cache) >= 3);
    std::fs::remove_dir_all(&cache).unwrap();
    std::fs::remove_file(installation.file("libskew.so")).unwrap();
    die(&installation, false).await;
    serves(&installation, "1.0.0").await;

    // A reload reads what lies there; one that is refused changes nothing, for later children neither.
    std::fs::write(installation.file("libskew.so"), "noise").unwrap();
    for host in [worker, api] {
        let before = child(host);
        let told = installation.reload(&[host]).await;
        assert_eq!(told.status.code(), Some(70), "{told:?}");
        assert!(told.stdout.contains("is not an ELF library"), "{told:?}");
        assert_eq!(child(host), before, "nothing has changed");
    }
    die(&installation, true).await;
    serves(&installation, "1.0.0").await;
    installation.overwrite_skew(&new);
    for host in [worker, api] {
        let before = child(host);
        let told = installation.reload(&[host]).await;
        assert_eq!(told.status.code(), Some(0), "{told:?}");
        followed(host, before).await;
    }
    serves(&installation, "1.1.0").await;
    installation.overwrite_skew(&old);
    die(&installation, true).await;
    serves(&installation, "1.1.0").await;
}
