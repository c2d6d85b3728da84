//! The samples of a folder: `stripe/*.json`, `commercetools/message-*.json` and `commercetools/order*.json`.
//!
//! A message names an order by id, and the order files are what the order API answers. Where a folder holds no order
//! with the id that a message names, one of its orders is served under that id, so that the message has its way.

use std::collections::HashMap;
use std::path::Path;

use cardcage_harness::{Error, Result};
use serde_json::Value;
use uuid::Uuid;

use crate::expected;

/// One webhook to send.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    /// The file it came from, such as `stripe/charge.refunded.json`.
    pub(crate) name: String,
    /// The bytes to send; signatures are made over them.
    pub(crate) raw: Vec<u8>,
    /// The same, parsed.
    pub(crate) json: Value,
}

/// Everything that a folder holds.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    pub(crate) stripe: Vec<Sample>,
    pub(crate) messages: Vec<Sample>,
    /// Orders by the id under which the order API serves them.
    pub(crate) orders: HashMap<String, Value>,
}

impl Samples {
    /// Reads a folder.
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let stripe = read_folder(folder, "stripe", "")?;
        let mut messages = read_folder(folder, "commercetools", "message-")?;
        let files = read_folder(folder, "commercetools", "order")?;
        if stripe.is_empty() && messages.is_empty() {
            return Err(Error::new(format!(
                "{} holds neither stripe/*.json nor commercetools/message-*.json; name a folder that does",
                folder.display()
            )));
        }
        let mut orders = HashMap::new();
        let mut unused: Vec<&Sample> = files.iter().collect();
        for message in &messages {
            let Some(id) = order_id(&message.json).filter(|id| !orders.contains_key(*id)) else { continue };
            if let Some(order) = best_order(&messages, &files, id) {
                unused.retain(|file| file.name != order.name);
                orders.insert(id.to_owned(), order.json.clone());
            }
        }
        // An order that no message names gets a message of its own, made after one that starts a fulfilment.
        let pattern = messages.iter().find(|message| expected::is_fulfilment(&message.json)).cloned();
        for file in unused {
            let id = Uuid::now_v7().to_string();
            orders.insert(id.clone(), file.json.clone());
            messages.extend(pattern.as_ref().and_then(|pattern| message_about(pattern, &id, &file.name)));
        }
        Ok(Self { stripe, messages, orders })
    }

    /// The commercetools project that the messages come from.
    pub(crate) fn project(&self) -> &str {
        let named =
            self.messages.iter().find_map(|message| message.json.pointer("/detail/projectKey")?.as_str());
        named.unwrap_or("demo-shop")
    }
}

/// The order that a message is about.
pub(crate) fn order_id(message: &Value) -> Option<&str> {
    message.pointer("/detail/resource/id").and_then(Value::as_str)
}

/// The order with this id, else one that has a line that a message about it names, else the first.
fn best_order<'a>(messages: &[Sample], files: &'a [Sample], id: &str) -> Option<&'a Sample> {
    let lines: Vec<&Value> = messages
        .iter()
        .filter(|message| order_id(&message.json) == Some(id))
        .filter_map(|message| message.json.pointer("/detail/lineItemId"))
        .collect();
    let has_line = |file: &&Sample| {
        let items = file.json.get("lineItems").and_then(Value::as_array);
        items.is_some_and(|items| {
            items.iter().any(|item| item.get("id").is_some_and(|line| lines.contains(&line)))
        })
    };
    let has_id = |file: &&Sample| file.json.get("id").and_then(Value::as_str) == Some(id);
    files.iter().find(has_id).or_else(|| files.iter().find(has_line)).or_else(|| files.first())
}

/// A message like `pattern`, with ids of its own, about another order.
fn message_about(pattern: &Sample, order: &str, order_file: &str) -> Option<Sample> {
    let mut json = pattern.json.clone();
    *json.get_mut("id")? = Uuid::new_v4().to_string().into();
    let detail = json.get_mut("detail")?;
    *detail.get_mut("id")? = Uuid::new_v4().to_string().into();
    *detail.pointer_mut("/resource/id")? = order.into();
    if let Some(named) = detail.get_mut("orderId") {
        *named = order.into();
    }
    let name = format!("message about {order_file}");
    Some(Sample { name, raw: serde_json::to_vec(&json).ok()?, json })
}

/// The files of `folder/kind` whose names start with `prefix`, by name.
fn read_folder(folder: &Path, kind: &str, prefix: &str) -> Result<Vec<Sample>> {
    let Ok(entries) = std::fs::read_dir(folder.join(kind)) else { return Ok(Vec::new()) };
    let mut names: Vec<String> =
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.retain(|name| name.starts_with(prefix) && name.ends_with(".json"));
    names.sort();
    names.into_iter().map(|name| read_file(folder, format!("{kind}/{name}"))).collect()
}

fn read_file(folder: &Path, name: String) -> Result<Sample> {
    let path = folder.join(&name);
    let raw = std::fs::read(&path).map_err(Error::doing(format!("cannot read {}", path.display())))?;
    let json =
        serde_json::from_slice(&raw).map_err(Error::doing(format!("{} is no JSON", path.display())))?;
    Ok(Sample { name, raw, json })
}
