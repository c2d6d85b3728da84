//! The learning management system: asks which lines of an order have an enrolment, and enrols for the others.

use crate::downstream::Error;
use plugin_api::prelude::*;
use std::collections::HashSet;

const SERVICE: &str = "the LMS";

/// One enrolment to make.
#[derive(Debug, Serialize)]
pub(crate) struct Enrolment<'a> {
    pub(crate) order_id: &'a str,
    pub(crate) line_id: &'a str,
    /// The course run's key: the line's SKU.
    pub(crate) course: &'a str,
    pub(crate) email: &'a str,
}

#[derive(Deserialize)]
struct Enrolled {
    line_ids: HashSet<String>,
}

/// A client of the LMS.
#[derive(Debug, Clone)]
pub(crate) struct Lms {
    pub(crate) http: reqwest::Client,
    pub(crate) base_url: String,
}

impl Lms {
    /// The lines of an order that have an enrolment. `None`: this LMS does not tell.
    ///
    /// # Errors
    /// It cannot answer within `timeout`.
    pub(crate) async fn enrolled(
        &self,
        order_id: &str,
        timeout: Duration,
    ) -> Result<Option<HashSet<String>>, Error> {
        // The id is made of letters, digits and dashes: nothing to escape.
        let url = format!("{}/enrolments?order_id={order_id}", self.base_url);
        let answer = self.http.get(url).timeout(timeout).send().await.map_err(broken)?;
        match answer.status().as_u16() {
            200 => Ok(Some(answer.json::<Enrolled>().await.map_err(broken)?.line_ids)),
            404 | 405 | 501 => Ok(None),
            _ => Err(Error::from_answer(SERVICE, &answer)),
        }
    }

    /// Enrols. The key makes a repetition harmless where an answer got lost.
    ///
    /// # Errors
    /// It refuses, or cannot answer within `timeout`.
    pub(crate) async fn enrol(&self, enrolment: &Enrolment<'_>, timeout: Duration) -> Result<(), Error> {
        let key = format!("{}-{}", enrolment.order_id, enrolment.line_id);
        let request = self.http.post(format!("{}/enroll", self.base_url)).timeout(timeout);
        let answer = request.header("Idempotency-Key", key).json(enrolment).send().await.map_err(broken)?;
        match answer.status().as_u16() {
            // 409: there is an enrolment for this line already.
            200..=299 | 409 => Ok(()),
            _ => Err(Error::from_answer(SERVICE, &answer)),
        }
    }
}

fn broken(error: reqwest::Error) -> Error {
    let sorted = Error::from_request(SERVICE, &error);
    debug!(error = %error.without_url(), "the LMS did not answer");
    sorted
}
