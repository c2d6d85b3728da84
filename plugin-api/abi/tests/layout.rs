//! The boundary's layout is committed: a change to it must be meant.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use abi_stable::type_layout::{TLData, TypeLayout};
use abi_stable::StableAbi;
use cardcage_abi::{
    code, headers, Answer, AskHead, CallHead, CallOut, EnqueueHead, FfiBytes, FfiCallback, FfiWaker, HostRef,
    InitHead, InitReply, LogRecord, MetricRecord, PluginRef, Reply, RootRef, SpanRecord, TaskHead, TaskNote,
    TaskReply,
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
        TaskNote::LAYOUT,
        AskHead::LAYOUT,
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

/// The layouts of a text: what it is of, its size, and its fields.
fn layouts(text: &str) -> Vec<(&str, &str, Vec<&str>)> {
    let mut layouts = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        match (line.strip_prefix("    "), layouts.last_mut()) {
            (Some(field), Some((_, _, fields))) => Vec::push(fields, field),
            _ => {
                let (name, size) = line.split_once(' ').unwrap();
                layouts.push((name, size, Vec::new()));
            }
        }
    }
    layouts
}

/// What the first has that the second has not, or has otherwise. The vtables may have grown at their ends.
fn lost(first: &str, now: &str) -> Vec<String> {
    let now = layouts(now);
    let is_kept = |(name, size, fields): &(&str, &str, Vec<&str>)| {
        now.iter().any(|(now_name, now_size, now_fields)| {
            let may_grow = FIRST.iter().any(|(vtable, ..)| vtable == name);
            let same = size == now_size && fields.len() == now_fields.len();
            name == now_name && now_fields.starts_with(fields) && (may_grow || same)
        })
    };
    layouts(first).iter().filter(|layout| !is_kept(layout)).map(|(name, ..)| (*name).to_owned()).collect()
}

/// The other test's text is blessed with each minor; this one never.
const LAYOUT_1_0: &str = include_str!("layout-1.0.txt");

#[test]
fn layout_of_the_boundary_begins_with_that_of_1_0() {
    assert!(layouts(LAYOUT_1_0).iter().map(|(_, _, fields)| fields.len()).sum::<usize>() > 80);
    assert_eq!(lost(LAYOUT_1_0, &snapshot()), Vec::<String>::new());
    // What a later minor may do, and what none may.
    let changed = |from: &str, to: &str| {
        assert!(LAYOUT_1_0.contains(from), "{from}");
        lost(LAYOUT_1_0, &LAYOUT_1_0.replace(from, to))
    };
    let (last, grown) =
        ("FfiCallback)->()\nFfiBytes ", "FfiCallback)->()\n     88 next: fn()->()\nFfiBytes ");
    assert!(changed(last, grown).is_empty());
    assert!(changed("Plugin size=88", "Plugin size=96").is_empty());
    assert_eq!(changed("      8 init: fn", "      8 start: fn"), ["Plugin"]);
    assert_eq!(changed("Instance)->Answer\n", "Instance)->u32\n"), ["Plugin"]);
    assert_eq!(
        changed("     72 ext: FfiBytes\nInitReply", "     72 ext: FfiBytes\n    104 next: u64\nInitReply"),
        ["InitHead"]
    );
    assert_eq!(changed("InitHead size=104", "InitHead size=112"), ["InitHead"]);
    assert_eq!(changed("MetricRecord size", "Metric size"), ["MetricRecord"]);
}

/// Constants of a module: name, what it is, what it was in 1.0.
macro_rules! constants {
    ($of:ident, $($name:ident = $first:expr),* $(,)?) => { [$((stringify!($name), $of::$name, $first)),*] };
}

/// The names of a source's constants.
fn names(source: &str) -> Vec<&str> {
    let names = source.lines().filter_map(|line| line.strip_prefix("pub const ")?.split_once(':'));
    names.map(|(name, _)| name).collect()
}

/// Both sides have these compiled in: one that changes breaks every library that there is, and no layout tells. Append;
/// never change a line here.
#[test]
fn numbers_and_names_at_the_boundary_are_those_of_1_0() {
    let codes = constants![
        code,
        OK = 0,
        PANICKED = 1,
        FAILED = 2,
        UNAVAILABLE = 3,
        REJECTED = 4,
        PENDING = 0,
        READY = 1,
        END = 2,
        BROKEN = 3,
        TASK_SUCCEEDED = 0,
        TASK_RETRY = 1,
        TASK_RETRY_AFTER = 2,
        TASK_FAILED = 3,
        TASK_DISCARDED = 4,
        TASK_PANICKED = 5,
        TASK_UNDECODABLE = 6,
    ];
    let levels = constants![code, LEVEL_ERROR = 1, LEVEL_TRACE = 5];
    let texts =
        constants![headers, SOFT_DEADLINE_MS = "soft-deadline-ms", METHOD = ":method", PATH = ":path"];
    for (name, now, first) in codes {
        assert_eq!(now, first, "{name}");
    }
    for (name, now, first) in levels {
        assert_eq!(now, first, "{name}");
    }
    for (name, now, first) in texts {
        assert_eq!(now, first, "{name}");
    }
    // And none of the sources' is left out.
    let listed = codes.iter().map(|(name, ..)| *name).chain(levels.iter().map(|(name, ..)| *name));
    assert_eq!(names(include_str!("../src/code.rs")), listed.collect::<Vec<_>>());
    assert_eq!(names(include_str!("../src/headers.rs")), texts.map(|(name, ..)| name));
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
    let heads = [
        CallHead::LAYOUT,
        Reply::LAYOUT,
        TaskHead::LAYOUT,
        TaskReply::LAYOUT,
        TaskNote::LAYOUT,
        AskHead::LAYOUT,
        InitHead::LAYOUT,
        CallOut::LAYOUT,
        EnqueueHead::LAYOUT,
        LogRecord::LAYOUT,
        SpanRecord::LAYOUT,
        MetricRecord::LAYOUT,
    ];
    // All but `InitReply`, which `init` answers once.
    assert_eq!(include_str!("../src/head.rs").matches("#[repr(C)]").count(), heads.len() + 1);
    for layout in heads {
        let mut fields = layout.get_fields().into_iter().flatten();
        assert!(fields.any(|field| field.name() == "ext"), "{} has no ext", layout.name());
    }
}

/// The entries of a vtable's source that came after 1.0 and of which nobody is told that they may be missing.
fn unguarded(source: &str, vtable: &str) -> Vec<String> {
    let (_, from) = source.split_once(&format!("pub struct {vtable} {{")).unwrap();
    let (fields, _) = from.split_once("\n}\n").unwrap();
    let (_, suffix) = fields.split_once("#[sabi(last_prefix_field)]").unwrap();
    let (mut unguarded, mut is_guarded) = (Vec::new(), false);
    for line in suffix.lines().map(str::trim).skip_while(|line| !line.starts_with("pub ")).skip(1) {
        is_guarded |= line == "#[sabi(missing_field(option))]";
        if let Some((name, _)) = line.strip_prefix("pub ").and_then(|field| field.split_once(':')) {
            if !std::mem::take(&mut is_guarded) {
                unguarded.push(name.to_owned());
            }
        }
    }
    unguarded
}

#[test]
fn whoever_calls_an_appended_entry_learns_that_it_may_be_missing() {
    let source = include_str!("../src/vtable.rs");
    for (name, ..) in FIRST {
        let unguarded = unguarded(source, name);
        assert!(unguarded.is_empty(), "{name} needs `#[sabi(missing_field(option))]` at {unguarded:?}");
    }
    // None was appended yet; so that the test can fail, one that was appended well and one that was not.
    let grown = "pub struct Grown {\n    #[sabi(last_prefix_field)]\n    pub first: u8,\n    \
                 #[sabi(missing_field(option))]\n    pub good: u8,\n    pub bad: u8,\n}\n";
    assert_eq!(unguarded(grown, "Grown"), ["bad"]);
}
