//! The input and output of a command that runs on a host.

use std::{collections::VecDeque, pin::pin};

use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, client::Msg};

use super::Wire;
use crate::{
    capture::Exchange,
    failure::{Failure, Reason},
};

/// What the host may say unasked while we send. A question is a few kilobytes and is read before it is
/// answered: more than this is not an answer.
const AHEAD_BYTES_MAX: usize = 1024 * 1024;

/// Complaints of a command, all of them. They are read so that nothing blocks, and the first are kept.
const COMPLAINT_BYTES_MAX: usize = 1024 * 1024;
const COMPLAINT_KEPT_MAX: usize = 4096;

/// Turns of the library's task until it wrote what it was given: one to take it, one to spare.
const TURNS_TO_WRITE: u32 = 2;

/// A started command. Ends it when dropped: its input closes, then the connection.
pub struct Session {
    wire: Wire,
    pipe: Pipe,
    turns: Turns,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("endpoint", &self.wire.endpoint)
            .field("turns", &self.turns.count)
            .finish_non_exhaustive()
    }
}

/// How often the talk went to the host and came back.
#[derive(Debug, Default)]
struct Turns {
    count: u32,
    is_ours: bool,
}

impl Session {
    pub(super) fn new(wire: Wire, pipe: Pipe) -> Self {
        Self {
            wire,
            pipe,
            turns: Turns::default(),
        }
    }

    /// Round trips of the talk with the command; the connection's own are constant and before these.
    pub fn round_trips(&self) -> u32 {
        self.turns.count
    }

    /// The command's input ends, it is told so, and so is the host; bounded by
    /// [`super::Limits::close`].
    pub fn close(self) {
        drop(self);
    }
}

impl Exchange for Session {
    fn send(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.turns.is_ours = true;
        self.pipe.send(&self.wire, bytes)
    }

    fn receive(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        if std::mem::take(&mut self.turns.is_ours) {
            self.turns.count += 1;
        }
        self.pipe.receive(&self.wire)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.pipe.leave(&self.wire);
    }
}

/// One thing that a command says.
pub(super) enum Heard {
    Output(Vec<u8>),
    Complaint(Vec<u8>),
    /// The host will not run it.
    Refused,
    End,
}

/// A channel with a command.
pub(super) struct Pipe {
    reading: Option<ChannelReadHalf>,
    writing: ChannelWriteHalf<Msg>,
    /// Heard while we were sending.
    ahead: VecDeque<ChannelMsg>,
    ahead_bytes: usize,
    complaint_bytes: usize,
    complaint: Vec<u8>,
    is_ended: bool,
}

impl Pipe {
    pub(super) fn new(channel: Channel<Msg>) -> Self {
        let (reading, writing) = channel.split();
        Self {
            reading: Some(reading),
            writing,
            ahead: VecDeque::new(),
            ahead_bytes: 0,
            complaint_bytes: 0,
            complaint: Vec::new(),
            is_ended: false,
        }
    }

    /// Without waiting for a yes: a no is heard instead of output.
    pub(super) fn execute(&mut self, wire: &Wire, command: &str) -> Result<(), Failure> {
        let what = format!("starting the collector at {}", wire.endpoint);
        let asked = self.writing.exec(true, command);
        wire.within(wire.limits.start, &what, asked)?
            .map_err(|_| wire.lost(&what))
    }

    pub(super) fn send(&mut self, wire: &Wire, bytes: &[u8]) -> Result<(), Failure> {
        let what = format!("sending to {}", wire.endpoint);
        let Self {
            reading,
            writing,
            ahead,
            ahead_bytes,
            ..
        } = self;
        let sending = async {
            let mut sending = pin!(writing.data_bytes(bytes.to_vec()));
            // The host may wait for us to read before it reads: both ways must move.
            loop {
                let reading = reading.as_mut().filter(|_| *ahead_bytes <= AHEAD_BYTES_MAX);
                let Some(reading) = reading else {
                    let detail = format!("{what}: it talks instead of listening");
                    return Err(Failure::new(Reason::EvidenceOversize, detail));
                };
                tokio::select! {
                    biased;
                    sent = &mut sending => {
                        sent.map_err(|_| wire.lost(&what))?;
                        break;
                    }
                    message = reading.wait() => match message {
                        Some(message) => {
                            *ahead_bytes += weight(&message);
                            ahead.push_back(message);
                        }
                        None => return Err(wire.lost(&what)),
                    }
                }
            }
            // The library's task has it, and runs only while we wait: it writes it out now, and not
            // when somebody asks for the answer.
            for _ in 0..TURNS_TO_WRITE {
                tokio::task::yield_now().await;
            }
            Ok(())
        };
        let patience = &wire.patience;
        wire.runtime()
            .block_on(patience.within(None, &what, sending))?
    }

    pub(super) fn receive(&mut self, wire: &Wire) -> Result<Option<Vec<u8>>, Failure> {
        loop {
            match self.hear(wire, None)? {
                Heard::Output(bytes) => return Ok(Some(bytes)),
                Heard::Complaint(_) => {}
                Heard::Refused | Heard::End => return Ok(None),
            }
        }
    }

    /// The next thing the command says; within `limit` where there is one.
    pub(super) fn hear(
        &mut self,
        wire: &Wire,
        limit: Option<std::time::Duration>,
    ) -> Result<Heard, Failure> {
        let what = format!("waiting for {}", wire.endpoint);
        loop {
            if self.is_ended {
                return Ok(Heard::End);
            }
            let message = match self.ahead.pop_front() {
                Some(message) => {
                    self.ahead_bytes = self.ahead_bytes.saturating_sub(weight(&message));
                    Some(message)
                }
                None => {
                    let Some(reading) = &mut self.reading else {
                        return Ok(Heard::End);
                    };
                    let patience = &wire.patience;
                    wire.runtime()
                        .block_on(patience.within(limit, &what, reading.wait()))?
                }
            };
            match message {
                Some(ChannelMsg::Data { data }) => return Ok(Heard::Output(data.to_vec())),
                Some(ChannelMsg::ExtendedData { data, .. }) => {
                    self.note(wire, &data)?;
                    return Ok(Heard::Complaint(data.to_vec()));
                }
                Some(ChannelMsg::Failure) => {
                    self.is_ended = true;
                    return Ok(Heard::Refused);
                }
                Some(ChannelMsg::Eof | ChannelMsg::Close) => self.is_ended = true,
                Some(_) => {}
                // Neither an end nor a farewell: the link broke.
                None => return Err(wire.lost(&what)),
            }
        }
    }

    fn note(&mut self, wire: &Wire, complaint: &[u8]) -> Result<(), Failure> {
        self.complaint_bytes = self.complaint_bytes.saturating_add(complaint.len());
        if self.complaint_bytes > COMPLAINT_BYTES_MAX {
            let detail = format!("{} complains without end", wire.endpoint);
            return Err(Failure::new(Reason::EvidenceOversize, detail));
        }
        let room = COMPLAINT_KEPT_MAX.saturating_sub(self.complaint.len());
        let kept = &complaint[..complaint.len().min(room)];
        self.complaint.extend_from_slice(kept);
        Ok(())
    }

    /// What the command complained of, the beginning.
    pub(super) fn complaint(&self) -> String {
        String::from_utf8_lossy(&self.complaint).trim().to_owned()
    }

    /// Puts back what belongs to the next reader.
    pub(super) fn unread(&mut self, bytes: Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        self.ahead_bytes += bytes.len();
        self.ahead
            .push_front(ChannelMsg::Data { data: bytes.into() });
    }

    /// Closes the command's input and the channel.
    pub(super) fn leave(&mut self, wire: &Wire) {
        // Nobody listens: the library's task throws away what still comes, and gets to its own queue.
        drop(self.reading.take());
        self.is_ended = true;
        within_farewell(wire, async {
            if self.writing.eof().await.is_ok() {
                self.writing.close().await.ok();
            }
        });
    }

    /// Closes it, and waits, within a bound, until the host closed it too: a host that allows one session
    /// at a time has room for the next one only then.
    pub(super) fn end(&mut self, wire: &Wire) {
        let reading = self.reading.take();
        self.is_ended = true;
        within_farewell(wire, async {
            let is_heard = self.writing.eof().await.is_ok() && self.writing.close().await.is_ok();
            let Some(mut reading) = reading.filter(|_| is_heard) else {
                return;
            };
            // What is still said is thrown away: it would block the library's task otherwise.
            while reading.wait().await.is_some() {}
        });
    }
}

/// Not through the scan's patience: this is what stops the remote side of a scan that is over.
fn within_farewell(wire: &Wire, work: impl Future<Output = ()>) {
    let work = async { tokio::time::timeout(wire.limits.close, work).await };
    drop(wire.runtime().block_on(work));
}

/// What a waiting message costs us.
fn weight(message: &ChannelMsg) -> usize {
    /// The message itself, whatever is in it.
    const OWN: usize = 64;
    match message {
        ChannelMsg::Data { data } | ChannelMsg::ExtendedData { data, .. } => OWN + data.len(),
        _ => OWN,
    }
}
