//! A kill by the kernel itself, for memory, is told from one by somebody: in a control group whose memory is bounded.
//!
//! `CARDCAGE_TEST_CGROUP` names a folder of either version of control groups, writable, with the memory controller for its children.
//! `scripts/test` names the group that the run itself is in, where it may make groups in that; what is tried there takes nothing that
//! the run has not. Without any nothing is tried, which is said here and at the end of `scripts/test`.

use crate::crash_reports::{accepted, config, crash_after};
use crate::serving::{Serving, child, signal};
use cardcage_harness::{Launch, Signal, cardcage_binary};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// More than a worker needs, and less than what it is then told to hold.
const BYTES: u64 = 640 << 20;

/// A group of this test's own. Dropped after the processes in it, it is gone.
struct Group(PathBuf);

impl Group {
    fn below(parent: &Path, name: &str) -> Self {
        let folder = parent.join(format!("cardcage-test-{name}-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        Self(folder)
    }

    fn bounded(self) -> Self {
        let group = self;
        let (most, swap) = match group.0.join("cgroup.controllers").exists() {
            true => ("memory.max", "memory.swap.max"),
            false => ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"),
        };
        let most = group.0.join(most);
        std::fs::write(&most, BYTES.to_string())
            .unwrap_or_else(|error| panic!("{}: {error}; it needs the memory controller", most.display()));
        // A machine without swap has no bound for it either.
        let of_swap = if swap == "memory.swap.max" { 0 } else { BYTES };
        let _ = std::fs::write(group.0.join(swap), of_swap.to_string());
        group
    }

    /// Takes this process out of the group that it is in. Those that it has started stay there.
    fn take(&self, pid: u32) {
        std::fs::write(self.0.join("cgroup.procs"), pid.to_string()).unwrap();
    }

    /// The host, as a program that first enters the group.
    fn entering(&self, folder: &Path) -> PathBuf {
        let script = folder.join("cardcage-in-group");
        let (procs, host) = (self.0.join("cgroup.procs"), cardcage_binary().unwrap());
        let text = format!(
            "#!/bin/sh\necho $$ >'{}' || exit 1\nexec '{}' \"$@\"\n",
            procs.display(),
            host.display()
        );
        std::fs::write(&script, text).unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        script
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A process is in its group until the kernel has done with it, which takes longer than until it is waited for.
        let until = Instant::now() + Duration::from_secs(10);
        let mut removed = std::fs::remove_dir(&self.0);
        while removed.is_err() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
            removed = std::fs::remove_dir(&self.0);
        }
        assert!(removed.is_ok() || std::thread::panicking(), "{}: {removed:?}", self.0.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn child_that_the_kernel_kills_for_memory_is_told_from_one_that_somebody_kills() {
    let Some(parent) = std::env::var_os("CARDCAGE_TEST_CGROUP") else {
        // scripts/test says it once more at the end of the run.
        eprintln!("skipped: CARDCAGE_TEST_CGROUP names no control group in which a test may bound memory");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (aside, group) =
        (Group::below(Path::new(&parent), "aside"), Group::below(Path::new(&parent), "bounded").bounded());
    let serving = Serving::api(config).await;
    let worker = Launch::new(["worker"]).binary(&group.entering(folder.path())).config(&serving.config);
    let worker = worker.ready().await.unwrap();
    signal(child(&worker), Signal::KILL);
    let killed = crash_after(&worker, &Value::Null).await;
    assert_eq!(killed["cause"], "killed", "{killed}");
    // On a busy machine the kernel now and then takes a second one while the first is still dying. The child alone is to be had.
    aside.take(worker.pid());
    for _ in 0..4 {
        accepted(&serving, json!({ "mode": "hoard", "times": 256, "ms": 60_000 })).await;
    }
    let starved = crash_after(&worker, &killed).await;
    assert_eq!(starved["cause"], "memory", "{starved}");
}
