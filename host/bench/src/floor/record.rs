//! The outcome as the host would write it, byte for byte as long, put together without a serialiser.

/// The record of a task that succeeded at once with `result`.
pub(super) fn succeeded(id: &str, result: &str) -> String {
    let version = crate::envelope::VERSION;
    // The times are as long as real ones; nobody reads them.
    let time = "2026-01-31T12:00:00.010Z";
    let mut record = String::with_capacity(448 + result.len());
    for part in [
        r#"{"v":1,"id":""#,
        id,
        r#"","plugin":"hello","version":""#,
        version,
        r#"","task":"echo","state":"succeeded","attempts":[{"n":1,"worker":"worker-1f00ba12","started_at":""#,
        time,
        r#"","ended_at":""#,
        time,
        r#"","cause":"succeeded"}],"result":"#,
        result,
        r#","enqueued_at":""#,
        time,
        r#"","finished_at":""#,
        time,
        r#"","root_id":""#,
        id,
        r#""}"#,
    ] {
        record.push_str(part);
    }
    record
}

#[cfg(test)]
mod tests {
    use cardcage_protocol::{State, TaskRecord};

    #[test]
    fn record_is_the_documented_one_and_as_long() {
        let text = super::succeeded("01890a5d-ac96-774b-bcce-b302099a8057", "{\"a\":1}");
        let mut record = TaskRecord::decode(text.as_bytes()).unwrap();
        assert_eq!(record.state, State::Succeeded);
        assert_eq!(String::from_utf8(record.encode().unwrap()).unwrap(), text);
    }
}
