//! The boundary's layout is committed: a change to it must be meant.

#![allow(clippy::unwrap_used, missing_docs)]

use abi_stable::type_layout::TypeLayout;
use abi_stable::StableAbi;
use cardcage_abi::{
    Answer, CallHead, CallOut, EnqueueHead, FfiBytes, FfiCallback, FfiWaker, HostRef, InitHead, InitReply,
    LogRecord, MetricRecord, PluginRef, Reply, RootRef, SpanRecord, TaskHead, TaskReply,
};
use std::fmt::Write;

fn describe(out: &mut String, layout: &'static TypeLayout) {
    writeln!(out, "{} size={} align={}", layout.name(), layout.size(), layout.alignment()).unwrap();
    for field in layout.get_fields().into_iter().flatten() {
        let functions: Vec<String> = field.function_range().iter().map(|f| f.to_string()).collect();
        let kind = if functions.is_empty() { field.full_type().to_string() } else { functions.join("; ") };
        writeln!(out, "    {}: {}", field.name(), kind.split_whitespace().collect::<Vec<_>>().join(" "))
            .unwrap();
    }
}

/// What a prefix reference points to: its first type argument.
fn pointee(layout: &'static TypeLayout) -> &'static TypeLayout {
    layout.shared_vars().type_layouts().first().map_or(layout, |get| get())
}

fn snapshot() -> String {
    let mut out =
        String::from("# Regenerate with CARDCAGE_BLESS=1, and only if the boundary is meant to change.\n");
    for layout in [RootRef::LAYOUT, HostRef::LAYOUT, PluginRef::LAYOUT] {
        describe(&mut out, pointee(layout));
    }
    for layout in [
        FfiBytes::LAYOUT,
        FfiWaker::LAYOUT,
        FfiCallback::LAYOUT,
        Answer::LAYOUT,
        CallHead::LAYOUT,
        Reply::LAYOUT,
        TaskHead::LAYOUT,
        TaskReply::LAYOUT,
        InitHead::LAYOUT,
        InitReply::LAYOUT,
        CallOut::LAYOUT,
        EnqueueHead::LAYOUT,
        LogRecord::LAYOUT,
        SpanRecord::LAYOUT,
        MetricRecord::LAYOUT,
    ] {
        describe(&mut out, layout);
    }
    out
}

#[test]
fn layout_of_the_boundary_is_the_committed_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/layout.txt");
    let now = snapshot();
    if std::env::var_os("CARDCAGE_BLESS").is_some() {
        std::fs::write(path, &now).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(
        committed, now,
        "the boundary has changed; see the rules at the top of plugin-api/abi/src/lib.rs"
    );
}

#[test]
fn every_head_can_grow_by_its_extension_block() {
    for layout in [
        CallHead::LAYOUT,
        Reply::LAYOUT,
        TaskHead::LAYOUT,
        TaskReply::LAYOUT,
        InitHead::LAYOUT,
        CallOut::LAYOUT,
        EnqueueHead::LAYOUT,
        LogRecord::LAYOUT,
        SpanRecord::LAYOUT,
        MetricRecord::LAYOUT,
    ] {
        let mut fields = layout.get_fields().into_iter().flatten();
        assert!(fields.any(|field| field.name() == "ext"), "{} has no ext", layout.name());
    }
}
