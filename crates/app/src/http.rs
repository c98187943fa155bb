//! The server: OTLP and JSON lines in, events out, over HTTP and Unix sockets.
//!
//! Nothing here says yes before the log says durable. What a client may hold is bounded: bytes
//! before they are read (the log's room for events in flight), time for each part of a request, and
//! the number of connections. Journal work runs on threads of its own, never on those that serve
//! connections.
//!
//! There are no tokens and no TLS here, so it listens on this machine only, and refuses what a
//! browser sends on behalf of another site.

pub(crate) mod answer;
mod body;
mod bridge;
pub(crate) mod door;
mod export;
mod intake;
mod lines;
mod metrics;
pub(crate) mod origin;
mod query;
mod server;
pub(crate) mod sockets;
mod state;
mod stream;

pub(crate) use bridge::Bridge;
pub(crate) use server::{Listen, Server};
pub(crate) use sockets::{tcp, tcp_unless_taken};
pub(crate) use state::Served;
