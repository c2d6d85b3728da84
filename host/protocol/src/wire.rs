//! Reading and writing the binary messages of calls and frames.
//!
//! Integers are little-endian; a field of bytes is a `u32` length and the bytes. Reading shares the received buffer
//! and never copies.
//!
//! Invariant: no input makes a reader panic or allocate more than it was given.

use std::fmt;
use std::ops::Deref;

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The first byte of every binary message.
pub(crate) const MAGIC: u8 = 0xCC;
/// The version of the binary messages that this host writes and reads.
pub(crate) const VERSION: u8 = 1;

/// Why bytes are no message. Their sender is at fault; a retry does not help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The bytes are of another kind of message altogether.
    #[error("these bytes are not a cardcage message")]
    Magic,
    /// The sender is newer than this host.
    #[error("the message has version {0}, this host reads version {VERSION}; upgrade this host")]
    Version(u8),
    /// The bytes end in the middle of a field.
    #[error("the message is cut short at {0}")]
    Truncated(&'static str),
    /// A field is over its bound.
    #[error("{field} has {bytes} bytes; at most {max_bytes} are accepted")]
    TooLarge {
        /// Which field.
        field: &'static str,
        /// Its length.
        bytes: usize,
        /// Its bound.
        max_bytes: usize,
    },
    /// A field's value means nothing.
    #[error("{0} is malformed")]
    Malformed(&'static str),
    /// There are bytes after the last field.
    #[error("the message has bytes after its end")]
    Trailing,
}

/// A piece of text that shares the received message's buffer. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Text(Bytes);

impl Text {
    /// Text that lives as long as the program: no allocation.
    #[must_use]
    pub const fn from_static(text: &'static str) -> Self {
        Self(Bytes::from_static(text.as_bytes()))
    }

    /// The text. (Checked again on each use: the price of sharing the buffer without unsafe code.)
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(Bytes::from(text))
    }
}

impl Deref for Text {
    type Target = str;
    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        &*self.0 == other.as_bytes()
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Writes one message, holding each field to its bound.
pub(crate) struct Writer(BytesMut);

impl Writer {
    pub(crate) fn new(kind: u8, capacity: usize) -> Self {
        let mut buffer = BytesMut::with_capacity(capacity.saturating_add(4));
        buffer.put_slice(&[MAGIC, VERSION, kind]);
        Self(buffer)
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.0.put_u8(value);
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.0.put_u16_le(value);
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.0.put_u32_le(value);
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.0.put_u64_le(value);
    }

    pub(crate) fn array(&mut self, value: &[u8; 16]) {
        self.0.put_slice(value);
    }

    pub(crate) fn bytes(
        &mut self,
        field: &'static str,
        value: &[u8],
        max_bytes: usize,
    ) -> Result<(), WireError> {
        let bytes = value.len();
        let too_large = WireError::TooLarge { field, bytes, max_bytes };
        let length = u32::try_from(bytes).ok().filter(|_| bytes <= max_bytes).ok_or(too_large)?;
        self.0.put_u32_le(length);
        self.0.put_slice(value);
        Ok(())
    }

    pub(crate) fn finish(self) -> Bytes {
        self.0.freeze()
    }
}

/// Reads one message.
pub(crate) struct Reader(Bytes);

impl Reader {
    /// Checks magic and version; returns the kind byte and a reader of the rest.
    pub(crate) fn new(message: Bytes) -> Result<(u8, Self), WireError> {
        let mut reader = Self(message);
        if reader.u8("the start").map_err(|_| WireError::Magic)? != MAGIC {
            return Err(WireError::Magic);
        }
        match reader.u8("the version")? {
            VERSION => {}
            other => return Err(WireError::Version(other)),
        }
        let kind = reader.u8("the kind")?;
        Ok((kind, reader))
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, WireError> {
        self.0.try_get_u8().map_err(|_| WireError::Truncated(field))
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, WireError> {
        self.0.try_get_u16_le().map_err(|_| WireError::Truncated(field))
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, WireError> {
        self.0.try_get_u32_le().map_err(|_| WireError::Truncated(field))
    }

    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, WireError> {
        self.0.try_get_u64_le().map_err(|_| WireError::Truncated(field))
    }

    pub(crate) fn array(&mut self, field: &'static str) -> Result<[u8; 16], WireError> {
        let mut value = [0; 16];
        self.0.try_copy_to_slice(&mut value).map_err(|_| WireError::Truncated(field))?;
        Ok(value)
    }

    pub(crate) fn bytes(&mut self, field: &'static str, max_bytes: usize) -> Result<Bytes, WireError> {
        let bytes = self.u32(field)? as usize;
        if bytes > max_bytes {
            return Err(WireError::TooLarge { field, bytes, max_bytes });
        }
        if bytes > self.0.len() {
            return Err(WireError::Truncated(field));
        }
        Ok(self.0.split_to(bytes))
    }

    pub(crate) fn text(&mut self, field: &'static str, max_bytes: usize) -> Result<Text, WireError> {
        let bytes = self.bytes(field, max_bytes)?;
        std::str::from_utf8(&bytes).map_err(|_| WireError::Malformed(field))?;
        Ok(Text(bytes))
    }

    pub(crate) fn end(self) -> Result<(), WireError> {
        if self.0.is_empty() { Ok(()) } else { Err(WireError::Trailing) }
    }
}
