//! Notes whose fault ends the process: the thread that a fatal signal hits says so on the board, and then dies of the
//! signal as it would have without us.
//!
//! Which contexts were being polled is not enough: while one thread faults, others poll what is innocent, and a thread
//! that a plugin started for itself polls nothing at all. So it notes its number, the signal, and the addresses that tell
//! whose code it was: where it stood, and the nearest return address on its stack that lies in a plugin's library. A thread that
//! calls `exit` notes the same of itself, without a signal.
//!
//! Invariants: the handler makes system calls and stores words, and puts back what stood there before; it takes no
//! lock, allocates nothing, and reads its stack through the kernel, which refuses what is not mapped. The signal, its core file
//! and a message of the earlier handler stay what they were.
//!
//! What it refuses: it unwinds no stack, and it ignores signals that another process sends, which hit any thread.

use super::region::Region;
use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, raise, sigaction};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

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
/// Words of the stack that are read at once, and how often.
const CHUNK: usize = 64;
const CHUNKS: usize = 32;
const PAGE: u64 = 4096;
/// An address that is not mapped and so near to the stack pointer is the end of a stack.
const NEAR: u64 = 64 * 1024;

static REGION: OnceLock<&'static Region> = OnceLock::new();
/// What stood there before, in the order of [`FATAL`].
static BEFORE: [OnceLock<SigAction>; FATAL.len()] = [const { OnceLock::new() }; FATAL.len()];

/// What the dying thread notes, in the shared memory.
#[repr(C, align(64))]
#[derive(Debug)]
pub(super) struct FaultNote {
    /// 1 when the rest is whole.
    is_whole: AtomicU32,
    signal: AtomicU32,
    address: AtomicU64,
    pc: AtomicU64,
    stack: AtomicU64,
    caller: AtomicU64,
}

/// Where a fatal signal struck, or a thread called `exit`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    /// The signal's number; 0 for an `exit`.
    pub signal: u32,
    /// What could not be read or written; 0 for signals that have no address.
    pub address: u64,
    /// The instruction; 0 for an `exit`, which is the C library's.
    pub pc: u64,
    /// The stack pointer.
    pub stack: u64,
    /// The nearest return address on the stack that lies in a plugin's library; 0 = none found. Memory that was not
    /// written lately can show an older one: a hint, where `pc` is a fact.
    pub caller: u64,
}

impl Fault {
    /// Whether the thread had used up its stack.
    #[must_use]
    pub fn is_stack_overflow(&self) -> bool {
        let is_access = [Signal::SIGSEGV, Signal::SIGBUS].iter().any(|one| *one as u32 == self.signal);
        is_access && self.address != 0 && self.address.abs_diff(self.stack) <= NEAR
    }
}

impl FaultNote {
    fn write(&self, fault: &Fault) {
        self.signal.store(fault.signal, Ordering::Relaxed);
        self.address.store(fault.address, Ordering::Relaxed);
        self.pc.store(fault.pc, Ordering::Relaxed);
        self.stack.store(fault.stack, Ordering::Relaxed);
        self.caller.store(fault.caller, Ordering::Relaxed);
        self.is_whole.store(1, Ordering::Release);
    }

    pub(super) fn read(&self) -> Option<Fault> {
        (self.is_whole.load(Ordering::Acquire) == 1).then(|| Fault {
            signal: self.signal.load(Ordering::Relaxed),
            address: self.address.load(Ordering::Relaxed),
            pc: self.pc.load(Ordering::Relaxed),
            stack: self.stack.load(Ordering::Relaxed),
            caller: self.caller.load(Ordering::Relaxed),
        })
    }

    pub(super) fn clear(&self) {
        self.is_whole.store(0, Ordering::Release);
    }
}

/// Has the thread noted in `region` that a fatal signal hits or that calls `exit` first. A second call changes nothing.
pub(super) fn note(region: &'static Region) -> std::io::Result<()> {
    if REGION.set(region).is_err() {
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
    // SAFETY: `exits` does what any code may. OWNERSHIP: the C library keeps its address, which stays valid. THREADS: the one
    // that calls `exit` runs it.
    match unsafe { libc::atexit(exits) } {
        0 => Ok(()),
        _ => Err(std::io::Error::from(std::io::ErrorKind::OutOfMemory)),
    }
}

/// Whether fatal signals are noted in this process.
#[cfg(not(cardcage_sanitize))]
pub(super) fn is_noted() -> bool {
    REGION.get().is_some()
}

/// Registered before any library is loaded, so that it runs after all that they have registered. What a handler polled has been
/// noted already, by the end of its thread's hold on its slot.
extern "C" fn exits() {
    let Some(region) = REGION.get() else { return };
    let tid = this_thread();
    let first = region.culprit.compare_exchange(0, tid, Ordering::Release, Ordering::Relaxed);
    // A fault that a library made an `exit` of stays what is known.
    if (first.is_ok() || first == Err(tid)) && region.fault.read().is_none() {
        let stack = own_stack();
        region.fault.write(&Fault { stack, caller: caller(region, stack), ..Fault::default() });
    }
}

extern "C" fn hit(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid `siginfo_t` to a handler that was installed with `SA_SIGINFO`, for as long as
    // the handler runs. OWNERSHIP: the kernel's. THREADS: it lies on this thread's stack.
    let info = unsafe { info.as_ref() };
    let code = info.map_or(0, |info| info.si_code);
    // Above zero: the kernel's word for a fault.
    if code > 0 || code == BY_A_THREAD {
        let tid = this_thread();
        if let Some(region) = REGION.get()
            && region.culprit.compare_exchange(0, tid, Ordering::Release, Ordering::Relaxed).is_ok()
        {
            let (pc, stack) = place(context);
            let signal = signal.unsigned_abs();
            // SAFETY: signals that the kernel raises for a fault carry an address. OWNERSHIP and THREADS: as above.
            let address = info.filter(|_| code > 0).map_or(0, |info| unsafe { info.si_addr() } as u64);
            // First without: reading the stack may take what there is not.
            region.fault.write(&Fault { signal, address, pc, stack, caller: 0 });
            let caller = caller(region, stack);
            region.fault.write(&Fault { signal, address, pc, stack, caller });
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

/// The kernel's id of the calling thread.
#[must_use]
pub fn this_thread() -> u32 {
    rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs()
}

/// Instruction and stack pointer of what was interrupted; zeros on a machine that we do not know.
fn place(context: *mut libc::c_void) -> (u64, u64) {
    // SAFETY: the third argument of such a handler is a `ucontext_t`. OWNERSHIP: the kernel's, for as long as the
    // handler runs. THREADS: it lies on this thread's stack.
    let Some(context) = (unsafe { context.cast::<libc::ucontext_t>().as_ref() }) else { return (0, 0) };
    #[cfg(target_arch = "x86_64")]
    {
        let register = |which: libc::c_int| {
            let value = usize::try_from(which).ok().and_then(|at| context.uc_mcontext.gregs.get(at));
            value.map_or(0, |value| value.cast_unsigned())
        };
        (register(libc::REG_RIP), register(libc::REG_RSP))
    }
    #[cfg(target_arch = "aarch64")]
    {
        (context.uc_mcontext.pc, context.uc_mcontext.sp)
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        let _ = context;
        (0, 0)
    }
}

/// The calling thread's stack pointer; 0 where it is not known. The address of a variable need not lie on the stack: sanitizers
/// keep variables elsewhere.
fn own_stack() -> u64 {
    let mut context = std::mem::MaybeUninit::<libc::ucontext_t>::uninit();
    // SAFETY: it writes what the structure holds of this thread and reads nothing of it. OWNERSHIP: ours, on this stack.
    // THREADS: it is about the calling thread alone.
    let got = unsafe { libc::getcontext(context.as_mut_ptr()) };
    if got == 0 { place(context.as_mut_ptr().cast()).1 } else { 0 }
}

/// The first word on the stack that points into a plugin's library.
fn caller(region: &Region, stack: u64) -> u64 {
    let mut at = stack & !7;
    let mut words = [0_u64; CHUNK];
    for _ in 0..CHUNKS {
        let read = read_own(at, &mut words);
        if let Some(found) =
            words.iter().take(read).find(|word| **word != 0 && region.libraries.find(**word).is_some())
        {
            return *found;
        }
        // What is not mapped is the guard below an overflown stack: it goes on at the next page.
        at = if read == 0 {
            (at & !(PAGE - 1)).saturating_add(PAGE)
        } else {
            at.saturating_add(read as u64 * 8)
        };
    }
    0
}

/// Reads words of this process, as far as they are mapped; says how many.
fn read_own(at: u64, words: &mut [u64; CHUNK]) -> usize {
    let Ok(start) = usize::try_from(at) else { return 0 };
    let local = libc::iovec { iov_base: words.as_mut_ptr().cast(), iov_len: size_of_val(words) };
    let from = std::ptr::without_provenance_mut::<libc::c_void>(start);
    let remote = libc::iovec { iov_base: from, iov_len: size_of_val(words) };
    // SAFETY: the kernel writes no more than `local` holds, and checks `remote` itself; it is a plain system call.
    // OWNERSHIP: `words` is borrowed for the call. THREADS: what another thread writes meanwhile is read as it is.
    let read =
        unsafe { libc::process_vm_readv(libc::getpid(), &raw const local, 1, &raw const remote, 1, 0) };
    usize::try_from(read).unwrap_or(0) / 8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_fault_near_the_stack_pointer_is_the_end_of_a_stack() {
        let stack = 0x7f00_0000_1000;
        let fault =
            |signal: Signal, address| Fault { signal: signal as u32, address, stack, ..Fault::default() };
        assert!(fault(Signal::SIGSEGV, stack - 8).is_stack_overflow());
        assert!(fault(Signal::SIGBUS, stack - 4_096).is_stack_overflow());
        assert!(!fault(Signal::SIGSEGV, 8).is_stack_overflow());
        assert!(!fault(Signal::SIGSEGV, stack - (1 << 20)).is_stack_overflow());
        assert!(!fault(Signal::SIGABRT, stack - 8).is_stack_overflow());
    }

    #[test]
    fn memory_that_is_not_mapped_reads_as_nothing() {
        let mut words = [0; CHUNK];
        let here = [7_u64; CHUNK];
        assert_eq!(read_own(here.as_ptr() as u64, &mut words), CHUNK);
        assert_eq!(words, here);
        assert_eq!(read_own(8, &mut words), 0);
    }
}
