//! ABI 1.0 as it was, a plugin of it, and a host of it: `host/tests/fixtures/abi`, a workspace with a lock file of its own.
//! Nothing of it follows what `plugin-api/abi` has become.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use cardcage_harness::workspace_root;
use sha2::{Digest, Sha256};

use super::cargo::Build;

/// The library of `elder`, by this compiler or by that of another toolchain.
pub(super) fn elder(toolchain: Option<&str>) -> PathBuf {
    let arguments = ["--lib", "-p", "elder"];
    Build { folder: &folder(), arguments: &arguments, locked: true }.plugins(toolchain).join("libelder.so")
}

/// The host of 1.0.
pub(super) fn host() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let build = || Build { folder: &folder(), arguments: &["-p", "first-host"], locked: true }.host();
    BUILT.get_or_init(build).join("first-host")
}

/// The workspace that is frozen.
pub(super) fn folder() -> PathBuf {
    workspace_root().join("host/tests/fixtures/abi/1.0")
}

/// What is frozen, below the workspace's folder, each with its SHA-256. Never change a line here: a later minor gets a
/// folder and a list of its own.
const FROZEN: [(&str, &str); 18] = [
    (
        "host/tests/fixtures/abi/1.0/Cargo.lock",
        "765bf9f91053b9e2f96b5b33490d0b63f20840b21dce8c0fde22fea4bf0ba111",
    ),
    (
        "host/tests/fixtures/abi/1.0/Cargo.toml",
        "2c110ce35534f898543d4eaa778d6d0468e60c2a3ba41609da3c43fab3ac63f6",
    ),
    (
        "host/tests/fixtures/abi/1.0/abi/Cargo.toml",
        "431286ce593e4a1123c05f6e64836c1952e7c3e67fe6b1983a16b7a3188413b9",
    ),
    (
        "host/tests/fixtures/abi/1.0/abi/src/bytes.rs",
        "4884e1cedb634ea274f219e14c481fe5fa48ffa9961643e5c1782944e898b7fb",
    ),
    (
        "host/tests/fixtures/abi/1.0/abi/src/code.rs",
        "50818c31533bd11ec36d5e8b6b466ba7987a5e8cbe42780753f5977c0ca480d1",
    ),
    (
        "host/tests/fixtures/abi/1.0/abi/src/head.rs",
        "706d44d208c9fb10c566c77a60539791692e563e3ea47d840ae2902a45851701",
    ),
    (
        "host/tests/fixtures/abi/1.0/abi/src/headers.rs",
        "9fddc876b6e5b4db05f147bea44131a490a1a1e9496c948f1227af9e25c4acc3",
    ),
    (
        "host/tests/fixtures/abi/1.0/abi/src/lib.rs",
        "2bde9e864494871f9ec4732147d688caacd2fac826ce3f9b8aa420ae0ddc659a",
    ),
    (
        "host/tests/fixtures/abi/1.0/abi/src/manifest.rs",
        "acf096cea4267fef023cb42533fb28b08b653b883342d627117896d535417618",
    ),
    (
        "host/tests/fixtures/abi/1.0/abi/src/vtable.rs",
        "a88711c7a0263a40905783e97220fa612fbdf007063bb4a4c9ebda9c82dbb019",
    ),
    (
        "host/tests/fixtures/abi/1.0/abi/src/wake.rs",
        "9939870e05e0b5a6ca412bdfb3ba74d376cc2018acee304d51c395d8d026cb64",
    ),
    (
        "host/tests/fixtures/abi/1.0/elder/Cargo.toml",
        "41ab07fc845986158f1d614bee23db7a90fc0511c1ceeb8ba05dc6f25009656b",
    ),
    (
        "host/tests/fixtures/abi/1.0/host/Cargo.toml",
        "c5a00f68481677e397e4f16794b32cc0631bfaefa6c1ed917e3315dc35947f44",
    ),
    (
        "host/tests/fixtures/abi/1.0/host/src/library.rs",
        "35c3b34c0966fe5157c70b5d41d46ff4c3aaac010b111d483c0f358711aa52a6",
    ),
    (
        "host/tests/fixtures/abi/1.0/host/src/main.rs",
        "58993cb308a2bfb649954b9ea8cb9a85ac35cfb411be4b8f8e4fe5f5b3ba1ec8",
    ),
    (
        "host/tests/fixtures/abi/1.0/host/src/services.rs",
        "d6f768935c649e282f76a39236d516410e898f8e1f80c2af0d3bb9d77b541c4c",
    ),
    ("host/tests/fixtures/abi/plugin.rs", "ac2e441ef0df8c466c70ccb0ca70060debea78955bde2f00b53bc2931efcdcac"),
    (
        "plugin-api/abi/tests/layout-1.0.txt",
        "cbe9537bb69666a1d7c5d820a93f990509d6254bb96d6cb56e953b73ca63b5e7",
    ),
];

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

#[test]
fn boundary_plugin_and_host_of_1_0_are_what_they_were() {
    let root = workspace_root();
    let mut found = vec![root.join("plugin-api/abi/tests/layout-1.0.txt")];
    files(&root.join("host/tests/fixtures/abi"), &mut found);
    let digest = |path: &PathBuf| {
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        (name, hex::encode(Sha256::digest(std::fs::read(path).unwrap())))
    };
    let mut found: Vec<(String, String)> = found.iter().map(digest).collect();
    found.sort();
    let frozen = FROZEN.map(|(name, digest)| (name.to_owned(), digest.to_owned()));
    assert_eq!(
        found, frozen,
        "what shows that libraries and hosts of 1.0 go on working is 1.0 itself, and never changes"
    );
}
