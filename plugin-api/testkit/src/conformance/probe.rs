//! The looks at what is sent while nothing else happens.

use super::Sample;
use super::plan::{self, Declared};
use super::report::{Report, Rule, short};
use crate::host::Hosts;
use crate::{Error, Result};
use plugin_api::bytes::Bytes;
use plugin_api::http::{Method, Request};

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
    pub(super) async fn samples(&mut self, declared: &Declared, samples: &[Sample]) -> Result<()> {
        let mut tasks = Vec::new();
        for sample in samples {
            match sample {
                Sample::Task(task, body) => tasks.push((task.clone(), body.clone())),
                Sample::Call(method, path, body) => {
                    let body = body.to_string();
                    let subject = format!("{method} {path} {}", short(&body));
                    if let Some(fault) = declared.unrouted(method, path) {
                        self.report.fault(Rule::Samples, subject, fault);
                        continue;
                    }
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
    pub(super) fn background(&mut self) {
        let panicked =
            self.hosts.logs().lines().find(|line| line.contains("plugin code panicked")).map(str::to_owned);
        self.report.look(Rule::Panics, "the log", panicked.map(|line| format!("it says: {line}")));
    }
}

pub(super) fn request(method: &Method, path: &str, media_type: &str, body: Bytes) -> Result<Request<Bytes>> {
    let request = Request::builder().method(method).uri(path).header("content-type", media_type);
    request.body(body).map_err(Error::doing(format!("{path} is no path")))
}
