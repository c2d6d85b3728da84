//! The storm's plan: what happens to whom and when, from a seed.
//!
//! Blows come in rounds of ten, shuffled: every round has its kills of the broker, of workers, of API instances and of
//! their children, so that a short run has them all, and the seed decides their order, their aim and their time.

use std::time::Duration;

use fastrand::Rng;

/// A round of ten; a minute has three and a bit.
const ROUND: Duration = Duration::from_millis(18_500);
/// Nothing happens before this, so that there is something to lose.
const CALM: Duration = Duration::from_millis(1_500);

/// What is struck.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Target {
    /// The nats-server.
    Broker,
    /// A worker's supervisor; when stopped, its child with it.
    Worker,
    /// A worker's child.
    WorkerChild,
    /// An API instance's supervisor; when stopped, its child with it.
    Api,
    /// An API instance's child.
    ApiChild,
}

/// What is done to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blow {
    /// SIGKILL. The broker stays away for this long; a host is started again at once.
    Kill(Duration),
    /// SIGSTOP, and SIGCONT after this long.
    Stop(Duration),
    /// SIGTERM: the drain in order, and a start.
    Drain,
}

/// One step of the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) at: Duration,
    pub(crate) target: Target,
    pub(crate) blow: Blow,
    /// Which of several; taken modulo their number.
    pub(crate) aim: usize,
}

/// The steps of `seconds` with this seed.
pub(crate) fn draw(seed: u64, seconds: u64) -> Vec<Step> {
    let mut rng = Rng::with_seed(seed);
    let mut steps = Vec::new();
    let mut begins = CALM;
    while begins.as_secs() < seconds {
        let mut at = begins;
        for (target, blow) in round(&mut rng) {
            // At any moment of its tenth of the round.
            let within = ROUND.mul_f64(rng.f64() / 10.0);
            steps.push(Step { at: at + within, target, blow, aim: rng.usize(..) });
            at += ROUND / 10;
        }
        begins += ROUND;
    }
    steps.retain(|step| step.at.as_secs() < seconds);
    steps
}

fn round(rng: &mut Rng) -> [(Target, Blow); 10] {
    let mut between = |from: u64, to: u64| Duration::from_millis(rng.u64(from..to));
    let kill = Blow::Kill(Duration::ZERO);
    let mut round = [
        (Target::Broker, Blow::Kill(between(0, 1_500))),
        (Target::Broker, Blow::Kill(between(0, 300))),
        (Target::Worker, kill),
        (Target::Worker, kill),
        (Target::WorkerChild, kill),
        (Target::WorkerChild, kill),
        (Target::Api, kill),
        (Target::ApiChild, kill),
        // Longer than a lease: what wakes has lost its right to every attempt.
        (Target::Worker, Blow::Stop(between(4_000, 6_000))),
        (Target::WorkerChild, Blow::Stop(between(1_000, 6_000))),
    ];
    let extra = [
        (Target::Broker, Blow::Stop(between(500, 4_000))),
        (Target::Api, Blow::Stop(between(500, 4_000))),
        (Target::Worker, Blow::Drain),
        round[8],
    ];
    if let (Some(stop), Some(extra)) = (round.get_mut(8), rng.choice(extra)) {
        *stop = extra;
    }
    rng.shuffle(&mut round);
    round
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plan_depends_on_its_seed_alone() {
        assert_eq!(draw(3, 60), draw(3, 60));
        assert_ne!(draw(3, 60), draw(4, 60));
    }

    #[test]
    fn a_minute_of_any_seed_has_what_the_judge_asks_for() {
        for seed in 0..200 {
            let plan = draw(seed, 60);
            let kills = |of: Option<Target>| {
                let struck = |step: &&Step| of.is_none_or(|target| step.target == target);
                plan.iter().filter(struck).filter(|step| matches!(step.blow, Blow::Kill(_))).count()
            };
            assert!(kills(None) >= 20 && kills(Some(Target::Broker)) >= 5, "seed {seed}: {plan:?}");
        }
    }
}
