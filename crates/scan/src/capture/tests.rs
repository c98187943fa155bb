//! The protocol against a shell of this machine, and against hosts that lie.

mod cut;
mod faithful;
mod hostile;
mod printed;
mod shell;
mod walk;
