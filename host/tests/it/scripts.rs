//! The scripts that need a compiler which is not everywhere say what is missing, and what that means.

use cardcage_harness::workspace_root;
use std::process::{Command, Output};

/// Without the compiler that is asked for, whatever this machine has.
fn without_nightly(script: &str, arguments: &[&str]) -> Output {
    let script = workspace_root().join("scripts").join(script);
    let mut command = Command::new(script);
    command.args(arguments).env("CARDCAGE_NIGHTLY", "no-such-compiler").output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn sanitizers_without_their_compiler_are_skipped_in_one_visible_line() {
    let output = without_nightly("sanitize", &[]);
    let said = text(&output.stdout);
    assert_eq!((output.status.code(), said.lines().count()), (Some(0), 1), "{output:?}");
    assert!(said.starts_with("Skipped: the sanitizers (there is no toolchain `no-such-compiler`"), "{said}");
    assert!(said.contains("rustup toolchain install nightly"), "{said}");
}

#[test]
fn fuzzing_without_its_compiler_an_unknown_target_and_no_number_of_seconds_are_refused_by_name() {
    for (arguments, code, sentence) in [
        (["elf", "1"].as_slice(), 1, "fuzz: there is no toolchain `no-such-compiler`; get it by"),
        (
            &["elv", "1"],
            2,
            "fuzz: name one of the targets: describe_output elf header_block lock manifest signature",
        ),
        (&[], 2, "fuzz: name one of the targets:"),
        (&["elf", "1m"], 2, "fuzz: `1m` is no number of seconds"),
    ] {
        let output = without_nightly("fuzz", arguments);
        let said = text(&output.stderr);
        assert_eq!(
            (output.status.code(), said.lines().count()),
            (Some(code), 1),
            "{arguments:?}: {output:?}"
        );
        assert!(said.starts_with(sentence), "{arguments:?}: {said}");
    }
}
