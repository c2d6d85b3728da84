//! What authors get wrong is a compile error that says so.
//!
//! Each file in `cases/` is a plugin with one mistake, and `//~` lines with what the compiler must say of it. They are
//! the examples of a package of its own, whose target folder is kept between runs.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests may; clippy.toml reaches only what stands inside a test function"
)]

use std::path::{Path, PathBuf};
use std::process::Command;

fn sdk() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn cases() -> Vec<(String, String)> {
    let folder = std::fs::read_dir(sdk().join("tests/misuse/cases")).unwrap();
    let case = |path: PathBuf| {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        (name, std::fs::read_to_string(path).unwrap())
    };
    folder.map(|entry| case(entry.unwrap().path())).collect()
}

/// Writes a file unless it says so already: cargo goes by modification times.
fn write(path: &Path, text: &str) {
    if std::fs::read_to_string(path).is_ok_and(|there| there == text) {
        return;
    }
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// What the compiler says of all of them, a line for each error.
fn check(cases: &[(String, String)]) -> String {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("misuse");
    std::fs::create_dir_all(&folder).unwrap();
    // Another test process may be at it.
    let lock = std::fs::File::create(folder.join("lock")).unwrap();
    lock.lock().unwrap();
    let _ = std::fs::remove_dir_all(folder.join("examples"));
    let manifest = format!(
        "[package]\nname = \"misuse\"\nversion = \"1.0.0\"\nedition = \"2024\"\n\n[workspace]\n\n\
         [dependencies]\ncardcage-plugin-api = {{ path = {:?} }}\nserde = \"1\"\n",
        sdk().display().to_string()
    );
    write(&folder.join("Cargo.toml"), &manifest);
    write(&folder.join("src/lib.rs"), "");
    for (name, text) in cases {
        write(&folder.join(format!("examples/{name}.rs")), text);
    }
    // The versions that are on this machine already: the build is offline.
    if !folder.join("Cargo.lock").exists() {
        std::fs::copy(sdk().join("../Cargo.lock"), folder.join("Cargo.lock")).unwrap();
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args([
        "check",
        "--offline",
        "--examples",
        "--keep-going",
        "--message-format",
        "short",
        "--target-dir",
    ]);
    let output = command.arg(folder.join("target")).current_dir(&folder).output().unwrap();
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn each_mistake_is_a_compile_error_that_says_what_is_wrong() {
    let cases = cases();
    assert!(cases.len() > 5, "the cases are there");
    let said = check(&cases);
    for (name, text) in &cases {
        let file = format!("examples/{name}.rs:");
        let errors: Vec<&str> = said.lines().filter(|line| line.starts_with(&file)).collect();
        let wanted: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("//~ ")).collect();
        if wanted.is_empty() {
            assert!(errors.is_empty(), "{name} has no mistake: {errors:?}\n{said}");
        }
        for wanted in wanted {
            let one = errors.iter().any(|error| error.contains("error") && error.contains(wanted));
            assert!(one, "{name}: `{wanted}` is not among {errors:#?}\n{said}");
        }
    }
}

#[test]
fn panic_abort_is_a_compile_error_that_says_what_to_do() {
    // The compiler alone, without the dependencies: what it says of those that are missing does not matter here.
    let says = |strategy: &str| {
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let mut command = Command::new(rustc);
        command.args(["--edition", "2024", "--crate-type", "lib", "--emit", "metadata", "-o"]);
        command.arg(Path::new(env!("CARGO_TARGET_TMPDIR")).join("never-made.rmeta"));
        let output = command.args(["-C", strategy]).arg(sdk().join("src/lib.rs")).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let sentence = "Cardcage plugins need panic = \"unwind\": remove `panic = \"abort\"` from the profile";
    let error = |text: &str| text.lines().any(|line| line.starts_with("error") && line.contains(sentence));
    assert!(error(&says("panic=abort")));
    assert!(!error(&says("panic=unwind")));
}
