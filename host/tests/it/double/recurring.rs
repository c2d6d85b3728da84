//! Schedules that the broker fires.

use super::*;
use cardcage_protocol::{Missed, Overlap, ScheduleDefinition, ScheduleRecord};

fn schedule(every: &str) -> ScheduleRecord {
    let definition = ScheduleDefinition {
        task: task(),
        major: 1,
        every: Some(every.to_owned()),
        cron: None,
        time_zone: None,
        overlap: Overlap::Queue,
        missed: Missed::RunOnce,
        body: serde_json::json!({ "id": "o-1" }),
        expires_ms: None,
        unique_key: None,
        serial_key: None,
        disabled: false,
    };
    ScheduleRecord {
        v: 1,
        plugin: plugin(),
        name: Name::new("tick").unwrap(),
        declared_by: "1.2.3".into(),
        declared_at: Timestamp::now(),
        definition,
        paused_at: None,
        absent_since: None,
    }
}

async fn stands_at(broker: &Broker) -> u64 {
    let found = broker.recurring(Some(&plugin())).await.unwrap();
    let [(_, sequence)] = found.as_slice() else { panic!("{found:?}") };
    *sequence
}

/// Longer than two intervals, nothing comes that was fired after this; the broker's time is known to within a few
/// milliseconds.
async fn fires_no_more(broker: &Broker, firings: &mut Pull) {
    let since = Timestamp::from_unix_ms(broker.now_unix_ms()).plus_ms(100);
    let until = tokio::time::Instant::now() + Duration::from_millis(2_500);
    firings.add_demand(8);
    while let Ok(firing) = tokio::time::timeout_at(until, firings.next()).await {
        assert!(firing.stored_at <= since, "fired at {}, after {since}", firing.stored_at);
        broker.ack(firing.ack_subject(), Ack::Done).await.unwrap();
    }
}

/// What is to come every second comes as tasks; what was replaced, paused or deleted does not come any more.
pub(super) async fn every(broker: &Broker) {
    let record = schedule("1s");
    broker.write_recurring(&record, 0).await.unwrap();
    let error = broker.write_recurring(&record, 0).await.unwrap_err();
    assert!(matches!(error, Error::Conflict { .. }), "{error}");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let pump = tokio::spawn(Pump::slots(broker, &plugin()).run(async { drop(stopped.await) }));
    let mut pull = pull(broker, 2);
    let mut last = None;
    for _ in 0..2 {
        let delivery = next(&mut pull).await;
        let fired = delivery.envelope(broker.subjects()).unwrap();
        assert_ne!(last.replace(fired.id), Some(fired.id));
        broker.ack(delivery.ack_subject(), Ack::Done).await.unwrap();
    }
    stop.send(()).unwrap();
    pump.await.unwrap();
    assert!(broker.last_firing(&plugin(), &record.name).await.unwrap().is_some());
    // From here on what the broker fires is looked at itself.
    let mut firings = Pull::new(broker, ConsumerSpec::slots(broker.options(), broker.subjects(), &plugin()));
    let fires = async |firings: &mut Pull| {
        firings.add_demand(1);
        let firing = next(firings).await;
        broker.ack(firing.ack_subject(), Ack::Done).await.unwrap();
    };
    fires(&mut firings).await;
    broker.write_recurring(&schedule("1h"), stands_at(broker).await).await.unwrap();
    fires_no_more(broker, &mut firings).await;
    broker.write_recurring(&record, stands_at(broker).await).await.unwrap();
    fires(&mut firings).await;
    let paused = ScheduleRecord { paused_at: Some(Timestamp::now()), ..record.clone() };
    broker.write_recurring(&paused, stands_at(broker).await).await.unwrap();
    fires_no_more(broker, &mut firings).await;
    broker.write_recurring(&record, stands_at(broker).await).await.unwrap();
    fires(&mut firings).await;
    broker.delete_recurring(&plugin(), &record.name, stands_at(broker).await).await.unwrap();
    fires_no_more(broker, &mut firings).await;
    assert!(broker.recurring(None).await.unwrap().is_empty());
    assert!(broker.last_firing(&plugin(), &record.name).await.unwrap().is_none());
    firings.close().await;
    // More may have become tasks before the pump stopped than were looked at.
    pull.close().await;
}

/// What comes at the times of a cron expression comes then, and says when it comes next: at the same time of its zone's day.
pub(super) async fn cron(broker: &Broker, url: &str) {
    let client = async_nats::connect(url).await.unwrap();
    let subjects = broker.subjects();
    let name = Name::new("daily").unwrap();
    // Neither now, when it may be too late, nor so that the test waits for long.
    let now = jiff::Timestamp::from_millisecond(broker.now_unix_ms().cast_signed()).unwrap();
    let zoned = now.in_tz("Europe/Berlin").unwrap();
    let at = zoned.round(jiff::Unit::Second).unwrap().checked_add(jiff::Span::new().seconds(2)).unwrap();
    let pattern = at.strftime("%-S %-M %-H * * ?").to_string();
    let target = subjects.slot(&plugin(), &name);
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Nats-Schedule", pattern.as_str());
    headers.insert("Nats-Schedule-Time-Zone", "Europe/Berlin");
    headers.insert("Nats-Schedule-Target", target.as_str());
    headers.insert("Nats-Rollup", "sub");
    let subject = subjects.recurring(&plugin(), &name);
    let stored = client.request_with_headers(subject, headers, "{}".into()).await.unwrap().payload;
    let stored: serde_json::Value = serde_json::from_slice(&stored).unwrap();
    assert!(stored["seq"].is_u64(), "{stored}");
    let stream = async_nats::jetstream::new(client.clone());
    let stream = stream.get_stream_no_info(subjects.recurring_stream()).await.unwrap();
    let firing = eventually(cardcage_harness::Deadline::seconds(15), "it fires", async || {
        stream.direct_get_last_for_subject(target.as_str()).await.ok()
    })
    .await
    .unwrap();
    let next = firing.headers.get("Nats-Schedule-Next").unwrap().as_str();
    let tomorrow = at.checked_add(jiff::Span::new().days(1)).unwrap().timestamp();
    assert_eq!(next.parse::<jiff::Timestamp>().unwrap(), tomorrow, "`{pattern}` at {now}");
    assert!(firing.time.unix_timestamp() >= at.timestamp().as_second(), "{firing:?}");
    client.request(format!("$JS.API.STREAM.PURGE.{}", subjects.recurring_stream()), "".into()).await.unwrap();
}

/// What is no pattern is refused with the same code, and so is what is no time zone.
pub(super) async fn patterns(broker: &Broker, url: &str) {
    let client = async_nats::connect(url).await.unwrap();
    let name = Name::new("tried").unwrap();
    let subjects = broker.subjects();
    let answer = async |pattern: &str, zone: Option<&str>| {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Nats-Schedule", pattern);
        headers.insert("Nats-Schedule-Target", subjects.slot(&plugin(), &name));
        headers.insert("Nats-Rollup", "sub");
        if let Some(zone) = zone {
            headers.insert("Nats-Schedule-Time-Zone", zone);
        }
        let subject = subjects.recurring(&plugin(), &name);
        let answer = client.request_with_headers(subject, headers, "{}".into()).await.unwrap().payload;
        serde_json::from_slice::<serde_json::Value>(&answer).unwrap()["error"]["err_code"].as_u64()
    };
    for good in
        ["0 0 2 * * *", "*/5 0-30/10 1,2 * 1-3 MON", "0 0 0 29 FEB ?", "@daily", "@hourly", "@every 1h30m"]
    {
        assert_eq!(answer(good, None).await, None, "{good}");
    }
    for bad in [
        "every day",
        "0 2 * * *",
        "60 * * * * *",
        "* * 24 * * *",
        "* * * 0 * *",
        "* * * * 13 *",
        "*/0 * * * * *",
        "5-1 * * * * *",
        "@every 10ms",
        "@every soon",
        "@at soon",
        "@sometimes",
    ] {
        assert_eq!(answer(bad, None).await, Some(10189), "{bad}");
    }
    assert_eq!(answer("@daily", Some("Asia/Tokyo")).await, None);
    for zone in ["Nowhere/Atall", "+02:00"] {
        assert_eq!(answer("@daily", Some(zone)).await, Some(10223), "{zone}");
    }
    assert_eq!(answer("@every 1h", Some("Asia/Tokyo")).await, Some(10189), "an interval has no zone");
    client.request(format!("$JS.API.STREAM.PURGE.{}", subjects.recurring_stream()), "".into()).await.unwrap();
}
