//! The measured stretch of a turn.

use std::time::{Duration, Instant};

/// From `start`, when the warm-up is over, to `end`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    pub(super) start: Instant,
    pub(super) end: Instant,
}

impl Window {
    pub(super) fn after(warm_up: Duration, measured: Duration) -> Self {
        let start = Instant::now() + warm_up;
        Self { start, end: start + measured }
    }

    pub(super) fn is_over(&self, at: Instant) -> bool {
        at >= self.end
    }

    pub(super) fn contains(&self, at: Instant) -> bool {
        at >= self.start && at < self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warm_up_and_late_answers_do_not_count() {
        let window = Window::after(Duration::from_secs(1), Duration::from_secs(2));
        let at = |ms| window.start + Duration::from_millis(ms) - Duration::from_millis(500);
        assert!(!window.contains(at(499)) && window.contains(at(500)) && window.contains(at(2_499)));
        assert!(!window.contains(at(2_500)) && window.is_over(at(2_500)));
    }
}
