//! The certificate: named by the configuration, or made at the first start.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use world::{Disk, RealDisk};

use crate::{config::server::Server, exit::Refusal, named_file};

const CERT: &str = "server.crt";
const KEY: &str = "server.key";
/// Longest file of certificates or keys that is read.
const PEM_LEN_MAX: u64 = 1 << 20;

/// Where certificate and key are, and what they were when they were last read.
#[derive(Debug)]
pub(super) struct Files {
    cert: PathBuf,
    key: PathBuf,
    seen: Vec<u8>,
}

impl Files {
    /// Those that the configuration names; else those in `keys`, made where they are missing.
    pub(super) fn of(server: &Server, keys: &Path) -> Result<Self, Refusal> {
        let named = server
            .tls_cert
            .value
            .clone()
            .zip(server.tls_key.value.clone());
        let (cert, key) = match named {
            Some(named) => named,
            None => {
                let own = (keys.join(CERT), keys.join(KEY));
                make_once(&own.0, &own.1)?;
                own
            }
        };
        Ok(Self {
            cert,
            key,
            seen: Vec::new(),
        })
    }

    /// What they hold, unless it is what it was.
    pub(super) fn read(&mut self) -> Result<Option<Arc<ServerConfig>>, Refusal> {
        let read = |path: &Path| {
            named_file::read(path, PEM_LEN_MAX).map_err(|error| {
                Refusal::new(format!("certificate or key {}", path.display()))
                    .source(error)
                    .next("name readable PEM files with server.tls_cert and server.tls_key")
            })
        };
        let (cert, key) = (read(&self.cert)?, zeroize::Zeroizing::new(read(&self.key)?));
        let digest = digest(&cert, &key);
        if digest == self.seen {
            return Ok(None);
        }
        let config = self.config(&cert, &key)?;
        self.seen = digest;
        Ok(Some(Arc::new(config)))
    }

    fn config(&self, cert: &[u8], key: &[u8]) -> Result<ServerConfig, Refusal> {
        let refuse = |what: &Path, error: String| {
            Refusal::new(format!("{} cannot be used: {error}", what.display()))
                .next("give a certificate chain and the key that belongs to it, both PEM")
        };
        let chain: Vec<_> = CertificateDer::pem_slice_iter(cert)
            .collect::<Result<_, _>>()
            .map_err(|error| refuse(&self.cert, error.to_string()))?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| refuse(&self.key, error.to_string()))?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| refuse(&self.cert, error.to_string()))?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| refuse(&self.cert, error.to_string()))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

fn digest(cert: &[u8], key: &[u8]) -> Vec<u8> {
    use sha2::{Digest, Sha256};
    let mut digest = Sha256::new();
    digest.update((cert.len() as u64).to_le_bytes());
    digest.update(cert);
    digest.update(key);
    digest.finalize().to_vec()
}

/// The key first: a certificate whose key is lost would be found and could not be used.
fn make_once(cert: &Path, key: &Path) -> Result<(), Refusal> {
    let refuse = |error: String| {
        Refusal::new(format!("a certificate cannot be made: {error}"))
            .next("run `holdfast doctor` to check disk and permissions")
    };
    let is_there = |path| RealDisk.stat(path).map(|found| found.is_some());
    let found = is_there(cert).and_then(|cert| Ok(cert && is_there(key)?));
    if found.map_err(|error| refuse(error.to_string()))? {
        return Ok(());
    }
    let host = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    let mut names = vec![
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        "::1".to_owned(),
    ];
    if host.is_ascii() && !host.is_empty() {
        names.insert(0, host);
    }
    let made = generate_simple_self_signed(names).map_err(|error| refuse(error.to_string()))?;
    let CertifiedKey {
        cert: made,
        signing_key,
    } = made;
    let pem = zeroize::Zeroizing::new(signing_key.serialize_pem());
    RealDisk
        .replace(key, pem.as_bytes())
        .and_then(|()| RealDisk.replace(cert, made.pem().as_bytes()))
        .map_err(|error| refuse(error.to_string()))
}
