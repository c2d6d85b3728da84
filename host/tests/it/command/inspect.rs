//! `cardcage plugin inspect`: what a library says of itself, without running it.

use serde_json::Value;

use super::trust::{keygen, set};
use super::{Folder, c_library, cardcage, hello, is_one_sentence_about, json, stderr, stdout, trap, unfit};

#[test]
fn inspect_shows_a_good_library_without_running_it() {
    let output = cardcage(&["plugin", "inspect", hello().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = stdout(&output);
    for word in
        ["hello", "0.1.0", "this host would load it", "rustc", "glibc", "static TLS", "libc.so.6", "sha256"]
    {
        assert!(text.contains(word), "{word} is in {text}");
    }
    assert_eq!(stderr(&output), "");

    let answer = json(&cardcage(&["plugin", "inspect", "--json", hello().to_str().unwrap()]));
    assert_eq!(answer["manifest"]["name"], "hello");
    assert_eq!(
        (&answer["manifest"]["panic"], &answer["manifest"]["abi"]),
        (&"unwind".into(), &"1.0.0".into())
    );
    for row in ["panic            unwind", "ABI              1.0.0, which this host"] {
        assert!(text.contains(row), "{row} is in {text}");
    }
    assert_eq!(answer["refused"], Value::Null);
    assert_eq!((&answer["abi_fits"], &answer["signature"]), (&true.into(), &"none".into()));
    assert_eq!(answer["size_bytes"], std::fs::metadata(hello()).unwrap().len());
}

#[test]
fn inspect_refuses_every_unfit_file_in_one_sentence() {
    let folder = Folder::new();
    for (file, code, word) in unfit(&folder) {
        let output = cardcage(&["plugin", "inspect", file.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(70), "{}: {output:?}", file.display());
        is_one_sentence_about(&stderr(&output), &file, word);
        assert!(stderr(&output).contains(&format!("refused ({code}): ")), "{output:?}");
        let output = cardcage(&["plugin", "inspect", "--json", file.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(70));
        let answer = json(&output);
        assert_eq!(answer["refused"]["code"], code, "{}", file.display());
        // What cannot be read says nothing of its boundary.
        let is_about_abi = code.starts_with("abi");
        assert!(answer.get("abi_fits").is_none_or(|fits| *fits == !is_about_abi), "{answer}");
    }
}

#[test]
fn inspect_reads_any_damaged_library_without_crashing() {
    let folder = Folder::new();
    let original = std::fs::read(trap(&folder, "small", "")).unwrap();
    for nth in 0..60 {
        let mut bytes = original.clone();
        // The head, where everything else is found from, and the section table at the end.
        let at = if nth % 2 == 0 { nth } else { original.len() - 64 * nth };
        bytes[at..at + 4].copy_from_slice(&[0xFF; 4]);
        let file = folder.file("damaged.so", bytes);
        let output = cardcage(&["plugin", "inspect", file.to_str().unwrap()]);
        assert!(matches!(output.status.code(), Some(0 | 70)), "{nth}: {output:?}");
    }
}

#[test]
fn inspect_does_not_open_the_library() {
    let folder = Folder::new();
    let library = trap(&folder, "traps", "std::process::abort()");
    let output = cardcage(&["plugin", "inspect", library.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

/// A library with the section that `cargo auditable` writes.
fn audited(folder: &Folder, name: &str, section: &[u8]) -> std::path::PathBuf {
    let bytes: Vec<String> = section.iter().map(ToString::to_string).collect();
    let source = format!(
        "__attribute__((section(\".dep-v0\"), used)) const unsigned char audit[{}] = {{{}}};",
        section.len(),
        bytes.join(",")
    );
    c_library(folder, name, &source, &[])
}

#[test]
fn inspect_lists_what_a_library_was_built_from_where_its_build_told() {
    let folder = Folder::new();
    let list = br#"{"packages":[{"name":"serde","version":"1.0.228","source":"crates.io"},
        {"name":"told","version":"1.0.0","source":"local","dependencies":[0],"root":true}]}"#;
    let file = audited(&folder, "told", &miniz_oxide::deflate::compress_to_vec_zlib(list, 6));
    let file = file.to_str().unwrap();
    let answer = json(&cardcage(&["plugin", "inspect", "--json", file]));
    let serde = serde_json::json!({ "name": "serde", "version": "1.0.228", "source": "crates.io", "kind": "runtime" });
    assert_eq!(answer["dependencies"][0], serde);
    assert!(stdout(&cardcage(&["plugin", "inspect", file])).contains("2 crates"));
    let listed = stdout(&cardcage(&["plugin", "inspect", file, "--dependencies"]));
    assert!(listed.lines().any(|line| line.contains("serde") && line.contains("1.0.228")), "{listed}");

    let answer = json(&cardcage(&["plugin", "inspect", "--json", hello().to_str().unwrap()]));
    assert_eq!(answer["dependencies"], Value::Null);
}

#[test]
fn inspect_says_that_a_list_of_dependencies_cannot_be_read_and_refuses_nothing_for_it() {
    let folder = Folder::new();
    let file = audited(&folder, "garbled", b"this is not zlib");
    let output = cardcage(&["plugin", "inspect", "--json", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(json(&output)["dependencies_fault"].as_str().unwrap().contains("does not unfold"));
}

#[test]
fn inspect_tells_what_the_machine_has_beside_what_the_library_needs() {
    let answer = json(&cardcage(&["plugin", "inspect", "--json", hello().to_str().unwrap()]));
    let version = |member: &str| -> Vec<u32> {
        answer[member].as_str().unwrap().split('.').map(|part| part.parse().unwrap()).collect()
    };
    assert!(version("needs_glibc") <= version("host_glibc"), "{answer}");
    assert_eq!(answer["dynamic_std"], Value::Null);
    assert_eq!(answer["static_tls"], false);
}

#[test]
fn inspect_says_of_a_changed_file_that_its_signature_is_for_other_bytes_whatever_is_asked_of_signatures() {
    let folder = Folder::new();
    let (file, key) = keygen(&folder, "mine.key", &["--no-password"]);
    let library = folder.hello("hello.so", |_| {});
    let named = library.to_str().unwrap();
    assert_eq!(cardcage(&["plugin", "sign", named, "--key", &file]).status.code(), Some(0));
    folder.hello("hello.so", |bytes| bytes.push(0));
    for (asked, code) in [("off", 0), ("warn", 0), ("require", 70)] {
        let more = format!("signatures = \"{asked}\"\ntrusted_keys = [{}]", key["public_key"]);
        let output = cardcage(&["plugin", "inspect", named, "--config", &set(&folder, &more, &[])]);
        assert_eq!(output.status.code(), Some(code), "{asked}: {output:?}");
        assert!(stdout(&output).contains("and is for other bytes"), "{asked}: {output:?}");
        assert!(!stdout(&output).contains("does not trust"), "{asked}: {output:?}");
        let output = cardcage(&["plugin", "inspect", "--json", named, "--config", &set(&folder, &more, &[])]);
        let answer = json(&output);
        assert_eq!(
            (&answer["signature"], &answer["abi_fits"]),
            (&"bad".into(), &true.into()),
            "{asked}: {answer}"
        );
    }
}
