//! The board, seen through two mappings.

use super::*;

fn second_mapping(board: &Board) -> Board {
    Board::attach(board.fd().try_clone_to_owned().unwrap()).unwrap()
}

fn claim(board: &Board, n: u8) -> Result<Claim, ClaimError> {
    board.claim(Kind::Task, [n; 16], "$JS.ACK.a.b", "orders", "fulfil", 3, 1_700_000_000_000)
}

#[test]
fn another_mapping_reads_what_was_claimed_and_not_what_was_released() {
    let child = Board::create().unwrap();
    let supervisor = second_mapping(&child);
    assert_eq!(supervisor.live(), []);
    let one = claim(&child, 1).unwrap();
    let two = child.claim(Kind::Call, [2; 16], "_INBOX.x", "hello", "call-é", 0, 7).unwrap();
    one.release();
    let since_unix_ms = supervisor.live()[0].since_unix_ms;
    assert!(unix_ms().abs_diff(since_unix_ms) < 60_000);
    let expected = Entry {
        kind: Kind::Call,
        id: [2; 16],
        subject: "_INBOX.x".into(),
        plugin: "hello".into(),
        name: "call-é".into(),
        attempt: 0,
        hard_deadline_unix_ms: 7,
        since_unix_ms,
    };
    assert_eq!(supervisor.live(), [expected]);
    drop(two);
    assert_eq!(supervisor.live(), []);
}

#[test]
fn task_that_waits_and_begins_is_the_same_entry_all_the_while() {
    let child = Board::create().unwrap();
    let supervisor = second_mapping(&child);
    let mut waiting = child.claim(Kind::Task, [1; 16], "$JS.ACK.a.b", "orders", "fulfil", 0, 9).unwrap();
    let before = supervisor.live();
    assert_eq!((before[0].attempt, supervisor.tasks_begun()), (0, 0));
    while unix_ms() <= before[0].since_unix_ms {
        std::thread::yield_now();
    }
    waiting.begin(Kind::Suspect, 2, 7);
    let after = supervisor.live();
    let expected = Entry {
        kind: Kind::Suspect,
        attempt: 2,
        hard_deadline_unix_ms: 7,
        since_unix_ms: after[0].since_unix_ms,
        ..before[0].clone()
    };
    assert_eq!((after.as_slice(), supervisor.tasks_begun()), (&[expected][..], 1));
    assert!(after[0].since_unix_ms > before[0].since_unix_ms, "since when it runs");
    waiting.release();
    assert_eq!(supervisor.live(), []);
}

#[test]
fn a_full_board_is_an_error_and_a_release_makes_room() {
    let board = Board::create().unwrap();
    let mut claims: Vec<Claim> = (0..ENTRIES).map(|n| claim(&board, n as u8).unwrap()).collect();
    assert_eq!(claim(&board, 0).unwrap_err(), ClaimError::Full);
    assert_eq!(board.live().len(), ENTRIES);
    claims.pop();
    assert!(claim(&board, 0).is_ok());
}

#[test]
fn text_that_just_fits_comes_back_whole_and_more_is_an_error() {
    let board = Board::create().unwrap();
    let subject = "s".repeat(TEXT_MAX - 9);
    let fits = board.claim(Kind::Call, [1; 16], &subject, "plugin", "abc", 0, 0);
    let live = board.live();
    assert_eq!((live[0].subject.as_str(), live[0].name.as_str()), (subject.as_str(), "abc"));
    drop(fits);
    let error = board.claim(Kind::Call, [1; 16], &subject, "plugin", "abcd", 0, 0).unwrap_err();
    assert_eq!(error, ClaimError::TooLong(TEXT_MAX + 1));
    assert_eq!(board.live(), [], "a refused claim takes no slot");
}

#[test]
fn torn_entries_are_never_seen() {
    let child = Board::create().unwrap();
    let supervisor = second_mapping(&child);
    let texts: Vec<String> = (0..16u8).map(|n| char::from(b'a' + n).to_string().repeat(120)).collect();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let mut seen = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for (n, text) in texts.iter().enumerate() {
                    let n = n as u8;
                    let claim = child.claim(Kind::Task, [n; 16], text, text, text, n.into(), n.into());
                    // Long enough for a reader to get in between, sometimes.
                    (0..u32::from(n) * 200).for_each(|_| std::hint::spin_loop());
                    claim.unwrap().release();
                }
            }
        });
        let slots = &supervisor.shared.region.slots;
        while seen < 1_000 {
            for entry in slots.iter().take(2).filter_map(Slot::read) {
                seen += 1;
                let n = entry.id[0];
                let text = &texts[usize::from(n)];
                assert_eq!(entry.id, [n; 16]);
                assert_eq!((entry.attempt, entry.hard_deadline_unix_ms), (n.into(), n.into()));
                assert!([&entry.subject, &entry.plugin, &entry.name].iter().all(|have| *have == text));
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn nonsense_written_by_a_plugin_is_skipped() {
    let board = Board::create().unwrap();
    let claims: Vec<Claim> = (1..=4).map(|n| claim(&board, n).unwrap()).collect();
    let slots = &board.shared.region.slots;
    slots[0].words[0].store(99, Ordering::Relaxed);
    slots[1].words[5].store(u64::MAX, Ordering::Relaxed);
    slots[2].words[6].store(u64::MAX, Ordering::Relaxed);
    let ids: Vec<u8> = board.live().iter().map(|entry| entry.id[0]).collect();
    assert_eq!(ids, [4]);
    drop(claims);
}

#[test]
fn reset_leaves_an_empty_board_without_a_sign_of_life() {
    let board = Board::create().unwrap();
    let _held = std::mem::ManuallyDrop::new(claim(&board, 1).unwrap());
    board.beat();
    assert!(board.heartbeat_age().unwrap() < Duration::from_secs(5));
    board.thread_slot().unwrap().enter(1, [9; 16]);
    board.reset();
    assert_eq!((board.live(), board.polling(), board.heartbeat_age()), (vec![], vec![], None));
}

#[test]
fn a_thread_keeps_its_slot_until_it_ends() {
    let board = Board::create().unwrap();
    let supervisor = second_mapping(&board);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let slot = board.thread_slot().unwrap();
            slot.enter(2, [7; 16]);
            assert!(std::ptr::eq(slot, board.thread_slot().unwrap()));
            let polling = supervisor.polling();
            assert_eq!((polling.len(), polling[0].plugin, polling[0].id), (1, 2, [7; 16]));
            slot.leave();
            assert_eq!(supervisor.polling(), []);
        });
    });
    // A scope ends before thread-locals are dropped for certain; wait for the slot itself.
    let free = || board.shared.region.threads.iter().all(|slot| slot.tid.load(Ordering::Acquire) == 0);
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while !free() {
        assert!(std::time::Instant::now() < deadline, "the slot of an ended thread was not freed");
        std::thread::yield_now();
    }
    assert_eq!(supervisor.polling(), []);
}

#[test]
fn a_thread_that_ends_in_the_middle_of_a_poll_stays_marked() {
    let board = Board::create().unwrap();
    let poll = move || board.thread_slot().unwrap().enter(2, [8; 16]);
    assert_eq!(board.culprit(), None);
    // Joined, so its thread-locals are gone.
    std::thread::spawn(poll).join().unwrap();
    let polling = board.polling();
    assert_eq!((polling.len(), polling[0].plugin, polling[0].id), (1, 2, [8; 16]));
    assert_eq!(board.culprit(), Some(polling[0].tid), "such a thread has called `exit`");
    board.reset();
    assert_eq!((board.polling(), board.culprit()), (vec![], None));
}

#[test]
fn a_file_that_is_no_board_is_refused() {
    let file = rustix::fs::memfd_create("not-a-board", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    assert!(matches!(Board::attach(file), Err(OpenError::NotABoard)));
}
