//! The queues of a task with priorities, pulled as one.
//!
//! Each priority has a consumer of its own, its lane. Free slots are asked for where the broker is known to have
//! something: of every 21 that all three lanes want, 16 go to high, 4 to normal and 1 to low, so a lower one is slowed
//! and never stopped. What a lane leaves goes to the others. A request for a lane with a backlog ends at once when the
//! backlog does; a lane that was found empty keeps one standing request for a single delivery, by which it shows that
//! it has something again.
//!
//! Invariants: no slot is kept free for an empty lane; at most two deliveries come that no slot was free for, which are
//! the standing requests of the other lanes.
//! Refuses: more of a lane's past. A lane that was empty has saved nothing up.

use cardcage_protocol::Priority;

use super::delivery::Delivery;
use super::pull::{Pull, PullHealth};
use super::{Broker, ConsumerSpec};

/// What a task's deliveries come by: one pull, or the lanes of its priorities.
#[derive(Debug)]
pub enum Intake {
    /// The task has one queue.
    One(Box<Pull>),
    /// The task has one for each priority.
    Lanes(Box<Lanes>),
}

impl Intake {
    /// For the consumers that [`ConsumerSpec::of_task`] names.
    #[must_use]
    pub fn new(broker: &Broker, specs: &[ConsumerSpec]) -> Option<Self> {
        match specs {
            [one] => Some(Self::One(Box::new(Pull::new(broker, one.clone())))),
            [high, normal, low] => {
                let specs = [high.clone(), normal.clone(), low.clone()];
                Some(Self::Lanes(Box::new(Lanes::new(broker, specs))))
            }
            _ => None,
        }
    }

    /// As [`Pull::add_demand`].
    pub fn add_demand(&mut self, slots: usize) {
        match self {
            Self::One(pull) => pull.add_demand(slots),
            Self::Lanes(lanes) => lanes.demand = lanes.demand.saturating_add(slots),
        }
    }

    /// The next delivery. Lanes may give up to two more than were demanded. Cancel-safe; it never ends.
    pub async fn next(&mut self) -> Delivery {
        match self {
            Self::One(pull) => pull.next().await,
            Self::Lanes(lanes) => lanes.next().await,
        }
    }

    /// Stops pulling and returns what was received and not given out, to be handed back.
    pub async fn close(self) -> Vec<Delivery> {
        match self {
            Self::One(pull) => pull.close().await,
            Self::Lanes(lanes) => {
                let [high, normal, low] = lanes.lanes;
                let (high, normal, low) =
                    tokio::join!(high.pull.close(), normal.pull.close(), low.pull.close());
                high.into_iter().chain(normal).chain(low).collect()
            }
        }
    }

    /// Tells others whether each of its pulls is consuming.
    #[must_use]
    pub fn healths(&self) -> Vec<PullHealth> {
        match self {
            Self::One(pull) => vec![pull.health()],
            Self::Lanes(lanes) => lanes.lanes.iter().map(|lane| lane.pull.health()).collect(),
        }
    }
}

/// The three lanes of one task.
#[derive(Debug)]
pub struct Lanes {
    lanes: [Lane; 3],
    turns: Turns,
    /// Free slots: deliveries that may still be given out.
    demand: usize,
}

#[derive(Debug)]
struct Lane {
    pull: Pull,
    /// Nothing was there when the broker was last asked.
    dry: bool,
}

impl Lanes {
    fn new(broker: &Broker, specs: [ConsumerSpec; 3]) -> Self {
        let lane = |spec| Lane { pull: Pull::in_lane(broker, spec), dry: true };
        Self { lanes: specs.map(lane), turns: Turns::default(), demand: 0 }
    }

    async fn next(&mut self) -> Delivery {
        loop {
            for place in 0..self.lanes.len() {
                if let Some(delivery) = self.take(place) {
                    return delivery;
                }
            }
            self.ask();
            // One after the other, and before anything is waited for: a busy lane must not keep another one from being
            // set up.
            for lane in &mut self.lanes {
                lane.pull.prepare().await;
            }
            let [high, normal, low] = &mut self.lanes;
            tokio::select! {
                () = high.pull.wait() => {}
                () = normal.pull.wait() => {}
                () = low.pull.wait() => {}
            }
            for lane in &mut self.lanes {
                lane.dry |= lane.pull.take_unfilled() > 0;
            }
        }
    }

    fn take(&mut self, place: usize) -> Option<Delivery> {
        let lane = self.lanes.get_mut(place)?;
        let delivery = lane.pull.pop()?;
        self.demand = self.demand.saturating_sub(1);
        if lane.dry && delivery.waiting > 0 {
            lane.dry = false;
            self.turns.join(place);
        } else if !lane.dry && delivery.waiting == 0 && lane.pull.demand() == 0 {
            lane.dry = true;
        }
        Some(delivery)
    }

    /// Deals the free slots out to the lanes that have something, and lets the others stand for one delivery each.
    fn ask(&mut self) {
        let asked: usize = self.lanes.iter().filter(|lane| !lane.dry).map(|lane| lane.pull.demand()).sum();
        let mut free = self.demand.saturating_sub(asked);
        for lane in &mut self.lanes {
            lane.pull.set_prompt(!lane.dry);
            if lane.dry && self.demand > 0 && lane.pull.demand() == 0 {
                lane.pull.add_demand(1);
            }
        }
        while free > 0 {
            let wet = [0, 1, 2].map(|place| self.lanes.get(place).is_some_and(|lane| !lane.dry));
            let Some(lane) = self.turns.next(wet).and_then(|place| self.lanes.get_mut(place)) else { return };
            lane.pull.add_demand(1);
            free -= 1;
        }
    }
}

/// Whose turn it is: each turn moves a lane on by its stride, and the lane that is furthest behind is next.
#[derive(Debug, Default)]
struct Turns {
    at: [u64; 3],
    /// Where the last turn was.
    now: u64,
}

impl Turns {
    /// The strides of [`Priority::ALL`].
    const STRIDES: [u64; Priority::ALL.len()] = [1, 4, 16];

    fn next(&mut self, wants: [bool; 3]) -> Option<usize> {
        let places = self.at.iter().copied().zip(wants).enumerate();
        let (place, at) = places
            .filter(|(_, (_, wants))| *wants)
            .map(|(place, (at, _))| (place, at))
            .min_by_key(|(_, at)| *at)?;
        self.now = at;
        *self.at.get_mut(place)? += Self::STRIDES.get(place)?;
        Some(place)
    }

    /// A lane wants turns again. One delivery, by which that was seen, it has had.
    fn join(&mut self, place: usize) {
        if let (Some(at), Some(stride)) = (self.at.get_mut(place), Self::STRIDES.get(place)) {
            *at = (*at).max(self.now).saturating_add(*stride);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deal(turns: &mut Turns, wants: [bool; 3], count: usize) -> [usize; 3] {
        let mut dealt = [0; 3];
        for _ in 0..count {
            dealt[turns.next(wants).unwrap()] += 1;
        }
        dealt
    }

    #[test]
    fn slots_are_dealt_16_to_4_to_1_and_what_one_leaves_goes_to_the_others() {
        let mut turns = Turns::default();
        assert_eq!(deal(&mut turns, [true; 3], 210), [160, 40, 10]);
        assert_eq!(deal(&mut turns, [false, true, true], 50), [0, 40, 10]);
        assert_eq!(deal(&mut turns, [false, false, true], 7), [0, 0, 7]);
        assert_eq!(turns.next([false; 3]), None);
    }

    #[test]
    fn a_lane_that_was_empty_has_saved_nothing_up() {
        let mut turns = Turns::default();
        deal(&mut turns, [true, false, false], 1000);
        turns.join(2);
        let dealt = deal(&mut turns, [true, false, true], 170);
        assert!((9..=11).contains(&dealt[2]), "{dealt:?}");
    }
}
