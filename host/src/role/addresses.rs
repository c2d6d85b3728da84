//! Tells a script where a host listens, when ports were left to the system: a small JSON file.

use serde_json::json;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

/// The environment variable that names the file.
const FILE: &str = "CARDCAGE_ADDRESSES_FILE";

/// Writes `{"api", "admin", "pid"}` to the file that the environment names, if any. Atomic: a reader sees all or nothing.
pub(super) fn publish(api: Option<SocketAddr>, admin: SocketAddr) -> std::io::Result<()> {
    let Some(path) = std::env::var_os(FILE).map(PathBuf::from) else { return Ok(()) };
    let body =
        json!({ "api": api.map(|a| a.to_string()), "admin": admin.to_string(), "pid": std::process::id() });
    let mut temporary = path.clone().into_os_string();
    temporary.push(".tmp");
    let mut file = std::fs::File::create(&temporary)?;
    file.write_all(body.to_string().as_bytes())?;
    std::fs::rename(temporary, path)
}
