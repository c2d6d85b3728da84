//! A stack for signal handlers, for threads that have none.
//!
//! Where a thread's own stack has overflowed, the kernel can run a signal handler only on another one. The host's standard
//! library gives one to the threads that it starts; a library has a standard library of its own, which gives its
//! threads none, and without one a stack overflow leaves no word of whose it was. `thread_start` gives it to all.
//!
//! Invariants: a thread that has an alternate stack keeps it. Ours is unmapped when its thread ends, after the kernel was
//! told to forget it.
//!
//! What it refuses: a thread that the machine gives no memory for a stack goes on without one.

use memmap2::MmapMut;
use nix::libc;
use std::cell::RefCell;

/// Room for our handler and the one before it, which may print. Only what is used costs memory.
const BYTES: usize = 64 * 1024;

thread_local! {
    /// Ours, held until the thread ends.
    static STACK: RefCell<Option<AltStack>> = const { RefCell::new(None) };
}

struct AltStack {
    memory: MmapMut,
}

/// Sees to it that the calling thread has an alternate stack.
pub(super) fn ensure() {
    // A thread that is ending needs none any more.
    let _ = STACK.try_with(|stack| {
        if let Ok(mut stack) = stack.try_borrow_mut()
            && stack.is_none()
        {
            *stack = AltStack::install();
        }
    });
}

impl AltStack {
    /// `None` where the thread has one, or none can be had.
    fn install() -> Option<Self> {
        let mut had = empty();
        // SAFETY: with no new stack, `sigaltstack` only writes what there is to `had`. OWNERSHIP: ours, on this stack.
        // THREADS: it is about the calling thread alone.
        let told = unsafe { libc::sigaltstack(std::ptr::null(), &raw mut had) };
        if told != 0 || had.ss_flags & libc::SS_DISABLE == 0 {
            return None;
        }
        let mut memory = MmapMut::map_anon(BYTES).ok()?;
        let stack = libc::stack_t { ss_sp: memory.as_mut_ptr().cast(), ss_flags: 0, ss_size: BYTES };
        // SAFETY: the memory is `BYTES` long, writable, and stays mapped until `drop` has told the kernel to forget it.
        // OWNERSHIP: `memory` is kept in `Self` and read by nobody. THREADS: only this thread's signal handlers use it.
        let told = unsafe { libc::sigaltstack(&raw const stack, std::ptr::null_mut()) };
        (told == 0).then_some(Self { memory })
    }
}

impl Drop for AltStack {
    fn drop(&mut self) {
        let mut now = empty();
        // SAFETY: as in `install`. OWNERSHIP: ours. THREADS: a thread-local is dropped by its own thread.
        let told = unsafe { libc::sigaltstack(std::ptr::null(), &raw mut now) };
        // Somebody may have put another one in its place.
        if told == 0 && now.ss_sp == self.memory.as_mut_ptr().cast() {
            let none = empty();
            // SAFETY: it takes our stack away while no handler runs on it: this is no signal handler. OWNERSHIP and
            // THREADS: as above.
            let _ = unsafe { libc::sigaltstack(&raw const none, std::ptr::null_mut()) };
        }
    }
}

fn empty() -> libc::stack_t {
    libc::stack_t { ss_sp: std::ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn current() -> libc::stack_t {
        let mut now = empty();
        // SAFETY: as in `install`. OWNERSHIP and THREADS: as there.
        let told = unsafe { libc::sigaltstack(std::ptr::null(), &raw mut now) };
        assert_eq!(told, 0);
        now
    }

    #[test]
    fn a_thread_without_one_gets_one_and_a_thread_with_one_keeps_it() {
        std::thread::spawn(|| {
            let before = current();
            assert_eq!(before.ss_flags & libc::SS_DISABLE, 0, "the standard library's");
            ensure();
            assert_eq!(current().ss_sp, before.ss_sp);
        })
        .join()
        .unwrap();
        std::thread::spawn(|| {
            let none = empty();
            // SAFETY: as in `drop`. OWNERSHIP and THREADS: as there.
            let told = unsafe { libc::sigaltstack(&raw const none, std::ptr::null_mut()) };
            assert_eq!(told, 0);
            ensure();
            let ours = current();
            assert_eq!((ours.ss_flags & libc::SS_DISABLE, ours.ss_size), (0, BYTES));
            ensure();
            assert_eq!(current().ss_sp, ours.ss_sp, "one is enough");
        })
        .join()
        .unwrap();
    }
}
