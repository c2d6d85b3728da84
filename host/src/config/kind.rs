//! What an option accepts: from a stated value to what it means, or to a sentence about why not.
//!
//! Invariant: what `read` lets through deserialises into the option's Rust type.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use cardcage_protocol::{Cadence, RESERVED_SEGMENTS, Rate};
use serde_json::Value as Json;

use super::backoff::Backoff;
use super::suggest::nearest;
use super::time_scale::TimeScale;
use super::tree::{Node, Value};
use crate::signature::TrustedKey;

#[derive(Debug)]
pub(crate) enum Kind {
    Integer {
        min: u64,
        max: u64,
    },
    Boolean,
    OneOf(&'static [&'static str]),
    Address,
    Url,
    /// `[a-z0-9_-]{1,64}`: usable as a NATS subject token and in a stream name.
    Name,
    /// A name, or an empty text for none.
    NameOrNone,
    /// The path of a field in a task's body, or an empty text for none.
    Field,
    Backoff,
    /// A factor from 0 to 1.
    Scale,
    /// Starts per period.
    Rate,
    /// The interval of a schedule.
    Every,
    /// A cron expression.
    Cron,
    TimeZone,
    Filter,
    /// Relative to the file that states it.
    Path,
    /// Like `Path`, but a bare name is looked up in `PATH`.
    Program,
    Prefix,
    /// A list of at most so many paths, each like `Path`.
    Paths {
        max: usize,
    },
    /// A list of names.
    Names,
    /// A list of minisign's public keys.
    TrustedKeys,
    /// Route to placement; read by `plugins`.
    Routes,
    /// Anything; read by `plugins`.
    Free,
}

/// Why a value cannot be used.
pub(crate) struct Fault {
    /// Completes "`api.listen` …".
    pub(crate) what: &'static str,
    /// Stands beside the caret.
    pub(crate) label: String,
    pub(crate) help: Option<String>,
    /// The value may hold a secret and is not to be shown.
    pub(crate) secret: bool,
}

const WRONG_TYPE: &str = "has the wrong type";
const OUT_OF_RANGE: &str = "is out of range";
const UNUSABLE: &str = "cannot be used";

pub(crate) const fn integer(min: u64, max: u64) -> Kind {
    Kind::Integer { min, max }
}

impl Kind {
    /// What is accepted, for messages and the reference.
    pub(crate) fn expected(&self) -> String {
        match self {
            Self::Integer { min, max } => format!("an integer from {min} to {max}"),
            Self::Boolean => "`true` or `false`".to_owned(),
            Self::OneOf(choices) => format!("`{}`", choices.join("` or `")),
            Self::Address => "an IP address with port".to_owned(),
            Self::Url => "`nats://host:port` or `tls://host:port`".to_owned(),
            Self::Name => "1 to 64 of a-z, 0-9, `_` and `-`".to_owned(),
            Self::NameOrNone => "1 to 64 of a-z, 0-9, `_` and `-`, or an empty text for none".to_owned(),
            Self::Field => "the path of a field such as `order.id`, or an empty text for none".to_owned(),
            Self::Backoff => "two times such as `1s..5m`".to_owned(),
            Self::Scale => "a number from 0 to 1".to_owned(),
            Self::Rate => "a number per second, minute or hour, such as `10/s`".to_owned(),
            Self::Every => "an interval such as `90s`, `5m` or `1h30m`".to_owned(),
            Self::Cron => "a cron expression of six fields".to_owned(),
            Self::TimeZone => "a time zone such as `Europe/Berlin`".to_owned(),
            Self::Filter => "a level or filter directives".to_owned(),
            Self::Path | Self::Program => "a path".to_owned(),
            Self::Prefix => "a path such as `/shop`".to_owned(),
            Self::Paths { max } => format!("a list of at most {max} paths"),
            Self::Names => "a list of names such as `[\"hello\"]`".to_owned(),
            Self::TrustedKeys => "a list of public keys such as `[\"RWQ…\"]`".to_owned(),
            Self::Routes => "a table of `\"METHOD /path\" = \"worker\"` or `\"inline\"`".to_owned(),
            Self::Free => "a table".to_owned(),
        }
    }

    /// Reads `node` as a value of this kind. A path may turn into one relative to the working directory.
    pub(crate) fn read(&self, node: &Node) -> Result<Json, Fault> {
        match self {
            Self::Integer { min, max } => match node.value {
                Value::Integer(value) if value >= i128::from(*min) && value <= i128::from(*max) => {
                    Ok(u64::try_from(value).map_or(Json::Null, Json::from))
                }
                Value::Integer(_) => Err(Fault {
                    what: OUT_OF_RANGE,
                    label: format!("must be from {min} to {max}"),
                    help: None,
                    secret: false,
                }),
                _ => Err(self.wrong_type(node)),
            },
            Self::Boolean => match node.value {
                Value::Boolean(value) => Ok(Json::Bool(value)),
                _ => Err(self.wrong_type(node)),
            },
            Self::Scale => {
                #[allow(clippy::cast_precision_loss, reason = "only 0 and 1 are within bounds")]
                let factor = match node.value {
                    Value::Float(factor) => factor,
                    Value::Integer(factor) => factor as f64,
                    _ => return Err(self.wrong_type(node)),
                };
                TimeScale::new(factor).map(|_| Json::from(factor)).ok_or_else(|| Fault {
                    what: OUT_OF_RANGE,
                    label: "must be from 0 to 1".to_owned(),
                    help: None,
                    secret: false,
                })
            }
            Self::OneOf(choices) => self.text(node, |text| {
                if choices.contains(&text) {
                    return Ok(text.to_owned());
                }
                let near = nearest(&text.to_lowercase(), choices.iter().copied());
                Err((
                    format!("expected {}", self.expected()),
                    near.map(|near| format!("did you mean `{near}`?")),
                ))
            }),
            Self::Address => self.text(node, |text| match text.parse::<SocketAddr>() {
                Ok(address) => Ok(address.to_string()),
                Err(_) => {
                    Err(("expected an IP address with port, such as `127.0.0.1:8080`".to_owned(), None))
                }
            }),
            Self::Url => self.text(node, url),
            Self::Name => self.text(node, |text| {
                if is_name(text) {
                    Ok(text.to_owned())
                } else {
                    Err((format!("expected {}", self.expected()), None))
                }
            }),
            Self::NameOrNone => self.text(node, |text| {
                let fits = text.is_empty() || is_name(text);
                fits.then(|| text.to_owned()).ok_or_else(|| (format!("expected {}", self.expected()), None))
            }),
            Self::Field => self.text(node, |text| {
                let fits = text.is_empty() || !text.split('.').any(str::is_empty);
                fits.then(|| text.to_owned()).ok_or_else(|| (format!("expected {}", self.expected()), None))
            }),
            Self::Backoff => self.text(node, |text| match text.parse::<Backoff>() {
                Ok(backoff) => Ok(backoff.to_string()),
                Err(expected) => {
                    Err((format!("expected {expected}"), Some("write it like `1s..5m`".to_owned())))
                }
            }),
            Self::Rate => self.text(node, |text| match text.parse::<Rate>() {
                Ok(rate) => Ok(rate.to_string()),
                Err(_) => Err((
                    format!("expected {}", self.expected()),
                    Some("write it like `10/s`, `100/m` or `5/h`".to_owned()),
                )),
            }),
            Self::Every => self.text(node, |text| cadence(text, Some(text), None, None)),
            Self::Cron => self.text(node, |text| cadence(text, None, Some(text), None)),
            // An expression that is always right, to judge the zone by.
            Self::TimeZone => self.text(node, |text| cadence(text, None, Some("0 0 0 * * *"), Some(text))),
            Self::Filter => self.text(node, |text| match tracing_subscriber::EnvFilter::try_new(text) {
                Ok(_) => Ok(text.to_owned()),
                Err(error) => {
                    Err((error.to_string(), Some("write it like `info` or `info,cardcage=debug`".to_owned())))
                }
            }),
            Self::Path => self.text(node, |text| path(text, node.origin.directory())),
            Self::Program => self.text(node, |text| {
                let bare = !text.contains(std::path::MAIN_SEPARATOR);
                path(text, node.origin.directory().filter(|_| !bare))
            }),
            Self::Prefix => self.text(node, prefix),
            Self::Paths { max } => {
                let Value::Array(items) = &node.value else { return Err(self.wrong_type(node)) };
                if items.len() > *max {
                    let label = format!("has {} paths, and {max} are the most", items.len());
                    return Err(Fault { what: OUT_OF_RANGE, label, help: None, secret: false });
                }
                items.iter().map(|item| Self::Path.read(item)).collect::<Result<_, _>>().map(Json::Array)
            }
            Self::Names => {
                let Value::Array(items) = &node.value else { return Err(self.wrong_type(node)) };
                items.iter().map(|item| Self::Name.read(item)).collect::<Result<_, _>>().map(Json::Array)
            }
            Self::TrustedKeys => self.keys(node),
            Self::Routes | Self::Free => match node.value {
                Value::Table(_) => Ok(Json::Null),
                _ => Err(self.wrong_type(node)),
            },
        }
    }

    pub(crate) fn wrong_type(&self, node: &Node) -> Fault {
        let help = match (self, &node.value) {
            (Self::Integer { .. }, Value::String(text)) if text.parse::<u64>().is_ok() => {
                Some("remove the quotes".to_owned())
            }
            (Self::Integer { .. }, Value::String(text)) if text.starts_with(|c: char| c.is_ascii_digit()) => {
                Some("the unit is part of the option's name: write the number alone".to_owned())
            }
            _ => None,
        };
        Fault {
            what: WRONG_TYPE,
            label: format!("expected {}, found {}", self.expected(), node.value.type_name()),
            help,
            secret: false,
        }
    }

    fn keys(&self, node: &Node) -> Result<Json, Fault> {
        let Value::Array(items) = &node.value else { return Err(self.wrong_type(node)) };
        let key = |item: &Node| {
            let read = |text: &str| match text.parse::<TrustedKey>() {
                Ok(key) => Ok(key.into()),
                Err(expected) => {
                    Err((expected.to_owned(), Some("it is the second line of the `.pub` file".to_owned())))
                }
            };
            self.text(item, read)
        };
        items.iter().map(key).collect::<Result<_, _>>().map(Json::Array)
    }

    /// Text from an environment variable or flag needs no quotes, whatever it looks like.
    fn text(
        &self,
        node: &Node,
        read: impl FnOnce(&str) -> Result<String, (String, Option<String>)>,
    ) -> Result<Json, Fault> {
        let text = match (&node.value, node.origin.raw()) {
            (Value::String(text), _) => text,
            (_, Some(raw)) => raw,
            _ => return Err(self.wrong_type(node)),
        };
        match read(text) {
            Ok(text) => Ok(Json::String(text)),
            Err((label, help)) => {
                let secret = matches!(self, Self::Url) && text.contains('@');
                Err(Fault { what: UNUSABLE, label, help, secret })
            }
        }
    }
}

/// Whether `text` is `[a-z0-9_-]{1,64}`.
pub(crate) fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-')
}

/// What a schedule can be given, as [`Cadence`] judges it.
fn cadence(
    text: &str,
    every: Option<&str>,
    cron: Option<&str>,
    time_zone: Option<&str>,
) -> Result<String, (String, Option<String>)> {
    match Cadence::parse(every, cron, time_zone) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err((error.to_string(), None)),
    }
}

fn url(text: &str) -> Result<String, (String, Option<String>)> {
    for server in text.split(',') {
        let rest = server.trim().strip_prefix("nats://").or_else(|| server.trim().strip_prefix("tls://"));
        match rest {
            Some(rest) if rest.contains('@') => {
                let help = "put the credentials in a file and name it in `broker.credentials_file`";
                return Err(("must not hold credentials".to_owned(), Some(help.to_owned())));
            }
            Some(rest) if !rest.is_empty() && !rest.contains(char::is_whitespace) => {}
            _ => return Err(("expected `nats://host:port` or `tls://host:port`".to_owned(), None)),
        }
    }
    Ok(text.to_owned())
}

fn path(text: &str, directory: Option<&Path>) -> Result<String, (String, Option<String>)> {
    if text.is_empty() {
        return Err(("expected a path, found nothing".to_owned(), None));
    }
    let joined = directory.map_or_else(|| PathBuf::from(text), |directory| directory.join(text));
    joined
        .into_os_string()
        .into_string()
        .map_err(|_| ("lies under a directory whose name is not UTF-8".to_owned(), None))
}

/// Checks a mount path; its first segment must not be one of the host's own.
pub(crate) fn prefix(text: &str) -> Result<String, (String, Option<String>)> {
    let shape = || ("expected a path such as `/shop`, without a slash at its end".to_owned(), None);
    let segments = text.strip_prefix('/').ok_or_else(shape)?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '~');
    let plain = |segment: &str| {
        !segment.is_empty() && segment != "." && segment != ".." && segment.chars().all(allowed)
    };
    if !segments.split('/').all(plain) {
        return Err(shape());
    }
    let first = segments.split('/').next().unwrap_or_default();
    if RESERVED_SEGMENTS.contains(&first) {
        let label = format!("`/{first}` belongs to the host");
        return Err((label, Some("set another `prefix` for the plugin".to_owned())));
    }
    Ok(text.to_owned())
}
