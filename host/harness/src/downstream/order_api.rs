//! The order API: `GET /{project}/orders/{id}` answers with the order, in commercetools' shape.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use hyper::{Method, Request};
use serde_json::{Value, json};

use super::faults::{Fault, Faults};
use super::server::{ANY_PORT, Answer, AsyncHandler, Server};
use crate::Result;

/// A running fake order API. Faults go by order id.
#[derive(Debug)]
pub struct OrderApi {
    server: Server,
    shop: Arc<Shop>,
}

#[derive(Debug)]
struct Shop {
    project: String,
    orders: Mutex<HashMap<String, Value>>,
    asked: Mutex<Vec<String>>,
    faults: Faults,
}

impl OrderApi {
    /// Starts one for a project on a free port, without orders.
    ///
    /// # Errors
    /// The machine has no free port.
    pub async fn start(project: &str) -> Result<Self> {
        Self::start_at(ANY_PORT, project).await
    }

    /// Starts one for a project at an address, without orders.
    ///
    /// # Errors
    /// The address is taken, or is none of this machine's.
    pub async fn start_at(address: &str, project: &str) -> Result<Self> {
        let shop = Arc::new(Shop {
            project: project.to_owned(),
            orders: Mutex::default(),
            asked: Mutex::default(),
            faults: Faults::new(),
        });
        Ok(Self { server: Server::start(address, Arc::clone(&shop)).await?, shop })
    }

    /// The base URL, without the project.
    pub fn base_url(&self) -> String {
        self.server.base_url()
    }

    /// Serves this order under its own `id`.
    pub fn serve(&self, order: Value) {
        if let Some(id) = order.get("id").and_then(Value::as_str).map(str::to_owned) {
            self.serve_as(&id, order);
        }
    }

    /// Serves this order under another id, which it then carries.
    pub fn serve_as(&self, id: &str, mut order: Value) {
        if let Some(own) = order.get_mut("id") {
            *own = id.into();
        }
        self.shop.orders.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned(), order);
    }

    /// Whether an order with this id is served.
    pub fn has(&self, id: &str) -> bool {
        self.shop.orders.lock().unwrap_or_else(PoisonError::into_inner).contains_key(id)
    }

    /// The order ids asked for so far, in order, also those that met a fault.
    pub fn asked(&self) -> Vec<String> {
        self.shop.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How it misbehaves.
    pub fn faults(&self) -> &Faults {
        &self.shop.faults
    }
}

impl AsyncHandler for Arc<Shop> {
    async fn answer(&self, request: Request<Bytes>) -> Answer {
        let wanted =
            request.uri().path().strip_prefix(&format!("/{}/orders/", self.project)).map(str::to_owned);
        let (Some(id), &Method::GET) = (wanted, request.method()) else {
            return (404, json!({"statusCode": 404, "message": "no such resource"}));
        };
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(id.clone());
        if let Some(Fault::Status(status) | Fault::StatusAfterWork(status)) = self.faults.meet(&id).await {
            return (status, json!({"statusCode": status, "message": "as told"}));
        }
        match self.orders.lock().unwrap_or_else(PoisonError::into_inner).get(&id) {
            Some(order) => (200, order.clone()),
            None => (
                404,
                json!({"statusCode": 404, "message": format!("The Resource with ID '{id}' was not found.")}),
            ),
        }
    }
}
