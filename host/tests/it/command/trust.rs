//! `cardcage plugin lock`, `verify`, `sign`, `keygen`, and what other commands make of lock and signatures.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cardcage_harness::plugin_library;
use serde_json::Value;

use super::{Folder, cardcage, hello, json, plugin, stderr, stdout, trap};

/// A configuration of these plugins, and what else stands in `[plugins]`.
pub(super) fn set(folder: &Folder, more: &str, plugins: &[(&str, &Path)]) -> String {
    let plugins: String = plugins.iter().map(|(name, library)| plugin(name, library, "")).collect();
    folder.file("cardcage.toml", format!("[plugins]\n{more}\n{plugins}")).display().to_string()
}

pub(super) fn keygen(folder: &Folder, name: &str, more: &[&str]) -> (String, Value) {
    let file = folder.path(name).display().to_string();
    let output = cardcage(&[&["plugin", "keygen", "--json", "--key", &file], more].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    (file, json(&output))
}

#[test]
fn lock_lists_what_the_set_is_and_verify_finds_it_good_until_a_file_changes() {
    let folder = Folder::new();
    let file = folder.hello("hello.so", |_| {});
    let chaos = plugin_library("chaos").unwrap();
    let config = set(&folder, "require_lock = \"plugins.lock\"", &[("hello", &file), ("chaos", &chaos)]);
    let output = cardcage(&["plugin", "lock", "--config", &config]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let lock: toml::Table = std::fs::read_to_string(folder.path("plugins.lock")).unwrap().parse().unwrap();
    let locked = lock["plugin"].as_array().unwrap();
    let names: Vec<_> = locked.iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["chaos", "hello"]);
    let inspected = json(&cardcage(&["plugin", "inspect", "--json", file.to_str().unwrap()]));
    for member in ["version", "target", "abi", "sdk"] {
        assert_eq!(locked[1][member].as_str(), inspected["manifest"][member].as_str(), "{member}");
    }
    assert_eq!(locked[1]["sha256"].as_str(), inspected["sha256"].as_str());
    assert_eq!(cardcage(&["plugin", "verify", "--config", &config]).status.code(), Some(0));
    assert!(stdout(&cardcage(&["plugin", "lock", "--config", &config])).contains("is as it was"));

    folder.hello("hello.so", |bytes| bytes.push(0));
    let output = cardcage(&["plugin", "verify", "--config", &config]);
    assert_eq!(output.status.code(), Some(70), "{output:?}");
    assert!(stderr(&output).contains("with the hash"), "{output:?}");
    let output = cardcage(&["plugin", "inspect", file.to_str().unwrap(), "--config", &config]);
    assert_eq!(output.status.code(), Some(70), "{output:?}");
    let output = cardcage(&["plugin", "describe", file.to_str().unwrap(), "--config", &config]);
    assert_eq!(output.status.code(), Some(70), "{output:?}");
    // It is chosen anew, and what was there before is told.
    let output = json(&cardcage(&["plugin", "lock", "--json", "--config", &config]));
    let changes: Vec<&str> =
        output["changes"].as_array().unwrap().iter().map(|one| &one.as_str().unwrap()[..7]).collect();
    assert_eq!(changes, ["- hello", "+ hello"]);
    assert_eq!(cardcage(&["plugin", "verify", "--config", &config]).status.code(), Some(0));
}

#[test]
fn verify_tells_every_mismatch_and_not_only_the_first() {
    let folder = Folder::new();
    let (_, key) = keygen(&folder, "mine.key", &["--no-password"]);
    let (file, noise) = (folder.hello("hello.so", |_| {}), folder.file("noise.so", "words"));
    let config = set(&folder, "require_lock = \"plugins.lock\"", &[("hello", &file)]);
    assert_eq!(cardcage(&["plugin", "lock", "--config", &config]).status.code(), Some(0));
    folder.hello("hello.so", |bytes| bytes.push(0));
    let more = format!(
        "require_lock = \"plugins.lock\"\nsignatures = \"require\"\ntrusted_keys = [{}]",
        key["public_key"]
    );
    let chaos = plugin_library("chaos").unwrap();
    let config = set(&folder, &more, &[("chaos", &chaos), ("hello", &file), ("noise", &noise)]);
    let output = cardcage(&["plugin", "verify", "--json", "--config", &config]);
    assert_eq!(output.status.code(), Some(70), "{output:?}");
    let answer = json(&output);
    let codes: Vec<Vec<&str>> = answer["plugins"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            one["mismatches"].as_array().unwrap().iter().map(|it| it["code"].as_str().unwrap()).collect()
        })
        .collect();
    assert_eq!(
        codes,
        [vec!["unsigned", "not_in_lock"], vec!["unsigned", "not_in_lock"], vec!["not_a_library"]]
    );
    assert_eq!(stderr(&output).lines().count(), 5, "{output:?}");
}

#[test]
fn lock_is_not_written_where_a_library_would_be_refused() {
    let folder = Folder::new();
    let (_, key) = keygen(&folder, "mine.key", &["--no-password"]);
    let noise = folder.file("noise.so", "words");
    let strict = format!("signatures = \"require\"\ntrusted_keys = [{}]", key["public_key"]);
    for (more, plugins, words, code) in [
        ("", vec![("hello", hello()), ("noise", noise)], "not an ELF library", "not_a_library"),
        (strict.as_str(), vec![("hello", hello())], "has no signature", "unsigned"),
    ] {
        let plugins: Vec<(&str, &Path)> =
            plugins.iter().map(|(name, file)| (*name, file.as_path())).collect();
        let config = set(&folder, more, &plugins);
        let output = cardcage(&["plugin", "lock", "--config", &config]);
        assert_eq!(output.status.code(), Some(70), "{output:?}");
        assert!(stderr(&output).contains(words) && stderr(&output).contains("is not written"), "{output:?}");
        assert!(!folder.path("plugins.lock").exists());
        let output = cardcage(&["plugin", "lock", "--json", "--config", &config]);
        assert_eq!(output.status.code(), Some(70), "{output:?}");
        assert_eq!(json(&output)["refused"][0]["code"], code, "{output:?}");
        assert!(stderr(&output).contains(&format!("refused ({code}): ")), "{output:?}");
    }
}

#[test]
fn lock_names_the_signer_and_holds_him_to_it() {
    let folder = Folder::new();
    let (first_file, first) = keygen(&folder, "first.key", &["--no-password"]);
    let (second_file, second) = keygen(&folder, "second.key", &["--no-password"]);
    let file = folder.hello("hello.so", |_| {});
    let file_text = file.to_str().unwrap();
    let more = format!(
        "require_lock = \"plugins.lock\"\nsignatures = \"require\"\ntrusted_keys = [{}, {}]",
        first["public_key"], second["public_key"]
    );
    let config = set(&folder, &more, &[("hello", &file)]);
    assert_eq!(cardcage(&["plugin", "sign", file_text, "--key", &first_file]).status.code(), Some(0));
    let locked = json(&cardcage(&["plugin", "lock", "--json", "--config", &config]));
    assert_eq!(locked["plugins"][0]["signer"], first["key"]);
    let inspected = stdout(&cardcage(&["plugin", "inspect", file_text, "--config", &config]));
    let (id, says) = (first["key"].as_str().unwrap(), "file:hello.so");
    assert!(inspected.contains(&format!("good, by the trusted key {id}")), "{inspected}");
    assert!(inspected.contains(says) && inspected.contains("plugin:hello 0.1.0"), "{inspected}");
    assert_eq!(cardcage(&["plugin", "verify", "--config", &config]).status.code(), Some(0));

    assert_eq!(cardcage(&["plugin", "sign", file_text, "--key", &second_file]).status.code(), Some(0));
    let output = cardcage(&["plugin", "verify", "--json", "--config", &config]);
    assert_eq!(json(&output)["plugins"][0]["mismatches"][0]["code"], "lock_mismatch");
    // Without a configuration, whose key it names is all that can be said.
    let alone = json(&cardcage(&["plugin", "inspect", "--json", file_text]));
    assert_eq!((&alone["signature_key"], &alone["signed"]), (&second["key"], &Value::Null));
}

#[test]
fn keys_are_for_their_owners_eyes_and_are_never_written_over() {
    let folder = Folder::new();
    let (file, _) = keygen(&folder, "mine.key", &["--no-password"]);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let before = std::fs::read(&file).unwrap();
    let output = cardcage(&["plugin", "keygen", "--key", &file, "--no-password"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(&output).contains("does not exist yet"), "{output:?}");
    assert_eq!(std::fs::read(&file).unwrap(), before);
}

#[test]
fn key_with_a_password_signs_with_it_and_not_with_another() {
    let folder = Folder::new();
    let word = folder.file("word", "open sesame\n").display().to_string();
    let wrong = folder.file("wrong", "open barley\n").display().to_string();
    let (key, _) = keygen(&folder, "mine.key", &["--password-file", &word]);
    let file = folder.file("anything", "bytes").display().to_string();
    let sign = |more: &[&str]| cardcage(&[&["plugin", "sign", &file, "--key", &key], more].concat());
    let output = sign(&["--password-file", &wrong]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(&output).contains("Wrong password"), "{output:?}");
    let output = sign(&[]);
    assert!(stderr(&output).contains("--password-file"), "{output:?}");
    assert!(!folder.path("anything.minisig").exists());
    assert_eq!(sign(&["--password-file", &word, "--comment", "by me"]).status.code(), Some(0));
    assert!(std::fs::read_to_string(folder.path("anything.minisig")).unwrap().contains("by me"));
}

#[test]
fn key_that_is_none_is_a_mistake_in_the_configuration() {
    let folder = Folder::new();
    let config = set(&folder, "trusted_keys = [\"RWnonsense\"]", &[("hello", &hello())]);
    let output = cardcage(&["check", "--json", "--config", &config]);
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    let text = json(&output)["configuration"]["text"].as_str().unwrap().to_owned();
    assert!(text.contains("`plugins.trusted_keys`") && text.contains("begins with `RW`"), "{text}");
    let config = set(&folder, "require_lok = \"plugins.lock\"", &[("hello", &hello())]);
    assert_eq!(cardcage(&["check", "--config", &config]).status.code(), Some(78));
}

#[test]
fn check_refuses_what_hosts_would_refuse_for_its_lock() {
    let folder = Folder::new();
    let config = set(&folder, "require_lock = \"missing.lock\"", &[("hello", &hello())]);
    let report = json(&cardcage(&["check", "--json", "--config", &config]));
    assert_eq!(report["plugins"][0]["refused"]["code"], "bad_lock");
}

/// Puts one file and the other in the place of `at`, in turns, as fast as it can.
fn swap(at: &Path, files: [&Path; 2], stop: &AtomicBool) {
    for nth in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let new: PathBuf = at.with_extension("new");
        // A hard link, so that the swap itself takes no time.
        std::fs::hard_link(files[nth % 2], &new).unwrap();
        std::fs::rename(&new, at).unwrap();
        // Links to the same file are left as they are by `rename`.
        let _ = std::fs::remove_file(&new);
    }
}

/// Ends the swapping, also where the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn what_is_loaded_is_what_was_checked_however_fast_the_file_is_swapped() {
    let folder = Folder::new();
    let marker = folder.path("it-ran");
    let trapped = trap(&folder, "hello", &format!("let _ = std::fs::write({marker:?}, \"\");"));
    let good = folder.hello("good.so", |_| {});
    let place = folder.hello("place.so", |_| {});
    let config = set(&folder, "require_lock = \"plugins.lock\"", &[("hello", &place)]);
    assert_eq!(cardcage(&["plugin", "lock", "--config", &config]).status.code(), Some(0));
    // The trap does spring where nobody asks.
    let output = cardcage(&["plugin", "describe", trapped.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(70), "it is no plugin: {output:?}");
    std::fs::remove_file(&marker).unwrap();

    let stop = AtomicBool::new(false);
    let (mut taken, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| swap(&place, [&good, &trapped], &stop));
        let _at_the_end = Stop(&stop);
        let until = Instant::now() + Duration::from_secs(120);
        while (taken < 5 || refused < 5) && Instant::now() < until {
            let output = cardcage(&["plugin", "describe", place.to_str().unwrap(), "--config", &config]);
            match output.status.code() {
                Some(0) => taken += 1,
                _ if stderr(&output).contains("with the hash") => refused += 1,
                _ => panic!("{output:?}"),
            }
            assert!(!marker.exists(), "a library ran that nobody chose");
        }
    });
    assert!(taken >= 5 && refused >= 5, "both were met: {taken} taken, {refused} refused");
}

/// A pipe that nobody writes into: whoever opens it as a file waits for ever.
pub(super) fn pipe(folder: &Folder, name: &str) -> PathBuf {
    let path = folder.path(name);
    let _ = std::fs::remove_file(&path);
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &path, kind, rustix::fs::Mode::RWXU, 0).unwrap();
    path
}

#[test]
fn signature_or_lock_that_is_a_pipe_holds_up_no_command() {
    let folder = Folder::new();
    let (_, key) = keygen(&folder, "mine.key", &["--no-password"]);
    let file = folder.hello("hello.so", |_| {});
    let signatures = format!("signatures = \"require\"\ntrusted_keys = [{}]", key["public_key"]);
    for (more, name, code) in [
        (signatures.as_str(), "hello.so.minisig", "bad_signature"),
        ("require_lock = \"plugins.lock\"", "plugins.lock", "bad_lock"),
    ] {
        let config = set(&folder, more, &[("hello", &file)]);
        let pipe = pipe(&folder, name);
        let output = cardcage(&["plugin", "verify", "--json", "--config", &config]);
        assert_eq!(output.status.code(), Some(70), "{output:?}");
        assert_eq!(json(&output)["plugins"][0]["mismatches"][0]["code"], code, "{output:?}");
        assert!(stderr(&output).contains("not a regular file"), "{output:?}");
        let output = cardcage(&["plugin", "inspect", file.to_str().unwrap(), "--config", &config]);
        assert_eq!(output.status.code(), Some(70), "{output:?}");
        std::fs::remove_file(pipe).unwrap();
    }
}

#[test]
fn folder_with_libraries_of_the_operators_own_may_be_the_cache_and_keeps_them() {
    let folder = Folder::new();
    let file = folder.hello("hello.so", |_| {});
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(86_400);
    std::fs::File::options().write(true).open(&file).unwrap().set_modified(long_ago).unwrap();
    let config = folder.path("cardcage.toml");
    let cache = folder.0.path().display();
    std::fs::write(&config, format!("[loading]\ncache_dir = \"{cache}\"\n{}", plugin("hello", &file, "")))
        .unwrap();
    let described = ["plugin", "describe", file.to_str().unwrap(), "--config", config.to_str().unwrap()];
    let copies = || {
        let names = std::fs::read_dir(folder.0.path()).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.len() == "0123456789abcdef".len() * 4 + ".so".len()).count()
    };
    for _ in 0..2 {
        assert_eq!(cardcage(&described).status.code(), Some(0));
        assert!(file.exists());
    }
    assert_eq!(copies(), 1, "the folder was used");
}

#[test]
fn set_without_plugins_is_no_good_set_and_leaves_the_lock_as_it_is() {
    let folder = Folder::new();
    let file = folder.hello("hello.so", |_| {});
    let config = set(&folder, "", &[("hello", &file)]);
    assert_eq!(cardcage(&["plugin", "lock", "--config", &config]).status.code(), Some(0));
    let lock = std::fs::read_to_string(folder.path("plugins.lock")).unwrap();
    // As where the wrong file is named.
    let config = set(&folder, "", &[]);
    for command in ["lock", "verify"] {
        for more in [&[][..], &["--json"]] {
            let output = cardcage(&[&["plugin", command, "--config", &config], more].concat());
            assert_eq!(output.status.code(), Some(78), "{output:?}");
            assert!(stderr(&output).contains("no plugin is configured"), "{output:?}");
        }
    }
    assert_eq!(std::fs::read_to_string(folder.path("plugins.lock")).unwrap(), lock);
}

#[test]
fn file_that_is_named_is_verified_in_place_of_the_set_by_what_it_says_it_is() {
    let folder = Folder::new();
    let file = folder.hello("hello.so", |_| {});
    let other = folder.hello("other.so", |bytes| bytes.push(0));
    let config = set(&folder, "require_lock = \"plugins.lock\"", &[("hello", &file)]);
    assert_eq!(cardcage(&["plugin", "lock", "--config", &config]).status.code(), Some(0));
    let verify = |files: &[&Path]| {
        let files = files.iter().map(|file| file.to_str().unwrap());
        let arguments = ["plugin", "verify", "--json", "--config", &config];
        cardcage(&arguments.into_iter().chain(files).collect::<Vec<_>>())
    };
    let output = verify(&[&file]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let output = verify(&[&file, &other, &folder.path("away.so")]);
    assert_eq!(output.status.code(), Some(70), "{output:?}");
    let plugins = json(&output)["plugins"].clone();
    let told = |nth: usize| (plugins[nth]["name"].clone(), plugins[nth]["mismatches"][0]["code"].clone());
    assert_eq!(told(0), ("hello".into(), Value::Null), "{plugins}");
    assert_eq!(told(1), ("hello".into(), "not_in_lock".into()), "{plugins}");
    assert_eq!(told(2), ("-".into(), "unreadable".into()), "{plugins}");
    assert!(stderr(&output).contains("check the path and the file's permissions"), "{output:?}");
    // No set is needed for it.
    let output = cardcage(&["plugin", "verify", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(stdout(&output).contains("good"), "{output:?}");
}

#[test]
fn verify_says_that_it_did_not_look_at_a_lock_that_is_there_and_not_required() {
    let folder = Folder::new();
    let file = folder.hello("hello.so", |_| {});
    let config = set(&folder, "", &[("hello", &file)]);
    let said = || stdout(&cardcage(&["plugin", "verify", "--config", &config]));
    assert!(said().contains("`cardcage plugin lock` writes one"), "{}", said());
    assert_eq!(cardcage(&["plugin", "lock", "--config", &config]).status.code(), Some(0));
    let lock = folder.path("plugins.lock").display().to_string();
    assert!(said().contains(&format!("{lock} is there and was not looked at")), "{}", said());
    let output = cardcage(&["plugin", "verify", "--config", &config, "--lock", &lock]);
    assert!(stdout(&output).contains(&format!("lock: {lock}\n")), "{output:?}");
}

#[test]
fn public_key_in_the_place_of_the_secret_one_is_told_so_and_no_half_pair_is_left() {
    let folder = Folder::new();
    let (key, _) = keygen(&folder, "mine.key", &["--no-password"]);
    let file = folder.hello("hello.so", |_| {}).display().to_string();
    let output = cardcage(&["plugin", "sign", &file, "--key", &format!("{key}.pub")]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(&output).contains("is a public key"), "{output:?}");
    assert!(!folder.path("hello.so.minisig").exists());

    let public = folder.file("other.key.pub", "somebody's");
    let other = folder.path("other.key").display().to_string();
    let output = cardcage(&["plugin", "keygen", "--key", &other, "--no-password"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(&output).contains("other.key.pub"), "{output:?}");
    assert_eq!(std::fs::read_to_string(&public).unwrap(), "somebody's");
    std::fs::remove_file(public).unwrap();
    keygen(&folder, "other.key", &["--no-password"]);
}
