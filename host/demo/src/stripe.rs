//! Signs a webhook as Stripe does: `Stripe-Signature: t=<unix seconds>,v1=<hex of HMAC-SHA256(secret, "<t>.<body>")>`.

use std::time::{SystemTime, UNIX_EPOCH};

use cardcage_harness::{Error, Result};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The header for `body`, signed now.
pub(crate) fn signature(secret: &str, body: &[u8]) -> Result<String> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_err(Error::doing("this machine's clock is before 1970"))?;
    signature_at(secret, body, now.as_secs())
}

fn signature_at(secret: &str, body: &[u8], unix_s: u64) -> Result<String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes())
        .map_err(Error::doing("the webhook secret is no HMAC key"))?;
    mac.update(format!("{unix_s}.").as_bytes());
    mac.update(body);
    Ok(format!("t={unix_s},v1={}", hex::encode(mac.finalize().into_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signature_is_the_one_that_openssl_makes() {
        // printf '1761000000.{"id":"evt_1"}' | openssl dgst -sha256 -hmac whsec_demo
        let expected = "t=1761000000,v1=88d03b85c1b7eead5e315a32e54161be369f7d26c6fb7fdb8ea12cef96fff2fe";
        assert_eq!(signature_at("whsec_demo", br#"{"id":"evt_1"}"#, 1_761_000_000).unwrap(), expected);
    }
}
