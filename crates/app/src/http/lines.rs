//! The Unix socket of JSON lines: an event a line in, an answer a line out, in order.
//!
//! Lines that have arrived together are kept together: one append, one wait for the disk. A bad line
//! gets its error, the others around it are kept. When too much is in flight the socket is not
//! read, which is how a local producer is told to wait.

use std::{io, sync::Arc, time::Duration};

use events::{Class, Kind, NewEvent, event::Unfit, lines};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::sleep,
};

use super::{answer::Refusal, state::State, stream::Stream};

/// Lines kept together.
const BATCH_LEN_MAX: usize = 1024;
/// Bytes read at a time.
const READ_LEN: usize = 64 << 10;
/// How often, and how many times, lines are offered again while too much is in flight: ten seconds.
const OFFER_AGAIN: Duration = Duration::from_millis(20);
const OFFERS_MAX: u32 = 500;

/// Serves one producer until it goes, sends a line that is too long, or the server stops.
pub(super) async fn serve(state: Arc<State>, stream: UnixStream) -> io::Result<()> {
    let mut stream = Stream::new(stream);
    let mut stop = state.stop.clone();
    let mut input = Input::default();
    loop {
        if let Some(batch) = input.batch() {
            let answer = answer(&state, batch).await?;
            stream.write_all(answer.as_bytes()).await?;
            continue;
        }
        if input.is_too_long() {
            let why = format!("line of more than {} bytes", lines::LINE_LEN_MAX);
            let line = error_line("INVALID", &why, None);
            stream.write_all(line.as_bytes()).await?;
            // Where the next line begins is not known without reading on for ever.
            return stream.shutdown().await;
        }
        if input.is_ended || *stop.borrow() {
            return stream.shutdown().await;
        }
        tokio::select! {
            read = input.read(&mut stream) => read?,
            _ = stop.changed() => {}
        }
    }
}

async fn answer(state: &Arc<State>, batch: Vec<u8>) -> io::Result<String> {
    let batch: Arc<[u8]> = batch.into();
    let mut offers = 1;
    loop {
        let (state, batch) = (Arc::clone(state), Arc::clone(&batch));
        let is_last = offers == OFFERS_MAX;
        let kept = tokio::task::spawn_blocking(move || keep(&state, &batch, is_last));
        if let Some(answer) = kept.await.map_err(io::Error::other)? {
            return Ok(answer);
        }
        offers += 1;
        sleep(OFFER_AGAIN).await;
    }
}

/// Keeps the events of whole lines; one answer line each. None: too much is in flight, offer again.
fn keep(state: &State, batch: &[u8], is_last: bool) -> Option<String> {
    let defaults = lines::Defaults {
        source: None,
        class: Class::Other,
        now: state.now(),
        is_relay: false,
    };
    let mut good = Vec::new();
    let mut fates: Vec<Result<(), Unfit>> = Vec::new();
    let whole = batch.strip_suffix(b"\n").unwrap_or(batch);
    for line in whole.split(|byte| *byte == b'\n') {
        let parsed = lines::parse(line, &defaults);
        fates.push(parsed.map(|event| good.push(event)));
    }
    let mut acks = match append(state, good) {
        Ok(acks) => acks.into_iter(),
        Err(error) if error.kind() == Kind::Overloaded && !is_last => return None,
        Err(error) => {
            let refusal = Refusal::of(&error);
            let line = error_line(refusal.code, &refusal.detail, refusal.retry_after_secs);
            return Some(line.repeat(fates.len()));
        }
    };
    let mut answer = String::new();
    for fate in fates {
        match fate {
            Ok(()) => lines::push_ack(&mut answer, &acks.next().expect("one each")),
            Err(unfit) => {
                state.refused(1);
                answer.push_str(&error_line("INVALID", &unfit.to_string(), None));
            }
        }
    }
    Some(answer)
}

fn append(state: &State, good: Vec<NewEvent>) -> Result<Vec<events::Ack>, events::Error> {
    if good.is_empty() {
        return Ok(Vec::new());
    }
    state.append(good)
}

fn error_line(code: &str, detail: &str, retry_after_secs: Option<u64>) -> String {
    let mut error = json!({"code": code, "detail": detail});
    if let Some(seconds) = retry_after_secs {
        error["retry_after"] = seconds.into();
    }
    format!("{}\n", json!({"error": error}))
}

/// What was read and is not kept yet: at most one unfinished line and one read.
#[derive(Default)]
struct Input {
    bytes: Vec<u8>,
    /// No line ends below this.
    looked_at: usize,
    is_ended: bool,
}

impl Input {
    async fn read(&mut self, stream: &mut Stream<UnixStream>) -> io::Result<()> {
        // Appends what came and nothing else, also when it is cancelled.
        self.bytes.reserve(READ_LEN);
        self.is_ended = stream.read_buf(&mut self.bytes).await? == 0;
        if self.is_ended && !self.bytes.is_empty() {
            // A last line without its end: whole or torn, its parsing tells.
            self.bytes.push(b'\n');
        }
        Ok(())
    }

    /// Whole lines, at most [`BATCH_LEN_MAX`].
    fn batch(&mut self) -> Option<Vec<u8>> {
        let mut end = None;
        let fresh = self.bytes[self.looked_at..].iter().enumerate();
        let breaks = fresh.filter(|(_, byte)| **byte == b'\n');
        for (at, _) in breaks.take(BATCH_LEN_MAX) {
            end = Some(self.looked_at + at + 1);
        }
        let Some(end) = end else {
            self.looked_at = self.bytes.len();
            return None;
        };
        let rest = self.bytes.split_off(end);
        self.looked_at = 0;
        Some(std::mem::replace(&mut self.bytes, rest))
    }

    fn is_too_long(&self) -> bool {
        self.bytes.len() > lines::LINE_LEN_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_lines_are_taken_and_the_rest_is_kept_for_the_next_read() {
        let mut input = Input::default();
        input.bytes.extend_from_slice(b"one\ntwo\nthr");
        assert_eq!(input.batch(), Some(b"one\ntwo\n".to_vec()));
        assert_eq!(input.batch(), None);
        input.bytes.extend_from_slice(b"ee\n");
        assert_eq!(input.batch(), Some(b"three\n".to_vec()));
        input.bytes = b"\n".repeat(BATCH_LEN_MAX + 1);
        assert_eq!(input.batch().map(|batch| batch.len()), Some(BATCH_LEN_MAX));
        assert_eq!(input.batch().map(|batch| batch.len()), Some(1));
        input.bytes = vec![b'x'; lines::LINE_LEN_MAX];
        assert_eq!((input.batch(), input.is_too_long()), (None, false));
        input.bytes.push(b'x');
        assert!(input.is_too_long());
    }
}
