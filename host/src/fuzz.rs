//! What is fuzzed: everything that reads bytes which nobody vouches for before a library is opened, and what a plugin says
//! of itself after.
//!
//! Each target takes any bytes and answers what it found broken, beside not panicking and not hanging. `fuzz/` hands them to
//! libFuzzer; the tests run each on 20,000 generated inputs (`host/tests/it/fuzzed.rs`).
//!
//! What it refuses to do: no target opens a library or touches a file.

mod accepted;

use crate::loader::{Description, PluginsLock, Refusal, inspect};
use crate::signature::Signature;
use std::path::Path;

/// A target: what is broken, as a sentence.
pub type Target = fn(&[u8]) -> Result<(), String>;

/// All of them, by the names that they have in `fuzz/fuzz_targets`.
pub const TARGETS: [(&str, Target); 6] = [
    ("manifest", manifest),
    ("header_block", header_block),
    ("describe_output", describe_output),
    ("elf", elf),
    ("signature", signature),
    ("lock", lock),
];

/// A refusal is one line that obeys nothing.
fn refused(refusal: &Refusal) -> Result<(), String> {
    let sentence = refusal.to_string();
    match sentence.chars().any(char::is_control) {
        true => Err(format!("the refusal has control characters: {sentence:?}")),
        false => Ok(()),
    }
}

/// The content of a library's `.cardcage` section.
///
/// # Errors
/// What is broken.
pub fn manifest(data: &[u8]) -> Result<(), String> {
    match inspect::manifest_of(Path::new("fuzzed.so"), data) {
        Ok(manifest) if manifest.name.is_empty() || manifest.major().is_none() => {
            Err(format!("a manifest without name or major passed: {manifest:?}"))
        }
        Ok(_) => Ok(()),
        Err(refusal) => refused(&refusal),
    }
}

/// The header block, as it crosses the boundary and the wire.
///
/// # Errors
/// What is broken.
pub fn header_block(data: &[u8]) -> Result<(), String> {
    let mut again = Vec::new();
    let mut sound = true;
    for header in cardcage_abi::headers::iter(data) {
        match header {
            Ok((name, value)) => cardcage_abi::headers::push(&mut again, name, value),
            Err(_) => sound = false,
        }
    }
    let start = data.get(..again.len());
    if start != Some(again.as_slice()) || (sound && again.len() != data.len()) {
        return Err("what was read is not what stands there".to_owned());
    }
    Ok(())
}

/// What a plugin's `describe` answers, and what comes of it where it is accepted.
///
/// # Errors
/// What is broken.
pub fn describe_output(data: &[u8]) -> Result<(), String> {
    let Ok(description) = Description::parse(data) else { return Ok(()) };
    let again = serde_json::to_vec(&description).map_err(|error| format!("it cannot be written: {error}"))?;
    let again = Description::parse(&again)
        .map_err(|fault| format!("what one process passed, the next refuses: {fault}"))?;
    accepted::follow(&again)
}

/// A whole library.
///
/// # Errors
/// What is broken.
pub fn elf(data: &[u8]) -> Result<(), String> {
    let file = Path::new("fuzzed.so");
    let verdict = inspect::bytes_of(file, data).and_then(|inspection| inspect::verdict(file, &inspection));
    verdict.or_else(|refusal| refused(&refusal))
}

/// A signature file.
///
/// # Errors
/// What is broken.
pub fn signature(data: &[u8]) -> Result<(), String> {
    let Ok(text) = std::str::from_utf8(data) else { return Ok(()) };
    let verified = Signature::parse(text).and_then(|signature| signature.verify(b"", &[]));
    verified.map_or(Ok(()), |_| Err("a signature was verified by no key".to_owned()))
}

/// A lock file.
///
/// # Errors
/// What is broken.
pub fn lock(data: &[u8]) -> Result<(), String> {
    let Ok(text) = std::str::from_utf8(data) else { return Ok(()) };
    let Ok(lock) = PluginsLock::parse(text) else { return Ok(()) };
    let again = lock.text().map_err(|error| format!("it cannot be written: {error}"))?;
    match PluginsLock::parse(&again) {
        Ok(same) if same == lock => Ok(()),
        other => Err(format!("it is read otherwise than it was written: {other:?}")),
    }
}
