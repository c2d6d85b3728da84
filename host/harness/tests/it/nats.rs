//! A real nats-server, killed, restarted and paused.

use std::path::Path;
use std::time::Duration;

use async_nats::jetstream::{self, stream};
use cardcage_harness::{Nats, NatsOptions};

async fn stream_on(nats: &Nats) -> (jetstream::Context, stream::Stream) {
    let context = jetstream::new(async_nats::connect(nats.url()).await.unwrap());
    let config = stream::Config { name: "S".into(), subjects: vec!["s.>".into()], ..Default::default() };
    let stream = context.get_or_create_stream(config).await.unwrap();
    (context, stream)
}

#[tokio::test]
async fn nats_keeps_its_url_and_its_messages_over_kill_and_restart() {
    let mut nats = Nats::start().await.unwrap();
    let url = nats.url();
    let (context, _) = stream_on(&nats).await;
    for _ in 0..10 {
        context.publish("s.one", "x".into()).await.unwrap().await.unwrap();
    }
    for _ in 0..3 {
        let before = nats.pid();
        nats.kill9();
        assert!(std::net::TcpStream::connect(url.trim_start_matches("nats://")).is_err());
        nats.restart().await.unwrap();
        assert_ne!(nats.pid(), before);
    }
    assert_eq!(nats.url(), url);
    let (_, mut stream) = stream_on(&nats).await;
    assert_eq!(stream.info().await.unwrap().state.messages, 10);
    nats.stop().await.unwrap();
}

#[tokio::test]
async fn paused_nats_keeps_connections_and_answers_after_resume() {
    let nats = Nats::start().await.unwrap();
    let client = async_nats::connect(nats.url()).await.unwrap();
    nats.pause().await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(200), client.flush()).await.is_ok());
    let context = jetstream::new(client.clone());
    let account = context.query_account();
    assert!(tokio::time::timeout(Duration::from_millis(300), account).await.is_err());
    nats.resume().unwrap();
    context.query_account().await.unwrap();
}

#[tokio::test]
async fn many_servers_start_at_once_on_ports_of_their_own() {
    let servers = futures_util::future::join_all((0..8).map(|_| Nats::start())).await;
    let servers: Vec<_> = servers.into_iter().map(Result::unwrap).collect();
    let urls: std::collections::BTreeSet<_> = servers.iter().map(Nats::url).collect();
    assert_eq!(urls.len(), servers.len());
}

#[tokio::test]
async fn dropped_nats_leaves_no_process_and_no_folder() {
    let nats = Nats::start().await.unwrap();
    let process = format!("/proc/{}", nats.pid());
    let arguments = std::fs::read(format!("{process}/cmdline")).unwrap();
    let arguments = String::from_utf8(arguments).unwrap();
    let store = arguments.split('\0').skip_while(|argument| *argument != "--store_dir").nth(1).unwrap();
    let folder = Path::new(store).parent().unwrap().to_owned();
    assert!(folder.is_dir());
    drop(nats);
    assert!(!Path::new(&process).exists() && !folder.exists());
}

#[tokio::test]
async fn refused_configuration_fails_with_what_the_server_said() {
    let options = NatsOptions { config: "no_such_option_at_all: {".into(), ..Default::default() };
    let error = Nats::start_with(options).await.unwrap_err().to_string();
    assert!(error.contains("exited at start") && error.contains("Parse error"), "{error}");
}
