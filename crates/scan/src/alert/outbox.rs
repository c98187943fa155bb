//! Notices that wait to be sent: a durable queue for each receiver.
//!
//! At least once: a notice leaves its queue after the receiver took it, and a process that dies between
//! the two sends it again, under the same id. Each receiver has a queue and a wait of its own, so that
//! one that does not answer holds nobody else up. A full queue counts what it cannot take, and tells
//! the count when it has drained.
//!
//! ```text
//! waiting ──claim──▶ sending ──taken──▶ sent
//!    ▲                 │ │ └──refused, or tried too often──▶ dead
//!    └──try again──────┘ └──lease ended──▶ waiting
//! ```

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use store::{Bytes, History, Keys, Order, Snapshot, Store, Table, TableId, Transaction};
use world::{Random, Timestamp};

use super::{Error, Event, HostLabels, LeftOut, Notice, Receiver, people::retried};

const WAITING: &str = "alert.delivery";
const FINISHED: &str = "alert.delivered";
const RECEIVERS: &str = "alert.receiver";

/// Notices that wait for one receiver. An hour in which each minute brings four; beyond that a number
/// says more than the notices would.
pub const QUEUE_MAX: u64 = 256;
/// Finished ones of one receiver that are kept to be looked at. A page or two.
pub const FINISHED_MAX: u64 = 50;
/// How often one notice is tried: with the waits below more than two hours.
pub const ATTEMPTS_MAX: u32 = 16;
/// Wait after the first failure; it doubles with each more.
pub const RETRY_FIRST: Duration = Duration::from_secs(5);
/// Longest wait, whatever the receiver asks for. One that is back is told within this.
pub const RETRY_CEILING: Duration = Duration::from_secs(15 * 60);
/// Part of a wait that is left to chance, so that many do not come back at one moment.
const JITTER_PERCENT: u64 = 20;
/// Characters of a reason that are kept: two lines.
const REASON_CHARS_MAX: usize = 300;

/// A receiver's queue as it stands. Times are nanoseconds since the epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiverRow {
    next: u64,
    pub waiting: u64,
    pub sent: u64,
    pub dead: u64,
    /// Failed attempts since the last that went well.
    pub failures: u32,
    /// Nothing is tried before this.
    pub not_before: u64,
    pub last_sent: Option<u64>,
    pub last_failed: Option<u64>,
    pub last_error: Option<String>,
    pub left_out: Option<LeftOut>,
}

/// A notice on its way to one receiver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    pub receiver: String,
    pub number: u64,
    pub notice: Notice,
    pub attempts: u32,
    /// Somebody sends it, until then.
    pub sending: Option<Sending>,
    pub last_error: Option<String>,
    pub ended: Option<Ended>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sending {
    pub worker: String,
    pub until: u64,
}

/// How a delivery ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    Sent { at: u64 },
    Dead { at: u64, reason: String },
}

/// A delivery in the hands of one worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    pub delivery: Delivery,
}

/// What became of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tried {
    Taken,
    /// Worth another attempt, not before `after` where the receiver asked for that.
    Again {
        reason: String,
        after: Option<Duration>,
    },
    /// It will never be taken.
    Refused {
        reason: String,
    },
}

/// The queues, on a store that has [`Outbox::tables`].
#[derive(Clone, Debug)]
pub struct Outbox {
    store: Store,
    waiting: TableId,
    finished: TableId,
    receivers: TableId,
    random: Arc<dyn Random>,
}

impl Outbox {
    pub fn tables() -> Vec<Table> {
        [WAITING, FINISHED, RECEIVERS]
            .map(|name| Table::new(name, History::Latest))
            .to_vec()
    }

    pub fn new(store: Store, random: Arc<dyn Random>) -> Result<Self, Error> {
        Ok(Self {
            waiting: store.table(WAITING)?,
            finished: store.table(FINISHED)?,
            receivers: store.table(RECEIVERS)?,
            store,
            random,
        })
    }

    /// Puts what each of `receivers` is to be told of `events` into its queue.
    pub(super) fn put_in(
        &self,
        transaction: &mut Transaction,
        receivers: &[Receiver],
        host: Option<&HostLabels>,
        events: &[Event],
        now: Timestamp,
    ) -> Result<(), Error> {
        for receiver in receivers {
            let wanted = receiver.wanted(host, events);
            if wanted.is_empty() {
                continue;
            }
            let notice = Notice::new(self.id()?, now.nanos(), host.cloned(), wanted);
            let mut row = self.row_in(transaction, &receiver.name)?;
            if row.waiting >= QUEUE_MAX || row.left_out.is_some() {
                row.left_out.get_or_insert_default().add(&notice);
            } else {
                self.enqueue_in(transaction, &receiver.name, &mut row, notice)?;
            }
            self.put_row(transaction, &receiver.name, &row)?;
        }
        Ok(())
    }

    fn enqueue_in(
        &self,
        transaction: &mut Transaction,
        receiver: &str,
        row: &mut ReceiverRow,
        notice: Notice,
    ) -> Result<(), Error> {
        let delivery = Delivery {
            receiver: receiver.to_owned(),
            number: row.next,
            notice,
            attempts: 0,
            sending: None,
            last_error: None,
            ended: None,
        };
        row.next += 1;
        row.waiting += 1;
        put(
            transaction,
            self.waiting,
            &key(receiver, delivery.number),
            &delivery,
        )
    }

    /// The notice that has waited longest for `receiver`, for `lease`. `None`: nothing is due, or
    /// somebody else sends it.
    pub fn claim(
        &self,
        receiver: &str,
        worker: &str,
        now: Timestamp,
        lease: Duration,
    ) -> Result<Option<Claimed>, Error> {
        retried(|| self.claim_once(receiver, worker, now, lease))
    }

    fn claim_once(
        &self,
        receiver: &str,
        worker: &str,
        now: Timestamp,
        lease: Duration,
    ) -> Result<Option<Claimed>, Error> {
        let mut transaction = self.store.begin()?;
        let mut row = self.row_in(&mut transaction, receiver)?;
        if row.not_before > now.nanos() {
            return Ok(None);
        }
        if row.waiting == 0 {
            let Some(left_out) = row.left_out.take() else {
                return Ok(None);
            };
            let notice = Notice::of_left_out(self.id()?, now.nanos(), left_out);
            self.enqueue_in(&mut transaction, receiver, &mut row, notice)?;
            self.put_row(&mut transaction, receiver, &row)?;
        }
        let keys = below(receiver);
        let found = transaction.range(self.waiting, &keys, Order::Ascending, 1)?;
        let Some((_, found)) = found.first() else {
            return Ok(None);
        };
        let mut delivery: Delivery = decode(found)?;
        let is_leased = |sending: &Sending| sending.until > now.nanos();
        if delivery.sending.as_ref().is_some_and(is_leased) {
            return Ok(None);
        }
        delivery.sending = Some(Sending {
            worker: worker.to_owned(),
            until: now.plus(lease).nanos(),
        });
        let at = key(receiver, delivery.number);
        put(&mut transaction, self.waiting, &at, &delivery)?;
        transaction.commit()?;
        Ok(Some(Claimed { delivery }))
    }

    /// Records an attempt. Nothing happens where the lease had ended and another has it: what that one
    /// found counts.
    pub fn finish(
        &self,
        claimed: &Claimed,
        tried: &Tried,
        now: Timestamp,
    ) -> Result<Option<Ended>, Error> {
        // A notice that was sent and is not noted as sent goes out again.
        retried(|| self.finish_once(claimed, tried, now))
    }

    fn finish_once(
        &self,
        claimed: &Claimed,
        tried: &Tried,
        now: Timestamp,
    ) -> Result<Option<Ended>, Error> {
        let receiver = &claimed.delivery.receiver;
        let at = key(receiver, claimed.delivery.number);
        let mut transaction = self.store.begin()?;
        let Some(found) = transaction.get(self.waiting, &at)? else {
            return Ok(None);
        };
        let mut delivery: Delivery = decode(&found)?;
        if delivery.sending != claimed.delivery.sending {
            return Ok(None);
        }
        let mut row = self.row_in(&mut transaction, receiver)?;
        delivery.sending = None;
        delivery.attempts += 1;
        let ended = match tried {
            Tried::Taken => {
                row.failures = 0;
                row.not_before = 0;
                row.last_sent = Some(now.nanos());
                row.last_error = None;
                row.sent += 1;
                Some(Ended::Sent { at: now.nanos() })
            }
            Tried::Again { reason, after } => {
                let reason = cut(reason);
                row.failures = row.failures.saturating_add(1);
                row.not_before = now.plus(self.wait(row.failures, *after)?).nanos();
                failed(&mut row, &mut delivery, &reason, now);
                (delivery.attempts >= ATTEMPTS_MAX).then(|| Ended::Dead {
                    at: now.nanos(),
                    reason: format!("{ATTEMPTS_MAX} attempts: {reason}"),
                })
            }
            Tried::Refused { reason } => {
                let reason = cut(reason);
                failed(&mut row, &mut delivery, &reason, now);
                row.failures = row.failures.saturating_add(1);
                Some(Ended::Dead {
                    at: now.nanos(),
                    reason,
                })
            }
        };
        if let Some(ended) = &ended {
            row.waiting = row.waiting.saturating_sub(1);
            row.dead += u64::from(matches!(ended, Ended::Dead { .. }));
            delivery.ended = Some(ended.clone());
            transaction.delete(self.waiting, &at)?;
            let number = row.sent + row.dead;
            put(
                &mut transaction,
                self.finished,
                &key(receiver, number),
                &delivery,
            )?;
            if let Some(old) = number.checked_sub(FINISHED_MAX) {
                transaction.delete(self.finished, &key(receiver, old))?;
            }
        } else {
            put(&mut transaction, self.waiting, &at, &delivery)?;
        }
        self.put_row(&mut transaction, receiver, &row)?;
        transaction.commit()?;
        Ok(ended)
    }

    /// Doubles with each failure; a receiver may ask for more, up to the ceiling.
    fn wait(&self, failures: u32, asked: Option<Duration>) -> Result<Duration, Error> {
        let factor = 2_u32.saturating_pow(failures.saturating_sub(1));
        let wait = RETRY_FIRST.saturating_mul(factor);
        let wait = wait.max(asked.unwrap_or_default()).min(RETRY_CEILING);
        let dice = self.random.number().map_err(Error::storage)? % (JITTER_PERCENT + 1);
        let percent = u32::try_from(dice).expect("at most JITTER_PERCENT");
        // Later and never sooner than what was asked for.
        Ok((wait + wait * percent / 100).min(RETRY_CEILING))
    }

    /// How a receiver's queue stands; of one that was never used, as of an empty one.
    pub fn receiver(&self, name: &str) -> Result<ReceiverRow, Error> {
        let found = self
            .store
            .snapshot()?
            .get(self.receivers, name.as_bytes())?;
        found.map_or_else(|| Ok(ReceiverRow::default()), |row| decode(&row))
    }

    /// What waits for a receiver, oldest first, and what ended, newest first.
    pub fn deliveries(&self, receiver: &str) -> Result<(Vec<Delivery>, Vec<Delivery>), Error> {
        let snapshot = self.store.snapshot()?;
        let all = |table, is_newest_first| self.list(&snapshot, table, receiver, is_newest_first);
        Ok((all(self.waiting, false)?, all(self.finished, true)?))
    }

    fn list(
        &self,
        snapshot: &Snapshot,
        table: TableId,
        receiver: &str,
        is_newest_first: bool,
    ) -> Result<Vec<Delivery>, Error> {
        let most = usize::try_from(QUEUE_MAX).expect("a few hundred");
        let rows = snapshot.range(table, &below(receiver))?;
        let mut rows: Vec<Delivery> = rows
            .take(most)
            .map(|item| decode(&item?.1))
            .collect::<Result<_, Error>>()?;
        if is_newest_first {
            rows.reverse();
        }
        Ok(rows)
    }

    fn row_in(&self, transaction: &mut Transaction, name: &str) -> Result<ReceiverRow, Error> {
        let found = transaction.get(self.receivers, name.as_bytes())?;
        found.map_or_else(|| Ok(ReceiverRow::default()), |row| decode(&row))
    }

    fn put_row(
        &self,
        transaction: &mut Transaction,
        name: &str,
        row: &ReceiverRow,
    ) -> Result<(), Error> {
        put(transaction, self.receivers, name.as_bytes(), row)
    }

    pub(super) fn id(&self) -> Result<String, Error> {
        let mut bytes = [0; 16];
        self.random.fill(&mut bytes).map_err(Error::storage)?;
        Ok(uuid::Builder::from_random_bytes(bytes)
            .into_uuid()
            .to_string())
    }
}

fn failed(row: &mut ReceiverRow, delivery: &mut Delivery, reason: &str, now: Timestamp) {
    row.last_failed = Some(now.nanos());
    row.last_error = Some(reason.to_owned());
    delivery.last_error = Some(reason.to_owned());
}

/// What a receiver said is cut, and cannot write over a terminal.
fn cut(reason: &str) -> String {
    let plain = reason
        .chars()
        .map(|char| if char.is_control() { ' ' } else { char });
    plain.take(REASON_CHARS_MAX).collect()
}

fn below(receiver: &str) -> Keys {
    let mut prefix = receiver.as_bytes().to_vec();
    prefix.push(0);
    Keys::prefix(&prefix)
}

fn key(receiver: &str, number: u64) -> Vec<u8> {
    let mut key = receiver.as_bytes().to_vec();
    key.push(0);
    key.extend_from_slice(&number.to_be_bytes());
    key
}

fn put<T: Serialize>(
    transaction: &mut Transaction,
    table: TableId,
    key: &[u8],
    row: &T,
) -> Result<(), Error> {
    let row = serde_json::to_vec(row).expect("rows are plain structs with string keys");
    Ok(transaction.put(table, key, &row)?)
}

fn decode<T: serde::de::DeserializeOwned>(row: &Bytes) -> Result<T, Error> {
    serde_json::from_slice(row).map_err(|_| Error::storage("a delivery does not decode"))
}
