//! How long a host with 30 plugins takes until it is ready, and what a plugin costs it in memory and threads.
//!
//! The plugins are `hello` under 30 names: copies of its library in which the name is another one of the same length. To the
//! host, and to the dynamic linker, they are 30 libraries. A host with one plugin is measured beside it, so that what is
//! told of a plugin is what each further one costs.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use cardcage_harness::{Cardcage, Config, Deadline, Error, Launch, Nats, Result, plugin_library};
use tempfile::TempDir;

use super::{Finding, Trial};
use crate::cli::Settings;
use crate::envelope::PLUGIN;

const PLUGINS: usize = 30;
/// How often `/readyz` is asked.
const ASK_EVERY: Duration = Duration::from_millis(2);

/// A host that is ready.
struct Ready {
    after: Duration,
    mebibytes: f64,
    threads: f64,
}

pub(super) async fn run(settings: &Settings) -> Result<Vec<Finding>> {
    let folder = tempfile::tempdir().map_err(Error::doing("cannot make a folder for plugins"))?;
    let plugins = copies(&folder)?;
    let nats = Nats::start().await?;
    let turns = if settings.smoke { 1 } else { settings.turns };
    let mut findings = Vec::new();
    // One installation, and small queues: the broker sets their bytes aside.
    let config = Config::new(&nats).set("broker.queue_max_bytes", 16_777_216);
    let cache = folder.path().join("cache").display().to_string();
    let config = config.set("loading.cache_dir", cache);
    for role in ["api", "worker"] {
        // The first one fills the cache and makes the streams.
        start(role, &config, &plugins).await?;
        let (mut all, mut first) = (Vec::new(), Vec::new());
        for _ in 0..turns {
            all.push(start(role, &config, &plugins).await?);
            first.push(start(role, &config, plugins.get(..1).unwrap_or_default()).await?);
        }
        let median = |hosts: &[Ready], of: fn(&Ready) -> f64| {
            let mut values: Vec<f64> = hosts.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
        };
        let further = |of: fn(&Ready) -> f64| (median(&all, of) - median(&first, of)) / (PLUGINS - 1) as f64;
        let milliseconds: fn(&Ready) -> f64 = |ready| ready.after.as_secs_f64() * 1_000.0;
        let found = |what: String, value, unit| Trial::Startup.found(what, value, unit);
        findings.extend([
            found(format!("{role}, 1 plugin: ready after"), median(&first, milliseconds), "ms"),
            found(format!("{role}, {PLUGINS} plugins: ready after"), median(&all, milliseconds), "ms"),
            found(format!("{role}: memory of each further plugin"), further(|ready| ready.mebibytes), "MiB"),
            found(
                format!("{role}: threads of each further plugin"),
                further(|ready| ready.threads),
                "threads",
            ),
        ]);
    }
    Ok(findings)
}

/// The libraries, with their names.
fn copies(folder: &TempDir) -> Result<Vec<(String, PathBuf)>> {
    let original = std::fs::read(plugin_library(PLUGIN)?).map_err(Error::doing("cannot read the plugin"))?;
    // Four of the five letters: a compiler may have made a number of them, which is one in every copy.
    let (letters, rest) = PLUGIN.as_bytes().split_at(4);
    let places: Vec<usize> = original
        .windows(letters.len())
        .enumerate()
        .filter_map(|(at, window)| (window == letters).then_some(at))
        .collect();
    let copy = |nth: usize| {
        let mut bytes = original.clone();
        let new = format!("p{nth:03}");
        for at in &places {
            if let Some(place) = bytes.get_mut(*at..*at + letters.len()) {
                place.copy_from_slice(new.as_bytes());
            }
        }
        let name = new + &String::from_utf8_lossy(rest);
        let path = folder.path().join(format!("{name}.so"));
        std::fs::write(&path, bytes).map_err(Error::doing(format!("cannot write {}", path.display())))?;
        Ok((name, path))
    };
    (0..PLUGINS).map(copy).collect()
}

/// Starts a host, waits until it is ready, looks at it and stops it.
async fn start(role: &str, config: &Config, plugins: &[(String, PathBuf)]) -> Result<Ready> {
    let config =
        plugins.iter().fold(config.clone(), |config, (name, library)| config.plugin_at(name, library));
    let began = Instant::now();
    let mut host = Launch::new([role]).config(&config).start()?;
    host.wait_addresses(Deadline::seconds(60)).await?;
    let admin = host.admin()?;
    let deadline = Deadline::seconds(60);
    while admin.get("/readyz").await.map_or(0, |reply| reply.status) != 200 {
        if deadline.is_past() {
            return Err(Error::new(format!("the {role} is not ready after 60 s:\n{}", host.stderr())));
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
    let after = began.elapsed();
    let ready = Ready { after, mebibytes: sum(&host, "VmRSS:") / 1024.0, threads: sum(&host, "Threads:") };
    host.stop(Deadline::seconds(60)).await?;
    Ok(ready)
}

/// A number of the status of supervisor and children, added up.
fn sum(host: &Cardcage, what: &str) -> f64 {
    let one = |pid: u32| -> Option<f64> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find(|line| line.starts_with(what))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    host.child_pids().into_iter().chain([host.pid()]).filter_map(one).sum()
}
