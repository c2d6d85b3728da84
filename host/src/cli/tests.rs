use clap::Parser as _;

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
