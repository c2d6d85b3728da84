//! The installation under torture: a broker, API instances and workers, each started again whenever it is gone.
//!
//! Invariant: a host that was killed is kept until the end, because its orphaned child must end by itself; ending it
//! for it would hide that it does not.

use std::path::Path;
use std::time::Duration;

use cardcage_harness::{Cardcage, Config, Deadline, Error, Http, Launch, Nats, Port, Result, Signal};
use serde_json::json;
use tokio::time::Instant;

use crate::judge::SLOT_NOTE;
use crate::submission::LEASE_MS;

const APIS: usize = 2;
const WORKERS: usize = 3;
/// Between the end of a host and its next start, as a service manager does it.
const RELAUNCH: Duration = Duration::from_millis(300);
/// How long all hosts may take to be ready after the storm.
const BACK: Duration = Duration::from_secs(90);

/// The place of one host.
#[derive(Debug)]
pub(crate) struct Post {
    pub(crate) name: String,
    role: &'static str,
    config: Config,
    pub(crate) host: Option<Cardcage>,
    fallen: Vec<Cardcage>,
    start_at: Instant,
    /// It is stopped until then.
    resume_at: Option<Instant>,
}

impl Post {
    fn new(role: &'static str, n: usize, config: Config) -> Self {
        let name = format!("{role} {n}");
        Self { name, role, config, host: None, fallen: Vec::new(), start_at: Instant::now(), resume_at: None }
    }

    /// Whether it runs and is not stopped.
    pub(crate) fn is_up(&self) -> bool {
        self.host.is_some() && self.resume_at.is_none()
    }

    /// Stops the host and its children until `until`.
    pub(crate) fn stop_all(&mut self, until: Instant) {
        self.stop_children(until);
        if let Some(host) = &self.host {
            // It fails only where the host has just exited, which is seen at the next look.
            let _ = host.signal(Signal::STOP);
        }
    }

    /// Stops the children until `until`.
    pub(crate) fn stop_children(&mut self, until: Instant) -> bool {
        let stopped = self.host.as_ref().map_or(0, |host| host.signal_children(Signal::STOP));
        if stopped > 0 {
            self.resume_at = Some(until);
        }
        stopped > 0
    }

    /// Kills the supervisor.
    pub(crate) fn kill(&mut self) {
        if let Some(host) = &mut self.host {
            host.kill9();
        }
    }

    fn resume(&mut self) {
        if self.resume_at.take().is_some()
            && let Some(host) = &self.host
        {
            let _ = host.signal(Signal::CONT);
            host.signal_children(Signal::CONT);
        }
    }

    fn tend(&mut self) -> Result<()> {
        if self.resume_at.is_some_and(|at| Instant::now() >= at) {
            self.resume();
        }
        if self.host.as_mut().is_some_and(|host| host.exited().is_some()) {
            self.resume();
            self.fallen.extend(self.host.take());
            self.start_at = Instant::now() + RELAUNCH;
        }
        if self.host.is_none() && Instant::now() >= self.start_at {
            self.host =
                Some(Launch::new([self.role]).config(&self.config).env(SCHEDULES.0, schedules()).start()?);
        }
        Ok(())
    }

    fn logs(&self) -> String {
        self.fallen.iter().chain(&self.host).map(Cardcage::stderr).collect()
    }
}

/// What chaos declares, by its own environment variable. By the clock, so that a slot is known by its time.
const SCHEDULES: (&str, &str) = ("CARDCAGE_CHAOS_SCHEDULES", "tick");

fn schedules() -> String {
    let (_, name) = SCHEDULES;
    let order = json!({ "mode": "ok", "note": SLOT_NOTE });
    json!({ name: { "cron": "*/2 * * * * *", "overlap": "queue", "order": order } }).to_string()
}

/// Everything that runs.
#[derive(Debug)]
pub(crate) struct Company {
    pub(crate) posts: Vec<Post>,
    pub(crate) nats: Nats,
    broker_resumes_at: Option<Instant>,
    ports: Vec<Port>,
}

impl Company {
    /// Starts it and waits until it is ready. What really ran is written to `trace`.
    pub(crate) async fn assemble(trace: &Path) -> Result<Self> {
        let nats = Nats::start().await?;
        let config = config(&nats, trace)?;
        let ports = (0..APIS).map(|_| Port::reserve()).collect::<Result<Vec<_>>>()?;
        let api =
            |(n, port): (usize, &Port)| Post::new("api", n, config.clone().set("api.listen", port.address()));
        let worker = |n| Post::new("worker", n, config.clone());
        let posts = ports.iter().enumerate().map(api).chain((0..WORKERS).map(worker)).collect();
        let mut company = Self { posts, nats, broker_resumes_at: None, ports };
        company.heal().await?;
        Ok(company)
    }

    /// Clients of the API instances; their addresses outlive every restart.
    pub(crate) fn apis(&self) -> Result<Vec<Http>> {
        self.ports.iter().map(|port| Http::new(&port.address())).collect()
    }

    /// The namespace of all hosts.
    pub(crate) fn namespace(&self) -> &str {
        self.posts.first().map_or("", |post| post.config.namespace())
    }

    /// Starts what has exited and wakes what was stopped for long enough.
    pub(crate) fn tend(&mut self) -> Result<()> {
        if self.broker_resumes_at.is_some_and(|at| Instant::now() >= at) {
            self.resume_broker()?;
        }
        self.posts.iter_mut().try_for_each(Post::tend)
    }

    /// Whether the broker runs and is not stopped.
    pub(crate) fn is_broker_up(&self) -> bool {
        self.broker_resumes_at.is_none()
    }

    /// Stops the broker until `until`.
    pub(crate) async fn stop_broker(&mut self, until: Instant) -> Result<()> {
        self.nats.pause().await?;
        self.broker_resumes_at = Some(until);
        Ok(())
    }

    fn resume_broker(&mut self) -> Result<()> {
        self.broker_resumes_at = None;
        self.nats.resume()
    }

    /// Ends all faults and waits until every host is ready.
    pub(crate) async fn heal(&mut self) -> Result<()> {
        if self.broker_resumes_at.is_some() {
            self.resume_broker()?;
        }
        self.posts.iter_mut().for_each(Post::resume);
        let deadline = Deadline::after(BACK);
        loop {
            self.tend()?;
            let mut waiting = None;
            for post in &mut self.posts {
                let ready = match &mut post.host {
                    Some(host) => host.wait_ready(Deadline::after(Duration::ZERO)).await,
                    None => Err(Error::new("it is not running")),
                };
                if let Err(error) = ready {
                    waiting = Some(format!("{} is not ready: {error}", post.name));
                }
            }
            match waiting {
                None => return Ok(()),
                Some(error) if deadline.is_past() => return Err(Error::new(error)),
                Some(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Ends the schedule, as an operator does.
    pub(crate) async fn pause_schedule(&self) -> Result<()> {
        let Some(post) = self.posts.first() else { return Ok(()) };
        let schedule = format!("chaos.{}", SCHEDULES.1);
        let paused = Launch::new(["schedules", "pause", &schedule]).config(&post.config);
        let paused = paused.run(Deadline::after(BACK)).await?;
        if paused.status.success() {
            return Ok(());
        }
        Err(Error::new(format!("the schedule cannot be paused: {}", paused.stderr)))
    }

    /// Writes what every process logged into `folder`.
    pub(crate) fn keep_logs(&self, folder: &Path) -> Result<()> {
        let failed = || Error::doing(format!("cannot write logs to {}", folder.display()));
        std::fs::create_dir_all(folder).map_err(failed())?;
        for post in &self.posts {
            let file = folder.join(format!("{}.log", post.name.replace(' ', "-")));
            std::fs::write(file, post.logs()).map_err(failed())?;
        }
        std::fs::write(folder.join("nats-server.log"), self.nats.log()).map_err(failed())
    }
}

/// The configuration of every host here: a short lease, so that lost attempts come back while the storm lasts, and no
/// end by too many losses, for the storm causes more of them than any life would.
fn config(nats: &Nats, trace: &Path) -> Result<Config> {
    Ok(Config::new(nats)
        .plugin("hello")?
        .plugin("chaos")?
        .plugin_set("chaos", "trace", trace.display().to_string())
        .set("tasks.lease_ms", i64::try_from(LEASE_MS).unwrap_or(i64::MAX))
        .set("tasks.backoff", "100ms..1s")
        .set("tasks.lost_limit", 100)
        .set("drain.grace_ms", 2_000))
}
