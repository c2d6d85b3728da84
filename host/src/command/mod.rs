//! The commands that people give: what each does, up to its exit code. `main` parses and comes here.
//!
//! | command | room |
//! |---|---|
//! | `cardcage api`, `cardcage worker` | [`host`]: a role's supervisor |
//! | `cardcage plugin inspect` | [`inspect`]: reads a library, runs none of it |
//! | `cardcage check` | [`check`]: configuration, plugins and broker, without serving |
//! | `cardcage dev` | [`dev`]: nats-server, api and worker on one machine |
//! | `cardcage tasks show` | [`tasks_show`]: one task's record |
//! | `cardcage dead …` | [`dead`]: dead letters, read, replayed and removed |
//! | hidden: `describe-child` | [`describe_child`]: plugin code on behalf of `check`, in a process that may die |
//! | hidden: `dev-broker-guard` | [`dev::guard`]: the nats-server's keeper on behalf of `dev` |
//!
//! Invariants: a command's result goes to stdout, what went wrong to stderr; nothing a plugin or a file says
//! reaches a terminal with control characters in it; every command ends with an [`crate::exit::Exit`].
//!
//! What it refuses to do: no command leaves a process behind, and only `describe-child` loads a plugin into its
//! own process.

pub mod check;
pub mod dead;
pub mod describe_child;
pub mod dev;
mod executable;
pub mod host;
pub mod inspect;
mod output;
pub mod parent_pipe;
mod progress;
mod session;
pub mod tasks_show;
