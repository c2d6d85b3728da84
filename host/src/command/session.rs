//! What operators' commands have in common: settings, a connection, and how their troubles are told.
//!
//! They talk to the broker and to nobody else, so they answer while every worker is busy, or while there is none.

use std::time::Duration;

use cardcage_protocol::Timestamp;
use serde_json::Value;

use super::output;
use crate::broker::{Broker, Error, Options};
use crate::cli::Configuration;
use crate::config::{self, Settings};
use crate::exit::Exit;

/// How long it may take to connect beyond one attempt.
const CONNECT_MARGIN: Duration = Duration::from_secs(1);

/// Reads the settings; what is wrong with them has been told.
pub(super) fn settings(configuration: Configuration) -> Result<Settings, Exit> {
    config::load(&configuration.sources()).map_err(|errors| {
        output::trouble_as_is(&errors.render(output::trouble_styled()));
        Exit::Config
    })
}

/// Reads the settings of a command that is about plugins. One without plugins is most often another file than was meant, and doing
/// nothing with it would look as if all were well.
pub(super) fn settings_with_plugins(configuration: Configuration, to: &str) -> Result<Settings, Exit> {
    let settings = settings(configuration)?;
    if settings.plugins.is_empty() {
        let what = format!(
            "no plugin is configured, so there is nothing to {to}; name the configuration with --config"
        );
        return Err(told(Exit::Config, &what));
    }
    Ok(settings)
}

/// Connects, or says why not after one attempt.
pub(super) async fn connect(options: Options) -> Result<Broker, Error> {
    let wait = options.connect_timeout + CONNECT_MARGIN;
    let broker = Broker::connect(options).await?;
    broker.wait_connected(wait).await?;
    Ok(broker)
}

/// A connection, and the settings that led to it.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) broker: Broker,
    pub(super) settings: Settings,
}

impl Session {
    /// Reads the settings and connects; what goes wrong has been told.
    pub(super) async fn open(configuration: Configuration, command: &str) -> Result<Self, Exit> {
        let settings = settings(configuration)?;
        let options = crate::role::broker_options(&settings, &format!("cardcage {command}"))
            .map_err(|error| told(Exit::Config, &error.to_string()))?;
        let connected = async {
            let broker = connect(options).await?;
            // Ages are told by the broker's clock. Where nothing was ever stored, the local one does.
            broker.measure_clock().await;
            Ok::<_, Error>(broker)
        };
        match connected.await {
            Ok(broker) => Ok(Self { broker, settings }),
            Err(error) => {
                Err(told(Exit::Unavailable, &format!("{error}; start nats-server, or correct `broker.url`")))
            }
        }
    }

    /// Time for one publish that somebody waits for.
    pub(super) fn publish_timeout(&self) -> Duration {
        self.broker.options().publish_timeout
    }

    /// The broker's time.
    pub(super) fn now(&self) -> Timestamp {
        Timestamp::from_unix_ms(self.broker.now_unix_ms())
    }
}

/// Says that there is no such task.
pub(super) fn unknown_task(id: impl std::fmt::Display, settings: &Settings) -> Exit {
    let namespace = &settings.broker.namespace;
    told(
        Exit::Unexpected,
        &format!(
            "there is no task {id} in the namespace `{namespace}`: the id is wrong, or its outcome is older than \
             `tasks.result_ttl_s`"
        ),
    )
}

/// Tells a sentence, and gives the exit code back.
pub(super) fn told(exit: Exit, sentence: &str) -> Exit {
    output::trouble(&output::shown(sentence));
    exit
}

/// Tells that the broker did not do `what`.
pub(super) fn broker_trouble(what: &str, error: &Error) -> Exit {
    let advice = match error {
        Error::QueueFull { .. } | Error::ScheduleFull | Error::KeysFull { .. } => {
            "; try again when there is room"
        }
        error if error.is_retryable() => "; try again",
        _ => "",
    };
    let exit = if error.is_retryable() { Exit::Unavailable } else { Exit::Unexpected };
    told(exit, &format!("{what}: {error}{advice}"))
}

/// A string or number as text; `None` for what is absent.
pub(super) fn plain(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::Null => None,
        Value::String(text) => Some(output::shown(text)),
        other => Some(output::shown(&other.to_string())),
    }
}

/// How long ago something was: `3s`, `12m`, `5h`, `4d`.
pub(super) fn age(then: Option<Timestamp>, now: Timestamp) -> String {
    let Some(then) = then else { return "-".to_owned() };
    let seconds = now.unix_ms().saturating_sub(then.unix_ms()) / 1_000;
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// The beginning of a text that may be long, on one line.
pub(super) fn brief(text: &str, chars: usize) -> String {
    let shown = output::shown(text);
    if shown.chars().count() <= chars {
        return shown;
    }
    let mut cut: String = shown.chars().take(chars.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_has_one_unit() {
        let now = Timestamp::from_unix_ms(1_000_000_000);
        let ago = |seconds: u64| age(Some(Timestamp::from_unix_ms(1_000_000_000 - seconds * 1_000)), now);
        assert_eq!([ago(0), ago(90), ago(600), ago(10_000), ago(200_000)], ["0s", "90s", "10m", "2h", "2d"]);
        assert_eq!(age(None, now), "-");
    }

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(brief("no answer\u{1b}", 20), "no answer\\u{1b}");
        assert_eq!(brief("éééééé", 4), "ééé…");
    }
}
