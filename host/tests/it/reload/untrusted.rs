//! A set that the operator did not choose, or nobody vouches for, takes nothing over.

use super::Installation;
use super::refused::serves_as_before;
use crate::serving::child;
use cardcage_harness::{Launch, plugin_library};
use serde_json::Value;

async fn cardcage(arguments: &[&str]) -> String {
    let output = Launch::new(arguments.iter().copied()).run(crate::serving::soon()).await.unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    output.stdout
}

#[tokio::test(flavor = "multi_thread")]
async fn set_that_is_not_in_the_lock_or_not_signed_is_refused_and_nothing_changes() {
    let installation = Installation::new(|config, _| config).await;
    let Installation { api, worker, config, .. } = &installation;
    let (file, lock) = (installation.file("cardcage.toml"), installation.file("plugins.lock"));
    let lock = lock.to_str().unwrap();
    cardcage(&["plugin", "lock", "--config", file.to_str().unwrap(), "--out", lock]).await;
    let locked = config.clone().set("plugins.require_lock", lock);
    installation.rewrite(&locked);
    let output = installation.reload(&[worker, api]).await;
    assert_eq!(output.status.code(), Some(0), "what was chosen is taken over: {output:?}");

    let good = std::fs::read(installation.file("libskew.so")).unwrap();
    let other = std::fs::read(plugin_library("skew-new").unwrap()).unwrap();
    let key = installation.file("key");
    let made =
        cardcage(&["plugin", "keygen", "--key", key.to_str().unwrap(), "--no-password", "--json"]).await;
    let made: Value = serde_json::from_str(&made).unwrap();
    let signed = locked.clone().set("plugins.signatures", "require");
    let signed = signed.set("plugins.trusted_keys", vec![made["public_key"].as_str().unwrap().to_owned()]);
    for (config, library, reason) in
        [(&locked, &other, "is what was chosen in"), (&signed, &good, "has no signature at")]
    {
        installation.rewrite(config);
        installation.overwrite_skew(library);
        for host in [worker, api] {
            let before = child(host);
            let output = installation.reload(&[host]).await;
            assert_eq!(output.status.code(), Some(70), "{reason}: {output:?}");
            assert!(output.stdout.contains("nothing has changed"), "{}", output.stdout);
            assert!(output.stdout.contains(reason), "{reason}: {}", output.stdout);
            assert!(output.stdout.contains("libskew.so"), "{}", output.stdout);
            serves_as_before(&installation, host, before).await;
        }
    }
}
