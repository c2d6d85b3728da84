//! Carries out the plan, blow by blow.
//!
//! A blow whose target is down at that moment goes to the next of its kind, and waits where there is none: a blow that
//! meets nobody is not counted and proves nothing.

use std::time::Duration;

use cardcage_harness::{Error, Result, Signal};
use tokio::time::{Instant, sleep};

use crate::company::{Company, Post};
use crate::deed::Deed;
use crate::plan::{Blow, Step, Target};

/// How often the company is looked after.
const TICK: Duration = Duration::from_millis(20);
/// How long a blow waits for somebody to meet.
const AIMING: Duration = Duration::from_secs(60);

/// Lets the storm run over the company; returns what was done.
pub(crate) async fn rage(company: &mut Company, plan: &[Step]) -> Result<Vec<Deed>> {
    let begun = Instant::now();
    let mut deeds = Vec::new();
    for step in plan {
        let aimed = Instant::now().max(begun + step.at);
        let name = loop {
            company.tend()?;
            if begun.elapsed() >= step.at
                && let Some(name) = strike(company, step).await?
            {
                break name;
            }
            if aimed.elapsed() > AIMING {
                return Err(Error::new(format!(
                    "for {AIMING:?} there was no {:?} to be struck: they do not come back",
                    step.target
                )));
            }
            sleep(TICK).await;
        };
        deeds.push(Deed { at: begun.elapsed(), step: *step, name });
    }
    Ok(deeds)
}

/// Strikes, and says whom; `None` if there is nobody at the moment.
async fn strike(company: &mut Company, step: &Step) -> Result<Option<String>> {
    if step.target == Target::Broker {
        if !company.is_broker_up() {
            return Ok(None);
        }
        match step.blow {
            Blow::Stop(still) => company.stop_broker(Instant::now() + still).await?,
            Blow::Kill(away) => {
                company.nats.kill9();
                let back = Instant::now() + away;
                while Instant::now() < back {
                    company.tend()?;
                    sleep(TICK).await;
                }
                company.nats.restart().await?;
            }
            Blow::Drain => company.nats.restart().await?,
        }
        return Ok(Some("the broker".to_owned()));
    }
    let role = if matches!(step.target, Target::Api | Target::ApiChild) { "api" } else { "worker" };
    let mut posts: Vec<&mut Post> =
        company.posts.iter_mut().filter(|post| post.name.starts_with(role)).collect();
    let first = step.aim % posts.len().max(1);
    posts.rotate_left(first);
    Ok(posts.into_iter().find_map(|post| (post.is_up() && hit(post, step)).then(|| post.name.clone())))
}

/// Strikes this host; false if what is aimed at is not there.
fn hit(post: &mut Post, step: &Step) -> bool {
    let is_child = matches!(step.target, Target::ApiChild | Target::WorkerChild);
    let Some(host) = &post.host else { return false };
    match step.blow {
        Blow::Kill(_) if is_child => host.signal_children(Signal::KILL) > 0,
        // One that has only just been started has nothing to lose yet.
        _ if !is_child && host.child_pids().is_empty() => false,
        Blow::Kill(_) => {
            post.kill();
            true
        }
        Blow::Stop(still) if is_child => post.stop_children(Instant::now() + still),
        Blow::Stop(still) => {
            post.stop_all(Instant::now() + still);
            true
        }
        Blow::Drain => host.signal(Signal::TERM).is_ok(),
    }
}
