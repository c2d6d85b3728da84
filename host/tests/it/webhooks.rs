//! Webhooks of the example plugins, as Stripe and commercetools send them: what is accepted is done, and done once.

use cardcage_harness::downstream::{Lms, OrderApi};
use cardcage_harness::{Cardcage, Config, Http, Nats, Reply, eventually, stripe, workspace_root};
use http::Method;
use serde_json::{Value, json};

use crate::serving::{restored, soon};

/// The secret that signs, and the one that it replaces.
pub(crate) const SECRET: &str = "whsec_test_new";
pub(crate) const OLD_SECRET: &str = "whsec_test_old";

/// The project and the order that the fixtures are about.
const PROJECT: &str = "demo-shop";

/// A broker, the two services, and an API with the plugins payments and orders; workers as the test starts them.
pub(crate) struct Shop {
    pub(crate) http: Http,
    _api: Cardcage,
    config: Config,
    orders: OrderApi,
    lms: Lms,
    // Last, so that hosts stop before their broker.
    pub(crate) nats: Nats,
}

impl Shop {
    pub(crate) async fn open() -> Self {
        let nats = Nats::start().await.unwrap();
        let (orders, lms) = (OrderApi::start(PROJECT).await.unwrap(), Lms::start().await.unwrap());
        orders.serve(fixture("commercetools/order"));
        let config = Config::new(&nats)
            .plugin("payments")
            .unwrap()
            .plugin_set("payments", "stripe_webhook_secrets", vec![SECRET, OLD_SECRET])
            .plugin("orders")
            .unwrap()
            .plugin_set("orders", "project_key", PROJECT)
            .plugin_set("orders", "order_api_base_url", orders.base_url())
            .plugin_set("orders", "lms_base_url", lms.base_url());
        let api = Cardcage::api(&config).await.unwrap();
        restored(&api).await;
        Self { http: api.http().unwrap(), _api: api, config, orders, lms, nats }
    }

    pub(crate) async fn worker(&self) -> Cardcage {
        Cardcage::worker(&self.config).await.unwrap()
    }

    /// Posts a body to the payments plugin with this `Stripe-Signature`.
    pub(crate) async fn post_stripe(&self, header: Option<&str>, body: &str) -> Reply {
        let mut headers = vec![("content-type", "application/json")];
        headers.extend(header.map(|header| ("stripe-signature", header)));
        let body = body.to_owned().into();
        self.http.send(Method::POST, "/payments/stripe/webhook", &headers, body).await.unwrap()
    }

    /// Delivers an event that was signed so many seconds ago.
    pub(crate) async fn deliver(&self, event: &Value, age_s: u64) -> Reply {
        let (body, unix_s) = (event.to_string(), stripe::now_unix_s().unwrap() - age_s);
        let header = stripe::header(SECRET, unix_s, body.as_bytes()).unwrap();
        self.post_stripe(Some(&header), &body).await
    }

    /// Delivers a commercetools message.
    async fn tell(&self, message: &Value) -> Reply {
        self.http.post_json("/orders/commercetools/messages", message).await.unwrap()
    }

    /// How many tasks of a plugin stand in its queue, in flight or not.
    pub(crate) async fn queued(&self, plugin: &str) -> u64 {
        queued(&self.nats, &self.config, plugin).await.unwrap()
    }

    /// Ends a worker when every delivery of a plugin's tasks has been acknowledged, so that nothing can run any more.
    pub(crate) async fn finish(&self, worker: &mut Cardcage, plugin: &str) {
        queue_is_empty(&self.nats, &self.config, plugin).await;
        assert_eq!(worker.stop(soon()).await.unwrap().code(), Some(0), "{}", worker.stderr());
    }

    async fn final_task(&self, id: &str) -> Value {
        self.http.final_task(id, soon()).await.unwrap()
    }
}

/// How many messages stand in a plugin's queue; `None` while the broker cannot say.
async fn queued(nats: &Nats, config: &Config, plugin: &str) -> Option<u64> {
    let client = async_nats::connect(nats.url()).await.ok()?;
    let name = format!("{}_TASKS_{plugin}", config.namespace());
    let mut stream = async_nats::jetstream::new(client).get_stream(name).await.ok()?;
    Some(stream.info().await.ok()?.state.messages)
}

/// Waits until every delivery of a plugin's tasks has been acknowledged.
pub(crate) async fn queue_is_empty(nats: &Nats, config: &Config, plugin: &str) {
    let empty = eventually(soon(), "the queue is empty", async || {
        (queued(nats, config, plugin).await? == 0).then_some(())
    });
    empty.await.unwrap();
}

fn fixture(name: &str) -> Value {
    let path = workspace_root().join(format!("host/demo/fixtures/{name}.json"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// A Stripe event of this type.
pub(crate) fn event(kind: &str) -> Value {
    fixture(&format!("stripe/{kind}"))
}

/// The message that the order is complete.
fn order_complete() -> Value {
    fixture("commercetools/message-order-state-changed")
}

/// How often the payments plugin's handlers ran for an event: each run logs one line.
pub(crate) fn runs(worker: &Cardcage, event: &Value) -> usize {
    let id = event["id"].as_str().unwrap();
    let stderr = worker.stderr();
    stderr.lines().filter(|line| line.contains("money recorded") && line.contains(id)).count()
}

#[track_caller]
pub(crate) fn accepted(reply: &Reply) -> String {
    assert_eq!(reply.status, 202, "{}", reply.text());
    reply.task_id().unwrap()
}

/// The order's lines, as the LMS knows them.
fn lines(order: &Value) -> Vec<&str> {
    order["lineItems"].as_array().unwrap().iter().map(|line| line["id"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn stripe_event_that_is_delivered_again_is_one_task_that_runs_once() {
    let shop = Shop::open().await;
    let mut worker = shop.worker().await;
    let first = event("payment_intent.succeeded");
    // Stripe signs each delivery anew, and what stands around the object may differ.
    let mut second = first.clone();
    second["pending_webhooks"] = json!(2);
    let (one, two) = tokio::join!(shop.deliver(&first, 2), shop.deliver(&second, 1));
    let id = accepted(&one);
    assert_eq!(accepted(&two), id);
    assert_eq!(shop.final_task(&id).await["state"], "succeeded");
    assert_eq!(accepted(&shop.deliver(&second, 0).await), id, "also when it is done");

    let other = event("charge.refunded");
    let other_id = accepted(&shop.deliver(&other, 0).await);
    assert_ne!(other_id, id);
    assert_eq!(shop.final_task(&other_id).await["state"], "succeeded");
    shop.finish(&mut worker, "payments").await;
    assert_eq!((runs(&worker, &first), runs(&worker, &other)), (1, 1), "{}", worker.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn commercetools_message_that_is_delivered_again_is_one_task_that_runs_once() {
    let shop = Shop::open().await;
    let mut worker = shop.worker().await;
    let first = order_complete();
    // EventBridge names each delivery anew.
    let mut second = first.clone();
    second["id"] = json!("5d0f2f5a-7a0b-4a55-9f0e-1f4f3c1f7e02");
    let (one, two) = tokio::join!(shop.tell(&first), shop.tell(&second));
    let id = accepted(&one);
    assert_eq!(accepted(&two), id);
    assert_eq!(shop.final_task(&id).await["state"], "succeeded");
    assert_eq!(accepted(&shop.tell(&second).await), id, "also when it is done");

    shop.finish(&mut worker, "orders").await;
    let order = fixture("commercetools/order");
    assert_eq!(shop.orders.asked(), [order["id"].as_str().unwrap()], "one run fetched the order");
    assert_eq!(shop.lms.requests(), lines(&order).len());
    assert_eq!((shop.lms.enrolments().len(), shop.lms.double_enrolments()), (lines(&order).len(), 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_that_come_while_no_worker_runs_are_answered_2xx_and_done_when_one_starts() {
    let shop = Shop::open().await;
    let (paid, refunded) = (event("payment_intent.succeeded"), event("charge.refunded"));
    let payment = accepted(&shop.deliver(&paid, 0).await);
    let refund = accepted(&shop.deliver(&refunded, 0).await);
    let fulfilment = accepted(&shop.tell(&order_complete()).await);
    for id in [&payment, &refund, &fulfilment] {
        let waiting = shop.http.get(&format!("/tasks/{id}")).await.unwrap().json().unwrap();
        assert_eq!(waiting["state"], "queued", "{waiting}");
    }
    assert_eq!((shop.orders.asked().len(), shop.lms.requests()), (0, 0), "nothing runs in the API");

    let mut worker = shop.worker().await;
    for (id, kind, amount) in [(&payment, "payment", 4_900), (&refund, "refund", 1_900)] {
        let done = shop.final_task(id).await;
        let result = &done["result"];
        assert_eq!((&done["state"], &result["kind"]), (&json!("succeeded"), &json!(kind)), "{done}");
        assert_eq!(result["amount"], amount, "{done}");
    }
    let order = fixture("commercetools/order");
    let done = shop.final_task(&fulfilment).await;
    let result = json!({ "order_id": order["id"], "enrolled": lines(&order), "already": [] });
    assert_eq!((&done["state"], &done["result"]), (&json!("succeeded"), &result), "{done}");
    assert_eq!(shop.lms.enrolments().len(), lines(&order).len());
    for plugin in ["payments", "orders"] {
        queue_is_empty(&shop.nats, &shop.config, plugin).await;
    }
    shop.finish(&mut worker, "orders").await;
    assert_eq!((runs(&worker, &paid), runs(&worker, &refunded)), (1, 1), "{}", worker.stderr());
}
