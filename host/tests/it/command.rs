//! The commands that look and report, as a person or a script meets them. Here is what their tests share.

mod check;
mod describe;
mod inspect;
mod lock_file;
mod regular_files;
mod tasks_run;
mod tasks_show;
mod trust;

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use cardcage_harness::{Port, plugin_library};
use serde_json::Value;
use tempfile::TempDir;

/// Runs the real binary to its end.
pub(crate) fn cardcage(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cardcage")).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

pub(crate) fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// Files made for one test.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The hello plugin, with its bytes changed.
    pub(crate) fn hello(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> PathBuf {
        let mut bytes = std::fs::read(hello()).unwrap();
        change(&mut bytes);
        self.file(name, bytes)
    }
}

fn hello() -> PathBuf {
    plugin_library("hello").unwrap()
}

/// Replaces the one place where `from` stands in the manifest by `to`, of the same length.
fn patch(bytes: &mut [u8], from: &str, to: &str) {
    assert_eq!(from.len(), to.len());
    let at: Vec<usize> = places(bytes, from.as_bytes());
    assert!(!at.is_empty(), "{from} is in the library");
    for at in at {
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    }
}

fn places(bytes: &[u8], needle: &[u8]) -> Vec<usize> {
    bytes
        .windows(needle.len())
        .enumerate()
        .filter(|(_, window)| *window == needle)
        .map(|(at, _)| at)
        .collect()
}

/// A libc is a library that loads and is no plugin.
fn libc() -> PathBuf {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mut files = maps.lines().filter_map(|line| line.split_whitespace().last());
    files.find(|file| file.contains("/libc.so") || file.contains("/libc-")).map(PathBuf::from).unwrap()
}

/// Every kind of file that is no plugin for this host: name, file, stable code, a word of the sentence.
pub(crate) fn unfit(folder: &Folder) -> Vec<(PathBuf, &'static str, &'static str)> {
    symlink(folder.path("nowhere"), folder.path("dangling.so")).unwrap();
    let machine = if cfg!(target_arch = "x86_64") { 0xB7 } else { 0x3E };
    vec![
        (folder.path("missing.so"), "unreadable", "cannot be read"),
        (folder.path("dangling.so"), "unreadable", "cannot be read: it is a link to"),
        (folder.0.path().to_owned(), "not_a_library", "not a regular file"),
        (folder.file("empty.so", ""), "not_a_library", "empty"),
        (
            folder.file("noise.so", (0..4096_u32).map(|n| (n * 31 % 251) as u8).collect::<Vec<_>>()),
            "not_a_library",
            "not an ELF",
        ),
        (folder.file("script.so", "#!/bin/sh\nexit 0\n"), "not_a_library", "script"),
        (folder.file("head.so", &std::fs::read(hello()).unwrap()[..40]), "truncated", "cut short"),
        (folder.hello("half.so", |bytes| bytes.truncate(bytes.len() / 2)), "truncated", "cut short"),
        (folder.hello("almost.so", |bytes| bytes.truncate(bytes.len() - 1)), "truncated", "cut short"),
        (folder.hello("other.so", |bytes| bytes[18] = machine), "wrong_architecture", "is built for"),
        (folder.hello("narrow.so", |bytes| bytes[4] = 1), "wrong_architecture", "32-bit"),
        (folder.hello("program.so", |bytes| bytes[16] = 2), "not_a_library", "no shared library"),
        (libc(), "no_manifest", "no Cardcage manifest"),
        (
            folder.hello("garbled.so", |bytes| patch(bytes, "{\"name\":\"hello\"", "{\"name\":'hello'")),
            "bad_manifest",
            "manifest",
        ),
        (
            folder.hello("escape.so", |bytes| {
                patch(bytes, r#""abi":"1.0.0","sdk":""#, r#""abi":"\u001b","sd":""#)
            }),
            "abi_major",
            "ABI",
        ),
        (
            folder.hello("newer.so", |bytes| patch(bytes, "\"abi\":\"1.0.0\"", "\"abi\":\"2.0.0\"")),
            "abi_major",
            "update the host",
        ),
        (
            folder.hello("older.so", |bytes| patch(bytes, "\"abi\":\"1.0.0\"", "\"abi\":\"0.9.0\"")),
            "abi_major",
            "current SDK",
        ),
        (
            folder.hello("abort.so", |bytes| patch(bytes, "\"panic\":\"unwind\"", "\"panic\" :\"abort\"")),
            "panic_abort",
            "panic=abort",
        ),
        (
            folder.hello("glibc.so", |bytes| patch(bytes, "GLIBC_2.34", "GLIBC_9.34")),
            "needs_newer_glibc",
            "9.34",
        ),
        (allocating(folder), "static_tls", "allocator"),
        (sharing(folder), "dynamic_std", "libstd-0123456789abcdef.so"),
    ]
}

/// A library with a manifest, written in C: `source` is what it has besides.
pub(crate) fn c_library(folder: &Folder, name: &str, source: &str, arguments: &[&str]) -> PathBuf {
    let manifest = format!(r#"{{"name":"{name}","version":"1.0.0","abi":"1.0.0"}}"#);
    let quoted = manifest.replace('"', "\\\"");
    let source = format!(
        "__attribute__((section(\".cardcage\"), used)) const char manifest[{}] = \"{quoted}\";\n{source}\n",
        manifest.len()
    );
    let source = folder.file(&format!("{name}.c"), source);
    let library = folder.path(&format!("lib{name}.so"));
    cc(&[&["-o", library.to_str().unwrap(), source.to_str().unwrap()], arguments].concat());
    library
}

fn cc(arguments: &[&str]) {
    let compiled = Command::new("cc").args(["-shared", "-fPIC"]).args(arguments).output().unwrap();
    assert!(compiled.status.success(), "{}", stderr(&compiled));
}

/// A library whose thread-local storage is like jemalloc's and mimalloc's.
fn allocating(folder: &Folder) -> PathBuf {
    let source = "static __thread int heap __attribute__((tls_model(\"initial-exec\")));\nint *arena(void) { return &heap; }";
    c_library(folder, "allocating", source, &[])
}

/// A library that was linked to Rust's standard library as `-C prefer-dynamic` does it.
fn sharing(folder: &Folder) -> PathBuf {
    let std = folder.path("libstd-0123456789abcdef.so");
    let empty = folder.file("empty.c", "int rust_begin_unwind(void) { return 0; }");
    cc(&["-Wl,-soname,libstd-0123456789abcdef.so", "-o", std.to_str().unwrap(), empty.to_str().unwrap()]);
    let source = "int rust_begin_unwind(void);\nint start(void) { return rust_begin_unwind(); }";
    c_library(folder, "sharing", source, &[std.to_str().unwrap()])
}

#[track_caller]
fn is_one_sentence_about(text: &str, file: &Path, word: &str) {
    assert_eq!(text.trim_end().lines().count(), 1, "one line: {text}");
    assert!(text.contains(&file.display().to_string()), "it names the file: {text}");
    assert!(text.contains(word), "it says {word}: {text}");
    assert!(text.contains("; "), "it says what to do: {text}");
    assert!(!text.contains('\x1b'), "no control characters");
}

/// A configuration whose broker is `url`.
fn config(url: &str, plugins: &str) -> String {
    format!("[broker]\nurl = \"{url}\"\nconnect_timeout_ms = 500\n{plugins}")
}

fn plugin(name: &str, library: &Path, more: &str) -> String {
    format!("[plugins.{name}]\nlibrary = \"{}\"\n{more}\n", library.display())
}

/// A port where nothing listens.
fn nobody() -> (Port, String) {
    let port = Port::reserve().unwrap();
    let url = format!("nats://{}", port.address());
    (port, url)
}

/// A library with a manifest whose constructor does `what` as soon as it is opened.
pub(crate) fn trap(folder: &Folder, name: &str, what: &str) -> PathBuf {
    let manifest = format!(r#"{{"name":"{name}","version":"1.0.0","abi":"1.0.0"}}"#);
    let source = format!(
        r##"
        #[used] #[unsafe(link_section = ".cardcage")]
        static MANIFEST: [u8; {length}] = *br#"{manifest}"#;
        #[used] #[unsafe(link_section = ".init_array")]
        static CONSTRUCTOR: extern "C" fn() = constructor;
        extern "C" fn constructor() {{ {what} }}
        "##,
        length = manifest.len()
    );
    let source = folder.file(&format!("{name}.rs"), source);
    let library = folder.path(&format!("lib{name}.so"));
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let compiled = Command::new(rustc)
        .args(["--edition", "2024", "--crate-type", "cdylib", "-C", "strip=symbols", "-o"])
        .args([&library, &source])
        .output()
        .unwrap();
    assert!(compiled.status.success(), "{}", stderr(&compiled));
    library
}
