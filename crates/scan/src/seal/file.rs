//! Exports as files: JSON lines, compressed or not, whole or not there.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, BufRead, BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use sha2::{Digest as _, Sha256};
use store::Store;
use world::{Disk, File, Timestamp, disk::Open};

use super::{
    Error, LINE_BYTES_MAX, Line, Outcome, Signature, Tour, Verifier, Wrong, export_text,
    tour::Asked,
};
use crate::{
    judge::hex,
    policy::{PrivateKey, PublicKey},
    utc::Utc,
};

/// The first bytes of data that zstd compressed.
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Compression of an export: the level that zstd chooses by itself.
const COMPRESSION_LEVEL: i32 = 3;

/// The largest window that a compressed export may ask for, as a power of two: 8 MiB, what level 3
/// ever uses and some more. A file may otherwise ask for gigabytes of memory.
const WINDOW_LOG_MAX: u32 = 23;

/// Bytes that are read or written at once.
const BUFFER: usize = 256 << 10;

/// An export that is to be written.
pub struct Export<'a> {
    pub disk: &'a dyn Disk,
    /// Replaced when everything is written, and not before.
    pub to: &'a Path,
    pub compressed: bool,
    /// Signs the file as a whole.
    pub key: Option<&'a PrivateKey>,
    pub made: Timestamp,
    /// Set by whoever wants it to end; nothing is left then.
    pub stop: &'a AtomicBool,
}

impl fmt::Debug for Export<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Export").field(&self.to).finish()
    }
}

impl Export<'_> {
    /// Writes what is asked for, judged on its way: what would not verify is not exported.
    pub fn write(
        &self,
        store: &Store,
        asked: &Asked,
        told: &mut dyn FnMut(u64),
    ) -> Result<Outcome, Error> {
        let temporary = temporary(self.to);
        let file = self.disk.open(&temporary, Open::CreateNew)?;
        let written = self
            .write_all(&file, store, asked, told)
            .and_then(|outcome| {
                file.sync_all()?;
                self.disk.rename(&temporary, self.to)?;
                self.disk
                    .sync_dir(self.to.parent().unwrap_or(Path::new("/")))?;
                Ok(outcome)
            });
        if written.is_err() {
            // What cannot be removed is told apart by its name.
            drop(self.disk.remove_file(&temporary));
        }
        written
    }

    fn write_all(
        &self,
        file: &Arc<dyn File>,
        store: &Store,
        asked: &Asked,
        told: &mut dyn FnMut(u64),
    ) -> Result<Outcome, Error> {
        let plain = At {
            file: Arc::clone(file),
            at: 0,
        };
        if self.compressed {
            let mut out = zstd::stream::write::Encoder::new(plain, COMPRESSION_LEVEL)?;
            let outcome = self.lines(&mut out, store, asked, told)?;
            out.finish()?;
            return Ok(outcome);
        }
        let mut out = BufWriter::with_capacity(BUFFER, plain);
        let outcome = self.lines(&mut out, store, asked, told)?;
        out.flush()?;
        Ok(outcome)
    }

    fn lines(
        &self,
        out: &mut dyn Write,
        store: &Store,
        asked: &Asked,
        told: &mut dyn FnMut(u64),
    ) -> Result<Outcome, Error> {
        let mut verifier = Verifier::new(None, BTreeMap::new(), asked.with_evidence);
        let (mut digest, mut lines) = (Sha256::new(), 0);
        let tour = Tour::new(store, asked)?;
        tour.run(Utc(self.made), &mut |line| {
            if self.stop.load(Ordering::Relaxed) {
                return Err(Error::Stopped);
            }
            verifier.step(&line)?;
            let bytes = line.bytes();
            digest.update(&bytes);
            out.write_all(&bytes)?;
            lines += 1;
            told(lines);
            Ok(())
        })?;
        let sha256 = hex(&digest.finalize());
        let text = export_text(&sha256);
        let newest = verifier.outcome().newest.as_ref();
        // Only the key of the newest statement: another one says nothing to whoever verifies.
        let signature = self
            .key
            .filter(|key| newest.is_some_and(|(newest, _)| newest.key == key.public().base64()))
            .map(|key| Signature::of(key, &text));
        let outcome = verifier.finish(signature.as_ref().map(|by| (by, text.as_str())))?;
        let end = Line::End {
            lines,
            sha256,
            signature,
        };
        out.write_all(&end.bytes())?;
        Ok(outcome)
    }
}

fn temporary(to: &Path) -> PathBuf {
    let mut name = to.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.tmp", std::process::id()));
    to.with_file_name(name)
}

/// A place in a file, read from and written to onwards.
struct At {
    file: Arc<dyn File>,
    at: u64,
}

impl Write for At {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write_at(bytes, self.at)?;
        self.at += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for At {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// Judges an export with nothing but a public key. `noted` are digests of statements that must be in
/// it, by their numbers.
pub fn verify_file(
    file: &Arc<dyn File>,
    trusted: Option<PublicKey>,
    noted: BTreeMap<u64, String>,
    stop: &AtomicBool,
    told: &mut dyn FnMut(u64),
) -> Result<Outcome, Error> {
    let plain = At {
        file: Arc::clone(file),
        at: 0,
    };
    let mut reader = BufReader::with_capacity(BUFFER, plain);
    let verifier = Verifier::new(trusted, noted, true);
    if reader.fill_buf()?.starts_with(&ZSTD) {
        let mut decoder = zstd::stream::read::Decoder::with_buffer(reader)?;
        decoder.window_log_max(WINDOW_LOG_MAX)?;
        let mut reader = BufReader::with_capacity(BUFFER, decoder);
        verify_lines(&mut reader, verifier, stop, told)
    } else {
        verify_lines(&mut reader, verifier, stop, told)
    }
}

fn verify_lines(
    reader: &mut dyn BufRead,
    mut verifier: Verifier,
    stop: &AtomicBool,
    told: &mut dyn FnMut(u64),
) -> Result<Outcome, Error> {
    let mut digest = Sha256::new();
    let mut bytes = Vec::new();
    for number in 1_u64.. {
        if stop.load(Ordering::Relaxed) {
            return Err(Error::Stopped);
        }
        let what = || format!("line {number}");
        if !next_line(reader, &mut bytes, number)? {
            return Err(Wrong::new(
                what(),
                "the file ends without its last line: it was cut off",
            )
            .into());
        }
        let text = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let line = Line::parse(text).map_err(|why| Wrong::new(what(), why))?;
        if let Line::End {
            lines,
            sha256,
            signature,
        } = line
        {
            if lines != number - 1 || sha256 != hex(&digest.finalize()) {
                return Err(Wrong::new(
                    what(),
                    "the lines before are not those that it was written after",
                )
                .into());
            }
            if next_line(reader, &mut bytes, number + 1)? {
                return Err(Wrong::new(
                    format!("line {}", number + 1),
                    "it comes after the last line",
                )
                .into());
            }
            let text = export_text(&sha256);
            let end = signature.as_ref().map(|by| (by, text.as_str()));
            return Ok(verifier.finish(end)?);
        }
        verifier
            .step(&line)
            .map_err(|wrong| Wrong::new(format!("line {number}, {}", wrong.what), wrong.why))?;
        digest.update(&bytes);
        told(number);
    }
    unreachable!("a file ends before its line 2^64")
}

/// Reads a line into `bytes`, never more than a line may have; false at the end.
fn next_line(reader: &mut dyn BufRead, bytes: &mut Vec<u8>, number: u64) -> Result<bool, Error> {
    bytes.clear();
    let read = reader
        .take(LINE_BYTES_MAX as u64 + 1)
        .read_until(b'\n', bytes);
    let wrong = |why: String| Err(Wrong::new(format!("line {number}"), why).into());
    match read {
        Ok(0) => Ok(false),
        Ok(_) if bytes.ends_with(b"\n") => Ok(true),
        Ok(_) if bytes.len() > LINE_BYTES_MAX => {
            wrong(format!("it is longer than {LINE_BYTES_MAX} bytes"))
        }
        Ok(_) => wrong("it ends in its middle: the file was cut off".to_owned()),
        Err(error) if error.raw_os_error().is_some() => Err(error.into()),
        Err(error) => wrong(format!(
            "what was compressed breaks off or is damaged: {error}"
        )),
    }
}
