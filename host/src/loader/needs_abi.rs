//! What a plugin says of the oldest host that it can live with: `needs_abi` of its manifest.
//!
//! A plugin of a later minor loads, and finds missing what this host does not have. One that is of no use without that says
//! so, and is refused before it runs (docs/abi-policy.md).

/// Whether a host with the boundary `host` has what a plugin needs that says so by `needs_abi`, as in `1.2`.
///
/// # Errors
/// The fault and the remedy, as the two halves of a sentence.
pub fn verdict(needs: &str, host: &str) -> Result<(), (String, String)> {
    if needs.is_empty() {
        return Ok(());
    }
    let parts = |version: &str| {
        let mut parts = version.split('.').map(|part| part.parse::<u32>().ok());
        Some((parts.next()??, parts.next()??))
    };
    match (parts(needs), parts(host)) {
        (Some(needed), Some(spoken)) if needed.0 == spoken.0 && needed.1 <= spoken.1 => Ok(()),
        (Some(_), Some(_)) => Err((
            format!("needs ABI {needs}, and this host speaks ABI {host}"),
            "update the host, or build the plugin without its `needs_abi`".to_owned(),
        )),
        _ => Err((
            format!("says that it needs ABI `{needs}`, which is no version"),
            "write `needs_abi` as in \"1.2\" and build the plugin again".to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugin_that_needs_a_minor_is_refused_where_the_host_is_older_and_told_which() {
        for (needs, host) in [("", "1.0.0"), ("1.0", "1.0.0"), ("1.2", "1.2.5"), ("1.2", "1.10.0")] {
            assert_eq!(verdict(needs, host), Ok(()), "{needs} {host}");
        }
        for (needs, host, word) in [
            ("1.1", "1.0.9", "needs ABI 1.1, and this host speaks ABI 1.0.9"),
            ("1.10", "1.9.0", "needs ABI 1.10"),
            ("2.0", "1.9.0", "needs ABI 2.0"),
            ("0.9", "1.0.0", "needs ABI 0.9"),
            ("1", "1.0.0", "which is no version"),
            ("newest", "1.0.0", "which is no version"),
        ] {
            let (fault, remedy) = verdict(needs, host).unwrap_err();
            assert!(fault.contains(word) && !remedy.is_empty(), "{needs} {host}: {fault}");
        }
    }
}
