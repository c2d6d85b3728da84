//! What the book says of the tests is true.

use std::path::{Path, PathBuf};

#[test]
fn every_test_that_the_guarantees_name_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let page = std::fs::read_to_string(root.join("docs/guarantees.md")).unwrap();
    let tests = sources(&root.join("host/tests/it")) + &sources(&root.join("host/bench/tests"));
    let named: Vec<&str> =
        page.split('`').skip(1).step_by(2).filter(|code| code.matches('_').count() >= 4).collect();
    assert!(named.len() >= 14, "{named:?}");
    for name in named {
        assert!(tests.contains(&format!("fn {name}(")), "docs/guarantees.md names {name}, which is no test");
    }
}

#[test]
fn every_piece_of_a_plugin_that_the_book_shows_is_in_the_template() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let page = std::fs::read_to_string(root.join("docs/write-a-plugin.md")).unwrap();
    let template = sources(&root.join("plugins/hello/src"));
    let pieces: Vec<&str> =
        page.split("```rust\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(pieces.len(), 5, "{pieces:?}");
    for piece in pieces {
        assert!(template.contains(piece), "docs/write-a-plugin.md shows what hello does not have:\n{piece}");
    }
}

fn sources(folder: &Path) -> String {
    let paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let read = |path: &PathBuf| match path.is_dir() {
        true => sources(path),
        false => std::fs::read_to_string(path).unwrap(),
    };
    paths.iter().map(read).collect()
}
