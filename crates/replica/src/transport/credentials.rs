//! Who a node is to others: a certificate that the cluster's own authority signed.
//!
//! Names are made of the ids of node and cluster, never of addresses, and there is no end date: a
//! node whose clock is wrong must not fall out of its cluster. A node that was removed is refused by
//! its id.

use std::{fmt, sync::Arc};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    server::WebPkiClientVerifier,
};
use zeroize::Zeroizing;

use crate::machine::NodeId;

/// As a certificate names a node.
pub(super) fn name(node: NodeId, cluster: u128) -> String {
    format!("{:032x}.{cluster:032x}.holdfast", node.0)
}

/// Signs the certificates of a cluster's nodes.
pub struct Authority {
    cluster: u128,
    certificate: String,
    key: Zeroizing<String>,
}

/// What one node needs: the authority's certificate, its own, and its key, all PEM.
#[derive(Clone)]
pub struct Credentials {
    pub authority: String,
    pub certificate: String,
    pub key: Zeroizing<String>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

impl Authority {
    pub fn make(cluster: u128) -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate()?;
        let certificate = parameters(cluster).self_signed(&key)?.pem();
        Ok(Self {
            cluster,
            certificate,
            key: Zeroizing::new(key.serialize_pem()),
        })
    }

    /// From what [`Authority::certificate`] and [`Authority::key`] gave.
    pub fn of(cluster: u128, certificate: String, key: Zeroizing<String>) -> Self {
        Self {
            cluster,
            certificate,
            key,
        }
    }

    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    pub fn key(&self) -> &Zeroizing<String> {
        &self.key
    }

    pub fn issue(&self, node: NodeId) -> Result<Credentials, rcgen::Error> {
        let authority_key = KeyPair::from_pem(&self.key)?;
        let issuer = Issuer::new(parameters(self.cluster), authority_key);
        let mut subject = CertificateParams::new(vec![name(node, self.cluster)])?;
        subject
            .distinguished_name
            .push(DnType::CommonName, format!("node {:032x}", node.0));
        subject.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate()?;
        let certificate = subject.signed_by(&key, &issuer)?.pem();
        Ok(Credentials {
            authority: self.certificate.clone(),
            certificate,
            key: Zeroizing::new(key.serialize_pem()),
        })
    }
}

/// Nothing in it is random, so the authority can sign again from its key alone.
fn parameters(cluster: u128) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    parameters.distinguished_name.push(
        DnType::CommonName,
        format!("Holdfast cluster {cluster:032x}"),
    );
    parameters
}

impl Credentials {
    /// How this node calls, and how it is called.
    pub(super) fn configs(&self) -> Result<(Arc<ClientConfig>, Arc<ServerConfig>), rustls::Error> {
        let general = |error: rustls::pki_types::pem::Error| {
            rustls::Error::General(format!("a certificate or key is not PEM: {error}"))
        };
        let read = |pem: &str| -> Result<Vec<CertificateDer<'static>>, rustls::Error> {
            CertificateDer::pem_slice_iter(pem.as_bytes())
                .collect::<Result<_, _>>()
                .map_err(general)
        };
        let mut roots = RootCertStore::empty();
        for root in read(&self.authority)? {
            roots.add(root)?;
        }
        let roots = Arc::new(roots);
        let chain = read(&self.certificate)?;
        let key = || PrivateKeyDer::from_pem_slice(self.key.as_bytes()).map_err(general);
        let provider = Arc::new(ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
                .build()
                .map_err(|error| rustls::Error::General(error.to_string()))?;
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key()?)?;
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key()?)?;
        Ok((Arc::new(client), Arc::new(server)))
    }
}

pub(super) fn server_name(node: NodeId, cluster: u128) -> ServerName<'static> {
    ServerName::try_from(name(node, cluster)).expect("hexadecimal labels make a name")
}

/// Whether the certificate that was shown is that node's.
pub(super) fn belongs(certificate: &CertificateDer<'_>, node: NodeId, cluster: u128) -> bool {
    webpki::EndEntityCert::try_from(certificate).is_ok_and(|certificate| {
        certificate
            .verify_is_valid_for_subject_name(&server_name(node, cluster))
            .is_ok()
    })
}
