//! The channel itself, and the child's end of it.

use super::*;

/// Says that this test process is to be a child; see [`as_a_child`].
const AS_CHILD: &str = "CARDCAGE_TEST_AS_CHILD";

/// No test of its own: what the next one runs in a process of its own. It takes no notice of orders.
#[test]
fn as_a_child() {
    if std::env::var_os(AS_CHILD).is_none() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let child = runtime.block_on(async { child::attach().unwrap() });
    let own = rustix::process::getpid();
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::INT, rustix::process::Signal::HUP]
    {
        rustix::process::kill_process(own, signal).unwrap();
    }
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut std::io::stdin(), &mut rest).unwrap();
    let settings = child.start.settings.as_str().unwrap().len();
    std::mem::forget(child.board.claim(Kind::Task, [5; 16], "ack", "p", "t", 1, 1).unwrap());
    let reasons = vec![format!("stdin {}, settings {settings}", rest.len())];
    child.outbox.send(&ToSupervisor::Degraded { reasons }).unwrap();
    loop {
        std::thread::park();
    }
}

#[tokio::test]
async fn orphaned_child_process_swallows_signals_and_kills_itself_at_the_end_of_the_grace() {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut command = tokio::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "process::tests::channel::as_a_child"]).env(AS_CHILD, "1");
    let mut process = spawn_command(command, theirs.into()).unwrap();
    let board = Board::create().unwrap();
    // Larger than any socket buffer.
    let settings = "s".repeat(3 << 20);
    let start = control::Start {
        role: Role::Worker,
        instance: "orphan".into(),
        seat: None,
        settings: settings.into(),
        grace_ms: 20,
        excluded: vec![],
        needed: Vec::new(),
        served: Vec::new(),
    };
    let frame = control::encode(&ToChild::Start(start)).unwrap();
    control::send_prefix_with_fds(&ours, *frame.first_chunk().unwrap(), &[board.fd()]).unwrap();
    ours.set_nonblocking(true).unwrap();
    let mut ours = tokio::net::UnixStream::from_std(ours).unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut ours, &frame[4..]).await.unwrap();
    let mut reader = control::Reader::new(ours);
    let report = tokio::time::timeout(LONG, reader.next::<ToSupervisor>()).await.unwrap().unwrap();
    let reasons = vec![format!("stdin 0, settings {}", 3 << 20)];
    assert_eq!(report, Some(ToSupervisor::Degraded { reasons }));
    drop(reader);
    let status = tokio::time::timeout(LONG, process.wait()).await.expect("the orphan lives on").unwrap();
    assert_eq!(Death::of(status), Death::Signalled("SIGKILL".into()));
    assert_eq!(board.live()[0].subject, "ack", "what a dead child held stands on the board");
}

static OVERDUE: AtomicBool = AtomicBool::new(false);

fn overdue(grace: Duration) {
    assert_eq!(grace, Duration::from_millis(20));
    OVERDUE.store(true, Ordering::SeqCst);
}

#[test]
fn end_of_the_channel_is_an_order_to_drain_and_the_grace_is_enforced() {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let start = control::Start {
        role: Role::Worker,
        instance: "orphan".into(),
        seat: None,
        settings: serde_json::Value::Null,
        grace_ms: 20,
        excluded: vec![],
        needed: Vec::new(),
        served: Vec::new(),
    };
    let frame = control::encode(&ToChild::Start(start)).unwrap();
    let board = Board::create().unwrap();
    control::send_prefix_with_fds(&ours, *frame.first_chunk().unwrap(), &[board.fd()]).unwrap();
    std::io::Write::write_all(&mut &ours, &frame[4..]).unwrap();
    let mut child = attach_to(theirs.into(), overdue).unwrap();
    assert!(child.listener.is_none());
    assert!(board.heartbeat_age().is_some(), "the heart beats from the start");
    drop(ours);
    assert_eq!(child.orders.blocking_recv(), Some(ToChild::Drain { grace_ms: 20 }));
    assert!(child.outbox.send(&ToSupervisor::Restored).is_err());
    assert!(matches!(child.outbox.send(&ToSupervisor::Restored), Err(control::Error::Broken)));
    // The queue closes when the thread that reads orders is done.
    assert_eq!(child.orders.blocking_recv(), None);
    let deadline = std::time::Instant::now() + LONG;
    while !OVERDUE.load(Ordering::SeqCst) {
        assert!(std::time::Instant::now() < deadline, "nothing happened at the end of the grace");
        std::thread::yield_now();
    }
}

#[test]
fn messages_come_out_whole_whatever_pieces_they_come_in() {
    let sent = [ToSupervisor::Restored, phase("hello", Step::Init), ready()];
    let bytes: Vec<u8> = sent.iter().flat_map(|message| control::encode(message).unwrap()).collect();
    let mut decoder = control::Decoder::default();
    let mut got = Vec::new();
    for byte in bytes {
        decoder.push(&[byte]);
        got.extend(decoder.take::<ToSupervisor>().unwrap());
    }
    assert_eq!(got, sent);
    decoder.end().unwrap();
}

#[test]
fn messages_over_the_limit_are_refused_at_both_ends() {
    let text = "x".repeat(control::MESSAGE_MAX);
    let message = ToSupervisor::MetricsText { id: 1, text };
    assert!(matches!(control::encode(&message), Err(control::Error::TooLong(_))));
    let mut decoder = control::Decoder::default();
    decoder.push(&(control::MESSAGE_MAX as u32 + 1).to_le_bytes());
    assert!(matches!(decoder.take::<ToSupervisor>(), Err(control::Error::TooLong(_))));
}
