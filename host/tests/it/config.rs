//! What is committed beside the code says what the code says.

use std::path::{Path, PathBuf};

use cardcage::config::{self, Settings, Sources, reference};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
}

/// Compares a committed file with what is generated; with `CARDCAGE_BLESS=1`, writes it.
#[track_caller]
fn is_generated(path: &str, generated: &str) {
    let file = root().join(path);
    if std::env::var_os("CARDCAGE_BLESS").is_some_and(|value| value == "1") {
        std::fs::create_dir_all(file.parent().expect("a directory")).expect("the directory");
        std::fs::write(&file, generated).expect("the file");
        return;
    }
    let committed = std::fs::read_to_string(&file).unwrap_or_default();
    let line = committed.lines().zip(generated.lines()).position(|(a, b)| a != b);
    let line = line.unwrap_or(committed.lines().count().min(generated.lines().count())) + 1;
    assert!(
        committed == generated,
        "{path} differs from the code at line {line}; write it anew with \
         `CARDCAGE_BLESS=1 cargo test -p cardcage --test it config`"
    );
}

fn load(files: &[&str]) -> Result<Settings, config::Errors> {
    let files: Vec<PathBuf> = files.iter().map(|file| root().join("config").join(file)).collect();
    config::load(&Sources { files, ..Sources::default() })
}

#[test]
fn the_default_file_is_generated() {
    is_generated("config/cardcage.toml", &reference::default_file());
}

#[test]
fn the_config_reference_is_generated() {
    is_generated("docs/reference/config.md", &reference::markdown());
}

#[test]
fn the_refusals_are_generated() {
    is_generated("docs/reference/refusals.md", &cardcage::loader::refusals_markdown());
}

#[test]
fn the_exit_codes_are_generated() {
    is_generated("docs/reference/exit-codes.md", &cardcage::exit::markdown());
}

#[test]
fn the_command_line_reference_is_generated() {
    is_generated("docs/reference/cli.md", &cardcage::cli::reference::markdown());
}

#[test]
fn the_dev_file_loads_the_examples_without_further_settings() {
    let settings = load(&["dev.toml"]).expect("dev.toml");
    let names: Vec<&str> = settings.plugins.keys().map(String::as_str).collect();
    assert_eq!(names, ["hello", "orders", "payments"]);
    let secrets = &settings.plugins["payments"].config.expose()["stripe_webhook_secrets"];
    assert_eq!(secrets, &serde_json::json!(["public-secret-for-development-only"]));
}
