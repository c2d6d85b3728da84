//! The commands that people give: what each does, up to its exit code. `main` parses and comes here.
//!
//! | command | room |
//! |---|---|
//! | `cardcage api`, `cardcage worker` | [`host`]: a role's supervisor |
//! | `cardcage plugin inspect` | [`inspect`]: reads a library, runs none of it |
//! | `cardcage plugin describe` | [`plugin_describe`]: what a library declares, by a child that may die |
//! | `cardcage plugin lock` | [`plugin_lock`]: writes down which files the set is |
//! | `cardcage plugin verify` | [`plugin_verify`]: holds the set against lock and signatures |
//! | `cardcage plugin sign`, `keygen` | [`plugin_sign`]: minisign's signatures and keys |
//! | `cardcage plugin new` | [`plugin_new`]: the repo of a new plugin |
//! | `cardcage plugin package` | [`plugin_package`]: builds a plugin and packs it |
//! | `cardcage plugin release` | [`plugin_release`]: lifts a quarantine |
//! | `cardcage check` | [`check`]: configuration, plugins and broker, without serving |
//! | `cardcage reload` | [`reload`]: another plugin set in running hosts |
//! | `cardcage dev` | [`dev`]: nats-server, api and worker on one machine |
//! | `cardcage tasks show` | [`tasks_show`]: one task's record |
//! | `cardcage tasks cancel` | [`tasks_cancel`]: cancels one task |
//! | `cardcage tasks list`, `why`, `retry`, `enqueue` | [`tasks_list`], [`tasks_why`], [`tasks_retry`], [`tasks_enqueue`] |
//! | `cardcage tasks run` | [`tasks_run`]: one task in the foreground, without a broker |
//! | `cardcage instances list` | [`instances_list`]: which versions run where, and what nobody runs |
//! | `cardcage workers list` | [`workers_list`]: who is there |
//! | `cardcage queues …` | [`queues`]: queues, listed, paused, resumed and purged |
//! | `cardcage schedules …` | [`schedules`]: schedules, listed, paused, resumed and run |
//! | `cardcage dead …` | [`dead`]: dead letters, read, replayed and removed |
//! | hidden: `describe-child` | [`crate::describer::child`]: plugin code on behalf of others, in a process that may die |
//! | hidden: `dev-broker-guard` | [`dev::guard`]: the nats-server's keeper on behalf of `dev` |
//! | hidden: `dev-build-guard` | [`dev::build_guard`]: the keeper of cargo on behalf of `dev` |
//!
//! Invariants: a command's result goes to stdout, what went wrong to stderr; nothing a plugin or a file says
//! reaches a terminal with control characters in it; every command ends with an [`crate::exit::Exit`].
//!
//! What it refuses to do: no command leaves a process behind, and only `describe-child` and `tasks run` load a plugin into
//! their own process.

mod admin_client;
mod cargo_build;
pub mod check;
pub mod dead;
pub mod dev;
mod executable;
pub mod host;
pub mod inspect;
pub mod instances_list;
mod lock_file;
mod output;
pub mod parent_pipe;
pub mod plugin_describe;
pub mod plugin_lock;
pub mod plugin_new;
pub mod plugin_package;
pub mod plugin_release;
pub mod plugin_sign;
pub mod plugin_verify;
mod progress;
pub mod queues;
pub mod reload;
pub mod schedules;
mod session;
pub mod tasks_cancel;
pub mod tasks_enqueue;
pub mod tasks_list;
pub mod tasks_retry;
pub mod tasks_run;
pub mod tasks_show;
pub mod tasks_why;
pub mod workers_list;

/// How long a pause lasts, as the rest of a sentence. One without an end is stored as one that nobody will see the end of.
fn until(at: cardcage_protocol::Timestamp) -> String {
    const FOR_EVER_MS: u64 = 50 * 366 * 86_400_000;
    let now = cardcage_protocol::Timestamp::now();
    if at.unix_ms().saturating_sub(now.unix_ms()) > FOR_EVER_MS {
        "until it is resumed".to_owned()
    } else {
        format!("until {at}")
    }
}
