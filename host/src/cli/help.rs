//! The long help: what a command is for, with lines that can be copied.

pub(super) const LONG_ABOUT: &str = "\
A plugin host: HTTP routes and durable tasks from extension libraries, over NATS.

Each plugin is one library file. API hosts load it to take HTTP requests and do very little; worker hosts load \
the same file and do the work. NATS lies between them.";

pub(super) const AFTER: &str = "\
Examples:
  cardcage dev --config config/dev.toml           everything on this machine
  cardcage check --config /etc/cardcage.toml      is all in order? starts nothing
  cardcage api --config /etc/cardcage.toml        in production: as many as you like
  cardcage worker --config /etc/cardcage.toml     in production: as many as you like

Settings, later ones win: defaults, --config files, plugins.d/*.toml beside the first file,
environment (CARDCAGE__API__LISTEN=…), --set api.listen=…

Exit codes: 0 done, 1 unexpected, 2 usage, 69 port or broker unavailable, 70 plugin refused,
75 drain deadline passed, 78 bad configuration.";

pub(super) const API: &str = "\
Examples:
  cardcage api --config cardcage.toml
  cardcage api --config cardcage.toml --config site.toml --set api.listen=0.0.0.0:8080
  CARDCAGE__LOG__FORMAT=json cardcage api --config cardcage.toml

It stays up without workers and without the broker: inline routes go on, the rest gets 503. SIGTERM drains \
and exits; a second signal exits now. /livez, /readyz and /metrics are on admin.listen (127.0.0.1:9464).";

pub(super) const WORKER: &str = "\
Examples:
  cardcage worker --config cardcage.toml
  cardcage worker --config cardcage.toml --set worker.task_concurrency=8

Without a broker it exits with 69 after broker.startup_timeout_ms. SIGTERM finishes or hands back what is held \
and exits; a second signal exits now. /livez, /readyz and /metrics are on admin.listen (127.0.0.1:9465).";

pub(super) const DEV: &str = "\
Examples:
  cardcage dev --config config/dev.toml
  cardcage dev --config config/dev.toml --set dev.broker_managed=false
      with a nats-server that you started

Ctrl-C ends all of it.";

pub(super) const CHECK: &str = "\
Examples:
  cardcage check --config cardcage.toml

It tells everything it finds, not only the first: mistakes in the configuration (exit 78), plugins that would \
be refused (70), a broker that is unreachable or unfit (69). It loads each plugin and lets it describe itself.";

pub(super) const INSPECT: &str = "\
Examples:
  cardcage plugin inspect target/release/libhello.so
  cardcage plugin inspect target/release/libhello.so --json

It reads the file only, so it is safe for files you do not trust.";

pub(super) const SHOW: &str = "\
Examples:
  cardcage tasks show 019283a4-5b6c-7d8e-9f01-23456789abcd --config cardcage.toml";

pub(super) const CANCEL: &str = "\
Examples:
  cardcage tasks cancel 019283a4-5b6c-7d8e-9f01-23456789abcd --config cardcage.toml

A task that waits ends `cancelled`. A running handler is told; what it returns within tasks.cancel_grace_ms decides, \
and then it is dropped. A task that has ended stays as it is (exit code 1).";

pub(super) const COMPLETIONS: &str = "\
Examples:
  cardcage completions bash > ~/.local/share/bash-completion/completions/cardcage
  cardcage completions fish > ~/.config/fish/completions/cardcage.fish";
