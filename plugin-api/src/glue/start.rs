//! Where a handler begins: on the thread that the host lends, or on the plugin's own.

use super::lane::Lane;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

/// Starts a handler, and answers `None` where it has ended already.
///
/// `work` never unwinds, as it is guarded.
pub(super) fn handler<F>(
    runtime: &Handle,
    lane: &'static Lane,
    in_place: bool,
    mut work: F,
) -> Option<AbortHandle>
where
    F: Future<Output = ()> + Send + Unpin + 'static,
{
    if !(in_place && lane.is_trusted()) {
        return Some(runtime.spawn(Measured { work, lane: Some(lane) }).abort_handle());
    }
    // Timers, sockets and `tokio::spawn` find the plugin's runtime.
    let _entered = runtime.enter();
    // A handler that is not done is polled again at once by the runtime, which brings the waker that counts.
    let mut first = Measured { work: &mut work, lane: Some(lane) };
    match Pin::new(&mut first).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(()) => None,
        Poll::Pending => Some(runtime.spawn(work).abort_handle()),
    }
}

/// Tells the lane how the first poll went.
struct Measured<F> {
    work: F,
    lane: Option<&'static Lane>,
}

impl<F: Future<Output = ()> + Unpin> Future for Measured<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(lane) = self.lane.take() else { return Pin::new(&mut self.work).poll(cx) };
        let first = lane.first_poll();
        let polled = Pin::new(&mut self.work).poll(cx);
        first.over(polled.is_ready());
        polled
    }
}
