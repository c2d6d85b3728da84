//! What is stated where, and what comes of it.

use super::*;

#[test]
fn nothing_stated_gives_the_defaults() {
    let settings = case().load();
    assert_eq!(settings.api.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(settings.api_admin_listen().port(), 9464);
    assert_eq!(settings.worker_admin_listen().port(), 9465);
    assert_eq!(settings.tasks.backoff.longest().as_secs(), 300);
    assert!(settings.plugins.is_empty());
}

#[test]
fn later_layers_win() {
    let mut case = case()
        .file("a.toml", "[worker]\ntask_concurrency = 2\ncall_concurrency = 2\n[plugins.x]\nlibrary = 'x.so'\nprefix = '/a'")
        .file("b.toml", "worker.task_concurrency = 3")
        .write("plugins.d/2.toml", "[plugins.x]\nprefix = '/two'")
        .write("plugins.d/1.toml", "[plugins.x]\nprefix = '/one'\nrequired = false")
        .write("plugins.d/ignored.txt", "=");
    let settings = case.load();
    assert_eq!((settings.worker.call_concurrency, settings.worker.task_concurrency), (2, 3));
    assert_eq!((&*settings.plugins["x"].prefix, settings.plugins["x"].required), ("/two", false));
    case = case.variable("CARDCAGE__WORKER__TASK_CONCURRENCY", "4");
    assert_eq!(case.load().worker.task_concurrency, 4);
    case = case.flag("worker.task_concurrency=5").flag("worker.task_concurrency=6");
    assert_eq!(case.load().worker.task_concurrency, 6);
    case = case.last_file("last/built.toml", "worker.task_concurrency = 7");
    assert_eq!(case.load().worker.task_concurrency, 7);
    let case = case.write("last/built.toml", "worker.task_concurrency = 8");
    assert_eq!(case.load().worker.task_concurrency, 8, "it is read each time");
}

#[test]
fn a_bare_word_in_a_variable_or_flag_is_text() {
    let case = case()
        .variable("CARDCAGE__BROKER__NAMESPACE", "12")
        .variable("CARDCAGE__API__LISTEN", "0.0.0.0:80")
        .flag("log.format=json")
        .flag(r#"log.filter="debug""#);
    let settings = case.load();
    assert_eq!(settings.broker.namespace, "12");
    assert_eq!(settings.api.listen.to_string(), "0.0.0.0:80");
    assert_eq!(settings.log.format, LogFormat::Json);
    assert_eq!(settings.log.filter, "debug");
}

#[test]
fn a_flag_can_name_a_route() {
    let case = case()
        .file("a.toml", "[plugins.x]\nlibrary = 'x.so'\nroutes.'GET /{id}' = 'worker'")
        .flag(r#"plugins.x.routes."POST /a.b"=inline"#);
    let routes = &case.load().plugins["x"].routes;
    assert_eq!(routes["POST /a.b"], Placement::Inline);
    assert_eq!(routes["GET /{id}"], Placement::Worker);
}

#[test]
fn a_path_starts_from_the_file_that_states_it() {
    let case = case()
        .file("etc/a.toml", "[plugins.x]\nlibrary = '../lib/x.so'\n[plugins.y]\nlibrary = '/y.so'")
        .flag("loading.cache_dir=cache");
    let settings = case.load();
    assert_eq!(settings.plugins["x"].library, case.path().join("etc/../lib/x.so"));
    assert_eq!(settings.plugins["y"].library, Path::new("/y.so"));
    assert_eq!(settings.loading.cache_dir.as_deref(), Some(Path::new("cache")));
    assert_eq!(settings.dev.nats_server, Path::new("nats-server"));
}

#[test]
fn secrets_are_resolved_and_not_shown() {
    let case = case()
        .file("a.toml", "[plugins.x]\nlibrary = 'x.so'\n[plugins.x.config]\nkeys = [{ env = 'KEY' }, { file = 'key' }]\nenv = 'prod'\nport = 80")
        .write("key", "from file\n")
        .variable("KEY", "from variable");
    let settings = case.load();
    let config = settings.plugins["x"].config.expose();
    assert_eq!(
        serde_json::Value::Object(config.clone()),
        serde_json::json!({"keys": ["from variable", "from file"], "env": "prod", "port": 80})
    );
    let debug = format!("{settings:?}");
    assert!(debug.contains("keys") && !debug.contains("from "), "{debug}");
}

#[test]
fn a_reference_replaces_a_reference() {
    let case = case()
        .file("a.toml", "[plugins.file]\nlibrary = 'x.so'\nconfig.key = { env = 'KEY' }")
        .file("b.toml", "[plugins.file.config]\nkey = { file = 'key' }")
        .write("key", "from file")
        .variable("CARDCAGE__PLUGINS__FILE__REQUIRED", "false");
    let settings = case.load();
    assert_eq!(settings.plugins["file"].config.expose()["key"], "from file");
}

#[test]
fn settings_travel_as_json() {
    let case = case().file(
        "a.toml",
        "broker.storage = 'memory'\n[plugins.x]\nlibrary = 'x.so'\nplacement = 'inline'\nconfig.n = 1",
    );
    let settings = case.load();
    let json = serde_json::to_string(&settings).unwrap();
    assert_eq!(serde_json::from_str::<Settings>(&json).unwrap(), settings);
}

#[test]
fn the_default_file_states_the_defaults() {
    let case = case().file("cardcage.toml", &reference::default_file());
    assert_eq!(case.load(), load(&Sources::default()).unwrap());
}

#[test]
fn every_default_lies_within_its_bounds() {
    // Defaults are not read as stated values are; the default file's are.
    let text = reference::default_file();
    for row in options::SECTIONS.iter().flat_map(|section| section.rows) {
        assert!(
            text.contains(&format!("\n{} = ", row.name)) || text.contains(&format!("\n# {} = ", row.name))
        );
    }
    let case = case().file("cardcage.toml", &text.replace("\n# listen = ", "\nlisten = "));
    assert_eq!(case.load().admin.listen.unwrap().port(), 9464);
}
