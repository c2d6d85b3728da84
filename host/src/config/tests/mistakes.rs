//! The exact words for each kind of mistake.

use super::*;

#[test]
fn broken_toml_is_shown() {
    let case = case().file("a.toml", "[api\nlisten = 1\n[log]\nfilter = 'x\n");
    says(
        &case,
        r#"
error: this is not TOML
 --> a.toml:1:5
  |
1 | [api
  |     ^ unclosed table, expected `]`

error: this is not TOML
 --> a.toml:4:12
  |
4 | filter = 'x
  |            ^ invalid literal string, expected `'`"#,
    );
}

#[test]
fn all_mistakes_of_a_file_are_told_at_once() {
    let case = case().file(
        "a.toml",
        "[api]\nlisen = ''\nin_flight_max = 'many'\ncall_timeout_ms = '30s'\nbody_max_bytes = 3\n[brokr]\n",
    );
    says(
        &case,
        r#"
error: there is no option `api.lisen`
 --> a.toml:2:1
  |
2 | lisen = ''
  | ^^^^^ unknown
  |
  = help: did you mean `listen`?

error: `api.in_flight_max` has the wrong type
 --> a.toml:3:17
  |
3 | in_flight_max = 'many'
  |                 ^^^^^^ expected an integer from 1 to 65536, found a string

error: `api.call_timeout_ms` has the wrong type
 --> a.toml:4:19
  |
4 | call_timeout_ms = '30s'
  |                   ^^^^^ expected an integer from 10 to 3600000, found a string
  |
  = help: the unit is part of the option's name: write the number alone

error: `api.body_max_bytes` is out of range
 --> a.toml:5:18
  |
5 | body_max_bytes = 3
  |                  ^ must be from 1024 to 1073741824

error: there is no section `brokr`
 --> a.toml:6:2
  |
6 | [brokr]
  |  ^^^^^ unknown
  |
  = help: did you mean `broker`?"#,
    );
}

#[test]
fn an_option_in_the_wrong_section_is_sent_home() {
    says(
        &case().file("a.toml", "listen = '[::1]:80'\n[worker]\nlease_ms = 4"),
        r#"
error: there is no section `listen`
 --> a.toml:1:1
  |
1 | listen = '[::1]:80'
  | ^^^^^^ unknown
  |
  = help: `listen` belongs in `[api]`

error: there is no option `worker.lease_ms`
 --> a.toml:3:1
  |
3 | lease_ms = 4
  | ^^^^^^^^ unknown
  |
  = help: `lease_ms` belongs in `[tasks]`"#,
    );
}

#[test]
fn a_variable_or_flag_is_named_and_its_value_is_not() {
    let case = case()
        .variable("CARDCAGE__TASKS__LOST_LIMIT", "1000")
        .variable("CARDCAGE__BROKR__URL", "geheim")
        .flag("worker.task_concurrency=geheim");
    says(
        &case,
        r#"
error: `tasks.lost_limit` is out of range
 |
 = note: set by environment variable CARDCAGE__TASKS__LOST_LIMIT: must be from 1 to 100

error: there is no section `brokr`
 |
 = note: set by environment variable CARDCAGE__BROKR__URL: unknown
 = help: did you mean `broker`?

error: `worker.task_concurrency` has the wrong type
 |
 = note: set by flag --set worker.task_concurrency=…: expected an integer from 1 to 4096, found a string"#,
    );
}

#[test]
fn a_mistake_points_at_the_file_it_came_from() {
    let case = case().file("a.toml", "[tasks]\nlease_ms = 6000").file("b.toml", "\n[drain]\ngrace_ms = 4001");
    says(
        &case,
        r#"
error: `drain.grace_ms` (4001) is longer than two thirds of `tasks.lease_ms` (6000)
 --> b.toml:3:12
  |
3 | grace_ms = 4001
  |            ^^^^ must be at most 4000
  |
 ::: a.toml:2:12
  |
2 | lease_ms = 6000
  |            ---- the lease
  |
  = help: what a drain hands back must still be under its lease: lower the grace or raise the lease"#,
    );
}

#[test]
fn a_section_that_is_no_table_is_told_even_under_a_right_layer() {
    let case = case().file("a.toml", "api = 3").flag("api.in_flight_max=3");
    says(
        &case,
        r#"
error: `api` has the wrong type
 --> a.toml:1:7
  |
1 | api = 3
  |       ^ expected a table, found an integer"#,
    );
}

#[test]
fn credentials_in_the_url_are_refused_and_masked() {
    says(
        &case().file("a.toml", "[broker]\nurl = 'nats://me:geheim@host'\nstorage = 'flie'"),
        r#"
error: `broker.url` cannot be used
 --> a.toml:2:7
  |
2 | url = ***********************
  |       ^^^^^^^^^^^^^^^^^^^^^^^ must not hold credentials
  |
  = help: put the credentials in a file and name it in `broker.credentials_file`

error: `broker.storage` cannot be used
 --> a.toml:3:11
  |
3 | storage = 'flie'
  |           ^^^^^^ expected `file` or `memory`
  |
  = help: did you mean `file`?"#,
    );
}

#[test]
fn plugin_names_and_prefixes_are_checked() {
    let case = case().file(
        "a.toml",
        "[plugins.Hello]\nlibrary = 'h.so'\n[plugins.tasks]\nlibrary = 't.so'\n[plugins.a]\n[plugins.b]\nlibrary = 'b.so'\nprefix = '/a'\n",
    );
    says(
        &case,
        r#"
error: `Hello` cannot name a plugin
 --> a.toml:1:10
  |
1 | [plugins.Hello]
  |          ^^^^^ expected 1 to 64 of a-z, 0-9, `_` and `-`

error: plugin `tasks` cannot be mounted at `/tasks`
 --> a.toml:3:10
  |
3 | [plugins.tasks]
  |          ^^^^^ `/tasks` belongs to the host
  |
  = help: set another `prefix` for the plugin

error: plugin `a` has no library
 --> a.toml:5:10
  |
5 | [plugins.a]
  |          ^ `library` is missing
  |
  = help: add `library = "path/to/lib.so"`, relative to this file

error: plugins `a` and `b` are both mounted at `/a`
 --> a.toml:8:1
  |
8 | prefix = '/a'
  | ^^^^^^ second
  |
 ::: a.toml:5:10
  |
5 | [plugins.a]
  |          - first
  |
  = help: set another `prefix` for one of them"#,
    );
}

#[test]
fn every_reserved_prefix_is_refused() {
    for prefix in
        ["/tasks", "/docs/x", "/openapi.json", "/problems", "/", "", "a", "/a/", "/a//b", "/{x}", "/.."]
    {
        let case = case().file("a.toml", &format!("[plugins.x]\nlibrary = 'x.so'\nprefix = '{prefix}'"));
        assert!(case.mistakes().contains("`plugins.x.prefix` cannot be used"), "{prefix}");
    }
}

#[test]
fn a_missing_secret_names_key_and_variable() {
    says(
        &case().file("a.toml", "[plugins.x]\nlibrary = 'x.so'\nconfig.keys = [{ env = 'NOPE' }]"),
        r#"
error: the secret `plugins.x.config.keys[0]` cannot be read
 --> a.toml:3:24
  |
3 | config.keys = [{ env = 'NOPE' }]
  |                        ^^^^^^ environment variable NOPE is not set
  |
  = help: set NOPE, or refer to a file: { file = "path" }"#,
    );
}

#[test]
fn a_missing_secret_file_is_told() {
    let case = case().file("a.toml", "[plugins.x]\nlibrary = 'x.so'\nconfig.key = { file = 'gone' }");
    assert!(case.mistakes().contains("cannot read gone: No such file"), "{}", case.mistakes());
}

#[test]
fn routes_are_checked() {
    says(
        &case().file(
            "a.toml",
            "[plugins.x]\nlibrary = 'x.so'\n[plugins.x.routes]\n'POST' = 'worker'\n'GET /' = 'enqueue'",
        ),
        r#"
error: `POST` in `plugins.x.routes` is not a route
 --> a.toml:4:1
  |
4 | 'POST' = 'worker'
  | ^^^^^^ expected a method and a path
  |
  = help: write it like `"POST /call" = "inline"`

error: `plugins.x.routes."GET /"` cannot be used
 --> a.toml:5:11
  |
5 | 'GET /' = 'enqueue'
  |           ^^^^^^^^^ expected `worker` or `inline`"#,
    );
}

#[test]
fn a_drop_in_holds_plugins_only() {
    let case = case().file("a.toml", "").write("plugins.d/x.toml", "[broker]\nurl = 'nats://evil'");
    says(
        &case,
        r#"
error: `broker` does not belong in plugins.d
 --> plugins.d/x.toml:1:2
  |
1 | [broker]
  |  ^^^^^^ only `[plugins.<name>]` may stand here
  |
  = help: move it to a file given with --config"#,
    );
}

#[test]
fn a_file_that_cannot_be_read_is_told() {
    let mut case = case();
    case.sources.files.push(case.path().join("gone.toml"));
    says(&case, "error: cannot read gone.toml: No such file or directory (os error 2)");
}

#[test]
fn groups_that_leave_out_double_or_do_not_know_a_plugin_are_shown() {
    let case = case().file(
        "a.toml",
        "[plugins.hello]\nlibrary = 'a.so'\n[plugins.orders]\nlibrary = 'b.so'\n[plugins.shop]\nlibrary = 'c.so'\n\
         [[worker.group]]\nname = 'one'\nplugins = ['hello', 'order']\n\
         [[worker.group]]\nname = 'one'\nplugins = ['hello', 'shop']\nprocesses = 0\n",
    );
    let said = case.mistakes();
    for sentence in [
        "two worker groups are named `one`",
        "worker group `one` has a plugin `order` that is not configured",
        "did you mean `orders`?",
        "plugin `hello` is twice in worker group `one`",
        "plugin `orders` is in no worker group",
        "`worker.group.processes` is out of range",
        "a.toml:13:13",
    ] {
        assert!(said.contains(sentence), "{sentence} is not in:\n{said}");
    }
    let rests = case_of("[[worker.group]]\nname = 'a'\n[[worker.group]]\nname = 'b'\n");
    assert!(rests.contains("two worker groups have no `plugins`"), "{rests}");
    let table = case_of("[worker.group]\nname = 'a'\n");
    assert!(table.contains("write each group as a section `[[worker.group]]`"), "{table}");
    let nameless = case_of("[[worker.group]]\n");
    assert!(nameless.contains("a worker group has no name"), "{nameless}");
}

fn case_of(text: &str) -> String {
    case().file("a.toml", text).mistakes()
}

#[test]
fn process_of_a_group_has_its_plugins_and_limits_and_the_rest_goes_to_the_group_without_a_list() {
    let case = case().file(
        "a.toml",
        "[plugins.hello]\nlibrary = 'a.so'\n[plugins.orders]\nlibrary = 'b.so'\n[worker]\nmemory_max_mb = 100\n\
         [[worker.group]]\nname = 'one'\nplugins = ['hello']\ntask_concurrency = 3\n[[worker.group]]\nname = 'rest'\n",
    );
    let all = case.load();
    let part = |group: Option<&str>| all.of_share(&Share { group: group.map(str::to_owned), generation: 0 });
    let (one, rest) = (part(Some("one")), part(Some("rest")));
    let names = |settings: &Settings| settings.plugins.keys().cloned().collect::<Vec<_>>();
    assert_eq!((names(&one), names(&rest)), (vec!["hello".to_owned()], vec!["orders".to_owned()]));
    assert_eq!((one.worker.task_concurrency, rest.worker.task_concurrency), (3, 64));
    assert_eq!((one.worker.memory_max_mb, rest.worker.memory_max_mb), (Some(100), Some(100)));
    assert_eq!(names(&part(None)).len(), 2);
}

#[test]
fn plugin_with_a_memory_ceiling_has_a_process_of_its_own_and_the_others_share_theirs() {
    let plugins = "[plugins.a]\nlibrary = 'a.so'\nmemory_max_mb = 100\n[plugins.b]\nlibrary = 'b.so'\n\
                   [plugins.rest]\nlibrary = 'c.so'\n";
    let of = |groups: &str| {
        let all = case().file("a.toml", &format!("{plugins}{groups}")).load();
        let of = |group: &crate::config::Group| {
            let part = all.of_share(&Share { group: Some(group.name.clone()), generation: 0 });
            let names = part.plugins.keys().cloned().collect::<Vec<_>>().join(" ");
            (group.name.clone(), names, part.worker.memory_max_mb)
        };
        all.groups.iter().map(of).collect::<Vec<_>>()
    };
    let one = |name: &str, plugins: &str, ceiling| (name.to_owned(), plugins.to_owned(), ceiling);
    assert_eq!(of(""), [one("a", "a", Some(100)), one("rest-2", "b rest", None)]);
    assert_eq!(
        of("[[worker.group]]\nname = 'two'\nplugins = ['b', 'rest']\n[worker]\nmemory_max_mb = 900\n"),
        [one("two", "b rest", Some(900)), one("a", "a", Some(100))],
        "it need not be in a group that is written"
    );
    assert_eq!(
        of(
            "[[worker.group]]\nname = 'alone'\nplugins = ['a']\nprocesses = 3\n[[worker.group]]\nname = 'more'\n"
        ),
        [one("alone", "a", Some(100)), one("more", "b rest", None)],
        "a group with it alone is its own"
    );
    assert_eq!(
        of(
            "[[worker.group]]\nname = 'two'\nplugins = ['b', 'rest']\n[[worker.group]]\nname = 'more'\nprocesses = 4\n"
        ),
        [one("two", "b rest", None), one("more", "a", Some(100))],
        "what is written of all others is written of the only one that is left"
    );
    let only = case().file("a.toml", "[plugins.a]\nlibrary = 'a.so'\nmemory_max_mb = 100\n").load();
    assert_eq!(only.groups.len(), 1, "nobody is left for another process");
}

#[test]
fn memory_ceiling_of_a_plugin_that_cannot_hold_is_shown() {
    let plugins = "[plugins.a]\nlibrary = 'a.so'\nmemory_max_mb = 100\n[plugins.b]\nlibrary = 'b.so'\n";
    let of = |groups: &str| case_of(&format!("{plugins}{groups}"));
    let shared = of("[[worker.group]]\nname = 'two'\nplugins = ['a', 'b']\n");
    let shares = "plugin `a` has a memory ceiling, but shares the processes of worker group `two`";
    assert!(shared.contains(shares) && shared.contains("a.toml:3:1"), "{shared}");
    assert!(shared.contains("it gets a process of its own"), "{shared}");
    let rest = "[[worker.group]]\nname = 'rest'\n";
    let twice = of(&format!("[[worker.group]]\nname = 'x'\nplugins = ['a']\nmemory_max_mb = 90\n{rest}"));
    assert!(twice.contains("plugin `a` and its worker group `x` both have a memory ceiling"), "{twice}");
    let text = "[plugins.c]\nlibrary = 'c.so'\nmemory_max_mb = 100\n[[worker.group]]\nname = 'one'\nplugins = ['b']\n";
    let none = of(&format!("{text}{rest}"));
    assert!(
        none.contains("worker group `rest` would have no plugin: `a`, `c` have a memory ceiling"),
        "{none}"
    );
    let named = of(
        "[plugins.c]\nlibrary = 'c.so'\n[[worker.group]]\nname = 'a'\nplugins = ['b']\n[[worker.group]]\nname = 'rest'\n",
    );
    assert!(named.contains("another group is named so"), "{named}");
}

#[test]
fn process_of_previous_libraries_has_those_of_its_generation_and_group_and_knows_what_is_elsewhere() {
    let case = case().file(
        "a.toml",
        "[plugins.a]\nlibrary = 'a3'\nprevious = ['a2', 'a1']\n[plugins.b]\nlibrary = 'b2'\nprevious = ['b1']\n\
         [plugins.c]\nlibrary = 'c1'\n",
    );
    let all = case.load();
    let names: Vec<_> = all.shares().into_iter().map(|(share, count)| (share.name(), count)).collect();
    let name = |name: &str| Some(name.to_owned());
    assert_eq!(names, [(None, 1), (name("previous-1"), 1), (name("previous-2"), 1)]);
    let libraries = |settings: &Settings| {
        let file = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
        let own: Vec<String> = settings.plugins.values().map(|plugin| file(&plugin.library)).collect();
        let of = |generation: &Generation| {
            let files: Vec<String> = generation.plugins.values().map(|one| file(&one.library)).collect();
            format!("{} {}", generation.number, files.join(" "))
        };
        assert!(settings.plugins.values().all(|plugin| plugin.previous.is_empty()));
        (own.join(" "), settings.part.elsewhere.iter().map(of).collect::<Vec<_>>().join(", "))
    };
    let of = |group: Option<&str>, generation| {
        libraries(&all.of_share(&Share { group: group.map(str::to_owned), generation }))
    };
    assert_eq!(of(None, 0), ("a3 b2 c1".into(), "1 a2 b1, 2 a1".into()));
    assert_eq!(of(None, 1), ("a2 b1".into(), "0 a3 b2 c1, 2 a1".into()));
    assert_eq!(of(None, 2), ("a1".into(), "0 a3 b2 c1, 1 a2 b1".into()));

    let grouped = case.file(
        "b.toml",
        "[[worker.group]]\nname = 'one'\nplugins = ['b']\nprocesses = 2\nmemory_max_mb = 100\n\
         [[worker.group]]\nname = 'rest'\n",
    );
    let all = grouped.load();
    let names: Vec<_> =
        all.shares().into_iter().map(|(share, count)| (share.name().unwrap(), count)).collect();
    let name = |name: &str, count| (name.to_owned(), count);
    let previous = [name("one/previous-1", 2), name("rest/previous-1", 1), name("rest/previous-2", 1)];
    assert_eq!(names, [[name("one", 2), name("rest", 1)].as_slice(), &previous].concat());
    let one = all.of_share(&Share { group: Some("one".into()), generation: 1 });
    assert_eq!((libraries(&one), one.worker.memory_max_mb), (("b1".into(), "0 b2".into()), Some(100)));
}

#[test]
fn list_of_previous_libraries_has_a_bound() {
    let many = case_of("[plugins.a]\nlibrary = 'a'\nprevious = ['1', '2', '3', '4', '5']\n");
    assert!(many.contains("`plugins.a.previous` is out of range") && many.contains("has 5 paths"), "{many}");
    let text = case_of("[plugins.a]\nlibrary = 'a'\nprevious = 'b'\n");
    assert!(text.contains("expected a list of at most 4 paths"), "{text}");
}
