//! Whether a worker reads the bodies that an API accepts.
//!
//! Names and major versions say who is given a task; whether its body can be read, only the schemas do. Instances tell a hash
//! of each. Where two are the same there is nothing to compare; else the schemas are, as the plugins' descriptions at the
//! broker have them, in the way of `check --against`.
//!
//! What it refuses: guessing. A hash of which no description is known stays uncompared, and is told as that.

use std::collections::HashMap;

use cardcage_protocol::Name;
use cardcage_protocol::presence::{PresentBody, PresentPlugin};
use serde_json::Value;

use crate::command::check::first_misfit;
use crate::loader::Description;

/// Schemas of tasks' bodies, by plugin, task and hash.
#[derive(Debug, Default)]
pub(super) struct Schemas(HashMap<(String, String, String), Value>);

/// What becomes of an accepted body at a worker.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// It is read, or may be upcast; also where one of both has not told how.
    Reads,
    /// Not all of them are read; what is wrong with the first kind that is not.
    Unfit(String),
    /// The schemas differ, and are not both known.
    NotCompared,
}

impl Schemas {
    pub(super) fn of(descriptions: impl IntoIterator<Item = Description>) -> Self {
        let mut schemas = HashMap::new();
        for Description { name, version, tasks, .. } in descriptions {
            for task in tasks {
                let hash = task.reader_hash(&version);
                schemas.insert((name.clone(), task.name, hash), task.input_schema);
            }
        }
        Self(schemas)
    }

    fn get(&self, plugin: &Name, body: &PresentBody) -> Option<&Value> {
        self.0.get(&(plugin.to_string(), body.task.to_string(), body.schema.clone()))
    }

    /// What becomes of what `offered` accepts of this task, at a worker that has `there`.
    pub(super) fn fit(&self, offered: &PresentPlugin, there: &PresentPlugin, task: &Name) -> Fit {
        // Older instances do not tell.
        let (Some(sent), Some(taken)) = (offered.body(task), there.body(task)) else { return Fit::Reads };
        // What an upcaster makes of a body only its code knows.
        if sent.schema == taken.schema || taken.upcasts {
            return Fit::Reads;
        }
        match (self.get(&offered.name, sent), self.get(&there.name, taken)) {
            (Some(sent), Some(taken)) => first_misfit(sent, taken).map_or(Fit::Reads, Fit::Unfit),
            _ => Fit::NotCompared,
        }
    }
}
