//! A real library, cut short in 64 ways and with one byte of it flipped in 64: refused in a sentence, or harmless. What is harmless
//! while it describes itself is loaded into a real host, which goes on, whatever becomes of the plugin.

use std::sync::{Mutex, OnceLock};

use cardcage_harness::{Config, Deadline, Launch, eventually, plugin_library};
use fastrand::Rng;

use super::SEED;
use crate::command::{Folder, cardcage, json, stderr};

/// Flipped bytes that are looked at.
const FLIPS: usize = 64;
/// Of those that a library survives, how many are loaded into a host.
const LOADED_MAX: usize = 8;

/// The verdict on a damaged library: `true` where it loads and describes itself, `false` where it is refused in a sentence.
fn survives(folder: &Folder, name: &str, damaged: &[u8]) -> bool {
    let file = folder.file(name, damaged);
    let file_text = file.to_str().unwrap();
    let output = cardcage(&["plugin", "describe", "--json", file_text, "--set", "loading.timeout_ms=10000"]);
    let told = stderr(&output);
    std::fs::remove_file(&file).unwrap();
    match output.status.code() {
        Some(0) => {
            assert_eq!(json(&output)["routes"].as_array().map(Vec::len), Some(routes()), "{name}");
            true
        }
        Some(70) => {
            let sentence = told.lines().last().unwrap_or_default();
            assert!(sentence.contains(file_text) && sentence.contains("; "), "{name}: {told}");
            false
        }
        other => panic!("{name}: {other:?}: {told}"),
    }
}

fn whole() -> Vec<u8> {
    std::fs::read(plugin_library("hello").unwrap()).unwrap()
}

/// As many as the library has while it is whole.
fn routes() -> usize {
    static ROUTES: OnceLock<usize> = OnceLock::new();
    let describe = || {
        let file = plugin_library("hello").unwrap();
        json(&cardcage(&["plugin", "describe", "--json", file.to_str().unwrap()]))["routes"]
            .as_array()
            .unwrap()
            .len()
    };
    *ROUTES.get_or_init(describe)
}

#[test]
fn sixty_four_truncations_of_a_real_library_are_all_refused() {
    let (folder, whole) = (Folder::new(), whole());
    for nth in 0..64 {
        // Half of them evenly, half by a few bytes at the end.
        let length = if nth % 2 == 0 { whole.len() / 64 * nth } else { whole.len() - nth };
        assert!(!survives(&folder, &format!("cut{nth}.so"), &whole[..length]), "{length} bytes are enough");
    }
}

/// A flipped byte: where, and which bits.
#[derive(Debug, Clone, Copy)]
struct Flip {
    at: usize,
    mask: u8,
}

impl Flip {
    fn of(self, whole: &[u8]) -> Vec<u8> {
        let mut damaged = whole.to_vec();
        damaged[self.at] ^= self.mask;
        damaged
    }
}

/// The head and the program headers; the parts that the linker reads; anywhere.
fn flips(length: usize) -> Vec<Flip> {
    let mut rng = Rng::with_seed(SEED);
    let mut flip = |nth: usize| {
        let end = [1_024, 400_000, length][nth % 3].min(length);
        Flip { at: rng.usize(..end), mask: rng.u8(1..) }
    };
    (1..=FLIPS).map(&mut flip).collect()
}

#[tokio::test]
async fn sixty_four_flipped_bytes_of_a_real_library_are_refused_or_harmless() {
    let (folder, whole) = (Folder::new(), whole());
    let flips = flips(whole.len());
    let verdicts: Mutex<Vec<Option<bool>>> = Mutex::new(vec![None; FLIPS]);
    std::thread::scope(|scope| {
        for half in 0..2 {
            let (folder, whole, flips, verdicts) = (&folder, &whole, &flips, &verdicts);
            scope.spawn(move || {
                for (nth, flip) in flips.iter().enumerate().filter(|(nth, _)| nth % 2 == half) {
                    let name = format!("flip{nth}-at-{}.so", flip.at);
                    let harmless = survives(folder, &name, &flip.of(whole));
                    verdicts.lock().unwrap()[nth] = Some(harmless);
                }
            });
        }
    });
    let verdicts: Vec<bool> = verdicts.into_inner().unwrap().into_iter().map(Option::unwrap).collect();
    let mut harmless: Vec<Flip> =
        flips.into_iter().zip(&verdicts).filter(|(_, harmless)| **harmless).map(|(flip, _)| flip).collect();
    let refused = FLIPS - harmless.len();
    assert!(!harmless.is_empty() && refused > 0, "both were met: {harmless:?}, {refused} refused");
    // The later in the file, the more of its code and the less of its tables.
    harmless.sort_by_key(|flip| flip.at);
    let mut loaded = 0;
    for flip in harmless.into_iter().rev().take(LOADED_MAX) {
        loaded += usize::from(host_goes_on(&folder, flip, &whole).await);
    }
    assert!(loaded > 0, "none of them was loaded into its host");
}

/// The plugin may be refused, crash or answer nonsense. The host lives, and what is beside the plugin is served. Whether it was loaded.
async fn host_goes_on(folder: &Folder, flip: Flip, whole: &[u8]) -> bool {
    let file = folder.file(&format!("loaded-at-{}.so", flip.at), flip.of(whole));
    // Inline routes need no broker.
    let config = Config::default()
        .set("broker.url", "nats://127.0.0.1:1")
        .plugin("chaos")
        .unwrap()
        .plugin_at("hello", &file)
        .set("plugins.hello.required", false)
        .set("loading.timeout_ms", 10_000);
    let mut api = Launch::new(["api"]).config(&config).ready().await.unwrap();
    let http = api.http().unwrap();
    let ready = api.admin().unwrap().get("/readyz?verbose").await.unwrap().json().unwrap();
    let is_loaded = ready["plugins"].as_array().unwrap().iter().any(|plugin| plugin["name"] == "hello");
    for _ in 0..3 {
        // Whatever it answers; nothing at all where it ends the child that has the connection.
        drop(http.get("/hello/inline?name=you").await);
        let beside = eventually(Deadline::seconds(60), "what is beside it is served", async || {
            http.get("/chaos/inline_seen").await.ok().filter(|reply| reply.status == 200)
        });
        let seen = beside.await.unwrap_or_else(|error| panic!("{flip:?}: {error}: {}", api.stderr()));
        assert!(seen.json().is_ok(), "{flip:?}: {}", seen.text());
        assert!(api.exited().is_none(), "{flip:?}: {}", api.stderr());
    }
    std::fs::remove_file(&file).unwrap();
    is_loaded
}
