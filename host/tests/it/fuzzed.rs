//! Fuzzing as a plain test: each target on 20,000 inputs made from real ones, and a real library damaged in 128 ways (`damaged.rs`).
//!
//! The seed is fixed, so what fails here fails again. What the inputs are made from is kept in `fuzz/seeds` for libFuzzer, and
//! beside it lies what once broke a target. `CARDCAGE_BLESS=1` writes the former anew.

mod damaged;

use std::path::{Path, PathBuf};

use cardcage::fuzz::{TARGETS, Target};
use cardcage::loader::{Description, PluginsLock, inspect};
use cardcage::signature::Signature;
use cardcage_harness::{plugin_library, workspace_root};
use fastrand::Rng;
use serde_json::{Value, json};

use crate::command::{Folder, c_library, cardcage, json};

const INPUTS: usize = 20_000;
const SEED: u64 = 0x_CA5D_CA6E;

fn target(name: &str) -> Target {
    TARGETS.iter().find(|(known, _)| *known == name).unwrap().1
}

/// Where libFuzzer finds what to begin with.
fn kept(name: &str) -> PathBuf {
    workspace_root().join("fuzz/seeds").join(name)
}

/// Runs a target on what `mutate` makes of the seeds.
fn run(name: &str, seeds: &[Vec<u8>], mutate: impl Fn(&mut Rng, &[u8]) -> Vec<u8>) {
    let target = target(name);
    for (nth, seed) in seeds.iter().enumerate() {
        assert_eq!(target(seed), Ok(()), "{name} takes what is real");
        if std::env::var_os("CARDCAGE_BLESS").is_some() {
            std::fs::create_dir_all(kept(name)).unwrap();
            std::fs::write(kept(name).join(format!("real-{nth}")), seed).unwrap();
        }
    }
    let mut rng = Rng::with_seed(SEED);
    let mut changed = 0;
    for nth in 0..INPUTS {
        let seed = &seeds[rng.usize(..seeds.len())];
        let input = mutate(&mut rng, seed);
        changed += usize::from(input != *seed);
        if let Err(broken) = target(&input) {
            panic!("{name}, input {nth}: {broken}\n{}", String::from_utf8_lossy(&input));
        }
    }
    assert!(changed > INPUTS / 2, "{name}: {changed} inputs were changed");
}

/// Numbers at which lengths and offsets go wrong.
const EDGES: [u64; 8] = [0, 1, 0x7F, 0xFF, 0xFFFF, 0x7FFF_FFFF, 0xFFFF_FFFF, u64::MAX];

/// One to eight changes, anywhere.
fn bytes(rng: &mut Rng, seed: &[u8]) -> Vec<u8> {
    let mut out = seed.to_vec();
    for _ in 0..rng.usize(1..=8) {
        let at = rng.usize(..=out.len());
        let length = rng.usize(..=16).min(out.len() - at);
        match rng.u32(..7) {
            0 => out.truncate(at),
            1 => drop(out.drain(at..at + length)),
            2 => out.splice(at..at, (0..length).map(|_| rng.u8(..)).collect::<Vec<_>>()).for_each(drop),
            3 => {
                let copied = out[at..at + length].to_vec();
                let to = rng.usize(..=out.len());
                out.splice(to..to, copied).for_each(drop);
            }
            4 | 5 => {
                let edge = EDGES[rng.usize(..EDGES.len())].to_le_bytes();
                let width = [1, 2, 4, 8][rng.usize(..4)].min(out.len() - at);
                out[at..at + width].copy_from_slice(&edge[..width]);
            }
            _ => {
                if let Some(byte) = out.get_mut(at) {
                    *byte ^= 1 << rng.u32(..8);
                }
            }
        }
    }
    out
}

/// JSON that is still JSON: one member is something else, gone, or there twice over. One in four is changed as bytes.
fn values(rng: &mut Rng, seed: &[u8]) -> Vec<u8> {
    if rng.u32(..4) == 0 {
        return bytes(rng, seed);
    }
    let mut value: Value = serde_json::from_slice(seed).unwrap();
    for _ in 0..rng.usize(1..=3) {
        change(rng, &mut value);
    }
    serde_json::to_vec(&value).unwrap()
}

fn change(rng: &mut Rng, value: &mut Value) {
    // The deeper, the likelier that it stops.
    match value {
        Value::Object(members) if !members.is_empty() && rng.u32(..8) > 0 => {
            let key = members.keys().nth(rng.usize(..members.len())).unwrap().clone();
            match rng.u32(..10) {
                0 => drop(members.remove(&key)),
                1 => drop(members.insert(format!("{key}\u{1b}"), json!("?"))),
                _ => change(rng, &mut members[&key]),
            }
        }
        Value::Array(items) if !items.is_empty() && rng.u32(..8) > 0 => {
            let at = rng.usize(..items.len());
            match rng.u32(..10) {
                0 => drop(items.remove(at)),
                1 => items.push(items[at].clone()),
                _ => change(rng, &mut items[at]),
            }
        }
        value => {
            let others = [
                json!(null),
                json!(true),
                json!(-1),
                json!(u64::MAX),
                json!(1e300),
                json!(""),
                json!("../../\u{0}\n\u{1b}[31m"),
                json!("x".repeat(70)),
                json!([]),
                json!({}),
                json!([[[[{ "a": [1, 2, 3] }]]]]),
                json!("{id}"),
            ];
            *value = others[rng.usize(..others.len())].clone();
        }
    }
}

/// A small library that has all that inspection looks at: manifest, dependencies, version needs, imports.
fn small_library(folder: &Folder) -> Vec<u8> {
    let list = br#"{"packages":[{"name":"serde","version":"1.0.228","source":"crates.io"}]}"#;
    let folded = miniz_oxide::deflate::compress_to_vec_zlib(list, 6);
    let audit: Vec<String> = folded.iter().map(ToString::to_string).collect();
    let source = format!(
        "#include <stdlib.h>\n#include <string.h>\n\
         __attribute__((section(\".dep-v0\"), used)) const unsigned char audit[{}] = {{{}}};\n\
         char *copy(const char *text) {{ return strdup(text); }}",
        folded.len(),
        audit.join(",")
    );
    std::fs::read(c_library(folder, "small", &source, &["-s", "-Wl,-z,noseparate-code"])).unwrap()
}

fn manifest_text() -> Vec<u8> {
    let answer = inspect_json();
    serde_json::to_vec(&answer["manifest"]).unwrap()
}

fn inspect_json() -> Value {
    json(&cardcage(&["plugin", "inspect", "--json", plugin_library("hello").unwrap().to_str().unwrap()]))
}

#[test]
fn any_manifest_is_read_or_refused() {
    run("manifest", &[manifest_text()], values);
    run("manifest", &[manifest_text()], bytes);
}

#[test]
fn any_header_block_is_read_as_far_as_it_is_sound() {
    let mut block = Vec::new();
    for (name, value) in
        [(":method", "GET"), (":path", "/orders/7?x=1"), ("content-type", "application/json"), ("x", "")]
    {
        cardcage_abi::headers::push(&mut block, name, value.as_bytes());
    }
    run("header_block", &[block], bytes);
}

#[test]
fn any_answer_of_describe_is_understood_or_refused() {
    let describe = |name: &str| {
        let file = plugin_library(name).unwrap();
        let output = cardcage(&["plugin", "describe", "--json", file.to_str().unwrap()]);
        serde_json::to_vec(&json(&output)).unwrap()
    };
    run("describe_output", &["hello", "orders"].map(describe), values);
}

#[test]
fn any_library_is_inspected_or_refused() {
    let folder = Folder::new();
    run("elf", &[small_library(&folder)], bytes);
    // Where everything else is found from: the head, the program headers, and the section table at the end.
    run("elf", &[small_library(&folder)], |rng, seed| {
        let mut out = seed.to_vec();
        for _ in 0..rng.usize(1..=4) {
            let table = if rng.bool() { 0..512 } else { out.len() - 2_048..out.len() - 8 };
            let at = rng.usize(table);
            let edge = EDGES[rng.usize(..EDGES.len())].to_le_bytes();
            let width = [1, 2, 4, 8][rng.usize(..4)];
            out[at..at + width].copy_from_slice(&edge[..width]);
        }
        out
    });
}

#[test]
fn any_signature_file_and_any_lock_are_read_or_refused() {
    let signature = "untrusted comment: signature from minisign secret key\n\
                     RUQf6LRCGA9i559r3g7V1qNyJDApGip8MfqcadIgT9CuhV3EMhHoN1mGTkUidF/z7SrlQgXdy8ofjb7bNJJylDOocrCo8KLzZwo=\n\
                     trusted comment: timestamp:1633700835\tfile:test\tprehashed\n\
                     wLMDjy9FLAuxZ3q4NlEvkgtyhrr0gtTu6KC4KBJdITbbOeAi1zBIYo0v4iTgt8jJpIidRJnp94ABQkJAgAooBQ==\n";
    run("signature", &[signature.as_bytes().to_vec()], bytes);
    let lock = "version = 1\n\n[[plugin]]\nname = \"hello\"\nversion = \"0.1.0\"\ntarget = \"x86_64-unknown-linux-gnu\"\n\
                sha256 = \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\"\nsigner = \"0123456789ABCDEF\"\n";
    run("lock", &[lock.as_bytes().to_vec()], bytes);
}

#[test]
fn every_target_has_its_file_for_libfuzzer() {
    for (name, _) in TARGETS {
        let file = workspace_root().join(format!("fuzz/fuzz_targets/{name}.rs"));
        assert!(std::fs::read_to_string(&file).unwrap().contains(&format!("cardcage::fuzz::{name}(")));
    }
    assert_eq!(std::fs::read_dir(workspace_root().join("fuzz/fuzz_targets")).unwrap().count(), TARGETS.len());
}

/// Whether a seed is what it is meant to be, and not merely refused well.
fn is_real(name: &str, seed: &[u8]) -> bool {
    let file = Path::new("seed");
    let text = || std::str::from_utf8(seed).unwrap();
    match name {
        "manifest" => inspect::manifest_of(file, seed).is_ok(),
        "header_block" => cardcage_abi::headers::iter(seed).all(|header| header.is_ok()) && !seed.is_empty(),
        "describe_output" => Description::parse(seed).is_ok(),
        // The one that is kept is this machine's only where it was blessed on one like it.
        "elf" => cfg!(not(target_arch = "x86_64")) || inspect::bytes_of(file, seed).is_ok(),
        "signature" => Signature::parse(text()).is_ok(),
        "lock" => PluginsLock::parse(text()).is_ok(),
        _ => false,
    }
}

#[test]
fn what_libfuzzer_begins_with_is_real_and_what_it_once_found_stays_mended() {
    for (name, target) in TARGETS {
        let mut real = 0;
        for entry in std::fs::read_dir(kept(name)).unwrap() {
            let path = entry.unwrap().path();
            let seed = std::fs::read(&path).unwrap();
            assert_eq!(target(&seed), Ok(()), "{}", path.display());
            if path.file_name().unwrap().to_str().unwrap().starts_with("real-") {
                real += 1;
                assert!(is_real(name, &seed), "{}: bless it again", path.display());
            }
        }
        assert!(real > 0, "{name} has a seed");
    }
}
