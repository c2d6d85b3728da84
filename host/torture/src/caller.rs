//! Callers: they submit, insist where they have a key, look at what they were promised, and write it all down.
//!
//! A caller believes nothing but a 202. No answer, a refusal and a broken connection all mean *not promised*.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use cardcage_harness::{Http, Reply};
use cardcage_protocol::TaskId;
use fastrand::Rng;
use http::Method;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::ledger::Ledger;
use crate::submission::{Kind, Submission};

/// How many submit at the same time.
const CALLERS: u32 = 24;
/// Longer than a stopped process stays stopped.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a caller insists once the storm is over.
const INSISTENCE: Duration = Duration::from_secs(60);

/// What the callers share.
#[derive(Debug)]
pub(crate) struct Callers {
    seed: u64,
    apis: Vec<Http>,
    ledger: Arc<Ledger>,
    next: AtomicU64,
    is_over: AtomicBool,
}

impl Callers {
    /// Callers of these API instances.
    pub(crate) fn new(seed: u64, apis: Vec<Http>, ledger: Arc<Ledger>) -> Arc<Self> {
        Arc::new(Self { seed, apis, ledger, next: AtomicU64::new(0), is_over: AtomicBool::new(false) })
    }

    /// Sets them to work, `rate` submissions per second together.
    pub(crate) fn begin(self: &Arc<Self>, rate: u32) -> JoinSet<()> {
        let each = Duration::from_secs(1) * CALLERS / rate;
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            callers.spawn(Arc::clone(self).live(each));
        }
        callers
    }

    /// Lets them come to their end: what is being sent is still insisted on.
    pub(crate) fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    async fn live(self: Arc<Self>, each: Duration) {
        let mut pace = interval(each);
        pace.set_missed_tick_behavior(MissedTickBehavior::Skip);
        while !self.is_over() {
            pace.tick().await;
            let submission = Submission::draw(self.seed, self.next.fetch_add(1, Ordering::Relaxed));
            self.ledger.open(&submission);
            if let Some(id) = self.insist(&submission).await {
                self.follow(&submission, id).await;
            }
        }
    }

    /// Sends it until it is accepted; once where it has no key, for then a second one would be another task.
    async fn insist(&self, submission: &Submission) -> Option<TaskId> {
        let mut rng = Rng::with_seed(submission.n);
        let mut give_up = None;
        loop {
            if let Some(id) = self.submit(submission, &mut rng).await {
                return Some(id);
            }
            if self.is_over() {
                let at = *give_up.get_or_insert_with(|| Instant::now() + INSISTENCE);
                if Instant::now() > at {
                    return None;
                }
            }
            submission.key.as_ref()?;
            sleep(Duration::from_millis(rng.u64(100..400))).await;
        }
    }

    async fn submit(&self, submission: &Submission, rng: &mut Rng) -> Option<TaskId> {
        let json = ("content-type", "application/json");
        let mut headers = vec![json];
        if let Some(key) = &submission.key {
            headers.push(("idempotency-key", key));
        }
        let body = submission.body.to_string();
        let reply = self.ask(rng, Method::POST, &submission.path, &headers, body).await;
        self.ledger.answered(match &reply {
            Some(reply) => format!("{} {}", reply.status, reply.problem_code().unwrap_or_default()),
            None => "none".to_owned(),
        });
        let id = reply.filter(|reply| reply.status == 202)?.task_id().ok()?.parse().ok()?;
        self.ledger.promised(submission.n, id);
        Some(id)
    }

    /// What some callers do with a receipt.
    async fn follow(&self, submission: &Submission, id: TaskId) {
        let mut rng = Rng::with_seed(submission.n ^ self.seed);
        if submission.kind == Kind::Cancelled {
            sleep(Duration::from_millis(rng.u64(..1_000))).await;
            let path = format!("/tasks/{id}/cancel");
            self.look(submission, self.ask(&mut rng, Method::POST, &path, &[], String::new()).await.as_ref());
        }
        if rng.u8(..10) == 0 {
            let path = format!("/tasks/{id}");
            self.look(submission, self.ask(&mut rng, Method::GET, &path, &[], String::new()).await.as_ref());
        }
        if submission.key.is_some() && rng.u8(..20) == 0 {
            // As a sender does whose receipt was lost. The ledger objects to another id.
            self.submit(submission, &mut rng).await;
        }
    }

    fn look(&self, submission: &Submission, reply: Option<&Reply>) {
        if reply.is_some_and(|reply| reply.status == 404) {
            self.ledger.denied(submission.n);
        }
    }

    async fn ask(
        &self,
        rng: &mut Rng,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: String,
    ) -> Option<Reply> {
        let api = rng.choice(&self.apis)?;
        timeout(PATIENCE, api.send(method, path, headers, body.into())).await.ok()?.ok()
    }
}
