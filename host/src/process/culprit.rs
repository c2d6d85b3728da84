//! The plugin that took a child down while it was loaded, as people are told of it.

use super::Death;
use super::control::{Phase, Refusal};
use super::life::OVER_CEILING;
use crate::loader::Code;
use std::collections::BTreeSet;
use std::time::Duration;

/// The refusal of a plugin that took its child down while loading: the same codes and sentences as `check` has.
pub(super) fn refusal(phase: &Phase, death: &Death, limit: Duration, required: &BTreeSet<String>) -> Refusal {
    let Phase { plugin, file, step, .. } = phase;
    let (code, fault, remedy) = fault(&step.to_string(), death, limit);
    Refusal {
        plugin: plugin.clone(),
        file: file.clone(),
        code: code.as_str().to_owned(),
        message: format!("{file}: {fault}; {remedy}"),
        required: required.contains(plugin),
    }
}

/// What a plugin did in a step of loading, by the end of the process that it was in: code, end of a sentence, remedy. One that
/// was killed by whoever waited for it hung.
pub(crate) fn fault(step: &str, death: &Death, limit: Duration) -> (Code, String, &'static str) {
    match death {
        Death::Exited(code) => (
            Code::Died,
            format!("called exit({code}) in its {step}"),
            "a plugin must return an error instead of ending the process",
        ),
        Death::Signalled(name) => (
            Code::Died,
            format!("died of {name} in its {step}"),
            "mend the plugin; its last words may stand above",
        ),
        Death::OutOfMemory => (
            Code::Died,
            format!("was ended by the kernel in its {step}, because memory ran out"),
            "give the host more memory, or the plugin less to do",
        ),
        Death::Killed(why) if *why == OVER_CEILING => (
            Code::Died,
            format!("was in its {step} when its process went over `worker.memory_max_mb`"),
            "raise that ceiling, load fewer plugins together (worker groups), or give this one less to do",
        ),
        Death::Killed(_) => (
            Code::Hung,
            format!("hung in its {step}: it did not return within {} ms", limit.as_millis()),
            "make it faster or raise `loading.timeout_ms`",
        ),
    }
}
