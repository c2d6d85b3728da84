//! `cardcage plugin inspect`: what a library says of itself, without running it.

use serde_json::Value;

use super::{Folder, cardcage, hello, is_one_sentence_about, json, stderr, stdout, trap, unfit};

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
    assert_eq!(answer["refused"], Value::Null);
    assert_eq!(answer["size_bytes"], std::fs::metadata(hello()).unwrap().len());
}

#[test]
fn inspect_refuses_every_unfit_file_in_one_sentence() {
    let folder = Folder::new();
    for (file, code, word) in unfit(&folder) {
        let output = cardcage(&["plugin", "inspect", file.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(70), "{}: {output:?}", file.display());
        is_one_sentence_about(&stderr(&output), &file, word);
        let output = cardcage(&["plugin", "inspect", "--json", file.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(70));
        assert_eq!(json(&output)["refused"]["code"], code, "{}", file.display());
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
