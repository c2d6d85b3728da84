//! The arithmetic: turns become medians, spreads and ratios.
//!
//! A ratio is taken between the two sides of one turn, which ran within seconds of each other, and the median over the
//! turns: what slows the machine for a while slows both sides, and one disturbed turn moves nothing.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::cpu::CpuTime;
use crate::load::Measured;
use crate::traffic::Traffic;

/// A median with the least and the greatest value beside it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// `None` of no values, or where one is not a number.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        if values.iter().any(|value| value.is_nan()) {
            return None;
        }
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let upper = *values.get(middle)?;
        let median = if values.len() % 2 == 1 {
            upper
        } else {
            f64::midpoint(*values.get(middle.checked_sub(1)?)?, upper)
        };
        Some(Self { median, min: *values.first()?, max: *values.last()? })
    }
}

/// One side's figures over all turns.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Figures {
    pub(crate) requests_per_s: Spread,
    pub(crate) p50_us: Spread,
    pub(crate) p99_us: Spread,
    /// Processor time per request by process, in microseconds, over all turns.
    pub(crate) cpu_per_request: BTreeMap<String, PerRequest>,
    /// What passed through the broker per request, over all turns.
    pub(crate) broker_per_request: BrokerPerRequest,
    pub(crate) turns: Vec<Turn>,
}

/// One side's figures of one turn.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Turn {
    pub(crate) requests: u64,
    pub(crate) requests_per_s: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

/// Processor time of one process, in microseconds per request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct PerRequest {
    pub(crate) user_us: f64,
    pub(crate) system_us: f64,
}

/// What passed through the broker, per request; all zero where the path does not use it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct BrokerPerRequest {
    pub(crate) in_msgs: f64,
    pub(crate) out_msgs: f64,
    pub(crate) in_bytes: f64,
    pub(crate) out_bytes: f64,
}

impl BrokerPerRequest {
    fn of(measured: &[Measured]) -> Self {
        let requests: u64 = measured.iter().map(|turn| turn.requests).sum();
        let sum = measured.iter().fold(Traffic::default(), |sum, turn| sum.plus(turn.traffic));
        let each = |sum: u64| sum as f64 / requests.max(1) as f64;
        Self {
            in_msgs: each(sum.in_msgs),
            out_msgs: each(sum.out_msgs),
            in_bytes: each(sum.in_bytes),
            out_bytes: each(sum.out_bytes),
        }
    }
}

impl PerRequest {
    pub(crate) fn all_us(self) -> f64 {
        self.user_us + self.system_us
    }
}

impl Figures {
    /// `None` without turns.
    pub(crate) fn of(measured: &[Measured]) -> Option<Self> {
        let turns: Vec<Turn> = measured.iter().map(Turn::of).collect();
        Some(Self {
            requests_per_s: Spread::of(turns.iter().map(|turn| turn.requests_per_s))?,
            p50_us: Spread::of(turns.iter().map(|turn| turn.p50_us))?,
            p99_us: Spread::of(turns.iter().map(|turn| turn.p99_us))?,
            cpu_per_request: per_request(measured),
            broker_per_request: BrokerPerRequest::of(measured),
            turns,
        })
    }
}

impl Turn {
    fn of(measured: &Measured) -> Self {
        let seconds = measured.elapsed_ns as f64 / 1e9;
        Self {
            requests: measured.requests,
            requests_per_s: measured.requests as f64 / seconds,
            p50_us: measured.p50_ns as f64 / 1e3,
            p99_us: measured.p99_ns as f64 / 1e3,
        }
    }
}

/// What `side` did of what `floor` did, turn by turn, in requests per second.
pub(crate) fn ratio(side: &[Turn], floor: &[Turn]) -> Option<Spread> {
    Spread::of(side.iter().zip(floor).map(|(side, floor)| side.requests_per_s / floor.requests_per_s))
}

fn per_request(measured: &[Measured]) -> BTreeMap<String, PerRequest> {
    let requests: u64 = measured.iter().map(|turn| turn.requests).sum();
    let mut sums: BTreeMap<String, CpuTime> = BTreeMap::new();
    for used in measured.iter().flat_map(|turn| &turn.cpu) {
        let sum = sums.entry(used.name.clone()).or_default();
        sum.user_us += used.time.user_us;
        sum.system_us += used.time.system_us;
    }
    let each = |us: u64| us as f64 / requests.max(1) as f64;
    sums.into_iter()
        .map(|(name, sum)| (name, PerRequest { user_us: each(sum.user_us), system_us: each(sum.system_us) }))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Used;

    fn measured(requests: u64, child_us: &[u64]) -> Measured {
        let used =
            |us: &u64| Used { name: "child".into(), time: CpuTime { user_us: *us, system_us: us / 2 } };
        Measured {
            requests,
            elapsed_ns: 2_000_000_000,
            p50_ns: 1_500,
            p99_ns: 9_000,
            cpu: child_us.iter().map(used).collect(),
            traffic: Traffic {
                in_msgs: 2 * requests,
                out_msgs: requests,
                in_bytes: 512 * requests,
                out_bytes: 0,
            },
        }
    }

    #[test]
    fn median_is_the_middle_one_or_the_mean_of_the_middle_two() {
        let spread = |median, min, max| Some(Spread { median, min, max });
        assert_eq!(Spread::of([5.0, 1.0, 3.0]), spread(3.0, 1.0, 5.0));
        assert_eq!(Spread::of([4.0, 1.0, 3.0, 2.0]), spread(2.5, 1.0, 4.0));
        assert_eq!(Spread::of([7.0]), spread(7.0, 7.0, 7.0));
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([1.0, f64::NAN]), None);
    }

    #[test]
    fn ratio_is_taken_turn_by_turn_and_one_disturbed_turn_does_not_move_it() {
        let turns = |requests: &[u64]| -> Vec<Turn> {
            requests.iter().map(|requests| Turn::of(&measured(*requests, &[]))).collect()
        };
        // In the second turn the whole machine was slow, in the third only the host was disturbed.
        let (host, floor) = (turns(&[90, 45, 10]), turns(&[100, 50, 100]));
        let spread = ratio(&host, &floor).unwrap();
        assert!((spread.median - 0.9).abs() < 1e-9 && (spread.min - 0.1).abs() < 1e-9, "{spread:?}");
    }

    #[test]
    fn figures_are_per_second_and_per_request() {
        let figures = Figures::of(&[measured(1_000, &[3_000, 1_000]), measured(3_000, &[4_000])]).unwrap();
        assert_eq!(figures.requests_per_s, Spread { median: 1_000.0, min: 500.0, max: 1_500.0 });
        assert_eq!(figures.p50_us.median, 1.5);
        let child = figures.cpu_per_request["child"];
        assert_eq!(child, PerRequest { user_us: 2.0, system_us: 1.0 });
        let broker = figures.broker_per_request;
        assert_eq!((broker.in_msgs, broker.out_msgs, broker.in_bytes), (2.0, 1.0, 512.0));
        assert!(Figures::of(&[]).is_none());
    }
}
