//! A child: attaches to its supervisor, loads the plugins, and becomes an API or a worker.

use super::blocked::Blocked;
use super::metrics::line;
use super::{api, options, worker};
use crate::broker::{Broker, Error};
use crate::config::Settings;
use crate::edge::Departure;
use crate::exit::Exit;
use crate::loader::{
    self, Description, Lending, LoadOptions, LoadStep, PluginSet, Refusal, RouteDescription, Served,
    Services, Source, TaskDescription, Trust,
};
use crate::logging;
use crate::process::child::{self, Attached, Outbox};
use crate::process::control::{self, LoadedPlugin, Phase, Ready, Role, Step, ToChild, ToSupervisor};
use cardcage_protocol::Name;
use cardcage_protocol::presence::{PresentBody, PresentPath};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// What both roles need once the child is attached.
pub(super) struct Context {
    pub(super) settings: Settings,
    pub(super) instance: cardcage_protocol::InstanceId,
    pub(super) board: crate::crash::Board,
    pub(super) outbox: Outbox,
    pub(super) orders: mpsc::UnboundedReceiver<ToChild>,
    pub(super) listener: Option<std::net::TcpListener>,
    pub(super) excluded: Vec<control::Excluded>,
    /// Cancelled when an API is told to accept connections.
    pub(super) may_accept: CancellationToken,
    /// What a child before this one serves.
    needed: Vec<String>,
    /// Threads of each plugin's runtime.
    threads: u32,
    lending: Arc<Lending>,
    served: Served,
    blocked: Blocked,
}

/// What a supervisor is told of a plugin.
fn loaded(description: &Description, called: Vec<String>, is_loaded: bool) -> LoadedPlugin {
    let path = |route: &RouteDescription| {
        let is_called = called.contains(&route.name);
        let at = format!("{} {}", route.method, route.path);
        is_called.then(|| Some(PresentPath { route: Name::new(&route.name).ok()?, at })).flatten()
    };
    let body = |task: &TaskDescription| {
        let schema = task.reader_hash(&description.version);
        Some(PresentBody { task: Name::new(&task.name).ok()?, schema, upcasts: task.upcasts })
    };
    LoadedPlugin {
        name: description.name.clone(),
        version: description.version.clone(),
        is_loaded,
        routes: description.routes.len(),
        tasks: description.tasks.len(),
        task_names: description.tasks.iter().map(|task| task.name.clone()).collect(),
        paths: description.routes.iter().filter_map(path).collect(),
        bodies: description.tasks.iter().filter_map(body).collect(),
        called,
    }
}

/// A start that failed: the exit code that fits, and a sentence for people.
pub(super) type Failure = (Exit, String);

/// Runs the child that a supervisor started. Does not return: the process ends without running any library's
/// destructors.
pub async fn run() -> Exit {
    let attached = match child::attach() {
        Ok(attached) => attached,
        Err(error) => {
            tracing::error!(%error, "this command is for cardcage itself");
            return Exit::Usage;
        }
    };
    let outbox = attached.outbox.clone();
    let exit = match serve(attached).await {
        Ok(exit) => exit,
        Err((exit, message)) => {
            let failed = ToSupervisor::Failed { exit_code: exit.code(), message, retry: false };
            report(&outbox, &failed);
            exit
        }
    };
    loader::exit_now(i32::from(exit.code()))
}

async fn serve(attached: Attached) -> Result<Exit, Failure> {
    let start = attached.start;
    let settings: Settings = serde_json::from_value(start.settings)
        .map_err(|error| (Exit::Unexpected, format!("the settings cannot be read: {error}")))?;
    logging::start_in(&settings.log, start.seat.as_ref());
    // Before any plugin's code runs.
    attached
        .board
        .note_faults()
        .map_err(|error| (Exit::Unexpected, format!("no signal handler can be installed: {error}")))?;
    let lending = match settings.loading.lend_threads {
        true => Lending::start(tokio::runtime::Handle::current())
            .map_err(|error| (Exit::Unexpected, format!("no thread can be started: {error}")))?,
        false => Lending::none(),
    };
    let telling = attached.outbox.clone();
    let context = Context {
        served: Served::new(start.served, move |judged| report(&telling, &ToSupervisor::Judged(judged))),
        instance: cardcage_protocol::InstanceId::new(&start.instance)
            .map_err(|error| (Exit::Unexpected, error.to_string()))?,
        board: attached.board,
        outbox: attached.outbox,
        orders: attached.orders,
        listener: attached.listener.map(std::net::TcpListener::from),
        excluded: start.excluded,
        may_accept: CancellationToken::new(),
        needed: start.needed,
        threads: match start.role {
            Role::Api => 1,
            Role::Worker => settings.worker.plugin_threads,
        },
        lending,
        blocked: Blocked::default(),
        settings,
    };
    match start.role {
        Role::Api => api::serve(context).await,
        Role::Worker => worker::serve(context).await,
    }
}

/// Sends a report; a supervisor that is gone has ended the channel, and the drain is on its way.
pub(super) fn report(outbox: &Outbox, report: &ToSupervisor) {
    if let Err(error) = outbox.send(report) {
        tracing::debug!(%error, "a report could not be sent to the supervisor");
    }
}

impl Context {
    pub(super) fn report(&self, what: &ToSupervisor) {
        report(&self.outbox, what);
    }

    pub(super) async fn connect(&self) -> Result<Broker, Failure> {
        let options = options::broker_options(&self.settings, self.instance.as_str())
            .map_err(|error| (Exit::Config, error.to_string()))?;
        Broker::connect(options).await.map_err(|error| (Exit::Config, error.to_string()))
    }

    /// Whether it is a process of previous libraries.
    pub(super) fn is_previous(&self) -> bool {
        self.settings.part.generation > 0
    }

    fn is_required(&self, plugin: &str) -> bool {
        let is_needed = self.needed.iter().any(|needed| needed == plugin);
        is_needed || self.settings.plugins.get(plugin).is_none_or(|settings| settings.required)
    }

    /// Loads the plugin set, telling the supervisor each step, and each refusal.
    ///
    /// Fails with exit 70 where a required plugin was refused.
    pub(super) async fn load(&self, services: Arc<dyn Services>) -> Result<PluginSet, Failure> {
        let sources = self.sources();
        let mut options = self.load_options(services);
        options.beside = self.look_elsewhere(&options).await?;
        let mut tell = self.teller(&sources);
        // Plugin code runs here: it gets a thread that serves nothing.
        let loading = tokio::task::spawn_blocking(move || loader::load_all(&sources, &options, &mut tell));
        let set =
            loading.await.map_err(|error| (Exit::Unexpected, format!("loading ended early: {error}")))?;
        self.settle(&set)?;
        Ok(set)
    }

    /// The plugins that this child is to have.
    pub(super) fn sources(&self) -> Vec<Source> {
        options::sources(&self.settings, &self.excluded)
    }

    pub(super) fn load_options(&self, services: Arc<dyn Services>) -> LoadOptions {
        LoadOptions {
            is_alone: false,
            beside: Arc::default(),
            cache_dir: self.settings.loading.cache_dir.clone(),
            trust: Trust::read(&self.settings.trust),
            log_filter: self.settings.log.filter.clone(),
            threads: self.threads,
            services,
            runtime: tokio::runtime::Handle::current(),
            board: Some(self.board),
            lending: self.lending.clone(),
            served: self.served.clone(),
        }
    }

    /// Tells the supervisor each step of loading.
    pub(super) fn teller(&self, sources: &[Source]) -> impl FnMut(Option<LoadStep<'_>>) + Send + 'static {
        let outbox = self.outbox.clone();
        let files: Vec<(String, String)> =
            sources.iter().map(|s| (s.name.clone(), s.library.display().to_string())).collect();
        move |step| {
            let entered = step.map(|LoadStep { plugin, version, step, index }| Phase {
                plugin: plugin.to_owned(),
                version: version.to_owned(),
                index,
                thread: crate::crash::this_thread(),
                file: files
                    .iter()
                    .find(|(name, _)| name == plugin)
                    .map(|(_, file)| file.clone())
                    .unwrap_or_default(),
                step: match step {
                    "open" => Step::Open,
                    "describe" => Step::Describe,
                    _ => Step::Init,
                },
            });
            report(&outbox, &ToSupervisor::Phase { entered });
        }
    }

    /// What follows from loading.
    pub(super) fn settle(&self, set: &PluginSet) -> Result<(), Failure> {
        self.judge(&set.refused)?;
        if let Some(fault) = &set.stranded {
            // The next child begins without those that did not start.
            let exit_code = Exit::PluginRefused.code();
            self.report(&ToSupervisor::Failed { exit_code, message: fault.clone(), retry: true });
            loader::exit_now(i32::from(exit_code));
        }
        self.judge_tasks(set)?;
        self.blocked.watch(set, self.board, &self.outbox);
        Ok(())
    }

    /// Overrides of tasks and schedules that do not exist are a mistake in the configuration.
    fn judge_tasks(&self, set: &PluginSet) -> Result<(), Failure> {
        if self.is_previous() {
            // They are about the current library.
            return Ok(());
        }
        let faults = set.descriptions().flat_map(|(source, description)| {
            let mut faults = loader::task_faults(&source.name, &source.tasks, description);
            faults.extend(loader::schedule_faults(&source.name, &source.schedules, description));
            faults
        });
        let faults: Vec<String> = faults.collect();
        if faults.is_empty() { Ok(()) } else { Err((Exit::Config, faults.join(". "))) }
    }

    /// Tells the supervisor of refusals.
    pub(super) fn judge(&self, refused: &[Refusal]) -> Result<(), Failure> {
        for refusal in refused {
            let required = self.is_required(&refusal.plugin);
            self.report(&ToSupervisor::Refused(control::Refusal::of(refusal, required)));
        }
        let required: Vec<&str> = refused
            .iter()
            .filter(|refusal| self.is_required(&refusal.plugin))
            .map(|refusal| refusal.plugin.as_str())
            .collect();
        // Why has just been told, once for each.
        let message = format!("required plugins were refused: {}", required.join(", "));
        if required.is_empty() { Ok(()) } else { Err((Exit::PluginRefused, message)) }
    }

    /// Says that it serves; `called` are a plugin's routes that run on workers.
    pub(super) fn ready(
        &self,
        set: &PluginSet,
        bound: Vec<String>,
        called: impl Fn(&Source, &Description) -> Vec<String>,
    ) {
        let plugins = set.descriptions().enumerate().map(|(place, (source, description))| {
            loaded(description, called(source, description), place < set.plugins.len())
        });
        self.report(&ToSupervisor::Ready(Ready { plugins: plugins.collect(), bound }));
    }

    /// Metrics of what both roles lend to plugins.
    fn lent(&self) -> String {
        let mut text = String::new();
        text.push_str("# TYPE cardcage_handlers_ended_in_place_total counter\n");
        line(&mut text, "cardcage_handlers_ended_in_place_total", "", self.lending.ended_in_place());
        text.push_str("# TYPE cardcage_lent_threads_held_up gauge\n");
        line(&mut text, "cardcage_lent_threads_held_up", "", self.lending.held_up());
        text.push_str("# TYPE cardcage_lent_thread_held_up_total counter\n");
        for (plugin, times) in self.lending.times() {
            line(&mut text, "cardcage_lent_thread_held_up_total", &format!("{{plugin=\"{plugin}\"}}"), times);
        }
        text.push_str(&self.blocked.text());
        text
    }

    /// The next drain order, answering requests for metrics until then. `None` of a channel means drain too.
    pub(super) async fn drain_ordered(&mut self, metrics: impl Fn() -> String) -> Departure {
        let departure =
            |grace_ms, is_followed| Departure { grace: Duration::from_millis(grace_ms), is_followed };
        loop {
            match self.orders.recv().await {
                Some(ToChild::Drain { grace_ms }) => return departure(grace_ms, false),
                Some(ToChild::HandOver { grace_ms }) => return departure(grace_ms, true),
                Some(ToChild::Metrics { id }) => {
                    self.report(&ToSupervisor::MetricsText { id, text: metrics() + &self.lent() })
                }
                Some(ToChild::Accept) => self.may_accept.cancel(),
                Some(ToChild::Start(_)) => {}
                None => return departure(self.settings.drain.grace_ms, false),
            }
        }
    }
}

/// Stops the plugins: they are told, and their runtimes end, each within `within`.
pub(super) async fn stop_plugins(set: PluginSet, within: Duration) {
    let stopping = tokio::task::spawn_blocking(move || {
        for (_, plugin) in &set.plugins {
            plugin.drain();
        }
        let each = within / u32::try_from(set.plugins.len().max(1)).unwrap_or(1);
        for (_, plugin) in &set.plugins {
            plugin.stop(each);
        }
    });
    // A plugin that does not stop is cut off by the end of the process.
    let _ = tokio::time::timeout(within, stopping).await;
}

/// A broker error at start, as a failure.
pub(super) fn broker_failure(error: &Error) -> Failure {
    let exit = match error {
        Error::Settings(_) | Error::Layout(_) => Exit::Config,
        _ => Exit::Unavailable,
    };
    (exit, error.to_string())
}
