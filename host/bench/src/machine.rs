//! What the figures were taken on. Without it they cannot be compared with anything.

use std::fs;

use serde::Serialize;

/// The machine.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    /// Processors that this process may use.
    pub(crate) processors: usize,
    pub(crate) model: String,
    pub(crate) kernel: String,
    /// Processes that wanted to run in the last minute before the bench: well above 0, and somebody else is at work.
    pub(crate) load_before: String,
}

impl Machine {
    pub(crate) fn this() -> Self {
        let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
        let cpu = read("/proc/cpuinfo");
        let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Self {
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            model: model.map_or("unknown", |(_, model)| model).to_owned(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load_before: read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
        }
    }
}
