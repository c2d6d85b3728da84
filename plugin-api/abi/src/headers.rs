//! The header block: one encoded byte string for all headers of a message.
//!
//! Layout: for each header `u16 name length, u32 value length` (little endian), then name and value bytes.
//! Order is kept and names may repeat. A request's block starts with the pseudo-headers [`METHOD`] and
//! [`PATH`], as in HTTP/2. Values are bytes, not text. Decoding never panics and never reads outside the block.

/// In a task's `ext`: milliseconds since the Unix epoch at which the handler should come to an end, as digits.
pub const SOFT_DEADLINE_MS: &str = "soft-deadline-ms";
/// Pseudo-header: the request's method.
pub const METHOD: &str = ":method";
/// Pseudo-header: the path below the plugin's prefix, with the query.
pub const PATH: &str = ":path";

/// A block that is cut short or whose lengths do not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the header block is malformed")
    }
}

impl std::error::Error for Malformed {}

/// Appends one header. A name over 65,535 bytes or a value over 4 GiB is left out: no HTTP peer sends one.
pub fn push(block: &mut Vec<u8>, name: &str, value: &[u8]) {
    let (Ok(name_len), Ok(value_len)) = (u16::try_from(name.len()), u32::try_from(value.len())) else {
        return;
    };
    block.reserve(6 + name.len() + value.len());
    block.extend_from_slice(&name_len.to_le_bytes());
    block.extend_from_slice(&value_len.to_le_bytes());
    block.extend_from_slice(name.as_bytes());
    block.extend_from_slice(value);
}

/// Reads a block header by header.
pub fn iter(block: &[u8]) -> Iter<'_> {
    Iter { rest: block }
}

/// The first value of a header, if the block is sound up to it.
pub fn get<'a>(block: &'a [u8], name: &str) -> Option<&'a [u8]> {
    iter(block).map_while(Result::ok).find(|(n, _)| *n == name).map(|(_, value)| value)
}

/// See [`iter`]. After an error it ends.
#[derive(Debug, Clone)]
pub struct Iter<'a> {
    rest: &'a [u8],
}

impl<'a> Iter<'a> {
    fn one(&mut self) -> Option<(&'a str, &'a [u8])> {
        let (name_len, rest) = self.rest.split_first_chunk::<2>()?;
        let (value_len, rest) = rest.split_first_chunk::<4>()?;
        let (name, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*name_len)))?;
        let (value, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*value_len)).ok()?)?;
        self.rest = rest;
        Some((std::str::from_utf8(name).ok()?, value))
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = Result<(&'a str, &'a [u8]), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let one = self.one();
        if one.is_none() {
            self.rest = &[];
        }
        Some(one.ok_or(Malformed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut block = Vec::new();
        push(&mut block, METHOD, b"POST");
        push(&mut block, "x-a", b"");
        push(&mut block, "x-a", &[0, 255]);
        block
    }

    #[test]
    fn headers_come_back_in_order_with_repeats() {
        let block = sample();
        let all: Vec<_> = iter(&block).collect::<Result<_, _>>().unwrap();
        assert_eq!(all, [(METHOD, &b"POST"[..]), ("x-a", b""), ("x-a", &[0, 255])]);
        assert_eq!(get(&block, "x-a"), Some(&b""[..]));
        assert_eq!(get(&block, "x-b"), None);
    }

    #[test]
    fn every_truncation_is_an_error_or_a_shorter_block() {
        let block = sample();
        for end in 0..block.len() {
            let got = iter(&block[..end]).count();
            assert!(got <= 3);
        }
    }

    #[test]
    fn twenty_thousand_random_blocks_never_panic() {
        // xorshift: the crate has no dependencies to lend a generator.
        let mut x = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..20_000 {
            let mut block = sample();
            for _ in 0..3 {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                let at = (x as usize) % block.len();
                block[at] = (x >> 32) as u8;
            }
            block.truncate((x >> 40) as usize % (block.len() + 1));
            for header in iter(&block).flatten() {
                assert!(header.0.len() + header.1.len() <= block.len());
            }
        }
    }
}
