//! Where several children come up together, none follows before all of them can.

use tokio::sync::{mpsc, watch};

/// What a child that has come up waits for, where others come up with it.
#[derive(Debug)]
pub(super) struct Assent {
    /// Told that it is up.
    pub(super) up: mpsc::Sender<()>,
    /// Whether it is to follow, once that is known.
    pub(super) go: watch::Receiver<Option<bool>>,
}

impl Assent {
    /// Tells that the child is up, and waits for the word.
    pub(super) async fn given(mut self) -> bool {
        // Whoever counts may have given up; then there is no assent.
        let _ = self.up.send(()).await;
        self.go.wait_for(Option::is_some).await.is_ok_and(|go| *go == Some(true))
    }
}
