//! What commands read is a file: nothing that is waited for, and nothing without an end.

use std::path::Path;

use super::trust::{keygen, pipe, set};
use super::{Folder, cardcage, hello, is_one_sentence_about, json, stderr};

#[test]
fn pipe_or_device_in_the_place_of_a_file_to_read_is_refused_at_once() {
    let folder = Folder::new();
    let word = folder.file("word", "open sesame\n").display().to_string();
    let (key, _) = keygen(&folder, "mine.key", &["--password-file", &word]);
    let file = folder.file("anything", "bytes").display().to_string();
    let config = set(&folder, "", &[("hello", &hello())]);
    let (pipe, other) = (pipe(&folder, "pipe"), folder.path("other.key").display().to_string());
    for unread in [&pipe, Path::new("/dev/zero")] {
        let named = unread.to_str().unwrap();
        for arguments in [
            &["plugin", "sign", named, "--key", &key, "--password-file", &word][..],
            &["plugin", "sign", &file, "--key", named],
            &["plugin", "sign", &file, "--key", &key, "--password-file", named],
            &["plugin", "keygen", "--key", &other, "--password-file", named],
        ] {
            let output = cardcage(arguments);
            assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
            is_one_sentence_about(&stderr(&output), unread, "not a regular file");
        }
        let output = cardcage(&["check", "--json", "--config", &config, "--against", named]);
        let fault = json(&output)["against"]["fault"].to_string();
        assert!(fault.contains(named) && fault.contains("not a regular file"), "{output:?}");
    }
    assert!(!folder.path("anything.minisig").exists() && !folder.path("other.key").exists());
}
