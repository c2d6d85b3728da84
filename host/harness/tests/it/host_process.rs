//! The handle of a `cardcage` process, tried on a stand-in: a script that does of it only what the handle relies on.

use std::path::Path;
use std::time::Duration;

use cardcage_harness::{Cardcage, Config, Deadline, Launch, Signal, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A launch of a stand-in that runs `body` with bash. The script is read, not executed: a file just written cannot
/// be executed while a process that another test is starting still holds it open.
fn stand_in(folder: &Path, body: &str) -> Launch {
    let script = folder.join("stand-in");
    std::fs::write(&script, body).unwrap();
    Launch::new([script.as_os_str(), "worker".as_ref()]).binary(Path::new("/bin/bash"))
}

/// An admin listener that says 503 twice, then 200.
async fn admin_listener() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        for nth in 0.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await;
            let status = if nth < 2 { "503 Service Unavailable" } else { "200 OK" };
            let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
            let _ = stream.write_all(head.as_bytes()).await;
        }
    });
    address
}

async fn ready_stand_in(folder: &Path) -> Cardcage {
    let body = r#"
        sleep 1000 &
        echo "{\"admin\":\"$ADMIN\",\"pid\":$$}" > "$CARDCAGE_ADDRESSES_FILE"
        trap 'kill %1; exit 0' TERM
        wait"#;
    stand_in(folder, body).env("ADMIN", admin_listener().await).ready().await.unwrap()
}

#[tokio::test]
async fn ready_waits_for_readyz_and_a_signal_ends_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut cardcage = ready_stand_in(folder.path()).await;
    assert_eq!(cardcage.child_pids().len(), 1);
    assert!(cardcage.http().is_err(), "a worker has no api address");
    assert!(cardcage.stop(Deadline::seconds(10)).await.unwrap().success());
    eventually(Deadline::seconds(10), "its child is gone", async || {
        cardcage.child_pids().is_empty().then_some(())
    })
    .await
    .unwrap();
    assert!(cardcage.signal(Signal::TERM).is_err(), "nobody is there to signal");
}

#[tokio::test]
async fn dropped_handle_leaves_not_even_an_orphan() {
    let folder = tempfile::tempdir().unwrap();
    let mut cardcage = ready_stand_in(folder.path()).await;
    cardcage.kill9();
    let orphans = cardcage.child_pids();
    assert_eq!(orphans.len(), 1, "the stand-in leaves its child, which the real one must not");
    drop(cardcage);
    let gone = |id: &u32| {
        // A killed orphan whose new parent has not waited for it yet has no command line any more.
        std::fs::read(format!("/proc/{id}/cmdline")).map_or(true, |line| line.is_empty())
    };
    assert!(orphans.iter().all(gone));
}

#[tokio::test]
async fn early_exit_fails_with_the_status_and_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let body = r#"echo "no such option: $(cat "$3")" >&2; exit 78"#;
    let launch = stand_in(folder.path(), body).config_text("nonsense = 1");
    let error = launch.ready().await.unwrap_err().to_string();
    assert!(error.contains("exit status: 78") && error.contains("no such option: nonsense = 1"), "{error}");
}

#[tokio::test]
async fn command_that_ends_hands_back_its_output() {
    let folder = tempfile::tempdir().unwrap();
    let launch =
        stand_in(folder.path(), "echo to stdout; echo to stderr >&2; exit 3").config(&Config::default());
    let output = launch.run(Deadline::seconds(10)).await.unwrap();
    assert_eq!((output.status.code(), output.stdout.as_str()), (Some(3), "to stdout\n"));
    assert_eq!(output.stderr, "to stderr\n");
}

#[tokio::test]
async fn group_signal_reaches_the_children_too() {
    let folder = tempfile::tempdir().unwrap();
    let launch = stand_in(folder.path(), "sleep 1000 & wait").own_group();
    let mut cardcage = launch.start().unwrap();
    eventually(Deadline::seconds(10), "it has a child", async || {
        (!cardcage.child_pids().is_empty()).then_some(())
    })
    .await
    .unwrap();
    cardcage.signal_group(Signal::TERM).unwrap();
    cardcage.wait_exit(Deadline::after(Duration::from_secs(10))).await.unwrap();
    eventually(Deadline::seconds(10), "all are gone", async || {
        cardcage.child_pids().is_empty().then_some(())
    })
    .await
    .unwrap();
}
