//! The learning management system: `POST /enroll` enrols a learner for one line of an order, and
//! `GET /enrolments?order_id=` tells which lines of an order have an enrolment.
//!
//! It enrols whatever it is asked, twice if asked twice with different keys, as the real one does; only a repeated
//! `Idempotency-Key` is answered from memory, which can be lost. So a double enrolment is the caller's fault, and is
//! counted.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use hyper::{Method, Request};
use serde_json::{Value, json};

use super::faults::{Fault, Faults};
use super::server::{ANY_PORT, Answer, AsyncHandler, Server};
use crate::Result;

/// Names that a caller may use for the order line; the first that is there counts.
const LINE_NAMES: [&str; 4] = ["line_item_id", "lineItemId", "order_line_id", "line_id"];
/// Names that a caller may use for the order.
const ORDER_NAMES: [&str; 2] = ["order_id", "orderId"];

/// One enrolment that was made.
#[derive(Debug, Clone)]
pub struct Enrolment {
    /// The order, empty where the caller named none.
    pub order: String,
    /// The order's line.
    pub line: String,
    /// The whole request body.
    pub body: Value,
}

/// A running fake LMS. Faults go by the id of the order line, and meet enrolling only.
#[derive(Debug)]
pub struct Lms {
    server: Server,
    school: Arc<School>,
}

#[derive(Debug)]
struct School {
    register: Mutex<Register>,
    faults: Faults,
}

#[derive(Debug, Default)]
struct Register {
    enrolments: Vec<Enrolment>,
    answered: HashMap<String, Value>,
    requests: usize,
}

impl Lms {
    /// Starts one on a free port, with nobody enrolled.
    ///
    /// # Errors
    /// The machine has no free port.
    pub async fn start() -> Result<Self> {
        Self::start_at(ANY_PORT).await
    }

    /// Starts one at an address, with nobody enrolled.
    ///
    /// # Errors
    /// The address is taken, or is none of this machine's.
    pub async fn start_at(address: &str) -> Result<Self> {
        let school = Arc::new(School { register: Mutex::default(), faults: Faults::new() });
        Ok(Self { server: Server::start(address, Arc::clone(&school)).await?, school })
    }

    /// The base URL.
    pub fn base_url(&self) -> String {
        self.server.base_url()
    }

    /// All enrolments made so far, in order.
    pub fn enrolments(&self) -> Vec<Enrolment> {
        self.school.register().enrolments.clone()
    }

    /// How many enrolments were made again for a line that had one.
    pub fn double_enrolments(&self) -> usize {
        let register = self.school.register();
        let lines: std::collections::HashSet<_> =
            register.enrolments.iter().map(|e| (&e.order, &e.line)).collect();
        register.enrolments.len() - lines.len()
    }

    /// Forgets all idempotency keys, as the real one does after a while.
    pub fn forget_keys(&self) {
        self.school.register().answered.clear();
    }

    /// How many requests to enrol came, also those that met a fault or were answered from memory.
    pub fn requests(&self) -> usize {
        self.school.register().requests
    }

    /// How it misbehaves.
    pub fn faults(&self) -> &Faults {
        &self.school.faults
    }
}

impl School {
    fn register(&self) -> MutexGuard<'_, Register> {
        self.register.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enrolled(&self, query: Option<&str>) -> Answer {
        // Ids need no escaping, and there is no other parameter.
        let Some(order) = query.and_then(|query| query.strip_prefix("order_id=")) else {
            return (400, json!({"error": "the query names no order_id"}));
        };
        let register = self.register();
        let lines: Vec<&str> =
            register.enrolments.iter().filter(|e| e.order == order).map(|e| e.line.as_str()).collect();
        (200, json!({"line_ids": lines}))
    }

    fn enrol(&self, key: Option<String>, order: String, line: String, body: Value) -> Answer {
        let mut register = self.register();
        if let Some(answer) = key.as_ref().and_then(|key| register.answered.get(key)) {
            return (200, answer.clone());
        }
        register.enrolments.push(Enrolment { order, line, body });
        let answer =
            json!({"enrolment_id": format!("enr-{}", register.enrolments.len()), "status": "enrolled"});
        if let Some(key) = key {
            register.answered.insert(key, answer.clone());
        }
        (201, answer)
    }
}

impl AsyncHandler for Arc<School> {
    async fn answer(&self, request: Request<Bytes>) -> Answer {
        match (request.method(), request.uri().path()) {
            (&Method::POST, "/enroll") => {}
            (&Method::GET, "/enrolments") => return self.enrolled(request.uri().query()),
            _ => return (404, json!({"error": "no such resource"})),
        }
        let Ok(body) = serde_json::from_slice::<Value>(request.body()) else {
            return (400, json!({"error": "the body is no JSON"}));
        };
        let named = |names: &[&str]| {
            names.iter().find_map(|name| body.get(name)).and_then(Value::as_str).map(str::to_owned)
        };
        let Some(line) = named(&LINE_NAMES) else {
            return (
                400,
                json!({"error": format!("the body names no order line ({})", LINE_NAMES.join(", "))}),
            );
        };
        let order = named(&ORDER_NAMES).unwrap_or_default();
        let key =
            request.headers().get("idempotency-key").and_then(|key| key.to_str().ok()).map(str::to_owned);
        self.register().requests += 1;
        match self.faults.meet(&line).await {
            Some(Fault::Status(status)) => (status, json!({"error": "as told"})),
            Some(Fault::StatusAfterWork(status)) => {
                self.enrol(key, order, line, body);
                (status, json!({"error": "as told, after the work"}))
            }
            Some(Fault::Stall) | None => self.enrol(key, order, line, body),
        }
    }
}
