//! What is refused changes nothing, and says why.

use super::Installation;
use crate::serving::{child, soon};
use cardcage_harness::{Cardcage, Config, Launch, Signal, eventually};
use serde_json::json;

pub(super) async fn serves_as_before(installation: &Installation, host: &Cardcage, before: u32) {
    assert_eq!(child(host), before, "the same child: {}", host.stderr());
    assert_eq!(installation.version_of(host, "skew").await.as_deref(), Some("1.0.0"));
    let call = installation.http.post_json("/hello/call", &json!({})).await.unwrap();
    assert_eq!(call.status, 200, "{}", call.text());
    installation.accepted("/skew/pay", json!({ "amount": 1 })).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn set_that_is_refused_changes_nothing_and_the_command_says_why() {
    // Optional, and yet not to be lost: it serves.
    let installation = Installation::new(|config, _| config.set("plugins.skew.required", false)).await;
    let Installation { api, worker, config, .. } = &installation;
    let good = std::fs::read(installation.file("libskew.so")).unwrap();
    let broken: [(&str, i32, Config, &[u8]); 5] = [
        ("plugin `skew` (not_a_library)", 70, config.clone(), b"noise"),
        ("libskew.so", 70, config.clone(), &good[..good.len() / 2]),
        ("`tasks.lease_ms`", 78, config.clone().set("tasks.lease_ms", "soon"), &good),
        ("plugins.hello.routes", 78, config.clone().set("plugins.hello.routes.GET /none", "inline"), &good),
        ("plugin `chaos` (init_failed)", 70, config.clone().plugin_set("chaos", "init", "fail"), &good),
    ];
    for host in [worker, api] {
        let before = child(host);
        for (reason, code, config, library) in &broken {
            installation.rewrite(config);
            installation.overwrite_skew(library);
            let output = installation.reload(&[host]).await;
            assert_eq!(output.status.code(), Some(*code), "{reason}: {output:?}");
            assert!(output.stdout.contains("nothing has changed"), "{output:?}");
            assert!(output.stdout.contains(reason), "{reason}: {}", output.stdout);
            serves_as_before(&installation, host, before).await;
        }
        // A plugin that takes the new child down.
        installation.rewrite(&config.clone().plugin_set("chaos", "init", "abort"));
        let output = installation.reload(&[host]).await;
        assert_eq!(output.status.code(), Some(70), "{output:?}");
        assert!(output.stdout.contains("died of SIGABRT in its init"), "{}", output.stdout);
        assert!(output.stdout.contains("plugin `chaos` (died)"), "{}", output.stdout);
        let last = host.admin().unwrap().get("/reload").await.unwrap().json().unwrap()["last"].take();
        let refused = &last["refusals"][0];
        assert_eq!((&refused["plugin"], &refused["code"]), (&"chaos".into(), &"died".into()), "{last}");
        assert!(refused["file"].as_str().unwrap().ends_with(".so"), "{last}");
        serves_as_before(&installation, host, before).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hangup_with_a_set_that_is_refused_changes_nothing_and_the_log_says_why() {
    let installation = Installation::new(|config, _| config).await;
    let Installation { api, worker, config, .. } = &installation;
    for host in [worker, api] {
        let before = child(host);
        for (reason, changed) in [
            ("chaos was told not to start", config.clone().plugin_set("chaos", "init", "fail")),
            ("`tasks.lease_ms`", config.clone().set("tasks.lease_ms", "soon")),
        ] {
            installation.rewrite(&changed);
            host.signal(Signal::HUP).unwrap();
            let said = eventually(soon(), "the host says why", async || {
                let log = host.stderr();
                (log.contains("nothing has changed") && log.contains(reason)).then_some(())
            });
            said.await.unwrap_or_else(|error| panic!("{error}: {reason}: {}", host.stderr()));
            serves_as_before(&installation, host, before).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_a_restart_changes_is_named_and_stays_and_the_rest_is_taken() {
    let installation = Installation::new(|config, _| config).await;
    let Installation { api, http, config, .. } = &installation;
    let changed = config.clone().set("api.listen", "127.0.0.1:1").set("broker.url", "nats://127.0.0.1:1");
    installation.rewrite(&changed.set("plugins.skew.prefix", "/moved"));
    let output = installation.reload(&[api]).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let expected = "needs a restart, and stays as it was: api.listen, broker.url";
    assert!(output.stdout.contains(expected), "{}", output.stdout);
    let fresh = cardcage_harness::Http::new(http.url("").trim_start_matches("http://")).unwrap();
    assert_eq!(fresh.post_json("/moved/pay", &json!({ "amount": 3 })).await.unwrap().status, 202);
}

#[tokio::test(flavor = "multi_thread")]
async fn reload_without_a_host_says_so_with_69() {
    let port = cardcage_harness::Port::reserve().unwrap();
    let admin = format!("127.0.0.1:{}", port.number());
    let output = Launch::new(["reload", "--admin", &admin]).run(crate::serving::soon()).await.unwrap();
    assert_eq!(output.status.code(), Some(69), "{output:?}");
    let config = Config::default().set("admin.listen", admin);
    let output = Launch::new(["reload"]).config(&config).run(crate::serving::soon()).await.unwrap();
    assert_eq!(output.status.code(), Some(69), "{output:?}");
    assert!(output.stderr.contains("no host listens there"), "{output:?}");
}
