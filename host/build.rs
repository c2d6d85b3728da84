//! Puts the SDK and the template of plugins into the binary, for `cardcage plugin new`.
//!
//! They are the files of this workspace themselves: what a new plugin gets is what the tests here compile and run.
//!
//! And has the binary export `pthread_create`, which libraries then find there (`src/crash/thread_start.rs`).

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Folders relative to the workspace, and whether their tests go along.
const FOLDERS: [(&str, bool); 2] = [("plugin-api", false), ("plugins/hello", true)];
const FILES: [&str; 4] = ["Cargo.toml", "Cargo.lock", "LICENSE", "rustfmt.toml"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-link-arg-bins=-Wl,--export-dynamic-symbol=pthread_create");
    let root = Path::new(&std::env::var("CARGO_MANIFEST_DIR")?).join("..").canonicalize()?;
    let mut files: Vec<PathBuf> = FILES.iter().map(|file| root.join(file)).collect();
    for (folder, tests) in FOLDERS {
        println!("cargo:rerun-if-changed={}", root.join(folder).display());
        collect(&root.join(folder), tests, &mut files)?;
    }
    files.sort();
    let mut table = String::from("&[\n");
    for file in &files {
        let name = file.strip_prefix(&root)?;
        writeln!(table, "    ({:?}, include_str!({:?})),", name.display().to_string(), file)?;
    }
    table.push_str("]\n");
    std::fs::write(Path::new(&std::env::var("OUT_DIR")?).join("kit_files.rs"), table)?;
    Ok(())
}

fn collect(folder: &Path, tests: bool, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if !entry.file_type()?.is_dir() {
            files.push(entry.path());
        } else if name != "target" && name != "packages" && (tests || name != "tests") {
            collect(&entry.path(), tests, files)?;
        }
    }
    Ok(())
}
