//! The wish to stop: the first drains, the second ends it now.

use std::io::IsTerminal as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Whether SIGHUP asks for a stop: where stdin is a terminal, which says by it that it has been closed. What runs without
/// one takes it for a reload, as daemons do.
pub fn hangup_stops() -> bool {
    std::io::stdin().is_terminal()
}

/// Counts the wishes to stop. Clones see the same count.
#[derive(Clone, Debug)]
pub struct Shutdown {
    wishes: watch::Receiver<u32>,
}

/// Asks for a stop.
#[derive(Clone, Debug)]
pub struct ShutdownHandle {
    wishes: watch::Sender<u32>,
}

impl ShutdownHandle {
    /// One wish more.
    pub fn request(&self) {
        self.wishes.send_modify(|count| *count = count.saturating_add(1));
    }
}

impl Shutdown {
    /// A stop that code asks for.
    #[must_use]
    pub fn manual() -> (ShutdownHandle, Self) {
        let (sender, wishes) = watch::channel(0);
        (ShutdownHandle { wishes: sender }, Self { wishes })
    }

    /// A stop that SIGTERM and SIGINT ask for, and SIGHUP where [`hangup_stops`]. Call it once, inside a tokio runtime.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn on_signals() -> std::io::Result<Self> {
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let mut hangup = hangup_stops().then(|| signal(SignalKind::hangup())).transpose()?;
        let (handle, shutdown) = Self::manual();
        tokio::spawn(async move {
            loop {
                let hung_up = async {
                    match &mut hangup {
                        Some(hangup) => hangup.recv().await,
                        None => std::future::pending().await,
                    }
                };
                let name = tokio::select! {
                    Some(()) = term.recv() => "SIGTERM",
                    Some(()) = int.recv() => "SIGINT",
                    Some(()) = hung_up => "SIGHUP",
                    else => return,
                };
                tracing::info!(signal = name, "stop requested");
                handle.request();
            }
        });
        Ok(shutdown)
    }

    /// Waits for the first wish: drain.
    pub async fn drain(&mut self) {
        self.reached(1).await;
    }

    /// Waits for the second wish: now.
    pub async fn now(&mut self) {
        self.reached(2).await;
    }

    /// Whether a stop was asked for.
    #[must_use]
    pub fn requested(&self) -> bool {
        *self.wishes.borrow() > 0
    }

    async fn reached(&mut self, count: u32) {
        if self.wishes.wait_for(|seen| *seen >= count).await.is_err() {
            // Nobody can ask any more.
            std::future::pending::<()>().await;
        }
    }
}
