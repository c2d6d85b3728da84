//! A future that cannot unwind: panics while polling or dropping become values, and while it is polled the thread
//! knows for whom.

use crate::context::HostHandle;
use std::cell::RefCell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// For whom a thread works: attached to log events and crash reports.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    /// `route` or `task`.
    pub(crate) kind: &'static str,
    pub(crate) name: Arc<str>,
    pub(crate) id: [u8; 16],
}

thread_local! {
    static CURRENT: RefCell<Option<Work>> = const { RefCell::new(None) };
}

/// What this thread is polling, if anything.
pub(crate) fn current() -> Option<Work> {
    CURRENT.try_with(|current| current.try_borrow().ok().and_then(|c| c.clone())).ok().flatten()
}

struct Polling {
    host: HostHandle,
    before: Option<Work>,
}

impl Polling {
    fn enter(host: HostHandle, work: &Work) -> Self {
        let before = CURRENT.try_with(|current| current.replace(Some(work.clone()))).ok().flatten();
        (host.vtable.polling())(host.ctx, &work.id);
        Self { host, before }
    }
}

impl Drop for Polling {
    fn drop(&mut self) {
        let before = self.before.take();
        (self.host.vtable.polling())(self.host.ctx, &before.as_ref().map_or([0; 16], |work| work.id));
        // A thread that ends has no use for it any more.
        let _ = CURRENT.try_with(|current| current.replace(before));
    }
}

/// See the module.
pub(crate) struct Guarded<F> {
    future: Option<Pin<Box<F>>>,
    host: HostHandle,
    work: Work,
}

impl<F: Future> Guarded<F> {
    pub(crate) fn new(host: HostHandle, work: Work, future: F) -> Self {
        Self { future: Some(Box::pin(future)), host, work }
    }

    fn discard(&mut self) -> Option<String> {
        let future = self.future.take()?;
        let _polling = Polling::enter(self.host, &self.work);
        catch_unwind(AssertUnwindSafe(move || drop(future))).err().map(|payload| super::panic_text(&*payload))
    }
}

impl<F: Future> Future for Guarded<F> {
    type Output = Result<F::Output, String>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let Some(future) = this.future.as_mut() else { return Poll::Pending };
        let polled = {
            let _polling = Polling::enter(this.host, &this.work);
            catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx)))
        };
        let output = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(output)) => Ok(output),
            Err(payload) => Err(super::panic_text(&*payload)),
        };
        // A panic in a destructor after the end changes nothing of the answer; the hook has logged it.
        let _ = this.discard();
        Poll::Ready(output)
    }
}

impl<F> Drop for Guarded<F> {
    fn drop(&mut self) {
        if let Some(future) = self.future.take() {
            let _polling = Polling::enter(self.host, &self.work);
            let _ = catch_unwind(AssertUnwindSafe(move || drop(future)));
        }
    }
}
