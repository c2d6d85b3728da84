//! Lock and signatures, as hosts hold libraries against them: nothing that the operator did not choose is loaded.

use std::path::{Path, PathBuf};
use std::process::Command;

use cardcage_harness::{Cardcage, Config, Launch};
use tempfile::TempDir;

use super::{altered, config, greets, hello, is_refused, refusal, run, verbose};

/// Runs a command that must go well.
#[track_caller]
fn cardcage(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_cardcage")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A key without a password: the file, and the public key.
fn key(folder: &TempDir, name: &str) -> (PathBuf, String) {
    let file = folder.path().join(name);
    let made = cardcage(&["plugin", "keygen", "--key", file.to_str().unwrap(), "--no-password", "--json"]);
    let made: serde_json::Value = serde_json::from_str(&made).unwrap();
    (file, made["public_key"].as_str().unwrap().to_owned())
}

fn sign(file: &Path, key: &Path) {
    cardcage(&["plugin", "sign", file.to_str().unwrap(), "--key", key.to_str().unwrap()]);
}

/// Locks the set of a configuration.
fn lock(folder: &TempDir, config: &Config) -> PathBuf {
    let (file, lock) = (folder.path().join("to-lock.toml"), folder.path().join("plugins.lock"));
    std::fs::write(&file, config.to_toml()).unwrap();
    cardcage(&["plugin", "lock", "--config", file.to_str().unwrap(), "--out", lock.to_str().unwrap()]);
    lock
}

fn at(file: &Path) -> Config {
    config().plugin_at("hello", file)
}

#[tokio::test]
async fn locked_set_starts_and_another_file_at_its_place_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let file = altered(&folder, "hello.so", |_| {});
    let config = at(&file).set("plugins.require_lock", lock(&folder, &at(&file)).display().to_string());
    greets(&Cardcage::api(&config).await.unwrap(), "/hello/inline").await;
    altered(&folder, "hello.so", |bytes| bytes.push(0));
    for role in ["api", "worker"] {
        let output = run(Launch::new([role]), &config).await;
        is_refused(&output, "hello", &file, "not_in_lock", "is hello 0.1.0 with the hash");
    }
}

#[tokio::test]
async fn plugin_that_is_not_in_the_lock_is_left_out_where_it_is_not_required_and_the_rest_runs() {
    let folder = tempfile::tempdir().unwrap();
    let lock = lock(&folder, &config().plugin("hello").unwrap());
    let config = config().plugin("hello").unwrap().plugin("chaos").unwrap();
    let config = config.set("plugins.chaos.required", false);
    let api = Cardcage::api(&config.set("plugins.require_lock", lock.display().to_string())).await.unwrap();
    greets(&api, "/hello/inline").await;
    let ready = verbose(&api).await;
    let (code, sentence) = refusal(&ready, "chaos");
    assert_eq!(code, "not_in_lock");
    assert!(sentence.contains("has the plugin `chaos`, which is not in"), "{sentence}");
}

#[tokio::test]
async fn lock_that_is_missing_or_no_lock_refuses_everything() {
    let folder = tempfile::tempdir().unwrap();
    let noise = folder.path().join("noise.lock");
    std::fs::write(&noise, "these are words").unwrap();
    for (file, words) in [(folder.path().join("missing.lock"), "cannot be read"), (noise, "is no lock")] {
        let config = at(&hello()).set("plugins.require_lock", file.display().to_string());
        let output = run(Launch::new(["api"]), &config).await;
        is_refused(&output, "hello", &hello(), "bad_lock", words);
    }
}

#[tokio::test]
async fn name_and_version_must_be_those_of_the_lock() {
    let folder = tempfile::tempdir().unwrap();
    let lock = lock(&folder, &at(&hello()));
    let locked = std::fs::read_to_string(&lock).unwrap();
    let config = at(&hello()).set("plugins.require_lock", lock.display().to_string());
    for (from, to) in
        [("name = \"hello\"", "name = \"other\""), ("version = \"0.1.0\"", "version = \"0.2.0\"")]
    {
        assert!(locked.contains(from), "{locked}");
        std::fs::write(&lock, locked.replacen(from, to, 1)).unwrap();
        let output = run(Launch::new(["worker"]), &config).await;
        is_refused(&output, "hello", &hello(), "lock_mismatch", "is hello 0.1.0, and its hash stands for");
    }
}

#[tokio::test]
async fn signature_that_is_missing_wrong_or_by_a_stranger_is_refused_where_signatures_are_required() {
    let folder = tempfile::tempdir().unwrap();
    let (mine, public) = key(&folder, "mine.key");
    let (strange, _) = key(&folder, "strange.key");
    let unsigned = altered(&folder, "unsigned.so", |_| {});
    let signed = altered(&folder, "signed.so", |_| {});
    sign(&signed, &mine);
    let strangers = altered(&folder, "strangers.so", |_| {});
    sign(&strangers, &strange);
    let changed = altered(&folder, "changed.so", |_| {});
    sign(&changed, &mine);
    altered(&folder, "changed.so", |bytes| bytes.push(0));
    let garbled = altered(&folder, "garbled.so", |_| {});
    std::fs::write(folder.path().join("garbled.so.minisig"), "signed, me").unwrap();
    let trusting = |file: &Path, policy: &str| {
        at(file).set("plugins.signatures", policy).set("plugins.trusted_keys", vec![public.clone()])
    };
    for (file, code, words) in [
        (&unsigned, "unsigned", "has no signature at"),
        (&strangers, "untrusted_key", "not among `plugins.trusted_keys`"),
        (&changed, "bad_signature", "the bytes differ"),
        (&garbled, "bad_signature", "is not in minisign's format"),
    ] {
        for role in ["api", "worker"] {
            let output = run(Launch::new([role]), &trusting(file, "require")).await;
            is_refused(&output, "hello", file, code, words);
        }
        let api = Cardcage::api(&trusting(file, "warn")).await.unwrap();
        greets_or_hullos(&api).await;
        let told = api.stderr();
        assert!(told.contains("a plugin is not signed as it should be") && told.contains(code), "{told}");
    }
    let api = Cardcage::api(&trusting(&signed, "require")).await.unwrap();
    greets_or_hullos(&api).await;
    assert!(!api.stderr().contains("not signed"), "{}", api.stderr());
}

async fn greets_or_hullos(api: &Cardcage) {
    let reply = api.http().unwrap().get("/hello/inline").await.unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text());
}

#[tokio::test]
async fn file_dropped_in_beside_the_configuration_cannot_loosen_what_is_asked_of_plugins() {
    let folder = tempfile::tempdir().unwrap();
    let (_, public) = key(&folder, "mine.key");
    let file = folder.path().join("cardcage.toml");
    let config = at(&hello()).set("plugins.signatures", "require").set("plugins.trusted_keys", vec![public]);
    std::fs::write(&file, config.to_toml()).unwrap();
    std::fs::create_dir(folder.path().join("plugins.d")).unwrap();
    let drop_in = "[plugins]\nsignatures = \"off\"\n[plugins.hello]\nprefix = \"/else\"\n";
    std::fs::write(folder.path().join("plugins.d/loose.toml"), drop_in).unwrap();
    let output = Launch::new(["api", "--config", file.to_str().unwrap()]).run(super::soon()).await.unwrap();
    assert_eq!(output.status.code(), Some(78), "{}", output.stderr);
    assert!(output.stderr.contains("`plugins.signatures` does not belong in plugins.d"), "{}", output.stderr);
}

#[tokio::test]
async fn signature_or_lock_that_is_a_pipe_ends_the_start_instead_of_holding_it_up() {
    let folder = tempfile::tempdir().unwrap();
    let file = altered(&folder, "hello.so", |_| {});
    let (_, public) = key(&folder, "mine.key");
    let pipe = |name: &str| {
        let path = folder.path().join(name);
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &path, kind, rustix::fs::Mode::RWXU, 0).unwrap();
        path
    };
    let lock = at(&file).set("plugins.require_lock", pipe("plugins.lock").display().to_string());
    let output = run(Launch::new(["api"]), &lock).await;
    is_refused(&output, "hello", &file, "bad_lock", "not a regular file");
    pipe("hello.so.minisig");
    let signed = at(&file).set("plugins.signatures", "require").set("plugins.trusted_keys", vec![public]);
    let output = run(Launch::new(["worker"]), &signed).await;
    is_refused(&output, "hello", &file, "bad_signature", "not a regular file");
}
