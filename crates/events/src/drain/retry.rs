//! Sending dead letters once more.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, Ordering},
};

use world::Clock;

use super::{
    dead_letter::{Attempt, DeadLetters},
    receiver::{Receiver, Receivers, Refused, SendError},
};
use crate::{Class, Error};

/// What became of the letters that waited.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retried {
    pub accepted: u64,
    pub refused: u64,
    /// Why no more were sent, when the receiver could not be reached; what is left still waits.
    pub stopped: Option<String>,
}

/// Sends the letters that `choose` picks, one at a time, so that an answer is about one event. Each
/// outcome is durable before the next letter is sent: a crash sends at most one of them again.
pub fn retry(
    letters: &DeadLetters,
    receivers: &Receivers,
    clock: &dyn Clock,
    stop: &AtomicBool,
    choose: impl Fn(&super::Entry) -> bool,
) -> Result<Retried, Error> {
    let mut by_class: HashMap<Class, Box<dyn Receiver>> = receivers.open()?.into_iter().collect();
    let mut retried = Retried::default();
    for entry in letters.entries()? {
        let entry = entry?;
        if stop.load(Ordering::Relaxed) {
            retried.stopped = Some("stopped".to_owned());
            break;
        }
        if entry.is_accepted() || !choose(&entry) {
            continue;
        }
        let receiver = by_class
            .get_mut(&entry.letter.event.event.class)
            .expect("there is a receiver for every class");
        let refused = match receiver.send(std::slice::from_ref(&entry.letter.event)) {
            Ok(accepted) => accepted
                .refused
                .into_iter()
                .next()
                .map(|Refused { why, .. }| why),
            Err(SendError::Refused { why } | SendError::Split { why }) => Some(why),
            Err(error @ (SendError::Retry { .. } | SendError::Misconfigured { .. })) => {
                retried.stopped = Some(error.why().to_owned());
                break;
            }
        };
        match refused {
            Some(_) => retried.refused += 1,
            None => retried.accepted += 1,
        }
        letters.record(&[Attempt {
            letter: entry.lsn,
            receiver: receivers.target.to_string(),
            refused,
            when: clock.now(),
        }])?;
    }
    Ok(retried)
}
