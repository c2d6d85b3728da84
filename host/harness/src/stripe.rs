//! Signs a webhook as Stripe does: `Stripe-Signature: t=<unix seconds>,v1=<hex of HMAC-SHA256(secret, "<t>.<body>")>`.
//!
//! The parts are given apart, so that a test can also put them together wrongly.

use std::time::{SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::{Error, Result};

/// This machine's time in unix seconds, as a signature states it.
///
/// # Errors
/// The machine's clock is before 1970.
pub fn now_unix_s() -> Result<u64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    Ok(since.map_err(Error::doing("this machine's clock is before 1970"))?.as_secs())
}

/// The value of one `v1`: what this secret makes of this body at this time.
///
/// # Errors
/// The secret is no HMAC key.
pub fn v1(secret: &str, unix_s: u64, body: &[u8]) -> Result<String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes())
        .map_err(Error::doing("the webhook secret is no HMAC key"))?;
    mac.update(format!("{unix_s}.").as_bytes());
    mac.update(body);
    Ok(hex::encode(mac.finalize().into_bytes()))
}

/// The whole header, with one `v1`.
///
/// # Errors
/// As [`v1`].
pub fn header(secret: &str, unix_s: u64, body: &[u8]) -> Result<String> {
    Ok(format!("t={unix_s},v1={}", v1(secret, unix_s, body)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signature_is_the_one_that_openssl_makes() {
        // printf '1761000000.{"id":"evt_1"}' | openssl dgst -sha256 -hmac whsec_demo
        let expected = "t=1761000000,v1=88d03b85c1b7eead5e315a32e54161be369f7d26c6fb7fdb8ea12cef96fff2fe";
        assert_eq!(header("whsec_demo", 1_761_000_000, br#"{"id":"evt_1"}"#).unwrap(), expected);
    }
}
