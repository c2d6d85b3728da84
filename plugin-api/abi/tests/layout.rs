//! The boundary's layout is committed: a change to it must be meant.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use abi_stable::type_layout::{TLData, TypeLayout};
use abi_stable::StableAbi;
use cardcage_abi::{
    Answer, CallHead, CallOut, EnqueueHead, FfiBytes, FfiCallback, FfiWaker, HostRef, InitHead, InitReply,
    LogRecord, MetricRecord, PluginRef, Reply, RootRef, SpanRecord, TaskHead, TaskReply,
};
use std::fmt::Write;

fn describe(out: &mut String, layout: &'static TypeLayout) {
    writeln!(out, "{} size={} align={}", layout.name(), layout.size(), layout.alignment()).unwrap();
    // All are `repr(C)`: a field lies at the next place that its alignment allows.
    let mut end = 0_usize;
    for field in layout.get_fields().into_iter().flatten() {
        let functions: Vec<String> = field.function_range().iter().map(|f| f.to_string()).collect();
        let kind = if functions.is_empty() { field.full_type().to_string() } else { functions.join("; ") };
        let kind = kind.split_whitespace().collect::<Vec<_>>().join(" ");
        let offset = end.next_multiple_of(field.layout().alignment());
        writeln!(out, "    {offset:3} {}: {kind}", field.name()).unwrap();
        end = offset + field.layout().size();
    }
    assert_eq!(end.next_multiple_of(layout.alignment()), layout.size(), "{}", layout.name());
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

type Layout = fn() -> &'static TypeLayout;

/// The fields that 1.0 had, in their order. Append to a vtable; never change a line here.
const FIRST: [(&str, Layout, &[&str]); 3] = [
    ("Root", || pointee(RootRef::LAYOUT), &["plugin", "host_layout"]),
    (
        "Host",
        || pointee(HostRef::LAYOUT),
        &[
            "complete",
            "body_poll",
            "body_ready",
            "body_push",
            "body_end",
            "call_release",
            "task_complete",
            "task_release",
            "enqueue",
            "call",
            "log",
            "span",
            "now_unix_ns",
            "config",
            "metric",
            "polling",
            "task_progress",
            "ask",
        ],
    ),
    (
        "Plugin",
        || pointee(PluginRef::LAYOUT),
        &[
            "describe",
            "init",
            "call",
            "task",
            "cancel",
            "forget",
            "drain",
            "stop",
            "health",
            "cancel_softly",
            "pulse",
        ],
    ),
];

#[test]
fn vtables_start_with_the_fields_of_1_0_and_all_of_them_are_sure_to_be_there() {
    for (name, layout, first) in FIRST {
        let layout = layout();
        assert_eq!(layout.name(), name);
        let names: Vec<&str> = layout.get_fields().into_iter().flatten().map(|field| field.name()).collect();
        assert!(names.starts_with(first), "{name} has shrunk, or was reordered: {names:?}");
        let TLData::PrefixType(prefix) = layout.data() else { panic!("{name} is no prefix type") };
        assert_eq!(
            usize::from(prefix.first_suffix_field),
            first.len(),
            "`last_prefix_field` of {name} has moved"
        );
    }
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
