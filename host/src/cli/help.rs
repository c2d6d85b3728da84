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

Exit codes: 0 done, 1 not found, or unexpected, 2 usage, 3 to 5 how a task ended (tasks run),
6 a roll-out would break something (check --against), 69 port or broker unavailable, 70 plugin
refused, 75 drain deadline passed, 78 bad configuration.";

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
  cardcage dev --plugin .
      with the plugin whose Cargo.toml is here, beside those of the configuration

A plugin of --plugin is built by cargo in its debug profile, and again whenever a file in its folder is saved. Where it does not \
build, cargo says why, and the version from before goes on serving; one that has never been built joins the others as soon as it \
builds. A library that has changed, built here or elsewhere, is \
taken over as by `cardcage reload`: no request is refused, and tasks that run are finished. One that is written anew with the same \
bytes is not. \
Its settings are those of its section [plugins.<name>], whose `library` it takes the place of.

Ctrl-C ends all of it.

Exit codes: 0 ended by Ctrl-C, 2 a folder that is no plugin's, or two of one plugin, 69 a port is taken, or cargo or nats-server is \
missing, 70 a library was refused, 78 bad configuration.";

pub(super) const CHECK: &str = "\
Examples:
  cardcage check --config cardcage.toml
  cardcage check --config cardcage.toml --against broker
      before a deployment: what of the live workers' routes, waiting tasks and schedules would break?
  cardcage check --config cardcage.toml --save-manifest deployed.json
  cardcage check --config next.toml --against deployed.json
      the same without that broker: routes, schemas and schedules, but no waiting tasks

It tells everything it finds, not only the first: mistakes in the configuration (exit 78), plugins that would \
be refused (70), a broker that is unreachable or unfit (69), and, with --against, what would break (6). It loads each plugin and lets it describe itself.";

pub(super) const INSPECT: &str = "\
Examples:
  cardcage plugin inspect target/release/libhello.so
  cardcage plugin inspect target/release/libhello.so --dependencies
  cardcage plugin inspect target/release/libhello.so --json
  cardcage plugin inspect libhello.so --config cardcage.toml
      holds it against trusted keys and the lock

It reads the file only, so it is safe for files you do not trust: manifest, whether this host speaks the library's ABI, what \
it needs of this machine (glibc, shared libraries), what it was built from (where it was built with `cargo auditable`), its hash.

Exit codes: 0 this host would load it, 70 it would not, and the sentence says why.";

pub(super) const DESCRIBE: &str = "\
Examples:
  cardcage plugin describe target/release/libhello.so
  cardcage plugin describe target/release/libhello.so --json | jq '.tasks[] | {name, input_schema}'

It runs the library's code, in a short-lived process: its constructors and `describe`, not `init`. Text shows the schemas of bodies; \
--json has all of it, as hosts take it, with the plugin's part of the OpenAPI document.

Exit codes: 0 done, 70 the library was refused, hung or crashed, 78 bad configuration.";

pub(super) const PLUGIN_LOCK: &str = "\
Examples:
  cardcage plugin lock --config cardcage.toml
  cardcage plugin lock --config cardcage.toml --out /etc/cardcage/plugins.lock

It lists name, version, target, SHA-256, ABI, SDK, git revision and signer of every configured library, and says what has \
changed. Commit the file beside the configuration; hosts with plugins.require_lock = \"plugins.lock\" then load nothing else. \
Entries of the same plugins for other targets are kept.

Exit codes: 0 written, 1 it cannot be written, 2 what is there is no lock, 70 a library would be refused, so nothing is written, \
78 bad configuration.";

pub(super) const PLUGIN_VERIFY: &str = "\
Examples:
  cardcage plugin verify --config cardcage.toml
  cardcage plugin verify --config cardcage.toml --set plugins.signatures=require
  cardcage plugin verify --config cardcage.toml /tmp/libhello.so    (one file, before it is put in place)
  cardcage plugin verify --config cardcage.toml --lock plugins.lock --json | jq '.plugins[].mismatches'

Every mismatch is told, not only the first. It reads files only.

Exit codes: 0 hosts would take every file, 70 they would not, 78 bad configuration.";

pub(super) const PLUGIN_SIGN: &str = "\
Examples:
  cardcage plugin sign target/release/libhello.so --key plugins.key
  cardcage plugin sign libhello.so --key plugins.key --password-file /run/secrets/key-password

It writes libhello.so.minisig, which goes where the library goes. `minisign -V` accepts it, and hosts accept what `minisign -S` \
signs.

Exit codes: 0 signed, 1 file, key or password will not do, and the sentence says which.";

pub(super) const PLUGIN_KEYGEN: &str = "\
Examples:
  cardcage plugin keygen --key plugins.key
  cardcage plugin keygen --key ci.key --no-password

The secret key is written for its owner's eyes only, and never over another file. The public key is what hosts need, in \
plugins.trusted_keys.

Exit codes: 0 done, 1 nothing was written, and the sentence says why.";

pub(super) const SHOW: &str = "\
Examples:
  cardcage tasks show 019283a4-5b6c-7d8e-9f01-23456789abcd --config cardcage.toml";

pub(super) const CANCEL: &str = "\
Examples:
  cardcage tasks cancel 019283a4-5b6c-7d8e-9f01-23456789abcd --config cardcage.toml

A task that waits ends `cancelled`. A running handler is told; what it returns within tasks.cancel_grace_ms decides, \
and then it is dropped. A task that has ended stays as it is (exit code 1).";

pub(super) const TASKS_LIST: &str = "\
Examples:
  cardcage tasks list --config cardcage.toml
  cardcage tasks list --plugin orders --state retrying --config cardcage.toml
  cardcage tasks list --state failed --json --config cardcage.toml | jq -r '.tasks[].id'

It looks at records, queues and schedule, the latest change first, and says where it was cut: at --limit, or \
after 20,000 of each.";

pub(super) const TASKS_WHY: &str = "\
Examples:
  cardcage tasks why 019283a4-5b6c-7d8e-9f01-23456789abcd --config cardcage.toml
      waiting: no live worker has refunds v2 (3 have v1)";

pub(super) const TASKS_RETRY: &str = "\
Examples:
  cardcage tasks retry 019283a4-5b6c-7d8e-9f01-23456789abcd --config cardcage.toml

A task that waits for its time, between attempts or from the start, becomes due now. A task that failed is replayed \
as a new one, as `cardcage dead replay` does it; one that is parked goes back into its queue. Exit code 1: there is nothing to retry, and the sentence says why.";

pub(super) const TASKS_ENQUEUE: &str = "\
Examples:
  cardcage tasks enqueue orders.fulfil --json '{\"order_id\":\"7\"}' --config cardcage.toml
  cardcage tasks enqueue orders.fulfil --json @order.json --key order-7 --delay 10s --config cardcage.toml

The receipt is written as JSON once the broker has stored the task. Where the plugin is in the configuration, its \
library is asked for the task's schema (in a process of its own) and the body is checked; else the plugin's version \
is that of a live worker, and the body is checked by the worker.

Exit codes: 0 stored, 1 no such plugin or task, 2 the body does not fit, 69 not stored: broker unavailable or queue \
full, 70 the library was refused.";

pub(super) const TASKS_RUN: &str = "\
Examples:
  cardcage tasks run orders.fulfil --json '{\"order_id\":\"7\"}' --config cardcage.toml
  cardcage tasks run orders.fulfil --json @order.json --attempt 3 --config cardcage.toml
  rust-gdb --args cardcage tasks run orders.fulfil --json @order.json --config cardcage.toml
      RUST_BACKTRACE=1 shows where it panics

The plugin is loaded into this very process, with its settings from the configuration, and the handler runs once. What it \
would enqueue is shown and not published; calls to other plugins are refused. It is told its deadline, and not ended at \
it. Ctrl-C cancels the task, a second one gives it up. Logs go to stderr, the outcome to stdout as JSON.

Exit codes: 0 succeeded, 1 no such plugin or task, 2 the body does not fit, 3 failed, 4 asked to be tried again or panicked, \
5 discarded, 70 the library was refused, 78 bad configuration.";

pub(super) const SCHEDULES_LIST: &str = "\
Examples:
  cardcage schedules list --config cardcage.toml
  cardcage schedules list --json --config cardcage.toml | jq -r '.schedules[] | select(.state != \"active\") | .schedule'

STATE is active, paused (by an operator), absent (no worker has its plugin for long) or disabled (by the configuration). \
NEXT is empty where it cannot be known: an interval whose slots no worker takes up.";

pub(super) const SCHEDULES_PAUSE: &str = "\
Examples:
  cardcage schedules pause orders.nightly --config cardcage.toml

What it has started goes on. The pause is kept by the broker: it outlives hosts, broker and releases of the plugin.";

pub(super) const SCHEDULES_RESUME: &str = "\
Examples:
  cardcage schedules resume orders.nightly --config cardcage.toml

Slots that passed meanwhile are not made up for. An interval is counted from now.";

pub(super) const SCHEDULES_RUN: &str = "\
Examples:
  cardcage schedules run orders.nightly --config cardcage.toml

It starts a task beside the slots, whether or not the schedule is paused and whether or not an earlier task has ended; a unique \
key still holds. Without a live worker the task waits in its queue.";

pub(super) const WORKERS_LIST: &str = "\
Examples:
  cardcage workers list --config cardcage.toml
  cardcage workers list --json --config cardcage.toml | jq -r '.workers[] | select(.consuming | not) | .instance'

Every worker's supervisor is asked, and answers also while its handlers are all busy. BUSY counts attempts under \
way, of so many that can run at once.";

pub(super) const QUEUES_LIST: &str = "\
Examples:
  cardcage queues list --config cardcage.toml
  cardcage queues list --plugin orders --json --config cardcage.toml

One line per task and major of a plugin. WAITING: no worker holds it; LEASED: delivered and not done; DELAYED: waits \
for its time; DEAD: dead letters, of all majors; OLDEST: how long the oldest one in the queue has been there; WORKERS: \
live ones that take it.";

pub(super) const QUEUES_PAUSE: &str = "\
Examples:
  cardcage queues pause orders.fulfil --for 1h --config cardcage.toml
  cardcage queues pause orders --config cardcage.toml
      all tasks of orders, until `cardcage queues resume orders`

Tasks are still accepted, and wait; what workers hold already goes on. The pause is kept by the broker: it outlives hosts \
and broker, and a starting host does not lift it. A major version that no worker has run yet is not paused by it.";

pub(super) const QUEUES_LIMIT: &str = "\
Examples:
  cardcage queues limit orders.fulfil --rate 5/s --config cardcage.toml
  cardcage queues limit orders.fulfil --max-running 2 --config cardcage.toml
  cardcage queues limit orders.fulfil --rate declared --max-running declared --config cardcage.toml

Holds for the task in all majors, in every worker within a second or two; what runs already goes on. It is kept by the broker and \
stands over what plugin and configuration declare, also after restarts, until it is set back to `declared`.";

pub(super) const QUEUES_RESUME: &str = "\
Examples:
  cardcage queues resume orders.fulfil --config cardcage.toml";

pub(super) const QUEUES_PURGE: &str = "\
Examples:
  cardcage queues purge orders.fulfil --dry-run --config cardcage.toml
  cardcage queues purge orders.fulfil --yes --config cardcage.toml
  cardcage queues purge orders --delayed --yes --config cardcage.toml

Every task that waits in the queue ends `cancelled`, with the error code `purged` in its record; with --delayed also those \
that wait for their time. What a worker holds goes on. Purging takes a write per task; one that was cut off can be made \
again. Pause the queue first, so that no worker takes meanwhile what is to go.

Exit codes: 0 done, 1 no such queue, 2 neither --yes nor --dry-run, 69 broker unavailable.";

pub(super) const DEAD_LIST: &str = "\
Examples:
  cardcage dead list --config cardcage.toml
  cardcage dead list --plugin orders --code lms_down --since 2h --config cardcage.toml
  cardcage dead list --json --config cardcage.toml | jq -r '.letters[].id'

A task that ended `failed` leaves a dead letter, which is kept for tasks.dead_max_age_s. A long list is cut at \
--limit, and says so.";

pub(super) const DEAD_SHOW: &str = "\
Examples:
  cardcage dead show 019283a4-5b6c-7d8e-9f01-23456789abcd --config cardcage.toml";

pub(super) const DEAD_REPLAY: &str = "\
Examples:
  cardcage dead replay 019283a4-5b6c-7d8e-9f01-23456789abcd --config cardcage.toml
  cardcage dead replay --plugin orders --code lms_down --dry-run --config cardcage.toml
      how many are there?
  cardcage dead replay --plugin orders --code lms_down --yes --config cardcage.toml

Each becomes a new task with the old one as its parent; its attempts begin anew, and an expiry is dropped. The \
letter is removed once the broker has stored the new task. The new id depends only on the old one, so a replay that \
was cut off can simply be made again: nothing runs twice. Letters that arise meanwhile are left alone.

Exit codes: 0 done, 1 no such letter or one that cannot be replayed, 2 several and neither --yes nor --dry-run, \
69 broker unavailable or a queue full.";

pub(super) const DEAD_PURGE: &str = "\
Examples:
  cardcage dead purge 019283a4-5b6c-7d8e-9f01-23456789abcd --config cardcage.toml
  cardcage dead purge --plugin orders --task fulfil --dry-run --config cardcage.toml
  cardcage dead purge --all --yes --config cardcage.toml

What is purged cannot be replayed. Records of tasks are not touched.

Exit codes: 0 done, 1 no such letter, 2 several and neither --yes nor --dry-run, 69 broker unavailable.";

pub(super) const PLUGIN_NEW: &str = "\
Examples:
  cardcage plugin new shop
      into ./shop, with the sources of the SDK in shop/vendor: needs nothing else of Cardcage to build
  cardcage plugin new shop --path ~/src/shop-plugin --sdk ~/src/cardcage
      with the SDK of a checkout, for those who work on both

The folder must be absent or empty. In it, `cargo test` runs the tests and `cargo build` makes the library.

Exit codes: 0 done, 1 the files could not be written, 2 a name, folder or SDK that will not do.";

pub(super) const PLUGIN_PACKAGE: &str = "\
Examples:
  cardcage plugin package
      in the plugin's folder: writes packages/NAME-VERSION-TARGET.tar.zst
  cardcage plugin package --path ~/src/shop-plugin --out /srv/packages -- --locked
      what follows -- goes to cargo
  tar --zstd -xf packages/shop-1.0.0-x86_64-unknown-linux-gnu.tar.zst
  (cd shop-1.0.0-x86_64-unknown-linux-gnu && sha256sum -c SHA256SUMS)
      on the host

The library carries the git revision, with `-dirty` where the folder has changes that are not committed, and the list of \
crates that it was built from, which cargo-auditable writes. The same library always gives the same archive.

Exit codes: 0 done, 1 the build failed or cargo-auditable is missing, 2 no such plugin, 70 a library that this host refuses.";

pub(super) const PLUGIN_RELEASE: &str = "\
Examples:
  cardcage plugin release orders --config cardcage.toml
  cardcage plugin release orders --version 1.4.2 --config cardcage.toml

A plugin version of which different tasks crashed their worker (tasks.quarantine_after of them within \
tasks.quarantine_window_s) gets neither tasks nor calls any more. Its tasks wait in their queues. A release holds for \
all workers within seconds, and the count of its crashes begins anew. Workers with another version need none.

Exit codes: 0 done, 1 nothing of it is quarantined, 69 broker unavailable.";

pub(super) const COMPLETIONS: &str = "\
Examples:
  cardcage completions bash > ~/.local/share/bash-completion/completions/cardcage
  cardcage completions fish > ~/.config/fish/completions/cardcage.fish";
