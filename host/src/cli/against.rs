//! What `check --against` takes.

use std::convert::Infallible;
use std::path::PathBuf;
use std::str::FromStr;

/// What to hold the candidate against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Against {
    /// What live workers have, and the tasks that wait at the broker of the configuration.
    Broker,
    /// A set that `--save-manifest` wrote.
    File(PathBuf),
}

impl FromStr for Against {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(if text == "broker" { Self::Broker } else { Self::File(text.into()) })
    }
}
