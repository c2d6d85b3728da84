//! Tells the manifest which compiler and target build the plugin.

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let version = Command::new(rustc)
        .arg("--version")
        .output()
        .ok()
        .and_then(|out| String::from_utf8(out.stdout).ok())
        .unwrap_or_default();
    // The manifest is JSON put together at compile time, without escaping.
    println!("cargo:rustc-env=CARDCAGE_RUSTC={}", version.trim().replace(['"', '\\'], ""));
    println!("cargo:rustc-env=CARDCAGE_TARGET={}", std::env::var("TARGET").unwrap_or_default());
}
