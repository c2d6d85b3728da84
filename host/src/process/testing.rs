//! A handle without a supervisor, for tests of what reads one.

use super::control::Role;
use super::status::{ChildMetrics, Handle, Snapshot, Status};

/// Sets a status.
pub(crate) struct StatusHandle(Status);

impl StatusHandle {
    pub(crate) fn update(&self, change: impl FnOnce(&mut Snapshot)) {
        self.0.update(change);
    }
}

/// A handle whose child answers the n-th scrape with `metrics(n)`. Needs a tokio runtime.
pub(crate) fn handle(
    role: Role,
    metrics: impl Fn(usize) -> Option<String> + Send + 'static,
) -> (StatusHandle, Handle) {
    let status = Status::new(role, "test".to_owned());
    let (child, mut requests) = ChildMetrics::channel();
    tokio::spawn(async move {
        let mut count = 0;
        while let Some(request) = requests.recv().await {
            count += 1;
            if let Some(text) = metrics(count) {
                let _ = request.send(text);
            }
        }
    });
    (
        StatusHandle(status.clone()),
        Handle { status, metrics: child, duties: crate::process::DutyMetrics::default() },
    )
}
