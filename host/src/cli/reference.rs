//! `docs/reference/cli.md`: the help of every command, as it is printed.

use std::fmt::Write as _;

use clap::CommandFactory as _;

/// The page. Committed; a test compares it and, with `CARDCAGE_BLESS=1`, writes it anew.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from(
        "# Command line\n\n\
         <!-- Generated from host/src/cli; `CARDCAGE_BLESS=1 cargo test -p cardcage --test it config`. -->\n",
    );
    let mut root = super::Cli::command().term_width(100).disable_help_subcommand(true);
    root.build();
    command(&mut text, &mut root);
    text
}

fn command(text: &mut String, command: &mut clap::Command) {
    let name = command.get_bin_name().unwrap_or("cardcage").to_owned();
    let help = command.render_long_help().to_string();
    let _ = write!(text, "\n## `{name}`\n\n```text\n");
    for line in help.trim_end().lines() {
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text.push_str("```\n");
    for inner in command.get_subcommands_mut().filter(|inner| !inner.is_hide_set()) {
        self::command(text, inner);
    }
}
