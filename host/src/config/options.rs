//! The table of options. It exists so that every option is declared once: the typed settings, the checks,
//! `config/cardcage.toml` and `docs/reference/config.md` all come from here.
//!
//! Invariants: the unit is in the name (`_ms`, `_s`, `_bytes`), every number has bounds, every option has a
//! default or says what happens when it is unset, and one sentence says what it does. It refuses negated
//! names, values whose meaning depends on another option's value, and options that nothing reads.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use cardcage_protocol::Rate;
use serde::{Deserialize, Serialize};

use super::backoff::Backoff;
use super::kind::{Kind, integer};
use super::plugin_config::PluginConfig;
use super::stores::{STORES, Stores};
use super::time_scale::TimeScale;
use super::trust::Trust;

/// Each costs a process more, in each worker that has the plugin.
const PREVIOUS_MAX: usize = 4;

/// What an option is when nobody sets it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Preset {
    /// A value, as TOML text.
    Value(&'static str),
    /// Nothing; with an example as TOML text.
    Unset(&'static str),
    /// It must be set; with an example as TOML text.
    Required(&'static str),
}

/// One row of the table.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) default: Preset,
    /// One sentence.
    pub(crate) doc: &'static str,
}

/// A named group of rows.
#[derive(Debug)]
pub(crate) struct Section {
    pub(crate) name: &'static str,
    pub(crate) doc: &'static str,
    pub(crate) rows: &'static [Row],
}

macro_rules! preset {
    (unset $example:literal) => {
        Preset::Unset(stringify!($example))
    };
    (required $example:literal) => {
        Preset::Required(stringify!($example))
    };
    ($value:tt) => {
        Preset::Value(stringify!($value))
    };
}

/// One struct of settings and its section of the table.
macro_rules! section {
    (
        $(#[doc = $section_doc:literal])+
        $table:ident = $section:literal, $Struct:ident {
            $(
                $(#[doc = $doc:literal])+
                $name:ident: $type:ty = $default:tt $(($example:literal))?, $kind:expr;
            )+
        }
    ) => {
        $(#[doc = $section_doc])+
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[non_exhaustive]
        pub struct $Struct {
            $( $(#[doc = $doc])+ pub $name: $type, )+
        }

        pub(crate) static $table: Section = Section {
            name: $section,
            doc: concat!($($section_doc),+),
            rows: &[$( Row {
                name: stringify!($name),
                kind: $kind,
                default: preset!($default $($example)?),
                doc: concat!($($doc),+),
            } ),+],
        };
    };
}

pub(super) use {preset, section};

section! {
    /// The HTTP API: where it listens, and its limits.
    API = "api", Api {
        /// Address that the HTTP API listens on.
        listen: SocketAddr = "127.0.0.1:8080", Kind::Address;
        /// Largest request body that is accepted; a larger one gets 413.
        body_max_bytes: usize = 2_097_152, integer(1_024, 1_073_741_824);
        /// Largest request head (request line and headers) that is accepted; a larger one gets 431.
        headers_max_bytes: usize = 16_384, integer(8_192, 1_048_576);
        /// Time a client has to send a whole request head, and a connection may be without a request, before it is closed.
        header_read_timeout_ms: u64 = 10_000, integer(100, 300_000);
        /// Longest time in which a caller takes nothing of what is sent to it before its connection is closed.
        write_timeout_ms: u64 = 30_000, integer(100, 600_000);
        /// Deadline of a call, from its arrival until its reply begins; passed, the caller gets 504, or 400 where its own body is not here yet.
        call_timeout_ms: u64 = 30_000, integer(10, 3_600_000);
        /// Requests handled at the same time; one more gets 503 at once.
        in_flight_max: usize = 1_024, integer(1, 65_536);
        /// Requests that may wait for a task's end or stream its events at the same time; one more gets 503. They count as requests, too.
        followers_max: usize = 256, integer(1, 65_536);
        /// Largest reply that is passed on from a worker; a larger one gets 502.
        reply_max_bytes: usize = 8_388_608, integer(1_024, 1_073_741_824);
        /// Time the broker has to acknowledge a task before the caller gets 503.
        enqueue_timeout_ms: u64 = 2_000, integer(10, 60_000);
        /// Longest silence in a streamed body before the stream is given up.
        stream_idle_timeout_ms: u64 = 5_000, integer(100, 600_000);
    }
}

section! {
    /// The worker: how much it does at the same time.
    WORKER = "worker", Worker {
        /// Calls run at the same time, per plugin; one more is answered `busy`.
        call_concurrency: usize = 256, integer(1, 4_096);
        /// Tasks run at the same time, per plugin. An idle task keeps its share of them, at least one; all idle ones together keep no more than half, unless they are that many.
        task_concurrency: usize = 64, integer(1, 4_096);
        /// Attempts that a child starts before another one takes its place and it drains; unset means any number.
        recycle_after_tasks: Option<u64> = unset(100_000), integer(1, 1_000_000_000_000);
        /// Resident memory above which another child takes its place and it drains; unset means any. A fresh child that is above it is left alone.
        recycle_above_mb: Option<u64> = unset(1_024), integer(16, 16_777_216);
        /// Resident memory above which a child is killed, as the kernel does where memory is short; it is looked at twice a second. Unset means any.
        memory_max_mb: Option<u64> = unset(2_048), integer(16, 16_777_216);
        /// Threads of each plugin's runtime: as many cores as it can use at once with its own code.
        plugin_threads: u32 = 1, integer(1, 64);
    }
}

section! {
    /// The admin listener: `/livez`, `/readyz`, `/metrics`, `/reload`.
    ADMIN = "admin", Admin {
        /// Address of the admin listener; unset means 127.0.0.1:9464 for the API and 127.0.0.1:9465 for the worker.
        listen: Option<SocketAddr> = unset("127.0.0.1:9464"), Kind::Address;
        /// Whether a reload may be asked for from other machines, where the listener is open to them.
        remote_reload: bool = false, Kind::Boolean;
    }
}

section! {
    /// The connection to NATS, and what the streams are created with.
    BROKER = "broker", Broker {
        /// Server address, or several separated by commas, without credentials in it.
        url: String = "nats://127.0.0.1:4222", Kind::Url;
        /// Prefix of every subject, stream and bucket, so that several installations can share an account.
        namespace: String = "cardcage", Kind::Name;
        /// Copies of each stream that the cluster keeps.
        replicas: usize = 1, integer(1, 5);
        /// Where streams are stored.
        storage: Storage = "file", Kind::OneOf(&["file", "memory"]);
        /// File with the NATS credentials (`.creds`); unset means that none are sent.
        credentials_file: Option<PathBuf> = unset("broker.creds"), Kind::Path;
        /// Time one attempt to connect may take.
        connect_timeout_ms: u64 = 2_000, integer(100, 60_000);
        /// Time a starting worker waits for the broker before it exits with 69.
        startup_timeout_ms: u64 = 10_000, integer(100, 600_000);
        /// Tasks that may wait, per plugin; one more gets 503.
        queue_max_messages: u64 = 1_000_000, integer(1, 1_000_000_000);
        /// Bytes of tasks that may wait, per plugin; more gets 503.
        queue_max_bytes: u64 = 1_073_741_824, integer(1_048_576, 1_099_511_627_776);
    }
}

section! {
    /// Durable tasks: leases, retries, and how long their traces are kept.
    TASKS = "tasks", Tasks {
        /// How long a worker's right to an attempt lasts without renewal; a crashed worker's tasks restart after it.
        lease_ms: u64 = 30_000, integer(1_000, 600_000);
        /// Hard limit of one attempt, where the task does not state a shorter one.
        timeout_ms: u64 = 600_000, integer(100, 86_400_000);
        /// Time a running handler has after its task was cancelled; then it is dropped.
        cancel_grace_ms: u64 = 10_000, integer(0, 3_600_000);
        /// Attempts of a task that does not state its own number.
        max_attempts: u32 = 5, integer(1, 1_000);
        /// Wait before the second attempt and longest wait between attempts, doubling in between.
        backoff: Backoff = "1s..5m", Kind::Backoff;
        /// Attempts that end with the death of the worker before the task becomes a dead letter.
        crash_limit: u32 = 3, integer(1, 100);
        /// Leases lost without explanation before the task becomes a dead letter.
        lost_limit: u32 = 10, integer(1, 100);
        /// Different tasks of one plugin version that crash their worker before that version is quarantined; 0: never.
        quarantine_after: u32 = 5, integer(0, 100);
        /// Time within which they must do so.
        quarantine_window_s: u64 = 600, integer(1, 86_400);
        /// Largest body of a task.
        body_max_bytes: usize = 524_288, integer(1_024, 524_288);
        /// Largest result that is kept; a task that returns a larger one fails.
        result_max_bytes: usize = 262_144, integer(1_024, 524_288);
        /// How long an outcome can be looked up; no shorter than the broker remembers message ids, so that no repeat runs what has ended.
        result_ttl_s: u64 = 86_400, integer(120, 31_536_000);
        /// How long an idempotency key is remembered.
        idempotency_ttl_s: u64 = 604_800, integer(60, 31_536_000);
        /// How long a dead letter is kept for replay.
        dead_max_age_s: u64 = 2_592_000, integer(60, 315_360_000);
        /// Deliveries that may be unacknowledged at the same time, per task, over all workers.
        ack_pending_max: u32 = 10_000, integer(1, 100_000);
        /// Time without any worker that has a plugin, after which its schedules stand still until one has it again.
        schedule_absent_s: u64 = 86_400, integer(10, 31_536_000);
    }
}

section! {
    /// Stopping.
    DRAIN = "drain", Drain {
        /// Time to finish or hand back what is held after SIGTERM; at most two thirds of `tasks.lease_ms`.
        grace_ms: u64 = 20_000, integer(0, 500_000);
    }
}

section! {
    /// Waits between attempts.
    RETRY = "retry", Retry {
        /// Factor of every wait before another attempt, whoever chose it; for tests, where 1s is to pass in 10ms by 0.01.
        time_scale: TimeScale = 1.0, Kind::Scale;
    }
}

section! {
    /// Loading plugins.
    LOADING = "loading", Loading {
        /// Time each step of loading one plugin may take before it is refused.
        timeout_ms: u64 = 10_000, integer(100, 600_000);
        /// Directory for the private copies that libraries are loaded from; unset means one under `XDG_RUNTIME_DIR` or the temporary directory.
        cache_dir: Option<PathBuf> = unset("/var/cache/cardcage"), Kind::Path;
        /// Whether handlers whose polls are short are polled on the host's own threads, all but one of which may be lent; faster, but a handler that blocks against its habit holds up a thread of the host.
        lend_threads: bool = true, Kind::Boolean;
    }
}

section! {
    /// Logs, written to standard error.
    LOG = "log", Log {
        /// Which events are logged: a level, or directives such as `info,cardcage=debug`.
        filter: String = "info,async_nats=warn", Kind::Filter;
        /// How an event is written.
        format: LogFormat = "text", Kind::OneOf(&["text", "json"]);
    }
}

section! {
    /// Only for `cardcage dev`.
    DEV = "dev", Dev {
        /// Whether `cardcage dev` starts a nats-server of its own at `broker.url`.
        broker_managed: bool = true, Kind::Boolean;
        /// The nats-server to start: a path, or a name looked up in `PATH`.
        nats_server: PathBuf = "nats-server", Kind::Program;
        /// Config file for that nats-server; unset means JetStream in a temporary directory.
        nats_config: Option<PathBuf> = unset("nats-server.conf"), Kind::Path;
        /// How often library files are looked at for changes.
        watch_interval_ms: u64 = 500, integer(50, 60_000);
    }
}

section! {
    /// One plugin. `<name>` is `[a-z0-9_-]`, 1 to 64 characters.
    PLUGIN = "plugins.<name>", PluginSettings {
        /// Library file to load, relative to the file that states it.
        library: PathBuf = required("libhello.so"), Kind::Path;
        /// Libraries of other majors of the plugin, each in a worker process of its own that runs the tasks and answers the calls of its major and has neither routes at the edge nor schedules; relative to the file that states them.
        previous: Vec<PathBuf> = [], Kind::Paths { max: PREVIOUS_MAX };
        /// Path under which the plugin's routes are mounted; unset means `/<name>`.
        prefix: String = unset("/hello"), Kind::Prefix;
        /// Moves every `worker` or `inline` route of the plugin; `enqueue` routes stay what they are.
        placement: Option<Placement> = unset("worker"), Kind::OneOf(&["worker", "inline"]);
        /// Whether the host refuses to start (exit 70) when the plugin cannot be loaded.
        required: bool = true, Kind::Boolean;
        /// Tasks run at the same time in each worker process; it cannot be more than `worker.task_concurrency`, or its group's.
        task_concurrency: Option<usize> = unset(8), integer(1, 4_096);
        /// Calls run at the same time in each worker process; wins over `worker.call_concurrency`, and its group's.
        call_concurrency: Option<usize> = unset(16), integer(1, 4_096);
        /// Threads of the plugin's runtime, in each process that has it; wins over `worker.plugin_threads`, and its group's.
        threads: Option<u32> = unset(2), integer(1, 64);
        /// Resident memory above which the worker process that has the plugin is killed. The plugin gets a process of its own, as if it were a worker group of its name, so it can neither need other plugins nor be needed. Unset means that it shares one, and that one's ceiling.
        memory_max_mb: Option<u64> = unset(1_024), integer(16, 16_777_216);
        /// Limits of single tasks, by name, over what their author declared; see `[plugins.<name>.tasks.<task>]`.
        tasks: BTreeMap<String, TaskOverrides> = unset("{ fulfil = { max_attempts = 3 } }"), Kind::Free;
        /// Single schedules, by name, over what their author declared; see `[plugins.<name>.schedules.<schedule>]`.
        schedules: BTreeMap<String, ScheduleOverrides> = unset("{ nightly = { enabled = false } }"), Kind::Free;
        /// Placement of single routes, by method and path as the plugin declares them; wins over `placement`.
        routes: BTreeMap<String, Placement> = unset("{ \"POST /call\" = \"inline\" }"), Kind::Routes;
        /// The plugin's own settings; a value `{ env = "VARIABLE" }` or `{ file = "path" }` is replaced by the secret it names.
        config: PluginConfig = unset("{ api_key = { env = \"API_KEY\" } }"), Kind::Free;
    }
}

section! {
    /// One task of one plugin: each option that is set wins over what the task's author declared; the others change nothing.
    TASK = "plugins.<name>.tasks.<task>", TaskOverrides {
        /// Attempts at most, the first included.
        max_attempts: Option<u32> = unset(8), integer(1, 1_000);
        /// Wait before the second attempt; it doubles from then on.
        backoff_initial_ms: Option<u64> = unset(2_000), integer(0, 604_800_000);
        /// Longest wait between attempts.
        backoff_max_ms: Option<u64> = unset(600_000), integer(0, 604_800_000);
        /// Hard limit of one attempt; `tasks.timeout_ms` stays the longest that any task gets.
        timeout_ms: Option<u64> = unset(30_000), integer(100, 86_400_000);
        /// When a handler is told that its attempt should come to an end; it counts only where it comes before the hard limit.
        soft_timeout_ms: Option<u64> = unset(25_000), integer(10, 86_400_000);
        /// Handlers at the same time, per worker.
        concurrency: Option<u32> = unset(4), integer(1, 4_096);
        /// Handlers at the same time, over all workers; kept in the task's consumer, so the highest version of the plugin decides.
        max_running: Option<u32> = unset(2), integer(1, 100_000);
        /// Starts per second, minute or hour, over all workers.
        rate: Option<Rate> = unset("10/s"), Kind::Rate;
        /// How long the task may wait to be started, from when it is due, before it ends `expired`.
        expires_ms: Option<u64> = unset(3_600_000), integer(100, 31_622_400_000);
        /// How long its outcome can be looked up; at most `tasks.result_ttl_s`, and no less than four leases.
        result_ttl_s: Option<u64> = unset(3_600), integer(120, 31_536_000);
        /// What becomes of it when its worker was lost: `fail` never starts it twice.
        on_lost: Option<OnLost> = unset("fail"), Kind::OneOf(&["retry", "fail"]);
        /// Field of the body of which one value is queued, retrying or running at a time; an empty text means none.
        unique_key: Option<String> = unset("order.id"), Kind::Field;
        /// Field of the body of which one value is running at a time; an empty text means none.
        serial_key: Option<String> = unset("order.id"), Kind::Field;
        /// Whether it has a queue for each priority; taken away, what was enqueued as high or low waits until it is given back.
        priorities: Option<bool> = unset(true), Kind::Boolean;
        /// Task of the same plugin that is run when this one is given up; an empty text means none.
        exhausted: Option<String> = unset("give_up"), Kind::NameOrNone;
    }
}

section! {
    /// One schedule of one plugin: each option that is set wins over what its author declared.
    SCHEDULE = "plugins.<name>.schedules.<schedule>", ScheduleOverrides {
        /// Whether it fires.
        enabled: Option<bool> = unset("false"), Kind::Boolean;
        /// Interval from one slot to the next, instead of what its author declared.
        every: Option<String> = unset("10m"), Kind::Every;
        /// Cron expression of six fields (second, minute, hour, day, month, weekday), instead of what its author declared.
        cron: Option<String> = unset("0 30 2 * * *"), Kind::Cron;
        /// Time zone whose clocks the cron expression means.
        time_zone: Option<String> = unset("Europe/Berlin"), Kind::TimeZone;
    }
}

/// The sections in the order in which they are written out; plugins come after them.
pub(crate) static SECTIONS: &[&Section] =
    &[&API, &WORKER, &ADMIN, &BROKER, &STORES, &TASKS, &RETRY, &DRAIN, &LOADING, &LOG, &DEV];

/// Everything a host is told, resolved: defaults filled in, layers merged, secrets read, checks passed.
/// Nobody checks it again.
///
/// Its JSON form holds resolved secrets in `plugins.<name>.config`: it goes from a supervisor to its child and
/// nowhere else. `Debug` does not show them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Settings {
    /// `[api]`
    pub api: Api,
    /// `[worker]`
    pub worker: Worker,
    /// `[[worker.group]]`; none: one process has all plugins.
    #[serde(default)]
    pub groups: Vec<super::groups::Group>,
    /// `[admin]`
    pub admin: Admin,
    /// `[broker]`
    pub broker: Broker,
    /// `[stores]`
    pub stores: Stores,
    /// `[tasks]`
    pub tasks: Tasks,
    /// `[retry]`
    pub retry: Retry,
    /// `[drain]`
    pub drain: Drain,
    /// `[loading]`
    pub loading: Loading,
    /// `[log]`
    pub log: Log,
    /// `[dev]`
    pub dev: Dev,
    /// `[plugins]`: which libraries may be loaded at all.
    pub trust: Trust,
    /// `[plugins.<name>]`: the plugin set, by name.
    pub plugins: BTreeMap<String, PluginSettings>,
    /// Which part of the plugin set this is; nobody sets it, [`Settings::of_share`] does.
    #[serde(default)]
    pub part: super::previous::Part,
}

impl Settings {
    /// Address of the API's admin listener.
    #[must_use]
    pub fn api_admin_listen(&self) -> SocketAddr {
        self.admin.listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 9464)))
    }

    /// Address of the worker's admin listener.
    #[must_use]
    pub fn worker_admin_listen(&self) -> SocketAddr {
        self.admin.listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 9465)))
    }
}

/// Where streams are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Storage {
    /// On disk.
    File,
    /// In memory: gone with the server.
    Memory,
}

/// How a log event is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One line for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// What becomes of a task whose worker was lost while it ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnLost {
    /// It is tried again.
    Retry,
    /// It ends `failed`: it is never started twice.
    Fail,
}

/// Where the operator wants a route's handler to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Placement {
    /// On a worker, as a call.
    Worker,
    /// In the API's child process.
    Inline,
}
