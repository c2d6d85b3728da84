//! The board's shared memory: its layout, and the one unsafe step there is.
//!
//! Everything in it is an atomic, so that every bit pattern is valid, and a concurrent write by another
//! process (or by a plugin gone wild) is a wrong value at worst, never undefined behaviour.
//!
//! A mapping is never undone: it lives as long as the process. So references into it are `'static` and
//! may be handed to plugins. A process makes one.

use super::board::{ENTRIES, OpenError};
use super::fault::FaultNote;
use super::libraries::Libraries;
use super::thread_slot::{THREAD_SLOTS, ThreadSlot};
use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{MemfdFlags, SealFlags};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Says that the memory is a board of this layout. Change it with the layout.
const MAGIC: u64 = u64::from_be_bytes(*b"cardbd04");

/// 64-bit words of an entry beside its state.
pub(super) const WORDS: usize = 63;

/// One entry: 512 bytes.
#[repr(C, align(64))]
pub(super) struct Slot {
    /// Lower byte: one of the states in `entry`; the rest: a generation that grows with every claim and release.
    pub(super) state: AtomicU64,
    /// The entry, packed (see `entry`).
    pub(super) words: [AtomicU64; WORDS],
}

/// The whole board.
#[repr(C, align(4096))]
pub(super) struct Region {
    pub(super) magic: AtomicU64,
    /// `CLOCK_MONOTONIC` in ms of the child's last sign of life; 0 = none yet.
    pub(super) heartbeat_ms: AtomicU64,
    /// The kernel's id of the thread whose fault or `exit` ends the child; 0 = none known.
    pub(super) culprit: AtomicU32,
    /// What that thread noted of its fault.
    pub(super) fault: FaultNote,
    pub(super) libraries: Libraries,
    /// Attempts that were started.
    pub(super) begun: AtomicU64,
    pub(super) threads: [ThreadSlot; THREAD_SLOTS],
    pub(super) slots: [Slot; ENTRIES],
}

/// Makes the shared memory: zeroed, and sealed so that no child can shrink it under its supervisor's
/// feet (a read past the end would be a SIGBUS).
pub(super) fn create() -> Result<OwnedFd, OpenError> {
    let fd = rustix::fs::memfd_create("cardcage-board", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    rustix::fs::ftruncate(&fd, size_of::<Region>() as u64)?;
    rustix::io::pwrite(&fd, &MAGIC.to_ne_bytes(), 0)?;
    rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(fd)
}

/// Maps a board for the rest of the process's life.
pub(super) fn map(fd: BorrowedFd<'_>) -> Result<&'static Region, OpenError> {
    // Both checks come before the mapping is read: a shorter file would be a SIGBUS.
    let bytes = rustix::fs::fstat(fd)?.st_size;
    let seals = rustix::fs::fcntl_get_seals(fd).unwrap_or(SealFlags::empty());
    if u64::try_from(bytes) != Ok(size_of::<Region>() as u64) || !seals.contains(SealFlags::SHRINK) {
        return Err(OpenError::NotABoard);
    }
    let map: MmapRaw = MmapOptions::new().len(size_of::<Region>()).map_raw(&fd).map_err(OpenError::Map)?;
    let start = map.as_mut_ptr().cast::<Region>();
    // The mapping is given to the process: nothing unmaps it.
    std::mem::forget(map);
    // SAFETY: the mapping is `size_of::<Region>()` bytes long, readable and writable, and page-aligned,
    // which is the alignment of `Region`. The file is exactly that long and sealed against shrinking, so
    // no access can fault. `Region` consists of atomics only, for which every bit pattern is valid and
    // which may change under a shared reference.
    // OWNERSHIP: the mapping was forgotten above and is owned by nobody; it is never unmapped, hence
    // `'static`. Only shared references to it exist, in this and every other process.
    // THREADS: all access is atomic, so any thread of any process may hold the reference.
    let region: &'static Region = unsafe { &*start };
    if region.magic.load(Ordering::Acquire) != MAGIC {
        return Err(OpenError::NotABoard);
    }
    Ok(region)
}
