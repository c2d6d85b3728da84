//! `cardcage plugin new NAME`: writes the repo of a new plugin and says how to go on.
//!
//! Invariant: it refuses before it writes anything, and never writes over a file.
//!
//! What it refuses to do: it runs neither git nor cargo. What they would do is told instead.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use cardcage_protocol::RESERVED_SEGMENTS;
use serde_json::json;

use super::output;
use super::session::told;
use crate::cli::NewArgs;
use crate::exit::Exit;
use crate::kit::{NewPlugin, Sdk, new_plugin};

/// Names whose package, `cardcage-plugin-NAME`, would be one of the SDK's.
const SDK_PACKAGES: [&str; 2] = ["api", "macros"];

/// Writes it.
#[must_use]
pub fn run(args: &NewArgs) -> Exit {
    let name = args.name.as_str();
    let folder = args.path.clone().unwrap_or_else(|| PathBuf::from(name));
    let (sdk, plugin) = match fit(args, &folder) {
        Ok(made) => made,
        Err((exit, sentence)) => return told(exit, &sentence),
    };
    if let Err(error) = write(&folder, &plugin) {
        return told(Exit::Unexpected, &error);
    }
    if args.json {
        let vendored = matches!(sdk, Sdk::Vendored);
        output::json(&json!({
            "name": name, "folder": folder, "library": plugin.library, "vendored_sdk": vendored,
        }));
    } else {
        output::result(&output::shown_lines(&next_steps(args, &folder, &plugin)));
    }
    Exit::Success
}

/// What will be written, if nothing speaks against it.
fn fit(args: &NewArgs, folder: &Path) -> Result<(Sdk, NewPlugin), (Exit, String)> {
    let usage = |sentence: String| (Exit::Usage, sentence);
    let name = args.name.as_str();
    if RESERVED_SEGMENTS.contains(&name) {
        return Err(usage(format!(
            "a plugin `{name}` would be served at /{name}, which belongs to the host: choose another name"
        )));
    }
    if SDK_PACKAGES.contains(&name) {
        return Err(usage(format!(
            "the package cardcage-plugin-{name} is part of the SDK: choose another name"
        )));
    }
    unused(folder).map_err(usage)?;
    let sdk = args.sdk.as_deref().map_or(Ok(Sdk::Vendored), sdk_at).map_err(usage)?;
    let plugin = new_plugin(&args.name, &sdk).map_err(|sentence| (Exit::Unexpected, sentence))?;
    Ok((sdk, plugin))
}

/// Refuses a folder with anything in it.
fn unused(folder: &Path) -> Result<(), String> {
    match std::fs::read_dir(folder).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Ok(false) => {
            Err(format!("{} holds something already: name another folder with --path", folder.display()))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => {
            Err(format!("{} cannot be used ({error}): name another folder with --path", folder.display()))
        }
    }
}

/// The SDK in a checkout of Cardcage, or the folder of the SDK itself.
fn sdk_at(folder: &Path) -> Result<Sdk, String> {
    let is_sdk = |folder: &PathBuf| {
        let text = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap_or_default();
        let manifest: toml::Table = text.parse().unwrap_or_default();
        let name = manifest.get("package").and_then(|package| package.get("name"));
        name.and_then(toml::Value::as_str) == Some("cardcage-plugin-api")
    };
    let found = [folder.to_owned(), folder.join("plugin-api")].into_iter().find(is_sdk);
    // The new folder lies elsewhere: a path from here would lead nowhere.
    let found =
        found.and_then(|folder| folder.canonicalize().ok()).filter(|folder| folder.to_str().is_some());
    found.map(Sdk::At).ok_or_else(|| {
        format!(
            "{} is neither the SDK's folder nor a checkout with it in plugin-api: \
             correct --sdk, or leave it out to get the SDK of this cardcage",
            folder.display()
        )
    })
}

fn write(folder: &Path, plugin: &NewPlugin) -> Result<(), String> {
    for (path, text) in &plugin.files {
        let path = folder.join(path);
        let parent = path.parent().unwrap_or(folder);
        let written = std::fs::create_dir_all(parent)
            .and_then(|()| OpenOptions::new().write(true).create_new(true).open(&path))
            .and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|error| {
            let remedy = match folder.exists() {
                true => format!("remove {}, put that right, try again", folder.display()),
                false => "name a folder that can be made with --path".to_owned(),
            };
            format!("{} cannot be written ({error}): {remedy}", path.display())
        })?;
    }
    Ok(())
}

fn next_steps(args: &NewArgs, folder: &Path, plugin: &NewPlugin) -> String {
    let NewArgs { name, .. } = args;
    let library = &plugin.library;
    // One that begins like an option is none to a shell's commands with this in front.
    let is_option_like = folder.as_os_str().as_encoded_bytes().starts_with(b"-");
    let folder = if is_option_like { Path::new(".").join(folder) } else { folder.to_owned() };
    let folder = folder.display();
    let name = name.as_str();
    format!(
        "The plugin {name} is in {folder}, a repo of its own. To go on:\n\n  \
           cd {folder}\n  \
           cargo test                                   its tests; no host and no broker needed\n  \
           cargo build                                  the library, target/debug/{library}\n  \
           cardcage dev --plugin . --config dev.toml    serves it here, and again whenever you save\n  \
           git init && git add .                        from here on it is yours\n\n\
         src/lib.rs is the plugin, src/tests.rs its tests, README.md says the rest."
    )
}
