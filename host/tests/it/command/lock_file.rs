//! Where `cardcage plugin lock` writes: over a lock, or where nothing is.

use std::os::unix::fs::{FileTypeExt as _, symlink};
use std::path::Path;
use std::process::Output;

use super::trust::{pipe, set};
use super::{Folder, cardcage, hello, is_one_sentence_about, stderr};

fn lock(config: &str, out: &Path) -> Output {
    cardcage(&["plugin", "lock", "--config", config, "--out", out.to_str().unwrap()])
}

#[test]
fn file_that_is_no_lock_of_a_known_format_is_never_replaced_by_a_lock() {
    let folder = Folder::new();
    let config = set(&folder, "", &[("hello", &hello())]);
    let good = folder.path("good.lock");
    assert_eq!(lock(&config, &good).status.code(), Some(0));
    let newer = std::fs::read_to_string(&good).unwrap().replace("version = 1\n", "version = 2\n");
    for (file, words) in [
        (Path::new(&config).to_owned(), "is no lock"),
        (folder.file("empty", ""), "is no lock"),
        (folder.file("newer.lock", newer), "has the format 2"),
    ] {
        let before = std::fs::read(&file).unwrap();
        let output = lock(&config, &file);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        is_one_sentence_about(&stderr(&output), &file, words);
        assert_eq!(std::fs::read(&file).unwrap(), before, "{}", file.display());
    }
    let pipe = pipe(&folder, "pipe");
    std::fs::create_dir(folder.path("folder")).unwrap();
    for file in [pipe.clone(), folder.path("folder")] {
        let output = lock(&config, &file);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        is_one_sentence_about(&stderr(&output), &file, "not a regular file");
    }
    assert!(std::fs::symlink_metadata(pipe).unwrap().file_type().is_fifo());
    assert!(folder.path("folder").is_dir());
}

#[test]
fn link_in_the_place_of_a_lock_stays_a_link_and_what_it_leads_to_is_written() {
    let folder = Folder::new();
    let config = set(&folder, "", &[("hello", &hello())]);
    std::fs::create_dir(folder.path("shared")).unwrap();
    let (link, target) = (folder.path("plugins.lock"), folder.path("shared/chosen.lock"));
    // Through another link, and to what is not there yet.
    symlink("shared/chosen.lock", folder.path("current.lock")).unwrap();
    symlink(folder.path("current.lock"), &link).unwrap();
    for _ in 0..2 {
        assert_eq!(lock(&config, &link).status.code(), Some(0));
        assert!(std::fs::read_link(&link).is_ok() && std::fs::read_link(folder.path("current.lock")).is_ok());
        assert!(std::fs::read_to_string(&target).unwrap().contains("name = \"hello\""));
        std::fs::write(&target, "version = 1\n").unwrap();
    }
    std::fs::write(&target, "words").unwrap();
    let output = lock(&config, &link);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert_eq!(std::fs::read_to_string(&target).unwrap(), "words");
}
