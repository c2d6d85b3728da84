//! Notes whose fault ends the process: the thread that a fatal signal hits says so on the board, and then dies of the
//! signal as it would have without us.
//!
//! Which contexts were being polled is not enough: while one thread faults, others poll what is innocent, and a thread
//! that a plugin started for itself polls nothing at all.
//!
//! Invariants: the handler makes one system call, stores one word, and puts back what stood there before; it takes no
//! lock and allocates nothing. The signal, its core file and a message of the earlier handler stay what they were.
//!
//! What it refuses: it looks at no address and no stack, and it ignores signals that another process sends, which
//! hit any thread.

use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, raise, sigaction};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// What a thread's own doing can bring upon it.
const FATAL: [Signal; 7] = [
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGILL,
    Signal::SIGFPE,
    Signal::SIGTRAP,
    Signal::SIGSYS,
    Signal::SIGABRT,
];

/// Sent by a thread of this process, as `abort` does.
const BY_A_THREAD: i32 = libc::SI_TKILL;

static CULPRIT: OnceLock<&'static AtomicU32> = OnceLock::new();
/// What stood there before, in the order of [`FATAL`].
static BEFORE: [OnceLock<SigAction>; FATAL.len()] = [const { OnceLock::new() }; FATAL.len()];

/// Has the thread noted in `culprit` that a fatal signal hits first. A second call changes nothing.
pub(super) fn note(culprit: &'static AtomicU32) -> std::io::Result<()> {
    if CULPRIT.set(culprit).is_err() {
        return Ok(());
    }
    // On the thread's alternative stack where it has one: the fault may be the end of its own.
    let flags = SaFlags::SA_SIGINFO | SaFlags::SA_ONSTACK;
    let action = SigAction::new(SigHandler::SigAction(hit), flags, SigSet::empty());
    for (signal, before) in FATAL.into_iter().zip(&BEFORE) {
        // SAFETY: `hit` does only what a signal handler may: see there. OWNERSHIP: the action is copied by the kernel.
        // THREADS: any thread may run it, several at once; it shares atomics and cells that were filled before, or
        // are found empty.
        let old = unsafe { sigaction(signal, &action) }?;
        let _ = before.set(old);
    }
    Ok(())
}

extern "C" fn hit(signal: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid `siginfo_t` to a handler that was installed with `SA_SIGINFO`, for as long as
    // the handler runs. OWNERSHIP: the kernel's. THREADS: it lies on this thread's stack.
    let code = unsafe { info.as_ref() }.map_or(0, |info| info.si_code);
    // Above zero: the kernel's word for a fault.
    if code > 0 || code == BY_A_THREAD {
        let tid = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
        if let Some(culprit) = CULPRIT.get() {
            let _ = culprit.compare_exchange(0, tid, Ordering::Release, Ordering::Relaxed);
        }
    }
    for (fatal, before) in FATAL.into_iter().zip(&BEFORE) {
        if fatal as libc::c_int == signal {
            let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
            // SAFETY: it puts back what the kernel itself had told, or its default. `sigaction` may be called in a
            // handler. OWNERSHIP: copied by the kernel. THREADS: several may do the same, with the same result.
            let _ = unsafe { sigaction(fatal, before.get().unwrap_or(&default)) };
            // A fault comes again when the thread goes on; what was sent must be sent again.
            if code <= 0 {
                let _ = raise(fatal);
            }
        }
    }
}
