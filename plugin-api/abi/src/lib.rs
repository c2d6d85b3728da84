//! The boundary between the Cardcage host and its plugins.
//!
//! # Why a crate of its own
//! Host and plugin are built by different people, at different times, with different compilers. This crate is all
//! they share: hand-written vtables as `abi_stable` prefix structs, plain structs for what crosses with each call,
//! and three owned types ([`FfiBytes`], [`FfiWaker`], [`FfiCallback`]) that free themselves on the side that made them.
//!
//! # Policy
//! The major version is the promise (docs/abi-policy.md, shown by host/tests/it/abi.rs):
//! * A plugin built against 1.x loads in every host of 1.y, y ≥ x.
//! * A plugin built against 1.x loads in a host of 1.y, y < x, too, and finds missing what came after y, unless it
//!   needs that and says so by `needs_abi` of [`export_manifest!`]: then it is refused before it runs.
//! * Another major is refused before it runs.
//!
//! # Rules of change (append only)
//! * Vtables ([`Host`], [`Plugin`], [`Root`]) grow at the end only, after `#[sabi(last_prefix_field)]`, which never
//!   moves. Each appended field names the minor version that brought it and is `#[sabi(missing_field(option))]`.
//! * Plain structs ([`CallHead`], [`Reply`], …) never change: what is new goes into their `ext` block.
//! * Codes ([`code`]) and pseudo-headers ([`headers`]) are never renumbered or reused.
//! * Nothing is renamed or reordered, no type is replaced: `abi_stable` compares names and layouts.
//! * `tests/layout.txt` is the committed layout; a test compares it. A change to it is a change of the boundary.
//!
//! # What it refuses
//! No `sabi_trait`, no enum that may grow, no unwinding, no memory freed by the other side's allocator, no futures.

// Tests read better with plain indexing and unwrap; clippy.toml allows both there.
#![allow(non_local_definitions)] // abi_stable's derive

pub mod bytes;
pub mod code;
mod head;
pub mod headers;
pub mod manifest;
mod vtable;
mod wake;

#[doc(hidden)]
pub use abi_stable;
pub use bytes::FfiBytes;
pub use head::{
    AskHead, CallHead, CallOut, CallToken, EnqueueHead, HostCtx, InitHead, InitReply, Instance, LogRecord,
    MetricRecord, Reply, Running, SpanRecord, TaskHead, TaskNote, TaskReply, TaskToken,
};
#[doc(hidden)]
pub use vtable::{construct, header};
pub use vtable::{Host, HostRef, Plugin, PluginRef, Root, RootRef};
pub use wake::{Answer, FfiCallback, FfiWaker};

/// The version of the boundary.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
