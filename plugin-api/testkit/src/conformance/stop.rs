//! The looks at hosts that are stopped, busy and idle.
//!
//! A host is not stopped before a handler was seen at work in it, or all of them have ended: short ones nobody sees. The report says
//! which it was, so that nobody takes the stop of an idle host for one of a busy one.

use super::probe::{Probe, request};
use super::report::{Rule, short};
use super::{HANDLER, Sample, plan};
use crate::host::exchange;
use crate::{Error, Outcome, Reply, Result};
use plugin_api::bytes::Bytes;
use plugin_api::http::Method;
use serde_json::Value;
use std::time::Duration;
use tokio::task::JoinHandle;
use uuid::Uuid;

/// How long to look for a handler at work.
const SEEN: Duration = Duration::from_secs(20);

/// A call whose answer nobody has read yet.
struct Call {
    subject: String,
    answer: JoinHandle<Result<Reply>>,
}

impl Probe {
    /// SIGTERM to the worker while samples are under way, all at once.
    pub(super) async fn stop_worker_while_busy(&mut self, samples: &[Sample]) -> Result<()> {
        let (mut calls, mut tasks) = (Vec::new(), Vec::new());
        for sample in samples {
            match sample {
                Sample::Task(task, body) => {
                    let subject = format!("{task} {} while the worker stops", short(&body.to_string()));
                    tasks.push((self.hosts.enqueue_unchecked(task, body).await?, subject));
                }
                Sample::Call(method, path, body) => calls.push(self.begin(method, path, body, "worker")?),
            }
        }
        let is_busy = self.is_busy(&calls, &tasks).await;
        let stopped = self.hosts.stop_worker(HANDLER).await;
        self.stopped(
            if is_busy { "the busy worker" } else { "the worker, with no handler seen at work" },
            stopped,
        );
        for call in calls {
            self.answered(call).await;
        }
        self.hosts.start_worker().await?;
        for (id, subject) in tasks {
            let fault = match self.hosts.outcome(id).await {
                Ok(outcome) => plan::fault_of_outcome(&outcome),
                Err(error) => Some(format!("it was accepted and has no outcome: {error}")),
            };
            self.report.look(Rule::Stops, subject, fault);
        }
        Ok(())
    }

    /// SIGTERM to the api while it has a sample to answer, one after the other: it takes no second one any more.
    pub(super) async fn stop_api_while_busy(&mut self, samples: &[Sample]) -> Result<()> {
        for sample in samples {
            let Sample::Call(method, path, body) = sample else { continue };
            let call = self.begin(method, path, body, "api")?;
            let seen = crate::eventually(SEEN, "the request is there", async || {
                if self.hosts.requests_in_flight().await > 0 {
                    return Some(true);
                }
                call.answer.is_finished().then_some(false)
            });
            // Where neither is seen, the stop itself is still looked at.
            let is_busy = seen.await.unwrap_or(false);
            let stopped = self.hosts.stop_api(HANDLER).await;
            self.stopped(
                if is_busy { "the busy api" } else { "the api, with no request seen in it" },
                stopped,
            );
            self.answered(call).await;
            self.hosts.start_api().await?;
        }
        Ok(())
    }

    /// SIGTERM to both while they do nothing.
    pub(super) async fn stop_idle(&mut self) {
        let stopped = self.hosts.stop_worker(HANDLER).await;
        self.stopped("the idle worker", stopped);
        let stopped = self.hosts.stop_api(HANDLER).await;
        self.stopped("the idle api", stopped);
        // The last things that a plugin does it does here.
        self.background();
    }

    fn stopped(&mut self, host: &str, stopped: Result<()>) {
        self.report.look(Rule::Stops, host, stopped.err().map(|error| error.to_string()));
    }

    fn begin(&self, method: &Method, path: &str, body: &Value, stops: &str) -> Result<Call> {
        let body = body.to_string();
        let subject = format!("{method} {path} {} while the {stops} stops", short(&body));
        let request = request(method, path, "application/json", Bytes::from(body))?;
        let (address, request) = self.hosts.addressed(request)?;
        let answer = tokio::spawn(async move { exchange(&address, request).await });
        Ok(Call { subject, answer })
    }

    async fn answered(&mut self, call: Call) {
        let answer = call.answer.await.map_err(|error| Error::new(error.to_string())).and_then(|reply| reply);
        let fault = match answer {
            Ok(reply) => plan::fault_of_stopped(&reply),
            Err(error) => Some(format!("it was under way and is not answered: {error}")),
        };
        self.report.look(Rule::Stops, call.subject, fault);
    }

    /// Waits until a handler is at work in the worker, or all of them have been; says which.
    async fn is_busy(&self, calls: &[Call], tasks: &[(Uuid, String)]) -> bool {
        let seen = crate::eventually(SEEN, "a handler is at work", async || {
            if self.hosts.in_flight().await > 0 {
                return Some(true);
            }
            let mut over = calls.iter().all(|call| call.answer.is_finished());
            for (id, _) in tasks {
                let view = self.hosts.view(*id).await.ok().flatten();
                over &= view.is_some_and(|view| Outcome::read(&view).is_some());
            }
            over.then_some(false)
        });
        // Where neither is seen, the stop itself is still looked at.
        seen.await.unwrap_or(false)
    }
}
