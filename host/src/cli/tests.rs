use clap::Parser as _;
use clap::error::ErrorKind;

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn files_and_assignments_are_taken_in_order() {
    let cli = parse(
        "cardcage api --config a.toml --set api.listen=1.2.3.4:5 --config b.toml --set log.filter=debug",
    );
    let Command::Api(configuration) = cli.unwrap().command else { panic!("not api") };
    assert_eq!(configuration.files, [PathBuf::from("a.toml"), PathBuf::from("b.toml")]);
    assert_eq!(configuration.assignments.len(), 2);
}

#[test]
fn an_id_may_stand_before_or_after_the_config() {
    let id = "019283a4-5b6c-7d8e-9f01-23456789abcd";
    assert!(parse(&format!("cardcage tasks show {id} --json --config a.toml")).is_ok());
    assert!(parse(&format!("cardcage tasks show --config a.toml {id}")).is_ok());
}

#[test]
fn usage_errors_exit_2() {
    for line in [
        "cardcage",
        "cardcage serve",
        "cardcage api stray",
        "cardcage api --set listen",
        "cardcage tasks show not-an-id",
        "cardcage plugin inspect",
        "cardcage completions tcsh",
    ] {
        assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
    }
}

#[test]
fn the_child_is_hidden_and_understood() {
    assert!(matches!(parse("cardcage child").unwrap().command, Command::Child));
    assert!(!Cli::command().render_long_help().to_string().contains("child"));
}

#[test]
fn completions_are_written_for_a_shell() {
    let mut script = Vec::new();
    completions(clap_complete::Shell::Bash, &mut script).unwrap();
    assert!(String::from_utf8(script).unwrap().contains("cardcage"));
}

/// The commands in a text: lines of its shell blocks, and what stands between backticks as it is typed.
fn printed(text: &str) -> Vec<String> {
    let blocks = text.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    let lines = blocks.flat_map(str::lines).map(|line| line.split(" #").next().unwrap_or(line));
    let inline =
        text.split('`').skip(1).step_by(2).filter(|code| !code.contains(['…', '[', '<', '|', '\n', '*']));
    let commands = lines.chain(inline).map(str::trim).filter(|line| line.starts_with("cardcage "));
    commands.map(str::to_owned).collect()
}

/// Its words, with something in each place that the docs leave to the reader.
fn words(command: &str) -> Vec<String> {
    let filled = [
        ("PLUGIN.TASK", "shop.echo"),
        ("PLUGIN.SCHEDULE", "shop.nightly"),
        ("BODY", "{}"),
        (" ID", " 019283a4-5b6c-7d8e-9f01-23456789abcd"),
    ];
    let command =
        filled.iter().fold(command.to_owned(), |command, (place, word)| command.replace(place, word));
    let between = |(nth, part): (usize, &str)| match nth % 2 {
        0 => part.split_whitespace().map(str::to_owned).collect(),
        _ => vec![part.to_owned()],
    };
    command.split('\'').enumerate().flat_map(between).collect()
}

#[test]
fn every_command_that_the_docs_print_is_one() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let docs = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let files = docs.filter(|path| path.extension().is_some_and(|ending| ending == "md"));
    let files = files.chain(["README.md", "plugins/hello/README.md"].map(|file| root.join(file)));
    let (mut good, mut bad) = (0, Vec::new());
    for file in files {
        for command in printed(&std::fs::read_to_string(&file).unwrap()) {
            match Cli::try_parse_from(words(&command)) {
                // Text names a command without what it is given.
                Err(error)
                    if !matches!(
                        error.kind(),
                        ErrorKind::MissingRequiredArgument
                            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
                            | ErrorKind::MissingSubcommand
                    ) =>
                {
                    bad.push(format!("{}: `{command}`: {error}", file.display()))
                }
                _ => good += 1,
            }
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
    assert!(good > 40, "only {good} were found");
}
