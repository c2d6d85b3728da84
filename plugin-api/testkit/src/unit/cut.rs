//! A future that is dropped at its n-th await, as when a worker dies there, or a caller hangs up.
//!
//! An await that asks the host for something counts twice: it is lost before the host has done it, and again after it
//! is done and before the handler hears of it.

use super::held::{self, Answered};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Polls the inner future; at so many places where it waits, drops it and answers `None`.
pub(super) struct Cut<'a, T> {
    inner: Option<Pin<Box<dyn Future<Output = T> + Send + 'a>>>,
    /// `None`: never.
    left: Option<u32>,
}

impl<'a, T> Cut<'a, T> {
    pub(super) fn new(inner: Pin<Box<dyn Future<Output = T> + Send + 'a>>, at: Option<u32>) -> Self {
        Self { inner: Some(inner), left: at }
    }

    /// Whether this is the place, where the inner future is then dropped.
    fn is_here(&mut self) -> bool {
        let Some(left) = &mut self.left else { return false };
        *left = left.saturating_sub(1);
        let is_here = *left == 0;
        if is_here {
            self.inner = None;
        }
        is_here
    }
}

impl<T> Future for Cut<'_, T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let Some(inner) = self.inner.as_mut() else { return Poll::Ready(None) };
        let (polled, asked) = held::during(|| inner.as_mut().poll(cx));
        if let Poll::Ready(output) = polled {
            // Asked for and not waited for: it has crossed the boundary all the same.
            asked.into_iter().filter_map(|asked| asked()).for_each(Answered::tell);
            return Poll::Ready(Some(output));
        }
        if self.is_here() {
            return Poll::Ready(None);
        }
        let answered: Vec<Answered> = asked.into_iter().filter_map(|asked| asked()).collect();
        if !answered.is_empty() && self.is_here() {
            return Poll::Ready(None);
        }
        answered.into_iter().for_each(Answered::tell);
        Poll::Pending
    }
}
