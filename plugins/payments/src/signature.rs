//! Stripe's webhook signatures: that an event comes from Stripe, unchanged, and now.
//!
//! The header is `t=<unix seconds>,v1=<hex>[,v1=<hex>…]`, where `v1` is HMAC-SHA256 over `<t>.<raw body>`. Stripe sends
//! one `v1` per secret while a secret is being replaced, and so do we accept several secrets.
//!
//! # Invariants
//! * Comparison takes the same time wherever two signatures differ.
//! * The signature is checked before the time: who cannot sign learns nothing of our clock.
//!
//! # What it refuses
//! The old scheme `v0`, which Stripe sends for test events only.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Why an event is not taken. Sending the same request again never helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// The request carries no signature.
    #[error("the header Stripe-Signature is missing")]
    Missing,
    /// The header is not of Stripe's form, or no signature in it fits any secret.
    #[error("no signature in Stripe-Signature fits the body: check the endpoint's signing secret")]
    Invalid,
    /// The signature is right, but was made too long ago or in the future.
    #[error("the signature was made too long ago, or the clocks differ")]
    Expired,
}

impl Error {
    /// The problem's code.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Missing => "signature_missing",
            Self::Invalid => "signature_invalid",
            Self::Expired => "signature_expired",
        }
    }
}

/// Checks signatures against the endpoint's secrets. Its `Debug` shows none of them.
#[derive(Clone)]
pub(crate) struct Verifier {
    keys: Vec<Hmac<Sha256>>,
    tolerance: Duration,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier")
            .field("secrets", &self.keys.len())
            .field("tolerance", &self.tolerance)
            .finish()
    }
}

impl Verifier {
    /// A verifier for these secrets; a signature may be as old, or as far ahead, as `tolerance`.
    pub(crate) fn new<'a>(secrets: impl IntoIterator<Item = &'a str>, tolerance: Duration) -> Self {
        // HMAC takes keys of any length, so none is left out.
        let keys =
            secrets.into_iter().filter_map(|secret| Hmac::new_from_slice(secret.as_bytes()).ok()).collect();
        Self { keys, tolerance }
    }

    /// Checks a body against the header.
    pub(crate) fn verify(&self, header: Option<&str>, body: &[u8], now: SystemTime) -> Result<(), Error> {
        let header = Header::parse(header.ok_or(Error::Missing)?).ok_or(Error::Invalid)?;
        let signed = self.keys.iter().any(|key| {
            let mut mac = key.clone();
            mac.update(header.timestamp.as_bytes());
            mac.update(b".");
            mac.update(body);
            header.signatures.iter().any(|signature| mac.clone().verify_slice(signature).is_ok())
        });
        if !signed {
            return Err(Error::Invalid);
        }
        let made = UNIX_EPOCH.checked_add(Duration::from_secs(header.unix_s)).ok_or(Error::Expired)?;
        let apart = now.duration_since(made).unwrap_or_else(|ahead| ahead.duration());
        if apart > self.tolerance { Err(Error::Expired) } else { Ok(()) }
    }
}

struct Header<'a> {
    /// As it was sent, because it is signed as it was sent.
    timestamp: &'a str,
    unix_s: u64,
    signatures: Vec<Vec<u8>>,
}

impl<'a> Header<'a> {
    fn parse(header: &'a str) -> Option<Self> {
        let pairs = || header.split(',').filter_map(|pair| pair.trim().split_once('='));
        let timestamp = pairs().find(|(name, _)| *name == "t").map(|(_, value)| value)?;
        // What is no hex fits nothing; another one may.
        let signatures =
            pairs().filter(|(name, _)| *name == "v1").filter_map(|(_, value)| hex::decode(value).ok());
        Some(Self { timestamp, unix_s: timestamp.parse().ok()?, signatures: signatures.collect() })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const BODY: &[u8] = br#"{"id":"evt_1"}"#;
    const MADE: u64 = 1_761_000_000;

    /// A `v1` for a body.
    pub(crate) fn sign(secret: &str, unix_s: u64, body: &[u8]) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(format!("{unix_s}.").as_bytes());
        mac.update(body);
        hex::encode(mac.finalize().into_bytes())
    }

    fn verify_at(header: &str, body: &[u8], unix_s: u64) -> Result<(), Error> {
        let verifier = Verifier::new(["whsec_new", "whsec_old"], Duration::from_secs(300));
        verifier.verify(Some(header), body, UNIX_EPOCH + Duration::from_secs(unix_s))
    }

    fn signed(secret: &str) -> String {
        format!("t={MADE},v1={}", sign(secret, MADE, BODY))
    }

    #[test]
    fn signature_that_openssl_makes_is_taken() {
        // printf '1761000000.{"id":"evt_1"}' | openssl dgst -sha256 -hmac whsec_demo
        let v1 = "88d03b85c1b7eead5e315a32e54161be369f7d26c6fb7fdb8ea12cef96fff2fe";
        assert_eq!(sign("whsec_demo", MADE, BODY), v1);
        let verifier = Verifier::new(["whsec_demo"], Duration::from_secs(300));
        let now = UNIX_EPOCH + Duration::from_secs(MADE);
        assert_eq!(verifier.verify(Some(&format!("t={MADE},v1={v1}")), BODY, now), Ok(()));
    }

    #[test]
    fn old_and_new_secret_are_both_taken_while_one_is_replaced() {
        assert_eq!(verify_at(&signed("whsec_new"), BODY, MADE), Ok(()));
        assert_eq!(verify_at(&signed("whsec_old"), BODY, MADE), Ok(()));
        assert_eq!(verify_at(&signed("whsec_other"), BODY, MADE), Err(Error::Invalid));
    }

    #[test]
    fn one_good_signature_among_several_is_enough() {
        let good = sign("whsec_new", MADE, BODY);
        let other = sign("whsec_other", MADE, BODY);
        assert_eq!(verify_at(&format!("t={MADE}, v1={other}, v1={good}, v0=junk"), BODY, MADE), Ok(()));
        assert_eq!(verify_at(&format!("t={MADE},v1=no-hex,v1={good}"), BODY, MADE), Ok(()));
        assert_eq!(verify_at(&format!("t={MADE},v1={other},v1={other}"), BODY, MADE), Err(Error::Invalid));
    }

    #[test]
    fn tampered_body_time_or_signature_is_refused() {
        let header = signed("whsec_new");
        assert_eq!(verify_at(&header, br#"{"id":"evt_2"}"#, MADE), Err(Error::Invalid));
        let later = header.replace("t=1761000000", "t=1761000001");
        assert_eq!(verify_at(&later, BODY, MADE), Err(Error::Invalid));
        let short = &header[..header.len() - 2];
        assert_eq!(verify_at(short, BODY, MADE), Err(Error::Invalid));
    }

    #[test]
    fn signature_counts_for_its_tolerance_to_both_sides() {
        let header = signed("whsec_new");
        for (now, expected) in [
            (MADE + 300, Ok(())),
            (MADE - 300, Ok(())),
            (MADE + 301, Err(Error::Expired)),
            (MADE - 301, Err(Error::Expired)),
        ] {
            assert_eq!(verify_at(&header, BODY, now), expected, "at {now}");
        }
    }

    #[test]
    fn stale_forgery_is_called_invalid_and_not_expired() {
        assert_eq!(verify_at(&signed("whsec_other"), BODY, MADE + 9_000), Err(Error::Invalid));
    }

    #[test]
    fn header_without_time_or_signature_is_refused() {
        let verifier = Verifier::new(["whsec_new"], Duration::from_secs(300));
        assert_eq!(verifier.verify(None, BODY, UNIX_EPOCH), Err(Error::Missing));
        let good = sign("whsec_new", MADE, BODY);
        for header in
            ["", "t=", "v1", "=", &format!("v1={good}"), &format!("t={MADE}"), &format!("t=-1,v1={good}")]
        {
            assert_eq!(verify_at(header, BODY, MADE), Err(Error::Invalid), "{header:?}");
        }
        let far = format!("t={0},v1={1}", u64::MAX, sign("whsec_new", u64::MAX, BODY));
        assert_eq!(verify_at(&far, BODY, MADE), Err(Error::Expired));
    }

    #[test]
    fn debug_shows_no_secret() {
        let verifier = Verifier::new(["whsec_hidden"], Duration::from_secs(300));
        assert!(!format!("{verifier:?}").contains("hidden"));
    }
}
