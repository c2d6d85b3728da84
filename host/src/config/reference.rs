//! The written forms of the table of options: the default file and the reference page.
//!
//! Both are committed; a test compares them and, with `CARDCAGE_BLESS=1`, writes them anew.

use std::fmt::Write as _;

use super::groups::GROUP;
use super::options::{PLUGIN, Preset, Row, SCHEDULE, SECTIONS, Section, TASK};
use super::trust::TRUST;

/// `config/cardcage.toml`: every option at its default, with its sentence.
#[must_use]
pub fn default_file() -> String {
    let mut text = String::from(
        "# Every option of cardcage at its default. Copy what you change; leave out the rest.\n\
         #\n\
         # Layers, later ones win: defaults, files (--config, several), plugins.d/*.toml beside the first file,\n\
         # environment (CARDCAGE__API__LISTEN=…), flags (--set api.listen=…).\n\
         # Generated from host/src/config/options.rs: change it there, then run the tests with CARDCAGE_BLESS=1.\n",
    );
    for section in SECTIONS.iter().chain([&&TRUST]) {
        let _ = writeln!(text, "\n# {}\n[{}]", section.doc.trim(), section.name);
        for row in section.rows {
            let _ = writeln!(text, "\n# {}\n# Accepts {}.", row.doc.trim(), row.kind.expected());
            let _ = match row.default {
                Preset::Value(value) => writeln!(text, "{} = {value}", row.name),
                Preset::Unset(example) | Preset::Required(example) => {
                    writeln!(text, "# {} = {}", row.name, plain(example))
                }
            };
        }
    }
    for section in [&GROUP, &PLUGIN, &TASK, &SCHEDULE] {
        let _ = writeln!(text, "\n# {}\n# [{}]", section.doc.trim(), section.name);
        for row in section.rows {
            let _ = writeln!(text, "\n# {}\n# Accepts {}.", row.doc.trim(), row.kind.expected());
            let (Preset::Value(value) | Preset::Unset(value) | Preset::Required(value)) = row.default;
            let _ = writeln!(text, "# {} = {}", row.name, plain(value));
        }
    }
    text
}

/// `docs/reference/config.md`.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from(
        "# Configuration\n\n\
         <!-- Generated from host/src/config/options.rs; `CARDCAGE_BLESS=1 cargo test -p cardcage --test it config`. -->\n\n\
         Layers, later ones win:\n\n\
         1. the defaults below;\n\
         2. files: `--config FILE`, several, in the order given;\n\
         3. `plugins.d/*.toml` beside the first file, in the order of their names; they hold only `[plugins.<name>]`;\n\
         4. the environment: `CARDCAGE__SECTION__KEY`, such as `CARDCAGE__API__LISTEN=0.0.0.0:80`;\n\
         5. flags: `--set section.key=value`; a key with dots or spaces in it is quoted: \
         `--set 'plugins.hello.routes.\"POST /call\"=inline'`.\n\n\
         Tables merge key by key; anything else replaces. A value in the environment or a flag is read as TOML where\n\
         it can be, else as a string. Names from the environment are lower-cased. Relative paths start from the file\n\
         that states them, or from the working directory.\n\n\
         A mistake ends the start with exit code 78. All of them are told at once, with file, line and a hint;\n\
         `cardcage check` tells them without starting anything.\n",
    );
    for section in SECTIONS.iter().chain([&&TRUST]) {
        table(&mut text, section);
    }
    table(&mut text, &GROUP);
    table(&mut text, &PLUGIN);
    table(&mut text, &TASK);
    table(&mut text, &SCHEDULE);
    text.push_str(
        "\n### Secrets\n\n\
         Anywhere inside `plugins.<name>.config`, a table whose only key is `env` or `file` stands for a secret:\n\n\
         ```toml\n\
         [plugins.payments.config]\n\
         stripe_webhook_secrets = [{ env = \"STRIPE_WEBHOOK_SECRET\" }, { file = \"/run/secrets/stripe-old\" }]\n\
         ```\n\n\
         It is read when the host starts. A line end at the end of a file is dropped. A variable that is not set, or\n\
         a file that cannot be read, ends the start with exit code 78. Resolved secrets are not logged.\n",
    );
    text
}

fn table(text: &mut String, section: &Section) {
    let _ = writeln!(text, "\n## `[{}]`\n\n{}\n", section.name, section.doc.trim());
    text.push_str("| option | default | accepts | what it does |\n|---|---|---|---|\n");
    for Row { name, kind, default, doc } in section.rows {
        let default = match default {
            Preset::Value(value) => format!("`{value}`"),
            Preset::Unset(_) => "unset".to_owned(),
            Preset::Required(_) => "must be set".to_owned(),
        };
        let _ = writeln!(text, "| `{name}` | {default} | {} | {} |", kind.expected(), doc.trim());
    }
}

/// An example that is itself a table or a list of TOML, with quotes, arrives as a quoted literal: take it out of its quotes.
fn plain(example: &str) -> String {
    let inner = example.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    match inner {
        Some(inner) if inner.starts_with(['{', '[']) => inner.replace("\\\"", "\""),
        _ => example.to_owned(),
    }
}
