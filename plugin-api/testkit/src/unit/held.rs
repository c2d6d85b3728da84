//! What a handler asks the host for, held back until the poll in which it asked is over.
//!
//! A host answers across the boundary and a broker, so a handler that asks is pending there. Here it must be too, else that
//! await could not be cut: neither before anything was done nor after it was done and before the handler heard of it.
//!
//! Invariant: nothing is held when nobody polls; a thread that polls no [`Cut`](super::cut::Cut) is served at once.

use plugin_api::abi::{Answer, FfiCallback};
use std::cell::RefCell;

thread_local! {
    /// `Some` while a handler is polled on this thread.
    static HELD: RefCell<Option<Vec<Asked>>> = const { RefCell::new(None) };
}

/// An answer that stands, and who waits for it.
pub(super) struct Answered(FfiCallback, Answer);

impl Answered {
    pub(super) fn new(callback: FfiCallback, answer: Answer) -> Self {
        Self(callback, answer)
    }

    /// Wakes whoever waits.
    pub(super) fn tell(self) {
        self.0.answer(self.1);
    }
}

/// Does what was asked for; `None` where the answer comes later, by itself. Dropped, it is never done.
pub(super) type Asked = Box<dyn FnOnce() -> Option<Answered>>;

/// Holds it back where a handler is being polled, and else does it and answers.
pub(super) fn ask(asked: Asked) {
    let at_once = HELD.with_borrow_mut(|held| match held {
        Some(held) => {
            held.push(asked);
            None
        }
        None => Some(asked),
    });
    if let Some(answered) = at_once.and_then(|asked| asked()) {
        answered.tell();
    }
}

/// What was held for whoever polled before, put back also where a poll panics.
struct Before(Option<Vec<Asked>>);

impl Drop for Before {
    fn drop(&mut self) {
        HELD.set(self.0.take());
    }
}

/// Polls, and returns what was asked for meanwhile.
pub(super) fn during<T>(poll: impl FnOnce() -> T) -> (T, Vec<Asked>) {
    let _before = Before(HELD.replace(Some(Vec::new())));
    let output = poll();
    (output, HELD.take().unwrap_or_default())
}
