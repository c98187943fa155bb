//! A store over a Unix socket: whoever has it open serves it, and other processes of the same user
//! use it as if it were theirs.
//!
//! One connection serves one open snapshot or transaction at a time. What a connection holds ends
//! with it: a transaction whose client dies is given up, and a client that is stopped holds one for
//! [`QUIET_MAX`] only. A commit is acknowledged after it is durable, as everywhere.
//!
//! Nothing here protects against a hostile user of the same id: whoever may open the socket may open
//! the directory. What is checked is that no frame, however damaged, ends the process that serves.

mod frame;
mod remote;
mod serve;
#[cfg(test)]
mod tests;
mod wire;

use std::time::Duration;

pub use remote::{Dial, Remote};
pub use serve::Serving;

/// How long a client may be quiet between two requests while it holds a snapshot or a transaction,
/// and how long one frame may take. Longer than a loaded machine lets a command wait for its turn.
pub const QUIET_MAX: Duration = Duration::from_secs(30);

/// How long a client may hold one snapshot or transaction at all: history that it sees is kept for
/// so long. A snapshot is then taken again at the same position, if that is retained.
pub const HELD_MAX: Duration = Duration::from_secs(600);

/// Connections at a time, each a thread. A command has one or two.
pub const CONNECTIONS_MAX: usize = 64;

/// How long a client waits for an answer. A commit waits up to half of this for memory.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// How long a client waits to be let in.
const GREETING_MAX: Duration = Duration::from_secs(5);

/// How long requests under way may take once the server stops: well within the ten seconds of a
/// stop. A client that does not take its answer by then is cut off.
const STOP_MAX: Duration = Duration::from_secs(3);

/// Keys of one request for values, and bytes of them.
const KEYS_MAX: usize = 4096;
const KEYS_BYTES_MAX: usize = 4 << 20;

/// Rows of one page, and bytes after which one ends.
const ROWS_MAX: usize = 1024;
const PAGE_BYTES: usize = 4 << 20;
