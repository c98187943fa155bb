//! One pass over the local filesystems.

use std::os::fd::OwnedFd;

use world::Clock;

use crate::{
    collect::Progress,
    facts::{Reason, Unknown},
    target::{Walk, Walked},
};

pub(super) fn walk(
    _root: &OwnedFd,
    _mounts: Option<Vec<u8>>,
    _walk: &Walk<'_>,
    _progress: &dyn Progress,
    _clock: &dyn Clock,
) -> Result<Walked, Unknown> {
    Err(Unknown::new(Reason::Unsupported, "walk"))
}
