//! A future that is dropped at its n-th await, as when a worker dies there, or a caller hangs up.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Polls the inner future; once it has been pending so many times, drops it and answers `None`.
pub(super) struct Cut<'a, T> {
    inner: Option<Pin<Box<dyn Future<Output = T> + Send + 'a>>>,
    /// `None`: never.
    left: Option<u32>,
}

impl<'a, T> Cut<'a, T> {
    pub(super) fn new(inner: Pin<Box<dyn Future<Output = T> + Send + 'a>>, at: Option<u32>) -> Self {
        Self { inner: Some(inner), left: at }
    }
}

impl<T> Future for Cut<'_, T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let Some(inner) = self.inner.as_mut() else { return Poll::Ready(None) };
        if let Poll::Ready(output) = inner.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.inner = None;
                return Poll::Ready(None);
            }
        }
        Poll::Pending
    }
}
