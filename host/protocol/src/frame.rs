//! Frames of a streamed body, and the credit that paces them.
//!
//! Core NATS may lose messages. So data frames are numbered from 0 and `End` carries the number after the last one: a
//! gap is seen, and ends the stream as broken. A sender never has more bytes under way than it was granted.
//!
//! Refuses: reordering and resending. A broken stream is a failed call, which the caller may repeat.

use bytes::Bytes;

use crate::limits;
use crate::wire::{Reader, Text, WireError, Writer};

const KIND_DATA: u8 = 16;
const KIND_END: u8 = 17;
const KIND_ABORT: u8 = 18;
const KIND_CREDIT: u8 = 19;

/// One message on a `callio` subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// The next piece of the body.
    Data {
        /// Number of this frame, from 0.
        seq: u32,
        /// At most [`limits::FRAME_DATA_MAX_BYTES`] bytes.
        bytes: Bytes,
    },
    /// The body is complete.
    End {
        /// The number after the last data frame's.
        seq: u32,
    },
    /// The sender gives up; the body stays incomplete.
    Abort {
        /// Why, for the log. Cut to [`limits::ABORT_REASON_MAX_BYTES`].
        reason: Text,
    },
    /// The receiver allows this many further bytes.
    Credit {
        /// Bytes to add to the allowance.
        bytes: u32,
    },
}

impl Frame {
    /// An abort whose reason is cut to its bound.
    #[must_use]
    pub fn abort(reason: &str) -> Self {
        Self::Abort {
            reason: Text::from(crate::record::cut(reason, limits::ABORT_REASON_MAX_BYTES).into_owned()),
        }
    }

    /// The frame as bytes.
    ///
    /// # Errors
    /// [`WireError::TooLarge`] when a part is over its bound.
    pub fn encode(&self) -> Result<Bytes, WireError> {
        match self {
            Self::Data { seq, bytes } => {
                let mut w = Writer::new(KIND_DATA, bytes.len() + 8);
                w.u32(*seq);
                w.bytes("the data", bytes, limits::FRAME_DATA_MAX_BYTES)?;
                Ok(w.finish())
            }
            Self::End { seq } => Ok(Self::number(KIND_END, *seq)),
            Self::Abort { reason } => {
                let mut w = Writer::new(KIND_ABORT, reason.len() + 4);
                w.bytes("the reason", reason.as_bytes(), limits::ABORT_REASON_MAX_BYTES)?;
                Ok(w.finish())
            }
            Self::Credit { bytes } => Ok(Self::number(KIND_CREDIT, *bytes)),
        }
    }

    fn number(kind: u8, number: u32) -> Bytes {
        let mut w = Writer::new(kind, 4);
        w.u32(number);
        w.finish()
    }

    /// Reads a frame; data shares `message`'s buffer.
    ///
    /// # Errors
    /// [`WireError`] says what is wrong.
    pub fn decode(message: Bytes) -> Result<Self, WireError> {
        let (kind, mut r) = Reader::new(message)?;
        let frame = match kind {
            KIND_DATA => {
                let seq = r.u32("the number")?;
                Self::Data { seq, bytes: r.bytes("the data", limits::FRAME_DATA_MAX_BYTES)? }
            }
            KIND_END => Self::End { seq: r.u32("the number")? },
            KIND_ABORT => Self::Abort { reason: r.text("the reason", limits::ABORT_REASON_MAX_BYTES)? },
            KIND_CREDIT => Self::Credit { bytes: r.u32("the credit")? },
            _ => return Err(WireError::Malformed("the kind")),
        };
        r.end()?;
        Ok(frame)
    }
}
