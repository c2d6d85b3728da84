//! Waiting for conditions.

use std::time::Duration;

use cardcage_harness::{Deadline, eventually};

#[tokio::test]
async fn condition_that_never_comes_fails_by_name() {
    let error = eventually(Deadline::after(Duration::from_millis(30)), "pigs fly", async || None::<()>).await;
    assert!(error.unwrap_err().to_string().contains("pigs fly"));
}
