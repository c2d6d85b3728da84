//! One difference between two schemas, in words: for whoever sends, and for whoever receives.

/// One thing that fits the one schema and not the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Misfit {
    /// The member, as `lines[].sku`; empty for the whole.
    pub(super) at: String,
    pub(super) what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    /// Types of what is sent, and of what is taken.
    Type(String, String),
    AnyType(String),
    Value(String),
    AnyValue,
    Bound(&'static str, String),
    Pattern(String),
    Format(String),
    Required,
    Unknown,
    Closed,
}

impl Misfit {
    fn told(&self, what: String) -> String {
        if self.at.is_empty() { what } else { format!("`{}` {what}", self.at) }
    }

    /// For whoever sends what the earlier schema allowed.
    pub(super) fn for_sender(&self) -> String {
        self.told(match &self.what {
            What::Type(sent, taken) => format!("was {sent}, and is {taken}"),
            What::AnyType(taken) => format!("was of any type, and is {taken}"),
            What::Value(value) => format!("is no longer {value}"),
            What::AnyValue => "was free, and is one of a few values".to_owned(),
            What::Bound(word, bound) => format!("has a {word} of {bound}"),
            What::Pattern(pattern) => format!("has the pattern {pattern}"),
            What::Format(format) => format!("must be of the format {format}, and need not have been"),
            What::Required => "is required, and was not".to_owned(),
            What::Unknown => "is not taken any more".to_owned(),
            What::Closed => "refuses members that it does not know, and did not".to_owned(),
        })
    }

    /// For whoever gets what the later schema allows, and knows the earlier one. `None` where it does not hurt: who does
    /// not know a member passes over it.
    pub(super) fn for_receiver(&self) -> Option<String> {
        Some(self.told(match &self.what {
            What::Type(sent, taken) => format!("was {taken}, and is {sent}"),
            What::AnyType(taken) => format!("was {taken}, and is of any type"),
            What::Value(value) => format!("may be {value}, which is new"),
            What::AnyValue => "was one of a few values, and is free".to_owned(),
            What::Bound(word, bound) => format!("had a {word} of {bound}"),
            What::Pattern(pattern) => format!("had the pattern {pattern}"),
            What::Format(format) => format!("was of the format {format}, and need not be"),
            What::Required => "may be missing, and was not".to_owned(),
            What::Unknown | What::Closed => return None,
        }))
    }
}
