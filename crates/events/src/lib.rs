//! The events plane: telemetry in, none of it lost, handed on in order of priority.
//!
//! An event is acknowledged when its record is durable in a journal; what is read, queried and
//! drained is what that journal holds. This crate knows no HTTP routes, no SQL and no volumes: it
//! turns bodies into events and events into bodies, and `app` carries them.
