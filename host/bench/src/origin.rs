//! Where the measured binaries come from. A debug build's figures say nothing, so it is refused by default.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use cardcage_harness::{Error, Result, cardcage_binary, nats_server_binary, plugin_library};
use serde::Serialize;

use crate::cli::Settings;
use crate::envelope::PLUGIN;

/// What is measured, and how it was built.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Origin {
    pub(crate) nats_server: PathBuf,
    /// How the floors and the load client were built: `release` or `debug`.
    pub(crate) bench_profile: String,
    /// `None` where only floors are measured.
    pub(crate) cardcage: Option<Binaries>,
}

/// The host and its plugin.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Binaries {
    pub(crate) host: PathBuf,
    pub(crate) host_profile: String,
    pub(crate) plugin: PathBuf,
    pub(crate) plugin_profile: String,
}

impl Origin {
    /// # Errors
    /// Something has not been built, or is a debug build and that was not allowed.
    pub(crate) fn find(settings: &Settings) -> Result<Self> {
        let bench_profile = if cfg!(debug_assertions) { "debug" } else { "release" }.to_owned();
        let cardcage = if settings.floors_only { None } else { Some(Binaries::find()?) };
        let mut profiles = vec![("cardcage-bench", &bench_profile)];
        if let Some(binaries) = &cardcage {
            profiles.push(("cardcage", &binaries.host_profile));
            profiles.push(("the plugin hello", &binaries.plugin_profile));
        }
        for (what, profile) in profiles {
            if profile == "debug" && !settings.allow_debug {
                return Err(Error::new(format!(
                    "{what} is a debug build, whose figures say nothing; run `./justw bench`, which builds a \
                     release first, or give --allow-debug"
                )));
            }
        }
        Ok(Self { nats_server: nats_server_binary()?, bench_profile, cardcage })
    }
}

impl Binaries {
    fn find() -> Result<Self> {
        let host = cardcage_binary()?;
        let plugin = plugin_library(PLUGIN)?;
        let (host_profile, plugin_profile) = (profile(&host), profile(&plugin));
        Ok(Self { host, host_profile, plugin, plugin_profile })
    }
}

/// Cargo names the folder after the profile; only `dev` builds go to `debug`. A file elsewhere does not tell.
fn profile(file: &Path) -> String {
    let folder = file.parent().and_then(Path::file_name).and_then(OsStr::to_str);
    folder.map_or_else(
        || "unknown".to_owned(),
        |name| match name {
            "debug" | "release" => name.to_owned(),
            other => format!("unknown (in a folder named {other})"),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profile_is_the_folder_that_cargo_builds_into() {
        assert_eq!(profile(Path::new("/x/target/debug/cardcage")), "debug");
        assert_eq!(profile(Path::new("/x/target/release/cardcage")), "release");
        assert!(profile(Path::new("/usr/bin/cardcage")).starts_with("unknown"));
    }
}
