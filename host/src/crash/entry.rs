//! One thing in flight, and how it is packed into a slot of the board.
//!
//! A slot is a small seqlock. The writer marks it `WRITING`, stores the words, and marks it `LIVE` last
//! (release). A reader loads the state, copies the words, loads the state again and keeps the copy only
//! if the state was `LIVE` and is unchanged; a generation in the state tells two claims apart. One change is made while it is live:
//! a task that waits is begun (`begin`), word by word.

use super::region::{Slot, WORDS};
use std::sync::atomic::{Ordering, fence};

pub(super) const FREE: u64 = 0;
const WRITING: u64 = 1;
const LIVE: u64 = 2;
const STATE_MASK: u64 = 0xff;
const GENERATION: u64 = 0x100;

/// Words before the text: kind and attempt, id (2), hard deadline, start, text lengths.
const HEAD: usize = 6;
/// Most bytes that subject, plugin and name may have together.
pub const TEXT_MAX: usize = (WORDS - HEAD) * 8;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A call: a caller waits on the reply subject.
    Call,
    /// A task: the broker waits on the ack subject.
    Task,
    /// The same, which is suspected of having crashed a worker and runs alone (`worker/tasks/unit.rs`).
    Suspect,
    /// A call whose caller waits on a connection of this very process: nothing is owed to the broker.
    Inline,
}

impl Kind {
    /// Whether the broker waits for it.
    #[must_use]
    pub const fn is_task(self) -> bool {
        matches!(self, Self::Task | Self::Suspect)
    }

    const fn word(self) -> u64 {
        match self {
            Self::Call => 1,
            Self::Task => 2,
            Self::Suspect => 3,
            Self::Inline => 4,
        }
    }
}

/// A copy of one thing in flight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Call or task.
    pub kind: Kind,
    /// Id of the call or task.
    pub id: [u8; 16],
    /// Reply subject of a call, ack subject of a task.
    pub subject: String,
    /// The plugin that runs it.
    pub plugin: String,
    /// Name of the route or task.
    pub name: String,
    /// Attempt, counted from 1; 0 for calls, and for a task that waits and was not started.
    pub attempt: u32,
    /// When the host gives up on it: Unix time in ms.
    pub hard_deadline_unix_ms: u64,
    /// When it was noted: Unix time in ms, by this machine's clock.
    pub since_unix_ms: u64,
}

/// What goes into a slot; borrowed, because writing must not allocate.
#[derive(Clone, Copy)]
pub(super) struct Draft<'a> {
    pub(super) kind: Kind,
    pub(super) id: [u8; 16],
    pub(super) texts: [&'a str; 3],
    pub(super) attempt: u32,
    pub(super) hard_deadline_unix_ms: u64,
    pub(super) since_unix_ms: u64,
}

impl Draft<'_> {
    pub(super) fn text_len(&self) -> usize {
        self.texts.iter().map(|text| text.len()).sum()
    }
}

impl Slot {
    /// Writes the draft and makes it live. The caller holds the slot and has checked the text's length.
    pub(super) fn publish(&self, draft: &Draft<'_>) {
        let generation = (self.state.load(Ordering::Relaxed) & !STATE_MASK).wrapping_add(GENERATION);
        self.state.store(generation | WRITING, Ordering::Relaxed);
        // No word below may be seen by a reader that has not also seen `WRITING`.
        fence(Ordering::Release);
        let id = u128::from_be_bytes(draft.id);
        let lengths =
            draft.texts.iter().rev().fold(0, |all, text| (all << 16) | (text.len() as u64 & 0xffff));
        let head = [
            draft.kind.word() | (u64::from(draft.attempt) << 32),
            (id >> 64) as u64,
            id as u64,
            draft.hard_deadline_unix_ms,
            draft.since_unix_ms,
            lengths,
        ];
        for (word, value) in self.words.iter().zip(head) {
            word.store(value, Ordering::Relaxed);
        }
        let mut bytes = Packer { words: self.words.iter().skip(HEAD), word: 0, filled: 0 };
        draft.texts.iter().for_each(|text| bytes.push(text.as_bytes()));
        bytes.finish();
        self.state.store(generation | LIVE, Ordering::Release);
    }

    /// Makes the task that waits in this live slot one that is begun. It is live all the while, and each word is whole: whoever
    /// looks half way sees one that waits or one that is begun, with the times of either, and looks again soon; who dies half way
    /// leaves one that waits.
    pub(super) fn begin(&self, kind: Kind, attempt: u32, hard_deadline_unix_ms: u64, since_unix_ms: u64) {
        let [first, _, _, deadline, since, ..] = &self.words;
        deadline.store(hard_deadline_unix_ms, Ordering::Relaxed);
        since.store(since_unix_ms, Ordering::Relaxed);
        first.store(kind.word() | (u64::from(attempt) << 32), Ordering::Release);
    }

    /// Frees the slot.
    pub(super) fn clear(&self) {
        let generation = (self.state.load(Ordering::Relaxed) & !STATE_MASK).wrapping_add(GENERATION);
        self.state.store(generation | FREE, Ordering::Release);
    }

    /// Copies a live entry; `None` when the slot is free, is being written, or holds nonsense.
    pub(super) fn read(&self) -> Option<Entry> {
        let before = self.state.load(Ordering::Acquire);
        if before & STATE_MASK != LIVE {
            return None;
        }
        let mut copy = [0u64; WORDS];
        for (copy, word) in copy.iter_mut().zip(&self.words) {
            *copy = word.load(Ordering::Relaxed);
        }
        // The copy above is complete before the state is looked at again.
        fence(Ordering::Acquire);
        (self.state.load(Ordering::Relaxed) == before).then(|| decode(&copy)).flatten()
    }
}

fn decode(words: &[u64; WORDS]) -> Option<Entry> {
    let [first, high, low, hard_deadline_unix_ms, since_unix_ms, lengths, text @ ..] = words;
    let kind = match first & 0xff {
        1 => Kind::Call,
        2 => Kind::Task,
        3 => Kind::Suspect,
        4 => Kind::Inline,
        _ => return None,
    };
    let text: Vec<u8> = text.iter().flat_map(|word| word.to_le_bytes()).collect();
    let mut rest = text.as_slice();
    let mut next = |shift: u32| {
        let len = usize::try_from((lengths >> shift) & 0xffff).ok()?;
        let (part, after) = rest.split_at_checked(len)?;
        rest = after;
        std::str::from_utf8(part).ok().map(str::to_owned)
    };
    Some(Entry {
        kind,
        id: ((u128::from(*high) << 64) | u128::from(*low)).to_be_bytes(),
        subject: next(0)?,
        plugin: next(16)?,
        name: next(32)?,
        attempt: u32::try_from(first >> 32).ok()?,
        hard_deadline_unix_ms: *hard_deadline_unix_ms,
        since_unix_ms: *since_unix_ms,
    })
}

/// Packs bytes into words, eight at a time.
struct Packer<'a, I: Iterator<Item = &'a std::sync::atomic::AtomicU64>> {
    words: I,
    word: u64,
    filled: u32,
}

impl<'a, I: Iterator<Item = &'a std::sync::atomic::AtomicU64>> Packer<'a, I> {
    fn push(&mut self, mut bytes: &[u8]) {
        while self.filled == 0
            && let Some((eight, rest)) = bytes.split_first_chunk::<8>()
        {
            self.word = u64::from_le_bytes(*eight);
            self.flush();
            bytes = rest;
        }
        for byte in bytes {
            self.word |= u64::from(*byte) << (8 * self.filled);
            self.filled += 1;
            if self.filled == 8 {
                self.flush();
            }
        }
    }

    fn flush(&mut self) {
        if let Some(word) = self.words.next() {
            word.store(self.word, Ordering::Relaxed);
        }
        (self.word, self.filled) = (0, 0);
    }

    fn finish(mut self) {
        if self.filled > 0 {
            self.flush();
        }
    }
}
