//! One difference between two schemas, in words: for whoever sends, for whoever receives, and for whoever runs both.

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

    /// For whoever has both at the same time: of what is sent, what is not taken.
    pub(super) fn for_both(&self) -> String {
        self.told(match &self.what {
            What::Type(sent, taken) => format!("may be {sent}, and only {taken} is taken"),
            What::AnyType(taken) => format!("may be of any type, and only {taken} is taken"),
            What::Value(value) => format!("may be {value}, which is not taken"),
            What::AnyValue => "is free, and only a few values are taken".to_owned(),
            What::Bound(word, bound) => format!("need not keep to the {word} of {bound}"),
            What::Pattern(pattern) => format!("need not have the pattern {pattern}"),
            What::Format(format) => format!("need not be of the format {format}"),
            What::Required => "may be missing, and is required".to_owned(),
            What::Unknown => "is not taken".to_owned(),
            What::Closed => "may have members that are refused".to_owned(),
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
