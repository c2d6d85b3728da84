//! The order API, in commercetools' shape: `GET <base>/<project>/orders/<id>`.

use crate::downstream::Error;
use plugin_api::prelude::*;

const SERVICE: &str = "the order API";

/// An order, as far as fulfilment needs it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Order {
    pub(crate) order_state: Option<String>,
    pub(crate) customer_email: Option<String>,
    #[serde(default)]
    pub(crate) line_items: Vec<LineItem>,
}

/// One line of an order.
#[derive(Debug, Deserialize)]
pub(crate) struct LineItem {
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) variant: Variant,
}

/// What was bought.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Variant {
    /// The course run.
    pub(crate) sku: Option<String>,
}

/// A client of the order API.
#[derive(Debug, Clone)]
pub(crate) struct OrderApi {
    pub(crate) http: reqwest::Client,
    pub(crate) base_url: String,
    pub(crate) project_key: String,
}

impl OrderApi {
    /// The order with this id, read into `T`.
    ///
    /// # Errors
    /// It does not exist, or the service cannot answer within `timeout`.
    pub(crate) async fn order<T: serde::de::DeserializeOwned>(
        &self,
        id: &str,
        timeout: Duration,
    ) -> Result<T, Error> {
        let url = format!("{}/{}/orders/{id}", self.base_url, self.project_key);
        let broken = |error: reqwest::Error| {
            let sorted = Error::from_request(SERVICE, &error);
            debug!(error = %error.without_url(), "order not fetched");
            sorted
        };
        let answer = self.http.get(url).timeout(timeout).send().await.map_err(broken)?;
        if !answer.status().is_success() {
            return Err(Error::from_answer(SERVICE, &answer));
        }
        answer.json().await.map_err(broken)
    }
}

/// Whether a text can be an id: what goes into a URL's path must not lead elsewhere.
pub(crate) fn is_id(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}
