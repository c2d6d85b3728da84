//! Has every thread that starts in this process look for an alternate stack first, whoever starts it.
//!
//! A thread that a plugin starts for itself asks nobody. But its library finds `pthread_create` in the executable before it
//! finds the C library's, as an interposing allocator's `malloc` is found: ours, which starts the thread and greets it.
//! `build.rs` exports it.
//!
//! Invariants: a thread is started with the attributes and the argument it was to have, and its routine's value is its value. Where
//! no faults are noted, as in commands, the C library's own function does all.
//!
//! What it refuses: where there is no other `pthread_create`, none is started (`EAGAIN`, as where the machine has no thread left).

use super::{alt_stack, fault};
use nix::libc;
use std::sync::OnceLock;

/// May be unwound by `pthread_exit`, which is why it is `C-unwind`.
type Routine = extern "C-unwind" fn(*mut libc::c_void) -> *mut libc::c_void;
type Create = unsafe extern "C" fn(
    *mut libc::pthread_t,
    *const libc::pthread_attr_t,
    Routine,
    *mut libc::c_void,
) -> libc::c_int;

/// What a new thread is to do.
struct Start {
    routine: Routine,
    argument: *mut libc::c_void,
}

/// As POSIX has it, see there.
///
/// # Safety
/// As the C library's: `thread` can be written, `attributes` is null or initialised, and `routine` may run on another thread with
/// `argument`.
// SAFETY: the name is the C library's, and so are signature and meaning: what links to either gets what it asked for.
// OWNERSHIP: the arguments are passed on. THREADS: any thread may call it.
#[unsafe(no_mangle)]
unsafe extern "C" fn pthread_create(
    thread: *mut libc::pthread_t,
    attributes: *const libc::pthread_attr_t,
    routine: Routine,
    argument: *mut libc::c_void,
) -> libc::c_int {
    let Some(create) = next() else { return libc::EAGAIN };
    if !fault::is_noted() {
        // SAFETY: what our caller promises is what it asks for. OWNERSHIP and THREADS: as for ourselves.
        return unsafe { create(thread, attributes, routine, argument) };
    }
    let start = Box::into_raw(Box::new(Start { routine, argument }));
    // SAFETY: as above, and `start` is a pointer that `greeted` may take. OWNERSHIP: `start` is the new thread's, or ours where
    // there is none. THREADS: our caller lets `argument` go to another thread.
    let refused = unsafe { create(thread, attributes, greeted, start.cast()) };
    if refused != 0 {
        // SAFETY: it came from `Box::into_raw` above, and no thread has it. OWNERSHIP: ours again. THREADS: nobody else's.
        drop(unsafe { Box::from_raw(start) });
    }
    refused
}

/// The first thing that runs on a new thread. Nothing is left to be dropped when the routine begins: it may never return.
extern "C-unwind" fn greeted(start: *mut libc::c_void) -> *mut libc::c_void {
    // SAFETY: `pthread_create` above made it of a box, and passes it to one thread once. OWNERSHIP: this thread's.
    // THREADS: its maker let go of it.
    let Start { routine, argument } = *unsafe { Box::from_raw(start.cast::<Start>()) };
    alt_stack::ensure();
    routine(argument)
}

/// The function that would have been found without ours.
fn next() -> Option<Create> {
    static NEXT: OnceLock<Option<Create>> = OnceLock::new();
    *NEXT.get_or_init(|| {
        // SAFETY: a look-up by a name that ends in zero. OWNERSHIP: the function is the C library's, which is never unloaded.
        // THREADS: the C library's look-up may be called by any.
        let found = unsafe { libc::dlsym(libc::RTLD_NEXT, c"pthread_create".as_ptr()) };
        // SAFETY: a function of that name has that signature (POSIX), and a null pointer becomes `None`. OWNERSHIP and
        // THREADS: as above.
        unsafe { std::mem::transmute::<*mut libc::c_void, Option<Create>>(found) }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    #[test]
    fn thread_runs_with_its_argument_and_is_joined_with_its_value() {
        // The test's own executable finds ours as well.
        let (told, heard) = mpsc::channel();
        let thread = std::thread::Builder::new().stack_size(256 * 1024).spawn(move || {
            told.send(std::thread::current().id()).unwrap();
            7
        });
        let thread = thread.unwrap();
        assert_eq!(heard.recv().unwrap(), thread.thread().id());
        assert_eq!(thread.join().unwrap(), 7);
    }
}
