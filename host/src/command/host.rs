//! `cardcage api` and `cardcage worker`: load the settings, listen for the order to stop, supervise; and where a running host
//! finds its settings again.

use super::check::fit;
use super::{output, parent_pipe};
use crate::cli::Configuration;
use crate::config::{self, Settings, Sources};
use crate::exit::Exit;
use crate::process::Shutdown;
use crate::process::control::{Refusal, Role};
use crate::role::{self, Judgement, Reconfiguration};
use futures_util::future::BoxFuture;
use std::sync::Arc;

/// Runs a role until it is told to stop.
pub async fn run(role: Role, configuration: Configuration) -> Exit {
    let sources = configuration.sources();
    let settings = match config::load(&sources) {
        Ok(settings) => settings,
        Err(errors) => {
            output::trouble_as_is(&errors.render(output::trouble_styled()));
            return Exit::Config;
        }
    };
    let shutdown = Shutdown::on_signals().and_then(|shutdown| parent_pipe::watch().map(|()| shutdown));
    match shutdown {
        Ok(shutdown) => role::run_supervisor(role, settings, Arc::new(Again(sources)), shutdown).await,
        Err(error) => {
            output::trouble(&format!(
                "the order to stop could not be listened for ({error}): check the process limits"
            ));
            Exit::Unexpected
        }
    }
}

/// The settings' places: the same files and flags, and the environment that this process began with.
struct Again(Sources);

impl Reconfiguration for Again {
    fn read(&self) -> Result<Settings, String> {
        config::load(&self.0).map_err(|errors| errors.render(false))
    }

    fn judge<'a>(&'a self, settings: &'a Settings) -> BoxFuture<'a, Judgement> {
        Box::pin(async move {
            let verdict = fit::judge(settings).await;
            let is_required = |plugin: &str| settings.plugins.get(plugin).is_none_or(|one| one.required);
            let refused = verdict.refused.iter().map(|(plugin, refusal)| Refusal {
                plugin: plugin.clone(),
                ..Refusal::of(refusal, is_required(plugin))
            });
            Judgement {
                mistakes: verdict.overrides,
                refused: refused.collect(),
                refused_previous: verdict
                    .previous
                    .iter()
                    .filter_map(|one| {
                        let refusal = Refusal::of(one.refusal.as_ref()?, is_required(&one.plugin));
                        Some(Refusal { plugin: one.plugin.clone(), ..refusal })
                    })
                    .collect(),
                unexpected: verdict.unexpected,
            }
        })
    }
}
