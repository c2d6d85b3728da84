//! Reloads of running hosts: no request refused or failed, no task lost or doubled, and a set that is refused changes nothing.

mod handover;
mod one_step;
mod orphaned;
mod overwritten;
mod refused;
mod untrusted;

use crate::serving::soon;
use cardcage_harness::{Cardcage, Config, Deadline, Http, Launch, Nats, Output, plugin_library};
use std::path::PathBuf;
use tempfile::TempDir;

/// An API and a worker that share a configuration file and libraries which the test may change.
pub(crate) struct Installation {
    pub(crate) http: Http,
    pub(crate) api: Cardcage,
    pub(crate) worker: Cardcage,
    pub(crate) config: Config,
    _nats: Nats,
    // Last, so that the hosts are gone before their files.
    pub(crate) folder: TempDir,
}

impl Installation {
    /// With hello, chaos, and skew 1.0, and with what `change` sets.
    pub(crate) async fn new(change: impl FnOnce(Config, &TempDir) -> Config) -> Self {
        let nats = Nats::start().await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let skew = folder.path().join("libskew.so");
        std::fs::copy(plugin_library("skew-old").unwrap(), &skew).unwrap();
        let config = Config::new(&nats).plugin("hello").unwrap().plugin("chaos").unwrap();
        let config = change(config.plugin_at("skew", &skew), &folder);
        let file = folder.path().join("cardcage.toml");
        std::fs::write(&file, config.to_toml()).unwrap();
        let host = |role: &str| Launch::new([role.into(), "--config".into(), file.clone().into_os_string()]);
        let worker = host("worker").ready().await.unwrap();
        let api = host("api").ready().await.unwrap();
        Self { http: api.http().unwrap(), api, worker, config, _nats: nats, folder }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes another configuration where the hosts find theirs.
    pub(crate) fn rewrite(&self, config: &Config) {
        std::fs::write(self.file("cardcage.toml"), config.to_toml()).unwrap();
    }

    /// Overwrites skew's library in place, as a careless copy does.
    pub(crate) fn overwrite_skew(&self, bytes: &[u8]) {
        use std::io::Write as _;
        let mut file =
            std::fs::File::options().write(true).truncate(true).open(self.file("libskew.so")).unwrap();
        file.write_all(bytes).unwrap();
    }

    /// `cardcage reload` of these hosts.
    pub(crate) async fn reload(&self, hosts: &[&Cardcage]) -> Output {
        let mut arguments = vec!["reload".to_owned()];
        for host in hosts {
            let admin = host.admin().unwrap().url("");
            arguments.extend(["--admin".to_owned(), admin.trim_start_matches("http://").to_owned()]);
        }
        Launch::new(arguments).run(Deadline::seconds(120)).await.unwrap()
    }

    pub(crate) async fn version_of(&self, host: &Cardcage, plugin: &str) -> Option<String> {
        let ready = host.admin().unwrap().get("/readyz?verbose").await.unwrap().json().unwrap();
        let plugins = ready["plugins"].as_array().unwrap();
        let found = plugins.iter().find(|one| one["name"] == plugin)?;
        Some(found["version"].as_str().unwrap().to_owned())
    }

    pub(crate) async fn accepted(&self, path: &str, body: serde_json::Value) -> String {
        let reply = self.http.post_json(path, &body).await.unwrap();
        assert_eq!(reply.status, 202, "{}", reply.text());
        reply.task_id().unwrap()
    }
}

/// One child, and another one than before.
pub(crate) async fn followed(host: &Cardcage, before: u32) {
    cardcage_harness::eventually(soon(), "the child before is gone", async || {
        let children = host.child_pids();
        (children.len() == 1 && children[0] != before).then_some(())
    })
    .await
    .unwrap();
}
