//! A whole history to take away, and to verify where there is nothing but the binary and a public key.
//!
//! Written to a file of the data directory first, since what would not verify is not handed out; the file
//! has no name any more by the time that its first byte is sent.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use scan::{
    audit::Filter,
    seal::{Asked, Book, Error, Export, Kind, Reason},
};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use world::{Disk, File, RealDisk, RealRandom, disk::Open};

use super::when;
use crate::server::{Place, Shared};

/// Below the data directory; what a crash leaves there goes with the next start.
const DIR: &str = "downloads";
/// Exports at a time: each reads the whole history.
pub(super) const DOWNLOADS_MAX: usize = 2;
/// Bytes of one chunk, and chunks that wait for a reader that is slower than the disk.
const CHUNK_LEN: usize = 256 << 10;
const WAITING_MAX: usize = 4;

/// Removes what a process that ended amid an export has left. For a start, before anything is served.
pub(crate) fn clear(data_dir: &Path) -> std::io::Result<()> {
    let dir = data_dir.join(DIR);
    match RealDisk.stat(&dir)? {
        Some(_) => RealDisk.remove_dir_all(&dir),
        None => Ok(()),
    }
}

/// Writes the export and opens it, unless what is served here ends: it has the store open until then, and
/// a node may have to open it again. Blocks.
pub(crate) fn written(shared: &Shared, kind: Kind) -> Result<Arc<dyn File>, Error> {
    let (store, keys) = (&shared.store, shared.dir.join(scan::credential::KEYS_DIR));
    let book = Book::new(store.clone())?;
    let key = book.key(&RealDisk, &keys, &RealRandom)?;
    // So that the export is covered to its end. A node that stands by states nothing: there it is covered
    // as far as the newest statement goes.
    if shared.is_writer {
        book.seal(&key, &RealRandom, Reason::Export, shared.now())?;
    }
    let dir = shared.dir.join(DIR);
    RealDisk.create_dir_all_synced(&dir)?;
    let file = dir.join(format!("{}.zst", uuid::Uuid::new_v4()));
    let stop = AtomicBool::new(shared.is_ending());
    let export = Export {
        disk: &RealDisk,
        to: &file,
        compressed: true,
        key: Some(&key),
        made: shared.now(),
        stop: &stop,
    };
    let asked = Asked {
        kind,
        only: None,
        filter: Filter::default(),
        with_evidence: true,
    };
    export.write(store, &asked, &mut |_| {
        stop.store(shared.is_ending(), Ordering::Relaxed);
    })?;
    nameless(&file).map_err(Error::Io)
}

fn nameless(path: &Path) -> std::io::Result<Arc<dyn File>> {
    let opened = RealDisk.open(path, Open::Read);
    RealDisk.remove_file(path)?;
    opened
}

/// `place` is kept until the browser has all of it.
pub(super) async fn answer(
    shared: Arc<Shared>,
    place: Place,
    kind: Kind,
) -> Result<Response, String> {
    let what = match kind {
        Kind::Ledger => "ledger",
        Kind::Audit => "audit",
    };
    let name = format!(
        "holdfast-{what}-{}.jsonl.zst",
        when::file_part(shared.now())
    );
    let made = tokio::task::spawn_blocking(move || written(&shared, kind)).await;
    let file = made
        .map_err(|_| "the export was lost; the log of the server tells more".to_owned())?
        .map_err(|error| error.to_string())?;
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    tokio::task::spawn_blocking(move || {
        let (mut at, mut chunk) = (0, vec![0; CHUNK_LEN]);
        loop {
            let read = file.read_at(&mut chunk, at);
            let bytes = match read {
                Ok(0) => break,
                Ok(read) => Ok(Bytes::copy_from_slice(&chunk[..read])),
                Err(error) => Err(error),
            };
            let is_last = bytes.is_err();
            at += bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
            // Nobody reads any more, or nothing more can be read: the answer ends short of its end.
            if sender.blocking_send(bytes).is_err() || is_last {
                break;
            }
        }
        drop(place);
    });
    let mut response = (
        StatusCode::OK,
        Body::from_stream(ReceiverStream::new(receiver).map(|chunk| chunk)),
    )
        .into_response();
    let headers = response.headers_mut();
    let called = format!("attachment; filename=\"{name}\"");
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/zstd"),
    );
    let called = HeaderValue::from_str(&called).expect("a name of ours");
    headers.insert(header::CONTENT_DISPOSITION, called);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_left_that_ended_amid_an_export_goes_with_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        clear(dir.path()).unwrap();
        let downloads = dir.path().join(DIR);
        RealDisk.create_dir_all_synced(&downloads).unwrap();
        let left = downloads.join("0190.zst.4711.tmp");
        drop(RealDisk.open(&left, Open::CreateNew).unwrap());
        clear(dir.path()).unwrap();
        assert!(RealDisk.stat(&downloads).unwrap().is_none());
    }
}
