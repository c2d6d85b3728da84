//! A terminal that is closed takes the host that was started in it along. Elsewhere SIGHUP is a reload (`reload/`).

use crate::serving::soon;
use cardcage_harness::{Config, Launch, eventually};
use std::path::Path;

#[tokio::test(flavor = "multi_thread")]
async fn closed_terminal_stops_the_host_in_it_and_nothing_is_left() {
    let binary = cardcage_harness::cardcage_binary().unwrap();
    // The second one's log is that terminal, where nothing can be written any more.
    for log_is_a_file in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let (file, log) = (folder.path().join("cardcage.toml"), folder.path().join("log"));
        let config = Config::default().set("broker.url", "nats://127.0.0.1:1").plugin("hello").unwrap();
        std::fs::write(&file, config.to_toml()).unwrap();
        let redirect = if log_is_a_file { format!("2> {}", log.display()) } else { String::new() };
        // It owns a terminal and runs the host as the leader of its session, as a login does.
        let command = format!("exec {} api --config {} {redirect}", binary.display(), file.display());
        let terminal = Launch::new(["-qec", &command, "/dev/null"]).binary(Path::new("/usr/bin/script"));
        let mut terminal = terminal.ready().await.unwrap();
        assert!(terminal.child_pids().len() >= 2, "supervisor and child: {:?}", terminal.child_pids());
        terminal.kill9();
        let ended =
            eventually(soon(), "the host is gone", async || terminal.child_pids().is_empty().then_some(()));
        ended.await.unwrap_or_else(|error| panic!("{error}: {:?}", terminal.child_pids()));
        if log_is_a_file {
            let log = std::fs::read_to_string(&log).unwrap();
            assert!(log.contains("SIGHUP") && log.contains("stopped"), "it stopped in good order: {log}");
        }
    }
}
