//! TLS to the server, by rustls.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use store::{Error, Kind};
use tokio_postgres_rustls::MakeRustlsConnect;
use world::{Disk, RealDisk};

use crate::{
    address::Trust,
    fault::{Cause, Fault},
};

/// Where systems keep the authorities that they trust: Debian and its kin, Red Hat's, Alpine.
const SYSTEM_ROOTS: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];
/// All authorities that a system trusts take a quarter of this.
const ROOTS_LEN_MAX: u64 = 1 << 20;

pub(crate) fn connector(trust: &Trust) -> Result<Option<MakeRustlsConnect>, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| refused("TLS cannot be set up", error.to_string()))?;
    let config = match trust {
        Trust::Open => return Ok(None),
        Trust::Anybody => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
            .with_no_client_auth(),
        Trust::Named(file) => builder
            .with_root_certificates(roots(file.as_deref())?)
            .with_no_client_auth(),
    };
    Ok(Some(MakeRustlsConnect::new(config)))
}

fn roots(file: Option<&Path>) -> Result<RootCertStore, Error> {
    let is_there = |path: &&Path| matches!(RealDisk.stat(path), Ok(Some(_)));
    let path = file
        .or_else(|| SYSTEM_ROOTS.iter().map(Path::new).find(is_there))
        .ok_or_else(|| {
            let said =
                "this system keeps no certificates of authorities, name a file by sslrootcert";
            refused("the server's certificate cannot be checked", said)
        })?;
    let attempted = format!("reading the authorities in {}", path.display());
    let bytes = RealDisk
        .read(path, ROOTS_LEN_MAX)
        .map_err(|error| refused(&attempted, error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        let certificate = certificate.map_err(|error| refused(&attempted, error.to_string()))?;
        // One that is not understood vouches for nobody; the others are no worse for it.
        let (_, _) = roots.add_parsable_certificates([certificate]);
    }
    match roots.is_empty() {
        false => Ok(roots),
        true => Err(refused(&attempted, "there is no certificate in it")),
    }
}

fn refused(attempted: &str, said: impl Into<String>) -> Error {
    Error::caused(Kind::Invalid, attempted, Fault::new(Cause::Denied, said))
}

/// Takes every certificate whose holder signs for it: keeps listeners out, not impostors.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
