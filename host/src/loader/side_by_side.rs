//! The same work for many libraries, several at a time: reading and hashing 30 of them is three quarters of what a
//! start costs the processors.
//!
//! Invariants: results come in the order of what they are of, whichever was done first; all threads have ended when this
//! returns. It is for work of the host's own: plugin code is run one library after the other, so that a crash has one name.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread::{Builder, available_parallelism, scope};

/// More threads would only wait for the disk, and hold that many libraries in memory.
const THREADS_MAX: usize = 4;

/// Does `work` for each item, with what its thread keeps from one to the next; calls `after` on this thread whenever one is
/// done.
pub(super) fn map<T: Sync, R: Send, K: Default>(
    items: &[T],
    work: impl Fn(&T, &mut K) -> R + Sync,
    mut after: impl FnMut(),
) -> Vec<R> {
    let threads = available_parallelism().map_or(1, usize::from).min(THREADS_MAX).min(items.len());
    let next = AtomicUsize::new(0);
    let (sender, done) = mpsc::channel();
    let labour = |sender: mpsc::Sender<(usize, R)>| {
        let mut kept = K::default();
        loop {
            let nth = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(nth) else { return };
            // Somebody listens until all senders are gone.
            let _ = sender.send((nth, work(item, &mut kept)));
        }
    };
    let mut results: Vec<(usize, R)> = Vec::with_capacity(items.len());
    scope(|scope| {
        let started = (0..threads).filter(|_| {
            let (labour, sender) = (&labour, sender.clone());
            Builder::new().name("inspect".to_owned()).spawn_scoped(scope, move || labour(sender)).is_ok()
        });
        // Where no thread can be had this one does it all.
        if started.count() == 0 {
            labour(sender.clone());
        }
        drop(sender);
        for result in done {
            results.push(result);
            after();
        }
    });
    results.sort_by_key(|(nth, _)| *nth);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    #[test]
    fn results_are_in_order_and_each_is_told() {
        let items: Vec<u64> = (0..100).collect();
        let mut told = 0;
        let results = map(&items, |item, _: &mut ()| item * 2, || told += 1);
        assert_eq!((results, told), (items.iter().map(|item| item * 2).collect(), 100));
        assert_eq!(map(&[] as &[u64], |item, _: &mut ()| *item, || ()), Vec::<u64>::new());
    }

    #[test]
    fn thread_keeps_what_it_has_from_one_item_to_the_next() {
        let items = [(); 100];
        let counts = map(&items, |(), kept: &mut u32| std::mem::replace(kept, *kept + 1), || ());
        let threads = counts.iter().filter(|count| **count == 0).count();
        assert!((1..=THREADS_MAX).contains(&threads), "{threads}");
    }

    #[test]
    fn two_items_are_worked_on_at_the_same_time_where_there_are_two_processors() {
        if available_parallelism().map_or(1, usize::from) < 2 {
            return;
        }
        // Neither is done before the other has begun.
        let meeting = Barrier::new(2);
        assert_eq!(
            map(
                &[1, 2],
                |item, _: &mut ()| {
                    meeting.wait();
                    *item
                },
                || ()
            ),
            [1, 2]
        );
    }
}
