//! HTTP/1.1 over the Unix socket of a running server: one request a connection, bodies of any length
//! read as they come.
//!
//! No HTTP library: they connect by host name. What is spoken here is both ends' own, and everything
//! that is read has a bound.

use std::{
    fmt::Write as _,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

/// Longest status line and headers together, in bytes. Ours have a few hundred.
const HEAD_LEN_MAX: u64 = 16 * 1024;
/// Longest line of a chunk's length.
const CHUNK_LINE_LEN_MAX: u64 = 1024;
/// How long a server may take to take or give bytes. A group commit takes milliseconds; a disk that
/// stalls longer is broken.
const TIMEOUT: Duration = Duration::from_secs(60);

/// An answer whose body is still to be read.
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Seconds, when it says to come back later.
    pub(crate) retry_after: Option<u64>,
    pub(crate) body: BufReader<Body>,
}

/// Sends one request and reads the head of the answer.
pub(crate) fn request(
    socket: &Path,
    method: &str,
    target: &str,
    body: Option<(&str, &[u8])>,
) -> io::Result<Answer> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: holdfast\r\nConnection: close\r\n");
    if let Some((content_type, bytes)) = body {
        write!(
            head,
            "Content-Type: {content_type}\r\nContent-Length: {}\r\n",
            bytes.len()
        )
        .expect("writing to a string cannot fail");
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    if let Some((_, bytes)) = body {
        // A server that refuses may answer and close before it has read all.
        if let Err(error) = stream.write_all(bytes)
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            return Err(error);
        }
    }
    read_head(BufReader::new(stream))
}

fn read_head(mut stream: BufReader<UnixStream>) -> io::Result<Answer> {
    let mut head = stream.by_ref().take(HEAD_LEN_MAX);
    let status_line = read_line(&mut head)?;
    let status = status_line
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.get(2..5))
        .and_then(|status| status.parse().ok())
        .ok_or_else(|| not_http(&status_line))?;
    let mut retry_after = None;
    let mut framing = Framing::UntilClosed;
    loop {
        let line = read_line(&mut head)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| not_http(&line))?;
        let value = value.trim();
        if name.eq_ignore_ascii_case("retry-after") {
            retry_after = value.parse().ok();
        } else if name.eq_ignore_ascii_case("content-length") {
            framing = Framing::Length(value.parse().map_err(|_| not_http(&line))?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            framing = Framing::Chunked {
                left: 0,
                is_first: true,
            };
        }
    }
    Ok(Answer {
        status,
        retry_after,
        body: BufReader::new(Body { stream, framing }),
    })
}

fn not_http(line: &str) -> io::Error {
    let message = format!("`{}` is not HTTP/1.1", line.escape_debug());
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// A line without its line break.
fn read_line(from: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    if !line.ends_with('\n') {
        let message = "the answer ends in its head, or its head is too long";
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
    }
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// The bytes of an answer's body.
pub(crate) struct Body {
    stream: BufReader<UnixStream>,
    framing: Framing,
}

enum Framing {
    Length(u64),
    Chunked { left: u64, is_first: bool },
    UntilClosed,
    Ended,
}

impl Body {
    /// Waits for bytes as long as it takes: an answer that follows the log has no end. The handle ends
    /// the wait, from another thread, when it is shut down.
    pub(crate) fn wait_for_ever(&self) -> io::Result<UnixStream> {
        let stream = self.stream.get_ref();
        stream.set_read_timeout(None)?;
        stream.try_clone()
    }

    fn next_chunk(&mut self, is_first: bool) -> io::Result<u64> {
        if !is_first && !read_line(&mut self.stream.by_ref().take(CHUNK_LINE_LEN_MAX))?.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a chunk longer than it said",
            ));
        }
        let line = read_line(&mut self.stream.by_ref().take(CHUNK_LINE_LEN_MAX))?;
        let digits = line.split(';').next().unwrap_or_default().trim();
        u64::from_str_radix(digits, 16).map_err(|_| not_http(&line))
    }
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let left = match self.framing {
            Framing::Ended | Framing::Length(0) => return Ok(0),
            Framing::UntilClosed => return self.stream.read(buffer),
            Framing::Length(left) => left,
            Framing::Chunked { left: 0, is_first } => match self.next_chunk(is_first)? {
                0 => {
                    self.framing = Framing::Ended;
                    return Ok(0);
                }
                left => {
                    self.framing = Framing::Chunked {
                        left,
                        is_first: false,
                    };
                    left
                }
            },
            Framing::Chunked { left, .. } => left,
        };
        let wanted = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let read = self.stream.read(&mut buffer[..wanted])?;
        if read == 0 {
            let message = "the server went away in the middle of its answer";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
        }
        let left = left - read as u64;
        self.framing = match self.framing {
            Framing::Length(_) => Framing::Length(left),
            _ => Framing::Chunked {
                left,
                is_first: false,
            },
        };
        Ok(read)
    }
}
