//! What the processes under `dev` bound: read from the hosts, shown to people, written for programs.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::Settings;

/// A host writes what it bound to the file that this variable names.
pub(super) const VARIABLE: &str = "CARDCAGE_ADDRESSES_FILE";

/// What one host bound.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Bound {
    #[serde(default)]
    pub(super) api: Option<String>,
    #[serde(default)]
    pub(super) admin: Option<String>,
}

impl Bound {
    /// `None` while the file is not there, or half written.
    pub(super) fn read(file: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(file).ok()?).ok()
    }
}

/// What both bound.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Addresses {
    api: Option<String>,
    admin: Option<String>,
    worker_admin: Option<String>,
    pid: u32,
}

impl Addresses {
    pub(super) fn read(api: &Path, worker: &Path) -> Self {
        let (api, worker) = (Bound::read(api).unwrap_or_default(), Bound::read(worker).unwrap_or_default());
        Self { api: api.api, admin: api.admin, worker_admin: worker.admin, pid: std::process::id() }
    }

    /// For people.
    pub(super) fn text(&self, settings: &Settings) -> String {
        let or = |address: &Option<String>| {
            address.as_ref().map_or("unknown".to_owned(), |to| format!("http://{to}"))
        };
        let (api, admin, worker) = (or(&self.api), or(&self.admin), or(&self.worker_admin));
        let broker = &settings.broker.url;
        let whose = if settings.dev.broker_managed { "started here" } else { "not started here" };
        let mut text = format!(
            "\nCardcage runs on this machine:\n\
             \x20 API            {api}   all routes: {api}/openapi.json\n\
             \x20 api admin      {admin}   /readyz?verbose, /metrics\n\
             \x20 worker admin   {worker}   /readyz?verbose, /metrics\n\
             \x20 NATS           {broker}   {whose}\n\n"
        );
        for (name, plugin) in &settings.plugins {
            text.push_str(&format!(
                "  plugin {name}: {api}{}   from {}\n",
                plugin.prefix,
                plugin.library.display()
            ));
        }
        text.push_str("\nA library that changes is taken over by worker and api. Ctrl-C ends all of it.\n");
        text
    }

    /// For programs: the same file that a host writes, where whoever started `dev` named one.
    pub(super) fn write(&self) -> std::io::Result<()> {
        let Some(file) = std::env::var_os(VARIABLE).map(PathBuf::from) else { return Ok(()) };
        let mut temporary = file.clone().into_os_string();
        temporary.push(".tmp");
        std::fs::write(&temporary, serde_json::to_vec(self)?)?;
        // Atomic: a reader sees all or nothing.
        std::fs::rename(temporary, file)
    }
}
