//! `cardcage`: parse what was typed, do it, say by the exit code how it went.

use std::process::ExitCode;

use cardcage::cli::{self, Cli, Command, InstancesCommand, PluginCommand, TasksCommand, WorkersCommand};
use cardcage::exit::Exit;
use cardcage::process::control::Role;
use cardcage::{command, role};
use clap::Parser as _;
use tokio::runtime::{Builder, Runtime};

/// Much of what the host frees was allocated on another thread. A sanitizer brings an allocator of its own.
#[cfg(not(cardcage_sanitize))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match runtime() {
        Ok(runtime) => dispatch(cli.command, &runtime).into(),
        Err(_) => Exit::Unexpected.into(),
    }
}

/// One thread per processor, and one more: all but one may be lent to plugins' handlers.
fn runtime() -> std::io::Result<Runtime> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    Builder::new_multi_thread().worker_threads(processors + 1).enable_all().build()
}

fn dispatch(command: Command, runtime: &Runtime) -> Exit {
    match command {
        Command::Plugin(PluginCommand::Inspect(args)) => command::inspect::run(args),
        Command::Plugin(PluginCommand::Describe(args)) => {
            runtime.block_on(command::plugin_describe::run(args))
        }
        Command::Plugin(PluginCommand::Lock(args)) => command::plugin_lock::run(args),
        Command::Plugin(PluginCommand::Verify(args)) => command::plugin_verify::run(args),
        Command::Plugin(PluginCommand::Sign(args)) => command::plugin_sign::sign(&args),
        Command::Plugin(PluginCommand::Keygen(args)) => command::plugin_sign::keygen(&args),
        Command::Plugin(PluginCommand::New(args)) => command::plugin_new::run(&args),
        Command::Plugin(PluginCommand::Package(args)) => runtime.block_on(command::plugin_package::run(args)),
        Command::Plugin(PluginCommand::Release(args)) => runtime.block_on(command::plugin_release::run(args)),
        Command::Check { json, against, save_manifest, configuration } => {
            let asked = command::check::Asked { json, against, save_manifest };
            runtime.block_on(command::check::run(configuration, asked))
        }
        Command::Reload(args) => runtime.block_on(command::reload::run(args)),
        Command::Dev(args) => runtime.block_on(command::dev::run(args)),
        Command::Tasks(TasksCommand::Show { id, json, configuration }) => {
            runtime.block_on(command::tasks_show::run(id, json, configuration))
        }
        Command::Tasks(TasksCommand::Cancel { id, json, configuration }) => {
            runtime.block_on(command::tasks_cancel::run(id, json, configuration))
        }
        Command::Tasks(TasksCommand::List(args)) => runtime.block_on(command::tasks_list::run(args)),
        Command::Tasks(TasksCommand::Why(args)) => runtime.block_on(command::tasks_why::run(args)),
        Command::Tasks(TasksCommand::Retry(args)) => runtime.block_on(command::tasks_retry::run(args)),
        Command::Tasks(TasksCommand::Enqueue(args)) => runtime.block_on(command::tasks_enqueue::run(args)),
        Command::Tasks(TasksCommand::Run(args)) => runtime.block_on(command::tasks_run::run(args)),
        Command::Instances(InstancesCommand::List(args)) => {
            runtime.block_on(command::instances_list::run(args))
        }
        Command::Workers(WorkersCommand::List { json, configuration }) => {
            runtime.block_on(command::workers_list::run(json, configuration))
        }
        Command::Queues(command) => runtime.block_on(command::queues::run(command)),
        Command::Schedules(command) => runtime.block_on(command::schedules::run(command)),
        Command::Dead(command) => runtime.block_on(command::dead::run(command)),
        Command::Completions { shell } => match cli::completions(shell, &mut std::io::stdout()) {
            Ok(()) => Exit::Success,
            Err(_) => Exit::Unexpected,
        },
        Command::DescribeChild => cardcage::describer::child::run(),
        Command::DevBrokerGuard { folder, command } => {
            runtime.block_on(command::dev::guard::run(&folder, &command))
        }
        Command::DevBuildGuard { command } => runtime.block_on(command::dev::build_guard::run(&command)),
        Command::Api(configuration) => runtime.block_on(command::host::run(Role::Api, configuration)),
        Command::Worker(configuration) => runtime.block_on(command::host::run(Role::Worker, configuration)),
        Command::Child => runtime.block_on(role::run_child()),
    }
}
