//! Supervisors with children that misbehave: real shells where a real death matters, threads of this
//! process at the other end of the channel where the protocol does.

mod channel;
mod members;
mod reloading;
mod supervising;

use super::child::{Attached, attach_to};
use super::control::{self, LoadedPlugin, Phase, Ready, Refusal, Role, Step, ToChild, ToSupervisor};
use super::spawn::spawn_command;
use super::*;
use crate::crash::{Board, Entry, Kind};
use crate::exit::Exit;
use futures_util::future::BoxFuture;
use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

/// No test waits longer for anything.
const LONG: Duration = Duration::from_secs(30);
const SEGV: i32 = 11;

type Children = dyn Fn(usize, OwnedFd) -> Box<dyn Process> + Send + Sync;

/// Starts the n-th child by a function.
struct Script {
    children: Box<Children>,
    started: AtomicUsize,
}

impl Spawn for Script {
    fn spawn(&self, control: OwnedFd) -> std::io::Result<Box<dyn Process>> {
        Ok((self.children)(self.started.fetch_add(1, Ordering::SeqCst), control))
    }
}

/// A shell that says `reports` and then runs `script`.
fn shell(control: OwnedFd, reports: &[ToSupervisor], script: &str) -> Box<dyn Process> {
    let bytes: Vec<u8> = reports.iter().flat_map(|report| control::encode(report).unwrap()).collect();
    let octal: String = bytes.iter().map(|byte| format!("\\{byte:03o}")).collect();
    let mut command = tokio::process::Command::new("/bin/sh");
    command.arg("-c").arg(format!("printf '{octal}' >&0; {script}"));
    spawn_command(command, control).unwrap()
}

/// A child in a thread of this process. It is killed by forgetting it.
struct Fake {
    ended: watch::Receiver<Option<ExitStatus>>,
    end: watch::Sender<Option<ExitStatus>>,
}

impl Process for Fake {
    fn id(&self) -> Option<u32> {
        Some(1)
    }

    fn kill(&mut self) {
        self.end.send_if_modified(|end| end.is_none() && end.replace(ExitStatus::from_raw(9)).is_none());
    }

    fn wait(&mut self) -> BoxFuture<'_, std::io::Result<ExitStatus>> {
        Box::pin(async { Ok(self.ended.wait_for(Option::is_some).await.unwrap().unwrap()) })
    }
}

fn nothing_overdue(_: Duration) {}

/// A child that runs `life`, which returns its raw wait status.
fn fake(control: OwnedFd, life: impl FnOnce(Attached) -> i32 + Send + 'static) -> Box<dyn Process> {
    let (end, ended) = watch::channel(None);
    let ending = end.clone();
    std::thread::spawn(move || {
        let channel = control.try_clone().unwrap();
        let status = ExitStatus::from_raw(life(attach_to(control, nothing_overdue).unwrap()));
        let _ = rustix::net::shutdown(channel.as_fd(), rustix::net::Shutdown::Both);
        ending.send_if_modified(|end| end.is_none() && end.replace(status).is_none());
    });
    Box::new(Fake { ended, end })
}

fn ready() -> ToSupervisor {
    let plugin = LoadedPlugin {
        name: "hello".into(),
        version: "1.0.0".into(),
        is_loaded: true,
        routes: 3,
        tasks: 1,
        task_names: vec!["task".into()],
        called: vec![],
        paths: vec![],
        bodies: vec![],
    };
    ToSupervisor::Ready(Ready { plugins: vec![plugin], bound: vec!["127.0.0.1:1".into()] })
}

fn phase(plugin: &str, step: Step) -> ToSupervisor {
    let file = format!("lib{plugin}.so");
    ToSupervisor::Phase {
        entered: Some(Phase {
            plugin: plugin.into(),
            version: "1.0.0".into(),
            file,
            step,
            index: None,
            thread: 0,
        }),
    }
}

/// Serves until told to drain, and exits with 0.
fn good_child(mut child: Attached) -> i32 {
    child.outbox.send(&ready()).unwrap();
    while let Some(ToChild::Accept | ToChild::Metrics { .. } | ToChild::Start(_)) =
        child.orders.blocking_recv()
    {}
    child.outbox.send(&ToSupervisor::Leaving).unwrap();
    child.outbox.send(&ToSupervisor::Drained { unfinished: 0 }).unwrap();
    0
}

/// Those who died, and the plugins that each had begun.
#[derive(Default)]
struct Deaths(Mutex<Vec<(Vec<Entry>, Death)>>, Mutex<Vec<Vec<String>>>);

impl Aftermath for Deaths {
    fn child_died(&self, remains: Vec<(Entry, Fate)>, child: Deceased) -> BoxFuture<'_, ()> {
        let entries = remains.into_iter().map(|(entry, _)| entry).collect();
        self.0.lock().unwrap().push((entries, child.how));
        self.1.lock().unwrap().push(child.begun.into_iter().map(|one| one.name).collect());
        Box::pin(std::future::ready(()))
    }

    fn overran(&self, task: Entry) -> BoxFuture<'_, ()> {
        self.0.lock().unwrap().push((vec![task], Death::Killed("overran")));
        self.1.lock().unwrap().push(Vec::new());
        Box::pin(std::future::ready(()))
    }
}

/// A running supervisor.
struct Running {
    handle: Handle,
    stop: ShutdownHandle,
    deaths: Arc<Deaths>,
    board: Board,
    exit: tokio::task::JoinHandle<Exit>,
    reloads: Reloads,
}

impl Running {
    async fn wait_for(&self, wanted: impl FnMut(&Snapshot) -> bool) -> Snapshot {
        tokio::time::timeout(LONG, self.handle.status.wait_for(wanted)).await.expect("the status never came")
    }

    async fn exit(self) -> Exit {
        tokio::time::timeout(LONG, self.exit).await.expect("the supervisor never ended").unwrap()
    }

    async fn stop(self) -> Exit {
        self.stop.request();
        self.exit().await
    }
}

fn options(
    children: impl Fn(usize, OwnedFd) -> Box<dyn Process> + Send + Sync + 'static,
) -> SupervisorOptions {
    SupervisorOptions {
        role: Role::Api,
        instance: "test".into(),
        seat: None,
        plan: Plan {
            settings: serde_json::json!({"some": "settings"}),
            grace: LONG,
            load_timeout: LONG,
            required: BTreeSet::from(["orders".to_owned()]),
            limits: Limits::default(),
        },
        listener: None,
        boards: [Board::create().unwrap(), Board::create().unwrap()],
        hooks: Arc::new(Deaths::default()),
        spawn: Arc::new(Script { children: Box::new(children), started: AtomicUsize::new(0) }),
        shelf: Shelf::default(),
    }
}

/// The heart of children that have none of their own, such as a shell.
async fn keep_alive(boards: [Board; 2]) {
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    loop {
        ticks.tick().await;
        boards.iter().for_each(Board::beat);
    }
}

fn run(mut options: SupervisorOptions) -> Running {
    let deaths = Arc::new(Deaths::default());
    options.hooks = deaths.clone();
    let board = options.boards[0];
    tokio::spawn(keep_alive(options.boards));
    let supervisor = Supervisor::new(options);
    let (handle, reloads) = (supervisor.handle(), supervisor.reloads());
    let (stop, shutdown) = Shutdown::manual();
    Running { handle, stop, deaths, board, exit: tokio::spawn(supervisor.run(shutdown)), reloads }
}
