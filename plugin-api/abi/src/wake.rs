//! Wake-ups and answers that cross the boundary.
//!
//! Both are one-shot: calling consumes them, dropping them uncalled frees them.
//! OWNERSHIP: made by the side that waits, freed by its own destructor. THREADS: may be called from any thread.
//! The called side does no more than mark something ready: no author's code runs inside a call.

use crate::FfiBytes;
use abi_stable::StableAbi;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::task::Waker;

/// A one-shot waker.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiWaker {
    data: *mut (),
    wake: extern "C" fn(*mut ()),
    drop: extern "C" fn(*mut ()),
}

// SAFETY: the data is a boxed `Waker`, which is `Send + Sync`. OWNERSHIP: moves with the value.
// THREADS: consumed once, by whichever thread holds it.
unsafe impl Send for FfiWaker {}

extern "C" fn wake_boxed(data: *mut ()) {
    // SAFETY: `data` is the `Box<Waker>` of `FfiWaker::new`. OWNERSHIP: taken here; the caller forgets its copy.
    // THREADS: `Waker` is `Send`.
    let waker = unsafe { Box::from_raw(data.cast::<Waker>()) };
    let _ = catch_unwind(AssertUnwindSafe(move || waker.wake()));
}

extern "C" fn drop_boxed(data: *mut ()) {
    // SAFETY: as in `wake_boxed`. OWNERSHIP: taken here. THREADS: `Waker` is `Send`.
    let waker = unsafe { Box::from_raw(data.cast::<Waker>()) };
    let _ = catch_unwind(AssertUnwindSafe(move || drop(waker)));
}

impl FfiWaker {
    /// A waker that wakes `waker`.
    pub fn new(waker: &Waker) -> Self {
        Self { data: Box::into_raw(Box::new(waker.clone())).cast(), wake: wake_boxed, drop: drop_boxed }
    }

    /// Wakes, once.
    pub fn wake(self) {
        let this = std::mem::ManuallyDrop::new(self);
        (this.wake)(this.data);
    }
}

impl Drop for FfiWaker {
    fn drop(&mut self) {
        (self.drop)(self.data);
    }
}

impl std::fmt::Debug for FfiWaker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FfiWaker")
    }
}

/// A code and a value: what a fallible function of the boundary answers. Code 0 is success.
#[repr(C)]
#[derive(StableAbi, Debug)]
pub struct Answer {
    /// 0, or one of the codes in [`crate::code`].
    pub code: u32,
    /// The value (JSON unless said otherwise), or an error text.
    pub value: FfiBytes,
}

impl Answer {
    /// Success with a value.
    pub fn ok(value: impl Into<FfiBytes>) -> Self {
        Self { code: crate::code::OK, value: value.into() }
    }

    /// Failure with a text for the log.
    pub fn error(code: u32, text: impl Into<String>) -> Self {
        Self { code, value: FfiBytes::from(text.into()) }
    }
}

/// A one-shot callback for the answer of a host service.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiCallback {
    data: *mut (),
    call: extern "C" fn(*mut (), Answer),
    drop: extern "C" fn(*mut ()),
}

// SAFETY: the data is a boxed closure that is `Send`. OWNERSHIP: moves with the value.
// THREADS: consumed once, by whichever thread holds it.
unsafe impl Send for FfiCallback {}

extern "C" fn call_closure<F: FnOnce(Answer)>(data: *mut (), answer: Answer) {
    // SAFETY: `data` is the `Box<F>` of `FfiCallback::new`. OWNERSHIP: taken here. THREADS: `F` is `Send`.
    let call = unsafe { Box::from_raw(data.cast::<F>()) };
    let _ = catch_unwind(AssertUnwindSafe(move || call(answer)));
}

extern "C" fn drop_closure<F>(data: *mut ()) {
    // SAFETY: as in `call_closure`. OWNERSHIP: taken here. THREADS: `F` is `Send`.
    let call = unsafe { Box::from_raw(data.cast::<F>()) };
    let _ = catch_unwind(AssertUnwindSafe(move || drop(call)));
}

impl FfiCallback {
    /// A callback that runs `call` on the thread of whoever answers.
    pub fn new<F: FnOnce(Answer) + Send + 'static>(call: F) -> Self {
        Self { data: Box::into_raw(Box::new(call)).cast(), call: call_closure::<F>, drop: drop_closure::<F> }
    }

    /// Answers, once.
    pub fn answer(self, answer: Answer) {
        let this = std::mem::ManuallyDrop::new(self);
        (this.call)(this.data, answer);
    }
}

impl Drop for FfiCallback {
    fn drop(&mut self) {
        (self.drop)(self.data);
    }
}

impl std::fmt::Debug for FfiCallback {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FfiCallback")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_callback_is_called_once_or_dropped() {
        let (tx, rx) = mpsc::channel();
        let tx2 = tx.clone();
        FfiCallback::new(move |answer| tx.send(answer.code).unwrap()).answer(Answer::error(3, "x"));
        drop(FfiCallback::new(move |answer| tx2.send(answer.code).unwrap()));
        assert_eq!(rx.iter().collect::<Vec<_>>(), [3]);
    }
}
