//! What a drain knows of one class, and where it begins.

use std::sync::{Arc, atomic::AtomicBool, mpsc::Sender};

use wal::Lsn;

use super::{
    dead_letter::Letter,
    handle::{Options, thread_refused},
    schedule::index,
    worker::{Done, Worker},
};
use crate::{Class, Error, Kind};

/// What is known of one class.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) is_wanted: bool,
    pub(super) worker: Option<Worker>,
    /// Everything of the class up to here was delivered or dead-lettered.
    pub(super) position: Lsn,
    /// The same as it is on disk; never above `position`.
    pub(super) durable: Lsn,
    pub(super) is_sending: bool,
    /// An answer of the receiver that is not yet recorded on our disk.
    pub(super) unsettled: Option<Unsettled>,
    pub(super) has_given_up: bool,
}

/// In order of priority.
pub(super) type Lanes = [Lane; Class::ALL.len()];

#[derive(Debug)]
pub(super) struct Unsettled {
    pub(super) letters: Vec<Letter>,
    pub(super) count: usize,
    pub(super) refused: usize,
    pub(super) upto: Lsn,
}

/// Where each class is; a drain that has no cursors yet gets them, so that retention waits for it.
pub(super) fn begin(options: &Options) -> Result<Lanes, Error> {
    let refuse = |error: Error| {
        let ways_out = format!(
            "refused to guess where to go on; `holdfast events drain --forget {}` lets it begin anew \
             with what is there, and may send events again",
            options.name
        );
        match error.kind() {
            Kind::OutOfRange => Error::new(Kind::OutOfRange, ways_out).with_source(error),
            _ => error,
        }
    };
    // Before `begin`, which would add cursors of this generation to a drain of another.
    for class in Class::ALL {
        options.cursors.get(&options.name, class).map_err(refuse)?;
    }
    options.cursors.begin(&options.name)?;
    let mut positions = [Lsn::ZERO; Class::ALL.len()];
    for (position, class) in positions.iter_mut().zip(Class::ALL) {
        let at = options.cursors.get(&options.name, class).map_err(refuse)?;
        *position = at.map_or(Lsn::ZERO, |at| at.lsn);
    }
    let mut places = Class::ALL.into_iter().zip(positions);
    Ok(std::array::from_fn(|_| {
        let (class, position) = places.next().expect("as many lanes as classes");
        Lane {
            is_wanted: options.classes.contains(&class),
            worker: None,
            position,
            durable: position,
            is_sending: false,
            unsettled: None,
            has_given_up: false,
        }
    }))
}

pub(super) fn start_workers(
    options: &Options,
    lanes: &mut Lanes,
    stop: &Arc<AtomicBool>,
    done: &Sender<Done>,
) -> Result<(), Error> {
    for (class, receiver) in options.receivers.open()? {
        let lane = &mut lanes[index(class)];
        if lane.is_wanted {
            let journal = Arc::clone(&options.journal);
            let worker = Worker::start(class, receiver, journal, Arc::clone(stop), done.clone());
            lane.worker = Some(worker.map_err(thread_refused)?);
        }
    }
    Ok(())
}
