//! The looks themselves.

use super::plan::{self, Declared};
use super::report::{Report, Rule, short};
use super::{HANDLER, Sample};
use crate::host::{Hosts, exchange};
use crate::{Error, Outcome, Result};
use plugin_api::bytes::Bytes;
use plugin_api::http::{Method, Request};
use plugin_api::tokio::task::JoinSet;
use std::time::Duration;

/// Hosts with the plugin, and what was found so far.
pub(super) struct Probe {
    pub(super) hosts: Hosts,
    pub(super) report: Report,
}

impl Probe {
    /// What nobody means, to every route and every task.
    pub(super) async fn garbage(&mut self, declared: &Declared) -> Result<()> {
        for (method, path) in &declared.routes {
            for (what, media_type, body) in plan::bodies() {
                let request = request(method, path, media_type, body)?;
                let subject = format!("{method} {path} with {what}");
                self.call(Rule::Garbage, subject, request).await?;
            }
        }
        let all = declared.tasks.iter();
        let all: Vec<_> = all.flat_map(|task| plan::task_bodies().map(|body| (task.clone(), body))).collect();
        self.tasks(Rule::Garbage, &all).await?;
        self.background();
        Ok(())
    }

    /// What the author says is good.
    pub(super) async fn samples(&mut self, samples: &[Sample]) -> Result<()> {
        let mut tasks = Vec::new();
        for sample in samples {
            match sample {
                Sample::Task(task, body) => tasks.push((task.clone(), body.clone())),
                Sample::Call(method, path, body) => {
                    let body = body.to_string();
                    let subject = format!("{method} {path} {}", short(&body));
                    let request = request(method, path, "application/json", Bytes::from(body))?;
                    self.call(Rule::Samples, subject, request).await?;
                }
            }
        }
        self.tasks(Rule::Samples, &tasks).await?;
        self.background();
        Ok(())
    }

    async fn call(&mut self, rule: Rule, subject: String, request: Request<Bytes>) -> Result<()> {
        let fault = match self.hosts.send(request).await {
            Ok(reply) => plan::fault_of_reply(&reply),
            Err(error) => Some(error.to_string()),
        };
        let rule = if fault.as_deref().is_some_and(plan::is_about_size) { Rule::Size } else { rule };
        let is_wrong = fault.is_some();
        self.report.look(rule, subject, fault);
        if is_wrong { self.recovered().await } else { Ok(()) }
    }

    /// Panics that no answer tells of.
    fn background(&mut self) {
        let panicked =
            self.hosts.logs().lines().find(|line| line.contains("plugin code panicked")).map(str::to_owned);
        self.report.look(Rule::Panics, "the log", panicked.map(|line| format!("it says: {line}")));
    }

    /// SIGTERM while samples are under way.
    pub(super) async fn stop_while_busy(&mut self, samples: &[Sample]) -> Result<()> {
        let (mut calls, mut ids) = (JoinSet::new(), Vec::new());
        for sample in samples {
            match sample {
                Sample::Task(task, body) => ids.push(self.hosts.enqueue_unchecked(task, body).await?),
                Sample::Call(method, path, body) => {
                    let body = Bytes::from(body.to_string());
                    let (address, request) =
                        self.hosts.addressed(request(method, path, "application/json", body)?)?;
                    calls.spawn(async move { exchange(&address, request).await });
                }
            }
        }
        self.busy_or_done(&mut calls, &ids).await;
        let worker = self.hosts.stop_worker(HANDLER).await;
        self.report.look(Rule::Stops, "the worker", worker.err().map(|error| error.to_string()));
        while let Some(answered) = calls.join_next().await {
            let answered = answered.map_err(|error| Error::new(error.to_string())).and_then(|reply| reply);
            let fault = answered.err().map(|error| format!("a call under way was not answered: {error}"));
            self.report.look(Rule::Stops, "a call", fault);
        }
        self.hosts.start_worker().await?;
        for id in ids {
            let ended = self.hosts.outcome(id).await;
            let fault = ended.err().map(|error| format!("a task that was accepted has no outcome: {error}"));
            self.report.look(Rule::Stops, "a task", fault);
        }
        let worker = self.hosts.stop_worker(HANDLER).await;
        self.report.look(Rule::Stops, "the idle worker", worker.err().map(|error| error.to_string()));
        Ok(())
    }

    /// Waits until a handler is at work, or all of them have been: short ones nobody sees.
    async fn busy_or_done<T: Send + 'static>(&self, calls: &mut JoinSet<T>, ids: &[uuid::Uuid]) {
        let seen = crate::eventually(Duration::from_secs(20), "a handler is at work", async || {
            if self.hosts.in_flight().await > 0 {
                return Some(());
            }
            let mut over = calls.is_empty() || calls.try_join_next().is_some();
            for id in ids {
                let view = self.hosts.view(*id).await.ok().flatten();
                over &= view.is_some_and(|view| Outcome::read(&view).is_some());
            }
            over.then_some(())
        });
        // Where neither is seen, the stop itself is still looked at.
        let _ = seen.await;
    }
}

fn request(method: &Method, path: &str, media_type: &str, body: Bytes) -> Result<Request<Bytes>> {
    let request = Request::builder().method(method).uri(path).header("content-type", media_type);
    request.body(body).map_err(Error::doing(format!("{path} is no path")))
}
