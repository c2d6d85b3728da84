//! The folder of a new plugin: a repo of its own, made from `plugins/hello`.
//!
//! Invariant: it builds where it lies, also inside another workspace; it names no path of this machine but that of an SDK
//! which was asked for.

use std::path::{Path, PathBuf};

use cardcage_protocol::Name;

use super::manifest::Workspace;
use super::{FILES, file};

/// The template's name in its files, and their folder.
const TEMPLATE: &str = "hello";
const FOLDER: &str = "plugins/hello/";
/// Where the template's build goes, as the template says it and as a folder of its own does.
const TARGET: (&str, &str) = ("../../target/", "target/");
/// Where the SDK's sources go.
const VENDOR: &str = "vendor";

const README_OF_VENDOR: &str = "\
# The Cardcage SDK

Sources of the SDK as the `cardcage` that made this folder carries them; not to be edited. To move to another version, let a
newer `cardcage plugin new` write a folder beside this one and take its `vendor/`.
";

const WORKSPACE: &str = "\
# A repo of its own, wherever it lies.
[workspace]
exclude = [\"vendor\"]

[profile.dev]
# Enough for backtraces; full debug info makes the library slow to link.
debug = \"line-tables-only\"

[profile.dev.package.\"*\"]
debug = false
";

/// Where a new plugin's SDK comes from.
#[derive(Debug, Clone)]
pub enum Sdk {
    /// From this binary, into `vendor/`.
    Vendored,
    /// From this folder, the one with the package `cardcage-plugin-api`.
    At(PathBuf),
}

/// The files of a new plugin.
#[derive(Debug)]
pub struct NewPlugin {
    /// Paths in the plugin's folder, and texts.
    pub files: Vec<(PathBuf, String)>,
    /// The library's file name.
    pub library: String,
}

/// Makes the files of a plugin with this name.
///
/// # Errors
/// A sentence: this binary was built wrongly.
pub fn new_plugin(name: &Name, sdk: &Sdk) -> Result<NewPlugin, String> {
    let workspace = Workspace::read(file("Cargo.toml"))
        .map_err(|error| format!("the template is damaged ({error}): a fault of cardcage"))?;
    let mut files = Vec::new();
    for (path, text) in FILES {
        if let Some(path) = path.strip_prefix(FOLDER) {
            let text = match path {
                "Cargo.toml" => package(&workspace, text, sdk),
                _ => (*text).to_owned(),
            };
            files.push((PathBuf::from(path), renamed(&text, name).replace(TARGET.0, TARGET.1)));
        } else if matches!(sdk, Sdk::Vendored) && path.starts_with("plugin-api/") {
            files.push((Path::new(VENDOR).join(path), vendored(&workspace, path, text)));
        }
    }
    if matches!(sdk, Sdk::Vendored) {
        files.push((Path::new(VENDOR).join("README.md"), README_OF_VENDOR.to_owned()));
        files.push((Path::new(VENDOR).join("LICENSE"), file("LICENSE").to_owned()));
    }
    // The versions that the SDK was tested with; cargo drops those that this plugin does not use.
    files.push((PathBuf::from("Cargo.lock"), file("Cargo.lock").to_owned()));
    // What the template's sources are formatted by.
    files.push((PathBuf::from("rustfmt.toml"), file("rustfmt.toml").to_owned()));
    Ok(NewPlugin { files, library: format!("libcardcage_plugin_{}.so", name.as_str().replace('-', "_")) })
}

/// The template's own manifest.
fn package(workspace: &Workspace, text: &str, sdk: &Sdk) -> String {
    let at = |path: &Path| match sdk {
        Sdk::Vendored => Path::new(VENDOR).join(path),
        Sdk::At(folder) => match path.strip_prefix("plugin-api") {
            Ok(inner) if inner.as_os_str().is_empty() => folder.clone(),
            Ok(inner) => folder.join(inner),
            Err(_) => folder.join("..").join(path),
        },
    };
    let mut out = String::new();
    for line in workspace.resolve(text, true, &at).lines() {
        let line = match line.split(' ').next() {
            Some("description") => "description = \"The Cardcage plugin hello\"",
            // The author's choice.
            Some("license") => continue,
            _ => line,
        };
        out.push_str(line);
        out.push('\n');
    }
    out + "\n" + WORKSPACE
}

/// A file of the SDK, as a dependency outside its workspace.
fn vendored(workspace: &Workspace, path: &str, text: &str) -> String {
    let path = Path::new(path);
    if path.file_name().is_none_or(|name| name != "Cargo.toml") {
        return text.to_owned();
    }
    let here = path.parent().unwrap_or(path);
    let up: PathBuf = here.components().map(|_| "..").collect();
    workspace.resolve(text, false, &|path| up.join(path))
}

/// The template's text under another name: whole words, and the names of crate and library.
fn renamed(text: &str, name: &Name) -> String {
    let name = name.as_str();
    let library =
        (format!("cardcage_plugin_{TEMPLATE}"), format!("cardcage_plugin_{}", name.replace('-', "_")));
    let text = text.replace(&library.0, &library.1);
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(at) = rest.find(TEMPLATE) {
        let (before, found) = rest.split_at(at);
        let (word, after) = found.split_at(TEMPLATE.len());
        let part_of_a_word = |c: char| c.is_alphanumeric() || c == '_';
        let whole = !before.ends_with(part_of_a_word) && !after.starts_with(part_of_a_word);
        out.push_str(before);
        out.push_str(if whole { name } else { word });
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(sdk: &Sdk) -> NewPlugin {
        new_plugin(&Name::new("my-shop").unwrap(), sdk).unwrap()
    }

    fn text<'a>(plugin: &'a NewPlugin, path: &str) -> &'a str {
        let found = plugin.files.iter().find(|(name, _)| name == Path::new(path));
        &found.unwrap_or_else(|| panic!("{path} in {:?}", plugin.files)).1
    }

    #[test]
    fn nothing_of_the_template_and_of_this_workspace_is_left() {
        let plugin = made(&Sdk::Vendored);
        for (path, text) in plugin.files.iter().filter(|(path, _)| !path.starts_with("vendor")) {
            if path != Path::new("Cargo.lock") {
                assert!(!text.contains(TEMPLATE) && !text.contains("../"), "{}:\n{text}", path.display());
            }
        }
        for (path, text) in plugin.files.iter().filter(|(path, _)| path.ends_with("Cargo.toml")) {
            let manifest: toml::Table = text.parse().unwrap();
            let inherits =
                manifest.iter().any(|(_, section)| section.to_string().contains("workspace = true"));
            assert!(!inherits && manifest.get("lints").is_none(), "{}:\n{text}", path.display());
        }
        assert!(text(&plugin, "src/lib.rs").contains("name = \"my-shop\""));
        assert!(
            text(&plugin, "dev.toml").contains("library = \"target/debug/libcardcage_plugin_my_shop.so\"")
        );
        assert_eq!(plugin.library, "libcardcage_plugin_my_shop.so");
    }

    #[test]
    fn each_package_that_a_manifest_leads_to_is_there_under_its_own_version() {
        let plugin = made(&Sdk::Vendored);
        let folders: Vec<PathBuf> = plugin
            .files
            .iter()
            .filter(|(path, _)| path.ends_with("Cargo.toml"))
            .map(|(path, _)| path.parent().unwrap().to_owned())
            .collect();
        let mut led_to = 0;
        for folder in &folders {
            let manifest = folder.join("Cargo.toml");
            let table: toml::Table = text(&plugin, manifest.to_str().unwrap()).parse().unwrap();
            for (name, dependency) in table["dependencies"].as_table().unwrap() {
                let Some(path) = dependency.get("path") else { continue };
                let path = normal(&folder.join(path.as_str().unwrap()));
                assert!(folders.contains(&path), "{name} of {}", folder.display());
                led_to += 1;
            }
        }
        assert!(led_to >= 4, "{led_to}");
        let abi: toml::Table = text(&plugin, "vendor/plugin-api/abi/Cargo.toml").parse().unwrap();
        assert_eq!(abi["package"]["version"].as_str(), Some(cardcage_abi::VERSION));
    }

    /// Without `x/..`, which names of files that are not there yet cannot be asked for.
    fn normal(path: &Path) -> PathBuf {
        let mut out = PathBuf::new();
        for part in path.components() {
            if part.as_os_str() == ".." {
                out.pop();
            } else {
                out.push(part);
            }
        }
        out
    }

    #[test]
    fn sdk_by_path_is_depended_on_there_and_nothing_is_vendored() {
        let plugin = made(&Sdk::At("/sdk".into()));
        assert!(plugin.files.iter().all(|(path, _)| !path.starts_with("vendor")));
        let manifest: toml::Table = text(&plugin, "Cargo.toml").parse().unwrap();
        let path = |section: &str, name: &str| manifest[section][name]["path"].as_str().map(str::to_owned);
        assert_eq!(path("dependencies", "cardcage-plugin-api").as_deref(), Some("/sdk"));
        assert_eq!(path("dev-dependencies", "cardcage-testkit").as_deref(), Some("/sdk/testkit"));
    }

    #[test]
    fn only_whole_words_are_renamed() {
        let name = Name::new("my-shop").unwrap();
        let text =
            "hello othello hello_world /hello/x cardcage-plugin-hello libcardcage_plugin_hello.so Hello";
        let expected = "my-shop othello hello_world /my-shop/x cardcage-plugin-my-shop libcardcage_plugin_my_shop.so Hello";
        assert_eq!(renamed(text, &name), expected);
    }
}
