//! Where the code of the plugins' libraries lies in the child's memory, so that an address tells whose code it is.
//!
//! The child notes each library before it runs; its signal handler and its supervisor look addresses up. Only what can be
//! executed counts: a stack is full of pointers to a library's data, and none of them was returned to.
//!
//! Invariant: looking up reads atomics and nothing else, so that a signal handler may do it.
//!
//! What it refuses: more than [`LIBRARIES`] plugins; those beyond are not told by their addresses.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many libraries can be noted.
pub const LIBRARIES: usize = 128;

/// Where a library lies in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// From where its own addresses count.
    pub base: u64,
    /// What of it can be executed.
    pub code: Range<u64>,
}

#[repr(C)]
#[derive(Debug)]
struct Span {
    base: AtomicU64,
    start: AtomicU64,
    /// 0 while nothing is noted.
    end: AtomicU64,
}

/// The libraries, by the plugins' indices.
#[repr(C)]
#[derive(Debug)]
pub(super) struct Libraries([Span; LIBRARIES]);

/// A place in a plugin's library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The plugin's index in the child, counted from 1.
    pub plugin: u32,
    /// The distance from where the library begins: what `addr2line` asks for.
    pub offset: u64,
}

impl Libraries {
    /// Notes where the library of a plugin lies.
    pub(super) fn note(&self, plugin: u32, mapped: &Mapped) {
        let place = usize::try_from(plugin).ok().and_then(|plugin| plugin.checked_sub(1));
        if let Some(noted) = place.and_then(|place| self.0.get(place)) {
            noted.base.store(mapped.base, Ordering::Relaxed);
            noted.start.store(mapped.code.start, Ordering::Relaxed);
            noted.end.store(mapped.code.end, Ordering::Release);
        }
    }

    /// Whose code stands at `address`.
    pub(super) fn find(&self, address: u64) -> Option<Place> {
        let within = |span: &Span| {
            let end = span.end.load(Ordering::Acquire);
            (span.start.load(Ordering::Relaxed)..end).contains(&address)
        };
        let place = self.0.iter().position(within)?;
        let base = self.0.get(place)?.base.load(Ordering::Relaxed);
        let plugin = u32::try_from(place + 1).ok()?;
        Some(Place { plugin, offset: address.checked_sub(base)? })
    }

    pub(super) fn clear(&self) {
        for span in &self.0 {
            span.end.store(0, Ordering::Release);
            span.start.store(0, Ordering::Relaxed);
            span.base.store(0, Ordering::Relaxed);
        }
    }
}
