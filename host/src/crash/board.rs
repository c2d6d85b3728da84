//! What is in flight in a child, in memory that outlives the child.
//!
//! The supervisor creates the board and passes its file to the child; both map it. The child claims an
//! entry before it starts a call or task and releases it after the answer is sent. The supervisor reads:
//! while the child lives, to renew leases; when it has died, to answer and hand back what it held.
//!
//! Invariants: exactly one process, the living child, claims; the supervisor resets the board between
//! two children, never under a living one. The board holds no payload and no secret: ids, names, subjects.

use super::entry::{Draft, Entry, Kind, TEXT_MAX};
use super::fault::{self, Fault};
use super::free_list::FreeList;
use super::libraries::{Mapped, Place};
use super::region::{self, Region, Slot};
use super::thread_slot::{self, Polling, ThreadSlot};
use rustix::time::ClockId;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How many calls and tasks a child can hold at once.
pub const ENTRIES: usize = 8192;

/// A board could not be made or mapped. The host's fault or the machine's; a retry seldom helps.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The file is no board of this version: wrong size, seals or magic.
    #[error("the file passed as the board is not one; supervisor and child must be the same executable")]
    NotABoard,
    /// The kernel refused to make the memory file.
    #[error("cannot make the shared memory for the board: {0}; is memory exhausted or memfd forbidden?")]
    Create(#[from] rustix::io::Errno),
    /// The kernel refused to map it.
    #[error("cannot map the board: {0}; is memory or address space exhausted?")]
    Map(#[source] std::io::Error),
}

/// An entry could not be claimed. Nothing was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// All [`ENTRIES`] are taken: answer "busy"; a retry elsewhere or later helps.
    #[error("the board is full: {ENTRIES} calls and tasks are in flight")]
    Full,
    /// Subject, plugin and name are longer than [`TEXT_MAX`] bytes together: a retry never helps.
    #[error("subject, plugin and name have {0} bytes together, more than {TEXT_MAX}")]
    TooLong(usize),
}

struct Shared {
    region: &'static Region,
    free: FreeList,
    fd: OwnedFd,
}

/// A mapping of the board. Copies are the same mapping; it lives as long as the process.
#[derive(Clone, Copy)]
pub struct Board {
    shared: &'static Shared,
}

impl std::fmt::Debug for Board {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Board").field("fd", &self.shared.fd).finish_non_exhaustive()
    }
}

impl Board {
    /// A new, empty board.
    ///
    /// # Errors
    /// When the kernel refuses the memory.
    pub fn create() -> Result<Self, OpenError> {
        Self::attach(region::create()?)
    }

    /// Maps a board that another process created.
    ///
    /// # Errors
    /// When the file is no board, or the kernel refuses to map it.
    pub fn attach(fd: OwnedFd) -> Result<Self, OpenError> {
        let region = region::map(fd.as_fd())?;
        let free = FreeList::full(u32::try_from(ENTRIES).unwrap_or(0));
        // Leaked as the mapping is: claims on the hot path need no reference count.
        Ok(Self { shared: Box::leak(Box::new(Shared { region, free, fd })) })
    }

    /// The memory file, to be passed to a child.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'static> {
        self.shared.fd.as_fd()
    }

    /// Notes that a call or task is in flight, until the claim is dropped.
    ///
    /// `subject` is the reply subject of a call or the ack subject of a task; `attempt` counts from 1.
    ///
    /// # Errors
    /// When the board is full, or the texts do not fit.
    #[allow(clippy::too_many_arguments, reason = "an entry's fields; a struct would only be taken apart")]
    pub fn claim(
        &self,
        kind: Kind,
        id: [u8; 16],
        subject: &str,
        plugin: &str,
        name: &str,
        attempt: u32,
        hard_deadline_unix_ms: u64,
    ) -> Result<Claim, ClaimError> {
        let since_unix_ms = unix_ms();
        let texts = [subject, plugin, name];
        let draft = Draft { kind, id, texts, attempt, hard_deadline_unix_ms, since_unix_ms };
        if draft.text_len() > TEXT_MAX {
            return Err(ClaimError::TooLong(draft.text_len()));
        }
        let index = self.shared.free.pop().ok_or(ClaimError::Full)?;
        let slot = self.shared.region.slots.get(index as usize).ok_or(ClaimError::Full)?;
        slot.publish(&draft);
        if kind.is_task() && attempt > 0 {
            self.shared.region.begun.fetch_add(1, Ordering::Relaxed);
        }
        Ok(Claim { shared: self.shared, index })
    }

    /// Copies of all entries in flight. Reads 4 MiB at most; entries being written are left out.
    #[must_use]
    pub fn live(&self) -> Vec<Entry> {
        self.shared.region.slots.iter().filter_map(Slot::read).collect()
    }

    /// The calling thread's slot for marking what it polls: the same one at every call, freed when the
    /// thread ends. `None` when too many threads have one. Valid for the process's life.
    #[must_use]
    pub fn thread_slot(&self) -> Option<&'static ThreadSlot> {
        let region = self.shared.region;
        self.held_slot().or_else(|| thread_slot::claim(&region.threads, &region.culprit))
    }

    /// The slot that the calling thread has already, if it has one.
    #[must_use]
    pub fn held_slot(&self) -> Option<&'static ThreadSlot> {
        thread_slot::held(&self.shared.region.threads)
    }

    /// What is being polled, by which threads.
    #[must_use]
    pub fn polling(&self) -> Vec<Polling> {
        self.shared.region.threads.iter().filter_map(ThreadSlot::polling).collect()
    }

    /// Name and id of the plugin's handlers that are being polled now, as the logs write them: where one of its threads is held
    /// up, one of them does it, or nothing that has a name.
    #[must_use]
    pub fn handlers_of(&self, plugin: u32) -> Vec<String> {
        let live = self.live();
        let of_it = self.polling().into_iter().filter(|thread| thread.plugin == plugin);
        let named = of_it.filter_map(|thread| {
            let entry = live.iter().find(|entry| entry.id == thread.id)?;
            let id = uuid::Uuid::from_bytes(entry.id);
            let id = if entry.kind.is_task() { id.to_string() } else { id.simple().to_string() };
            Some(format!("{} {id}", entry.name))
        });
        named.collect()
    }

    /// The kernel's id of the thread whose fault or `exit` ends the child, once that is known.
    #[must_use]
    pub fn culprit(&self) -> Option<u32> {
        Some(self.shared.region.culprit.load(Ordering::Acquire)).filter(|tid| *tid != 0)
    }

    /// Has the thread noted whose fault ends this process. Once per process, by the child.
    ///
    /// # Errors
    /// When the machine refuses the signal handlers.
    pub fn note_faults(&self) -> std::io::Result<()> {
        fault::note(self.shared.region)
    }

    /// Where the fault that ends the child struck, once one has.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        self.shared.region.fault.read()
    }

    /// Notes which addresses belong to the library of the plugin with this index.
    pub fn note_library(&self, plugin: u32, mapped: &Mapped) {
        self.shared.region.libraries.note(plugin, mapped);
    }

    /// In which plugin's code `address` lies.
    #[must_use]
    pub fn library_at(&self, address: u64) -> Option<Place> {
        self.shared.region.libraries.find(address)
    }

    /// How many attempts of tasks the child has started.
    #[must_use]
    pub fn tasks_begun(&self) -> u64 {
        self.shared.region.begun.load(Ordering::Relaxed)
    }

    /// A sign of life from the child.
    pub fn beat(&self) {
        self.shared.region.heartbeat_ms.store(monotonic_ms(), Ordering::Release);
    }

    /// How old the last sign of life is; `None` before the first.
    #[must_use]
    pub fn heartbeat_age(&self) -> Option<Duration> {
        let last = self.shared.region.heartbeat_ms.load(Ordering::Acquire);
        (last != 0).then(|| Duration::from_millis(monotonic_ms().saturating_sub(last)))
    }

    /// Empties the board. Only for the supervisor, only after the child is dead and reaped.
    pub fn reset(&self) {
        self.shared.region.slots.iter().for_each(Slot::clear);
        self.shared.region.threads.iter().for_each(ThreadSlot::clear);
        self.shared.region.culprit.store(0, Ordering::Release);
        self.shared.region.begun.store(0, Ordering::Release);
        self.shared.region.fault.clear();
        self.shared.region.libraries.clear();
        self.shared.region.heartbeat_ms.store(0, Ordering::Release);
    }
}

fn unix_ms() -> u64 {
    let now = rustix::time::clock_gettime(ClockId::Realtime);
    u64::try_from(now.tv_sec * 1000 + now.tv_nsec / 1_000_000).unwrap_or(0)
}

/// The same clock in every process of the machine, and no operator can turn it back.
fn monotonic_ms() -> u64 {
    let now = rustix::time::clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec * 1000 + now.tv_nsec / 1_000_000).unwrap_or(1).max(1)
}

/// A call or task noted as in flight. Dropping it frees the entry.
#[must_use = "dropping the claim at once says that nothing is in flight"]
pub struct Claim {
    shared: &'static Shared,
    index: u32,
}

impl Claim {
    /// The task that was noted as waiting is begun: as this kind, with an attempt counted from 1. It is on the board all the while.
    pub fn begin(&mut self, kind: Kind, attempt: u32, hard_deadline_unix_ms: u64) {
        debug_assert!(attempt > 0, "attempts are counted from 1");
        if let Some(slot) = self.slot() {
            slot.begin(kind, attempt, hard_deadline_unix_ms, unix_ms());
        }
        self.shared.region.begun.fetch_add(1, Ordering::Relaxed);
    }

    /// Looked up, for claims are kept where handlers run, by the thousand.
    fn slot(&self) -> Option<&'static Slot> {
        self.shared.region.slots.get(self.index as usize)
    }

    /// Frees the entry: the answer is sent, or the task is handed back.
    pub fn release(self) {
        drop(self);
    }
}

impl std::fmt::Debug for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Claim").field("index", &self.index).finish_non_exhaustive()
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(slot) = self.slot() {
            slot.clear();
        }
        self.shared.free.push(self.index);
    }
}

#[cfg(test)]
mod tests;
