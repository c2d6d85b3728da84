//! The decisions, without a broker.
