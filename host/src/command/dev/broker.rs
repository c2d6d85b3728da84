//! The nats-server of `dev`: which one, where, and how it is started.

use std::ffi::OsString;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use super::BROKER_GRACE;
use super::folder::Folder;
use super::managed::Managed;
use crate::config::{Dev, Settings};
use crate::exit::Exit;

/// Another nats-server for tests and for machines that have their own.
const VARIABLE: &str = "CARDCAGE_NATS_SERVER";
/// Where `./justw fetch-tools` puts the pinned one.
const TOOLS: &str = ".tools";
const DEFAULT_PORT: u16 = 4222;

/// The nats-server to keep; `None` where the operator runs one. The error is a sentence and how to exit.
pub(super) fn of(settings: &Settings, folder: &Folder) -> Result<Option<Managed>, (String, Exit)> {
    if !settings.dev.broker_managed {
        return Ok(None);
    }
    let url = &settings.broker.url;
    if url.contains(',') || !url.starts_with("nats://") {
        let fault = format!(
            "`dev` can start one nats-server without TLS, and `broker.url` is {url}: \
             use that one with --set dev.broker_managed=false"
        );
        return Err((fault, Exit::Config));
    }
    let (host, port) = address(url);
    free(&host, port)?;
    let program = find(&settings.dev)?;
    let mut arguments: Vec<OsString> =
        vec!["dev-broker-guard".into(), "--folder".into(), folder.path().into()];
    arguments.push(program.into());
    arguments.extend(["--addr".into(), host.into(), "--port".into(), port.to_string().into()]);
    arguments.push("--jetstream".into());
    match &settings.dev.nats_config {
        Some(config) => arguments.extend(["--config".into(), config.into()]),
        None => arguments.extend(["--store_dir".into(), folder.store().into()]),
    }
    Ok(Some(Managed::new("nats-server", arguments, BROKER_GRACE)))
}

/// Host and port of the first server of a `broker.url`.
pub(super) fn address(url: &str) -> (String, u16) {
    let first = url.split(',').next().unwrap_or_default().trim();
    let rest = first.split_once("://").map_or(first, |(_, rest)| rest).trim_end_matches('/');
    match rest.rsplit_once(':').map(|(host, port)| (host, port.parse())) {
        Some((host, Ok(port))) => (host.trim_matches(['[', ']']).to_owned(), port),
        _ => (rest.trim_matches(['[', ']']).to_owned(), DEFAULT_PORT),
    }
}

/// Says whose port it is before nats-server does, in a sentence that helps.
fn free(host: &str, port: u16) -> Result<(), (String, Exit)> {
    match TcpListener::bind((host, port)) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            let fault = format!(
                "something listens on {host}:{port} already: stop it, use it with --set dev.broker_managed=false, \
                 or choose another port with --set broker.url=nats://{host}:…"
            );
            Err((fault, Exit::Unavailable))
        }
        Err(error) => {
            let fault = format!("nats-server cannot listen on {host}:{port} ({error}): correct `broker.url`");
            Err((fault, Exit::Unavailable))
        }
    }
}

/// A path is taken at its word. A bare name means, in this order: the one named by the environment, the pinned one
/// of the project around the working directory, the one in `PATH`. `PATH` comes last because distributions ship
/// servers that are too old.
fn find(dev: &Dev) -> Result<PathBuf, (String, Exit)> {
    let wanted = &dev.nats_server;
    if wanted.components().count() > 1 {
        return if wanted.is_file() { Ok(wanted.clone()) } else { Err(missing(wanted)) };
    }
    let named = std::env::var_os(VARIABLE).map(PathBuf::from);
    let here = std::env::current_dir().unwrap_or_default();
    let pinned = here.ancestors().map(|folder| folder.join(TOOLS).join(wanted));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed = std::env::split_paths(&path).map(|folder| folder.join(wanted));
    let mut candidates = named.into_iter().chain(pinned).chain(installed);
    candidates.find(|candidate| candidate.is_file()).ok_or_else(|| missing(wanted))
}

fn missing(wanted: &Path) -> (String, Exit) {
    let fault = format!(
        "{} is not there: run `./justw fetch-tools`, or name one with `dev.nats_server` or {VARIABLE}",
        wanted.display()
    );
    (fault, Exit::Unavailable)
}

#[cfg(test)]
mod tests {
    use super::address;

    #[test]
    fn an_address_is_taken_from_the_url() {
        assert_eq!(address("nats://127.0.0.1:4333"), ("127.0.0.1".to_owned(), 4333));
        assert_eq!(address("nats://localhost"), ("localhost".to_owned(), 4222));
        assert_eq!(address("nats://[::1]:4333/"), ("::1".to_owned(), 4333));
    }
}
