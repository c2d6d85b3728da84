//! Seats that come and go while a host runs.

use super::*;
use crate::process::members::{Member, Recruiting, keep};

/// A host with one seat, whose child does as it should.
struct Host {
    recruiting: Recruiting,
    first: Member,
    stop: ShutdownHandle,
    exit: tokio::task::JoinHandle<Exit>,
}

impl Host {
    async fn start() -> Self {
        let (recruiting, recruits) = Recruiting::new();
        let first = recruiting.take_in(seat(|_, control| fake(control, good_child)));
        let (stop, shutdown) = Shutdown::manual();
        let exit = tokio::spawn(keep(recruits, shutdown));
        let host = Self { recruiting, first, stop, exit };
        until(&host.first, |now| now.ready).await;
        host
    }

    async fn try_out(&self, supervisor: Supervisor) -> Result<Member, Unfit> {
        let needed = BTreeSet::from(["hello".to_owned()]);
        tokio::time::timeout(LONG, self.recruiting.try_out(supervisor, &needed)).await.expect("an outcome")
    }

    async fn exit(self) -> Exit {
        tokio::time::timeout(LONG, self.exit).await.expect("the host never ended").unwrap()
    }
}

fn seat(children: impl Fn(usize, OwnedFd) -> Box<dyn Process> + Send + Sync + 'static) -> Supervisor {
    let options = options(children);
    tokio::spawn(keep_alive(options.boards));
    Supervisor::new(options)
}

async fn until(member: &Member, wanted: impl FnMut(&Snapshot) -> bool) -> Snapshot {
    let status = &member.handle.status;
    tokio::time::timeout(LONG, status.wait_for(wanted)).await.expect("the status never came")
}

/// Serves until it is told to fail, and then can do nothing more.
fn failing(fails: std::sync::mpsc::Receiver<()>) -> Supervisor {
    let fails = Mutex::new(Some(fails));
    seat(move |_, control| {
        let fails = fails.lock().unwrap().take().unwrap();
        fake(control, move |child| {
            child.outbox.send(&ready()).unwrap();
            fails.recv().unwrap();
            let failed =
                ToSupervisor::Failed { exit_code: 78, message: "the streams differ".into(), retry: false };
            child.outbox.send(&failed).unwrap();
            78 << 8
        })
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn seat_that_does_not_come_up_is_gone_with_its_reason_and_the_others_do_not_notice() {
    let host = Host::start().await;
    let failed = ToSupervisor::Failed { exit_code: 78, message: "the streams differ".into(), retry: false };
    let unfit =
        host.try_out(seat(move |_, control| shell(control, std::slice::from_ref(&failed), "exit 78")));
    assert_eq!(unfit.await.unwrap_err().exit, Exit::Config);
    // One that comes up without what is needed is sent away.
    let lacking = seat(|_, control| {
        fake(control, |child| {
            let refused = |plugin: &str| {
                ToSupervisor::Refused(Refusal {
                    plugin: plugin.into(),
                    file: "f".into(),
                    code: "abi".into(),
                    message: format!("{plugin} is too old"),
                    required: false,
                })
            };
            child.outbox.send(&refused("hello")).unwrap();
            child.outbox.send(&refused("chaos")).unwrap();
            good_child(child)
        })
    });
    let status = lacking.handle().status;
    let unfit = host.try_out(lacking).await.unwrap_err();
    assert_eq!(
        (unfit.exit, unfit.reasons),
        (Exit::PluginRefused, vec!["plugin `hello` (abi): hello is too old".to_owned()])
    );
    assert_eq!(status.snapshot().status, Stage::Ended);
    assert!(host.first.handle.status.snapshot().ready);
    host.stop.request();
    assert_eq!(host.exit().await, Exit::Success);
}

#[tokio::test(flavor = "multi_thread")]
async fn member_that_can_do_nothing_more_ends_the_host_and_one_that_was_dismissed_does_not() {
    let host = Host::start().await;
    let dismissed = host.try_out(seat(|_, control| fake(control, good_child))).await.unwrap();
    dismissed.admit();
    dismissed.dismiss();
    until(&dismissed, |now| now.status == Stage::Ended).await;
    assert!(host.first.handle.status.snapshot().ready, "the other goes on");

    let (fail, fails) = std::sync::mpsc::channel();
    let member = host.try_out(failing(fails)).await.unwrap();
    member.admit();
    let first = host.first.clone();
    fail.send(()).unwrap();
    assert_eq!(host.exit().await, Exit::Config);
    assert_eq!(first.handle.status.snapshot().status, Stage::Ended);
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_reaches_also_those_that_are_tried_out() {
    let host = Host::start().await;
    let (begins, begun) = std::sync::mpsc::channel();
    let slow = seat(move |_, control| {
        begins.send(()).unwrap();
        shell(control, &[phase("chaos", Step::Init)], "exec sleep 1000")
    });
    let recruiting = host.recruiting.clone();
    let trial = tokio::spawn(async move { recruiting.try_out(slow, &BTreeSet::new()).await });
    tokio::task::spawn_blocking(move || begun.recv_timeout(LONG).unwrap()).await.unwrap();
    host.stop.request();
    assert_eq!(trial.await.unwrap().unwrap_err().exit, Exit::Unavailable);
    assert_eq!(host.exit().await, Exit::Success);
}
