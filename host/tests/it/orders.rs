//! The example plugin `orders`, from the message to the enrolment, with the order API and the LMS beside it.

use cardcage_harness::downstream::{Fault, Lms, OrderApi};
use cardcage_harness::{Cardcage, Config, Deadline, Launch, Nats, eventually, plugin_library};
use serde_json::{Value, json};

const PROJECT: &str = "shop";

fn soon() -> Deadline {
    Deadline::seconds(60)
}

fn with_orders(config: Config, order_api_base_url: String, lms_base_url: String) -> Config {
    let config = config.plugin("orders").unwrap().plugin_set("orders", "project_key", PROJECT);
    let config = config.plugin_set("orders", "order_api_base_url", order_api_base_url);
    config.plugin_set("orders", "lms_base_url", lms_base_url)
}

fn order(id: &str, lines: &[&str]) -> Value {
    let lines: Vec<_> = lines.iter().map(|id| json!({ "id": id, "variant": { "sku": "course" } })).collect();
    let email = "learner@example.com";
    json!({ "id": id, "customerEmail": email, "orderState": "Complete", "lineItems": lines })
}

/// EventBridge's message that an order is ready.
fn message(id: &str, order: &str) -> Value {
    let kind = "OrderStateChanged";
    let resource = json!({ "typeId": "order", "id": order });
    let detail = json!({ "id": id, "type": kind, "projectKey": PROJECT, "orderState": "Complete", "resource": resource });
    json!({ "id": format!("delivery-{id}"), "detail-type": kind, "detail": detail })
}

#[tokio::test]
async fn retry_asks_what_is_enrolled_and_enrols_only_the_rest() {
    let (orders, lms) = (OrderApi::start(PROJECT).await.unwrap(), Lms::start().await.unwrap());
    orders.serve(order("o1", &["good", "lying", "late"]));
    // One line is enrolled and told so, one is enrolled and told otherwise, one is not enrolled.
    lms.faults().always("lying", Fault::StatusAfterWork(503));
    lms.faults().always("late", Fault::Status(503));
    let nats = Nats::start().await.unwrap();
    let config = with_orders(Config::new(&nats), orders.base_url(), lms.base_url());
    let _worker = Cardcage::worker(&config).await.unwrap();
    let api = Cardcage::api(&config).await.unwrap();
    let http = api.http().unwrap();
    let send = async || http.post_json("/orders/commercetools/messages", &message("m1", "o1")).await.unwrap();
    let accepted = send().await;
    assert_eq!(accepted.status, 202, "{}", accepted.text());
    let id = accepted.task_id().unwrap();

    eventually(soon(), "every line was tried", async || {
        (lms.requests() >= 3 && lms.enrolments().len() == 2).then_some(())
    })
    .await
    .unwrap();
    // No key helps any more: whoever enrols without asking first enrols twice.
    lms.forget_keys();
    lms.faults().clear();
    let done = http.final_task(&id, soon()).await.unwrap();
    let result = json!({ "order_id": "o1", "enrolled": ["late"], "already": ["good", "lying"] });
    assert_eq!((&done["state"], &done["result"]), (&json!("succeeded"), &result), "{done}");
    assert!(done["attempts"].as_array().unwrap().len() >= 2, "{done}");
    assert_eq!((lms.enrolments().len(), lms.double_enrolments()), (3, 0));

    // The message comes again: the same task, and nothing is done.
    assert_eq!(send().await.task_id().unwrap(), id);
    assert_eq!(lms.enrolments().len(), 3);
}

#[tokio::test]
async fn base_url_that_is_https_is_refused_by_name_with_what_to_do() {
    let config = Config::default().set("broker.url", "nats://127.0.0.1:1");
    let config = with_orders(config, "http://127.0.0.1:1".into(), "https://lms.example".into());
    let output = Launch::new(["worker"]).config(&config).run(soon()).await.unwrap();
    assert_eq!(output.status.code(), Some(70), "{}", output.stderr);
    let file = plugin_library("orders").unwrap().display().to_string();
    for words in [
        "plugin=\"orders\"",
        &file,
        "init_failed",
        "`lms_base_url` is https, and this build of the plugin speaks no TLS: put a proxy before the service",
    ] {
        assert!(output.stderr.contains(words), "`{words}` is missing: {}", output.stderr);
    }
}
