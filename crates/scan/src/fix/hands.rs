//! The write side of a host: a few verbs over [`Object`]s, local or remote.

use super::{Action, Effect, Fault, Object, State};

/// What a name is to be looked up as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Account {
    User,
    Group,
}

/// What a timed rollback was found doing when it was called off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disarmed {
    /// It was waiting, or was never armed; it will do nothing.
    InTime,
    /// It had begun, and has ended: the captured states are back.
    Fired,
}

/// What a fix does to a host. Every verb is bounded in time and refuses what it cannot do exactly.
pub trait Hands {
    /// The state of an object.
    ///
    /// # Errors
    /// It cannot be captured: wrong kind, unsafe place, refused, or larger than is kept.
    fn look(&mut self, object: &Object) -> Result<State, Fault>;

    /// Brings an object from one state to another. Refused when it is not in the first any more.
    /// `tag` names the effect: what is left behind by a crash is found by it.
    fn set(&mut self, tag: &str, object: &Object, from: &State, to: &State) -> Result<(), Fault>;

    fn run(&mut self, action: &Action) -> Result<(), Fault>;

    /// The number of an account or group, `None` when the host has none of that name.
    fn id_of(&mut self, account: Account, name: &str) -> Result<Option<u32>, Fault>;

    /// Removes what a crash in the middle of `set` with this tag left beside the object.
    fn sweep(&mut self, tag: &str, object: &Object) -> Result<(), Fault>;

    /// Starts a process on the host that puts back every captured state after `seconds`, whatever
    /// becomes of us and of our connection.
    fn arm(&mut self, id: &str, effects: &[Effect], seconds: u64) -> Result<(), Fault>;

    /// Calls the timed rollback off, or waits until it has done its work.
    fn disarm(&mut self, id: &str) -> Result<Disarmed, Fault>;

    /// Whether somebody new can get in: a connection that did not exist before.
    fn knock(&mut self) -> Result<(), Fault>;
}
