//! Mutual TLS between nodes, instead of the cluster key: both sides show a certificate that the cluster's own authority has signed.
//!
//! The authority must sign for nodes of this cluster only: whoever shows such a certificate is a member, whatever name stands in it, as nodes
//! are dialled by address and say themselves which they are. TLS 1.3 only, and no resumption: a certificate counts each time.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{WebPkiSupportedAlgorithms, ring, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::time_provider::TimeProvider;
use rustls::version::TLS13;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};

use crate::env::WallClock;

/// Certificates in one file.
const CERTIFICATES_MAX: usize = 64;

/// Why the given files cannot be used for TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("the {what} is no PEM: {source}")]
    Pem { what: &'static str, source: pem::Error },
    #[error("there is no certificate in the {what}")]
    Empty { what: &'static str },
    #[error("there are more than {CERTIFICATES_MAX} certificates in the {what}")]
    TooMany { what: &'static str },
    #[error("certificate, key and authority cannot be used together: {0}")]
    Unfit(String),
}

/// The texts of three PEM files.
#[derive(Clone, Copy)]
pub struct TlsPem<'a> {
    /// This node's certificate, then those between it and the authority, if any. Must be fit for servers and for clients.
    pub certificate: &'a str,
    /// The certificate's key.
    pub key: &'a str,
    /// The authorities whose certificates are accepted.
    pub authority: &'a str,
}

/// A certificate and what others are accepted. Clones share them.
#[derive(Clone)]
pub struct Tls {
    pub(super) client: Arc<ClientConfig>,
    pub(super) server: Arc<ServerConfig>,
}

impl Tls {
    /// Certificates are valid or not by `wall`.
    pub fn from_pem(pem: TlsPem<'_>, wall: Arc<dyn WallClock>) -> Result<Self, TlsError> {
        let chain = certificates("certificate file", pem.certificate)?;
        let mut roots = RootCertStore::empty();
        for authority in certificates("authority file", pem.authority)? {
            roots.add(authority).map_err(unfit)?;
        }
        let what = "key file";
        let key = PrivateKeyDer::from_pem_slice(pem.key.as_bytes()).map_err(|source| TlsError::Pem { what, source })?;
        let (roots, provider) = (Arc::new(roots), Arc::new(ring::default_provider()));
        let time = Arc::new(EnvTime(wall));

        let verifier = Arc::new(AuthorityOnly {
            roots: roots.clone(),
            algorithms: provider.signature_verification_algorithms,
        });
        let mut client = ClientConfig::builder_with_details(provider.clone(), time.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(unfit)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_auth_cert(chain.clone(), key.clone_key())
            .map_err(unfit)?;
        client.resumption = Resumption::disabled();
        client.enable_sni = false;

        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
            .build()
            .map_err(|error| TlsError::Unfit(error.to_string()))?;
        let mut server = ServerConfig::builder_with_details(provider, time)
            .with_protocol_versions(&[&TLS13])
            .map_err(unfit)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(unfit)?;
        server.send_tls13_tickets = 0;
        Ok(Self {
            client: Arc::new(client),
            server: Arc::new(server),
        })
    }
}

fn certificates(what: &'static str, pem: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .take(CERTIFICATES_MAX + 1)
        .collect();
    let read = read.map_err(|source| TlsError::Pem { what, source })?;
    match read.len() {
        0 => Err(TlsError::Empty { what }),
        1..=CERTIFICATES_MAX => Ok(read),
        _ => Err(TlsError::TooMany { what }),
    }
}

fn unfit(error: rustls::Error) -> TlsError {
    TlsError::Unfit(error.to_string())
}

/// Env's wall clock, for rustls.
struct EnvTime(Arc<dyn WallClock>);

impl TimeProvider for EnvTime {
    fn current_time(&self) -> Option<UnixTime> {
        let since_epoch = std::time::Duration::from_millis(self.0.now().0);
        Some(UnixTime::since_unix_epoch(since_epoch))
    }
}

impl std::fmt::Debug for EnvTime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EnvTime")
    }
}

/// Accepts every certificate for servers that the authority has signed, whatever its name.
#[derive(Debug)]
struct AuthorityOnly {
    roots: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for AuthorityOnly {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, self.algorithms.all)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        // Never asked: TLS 1.2 is not spoken.
        Err(rustls::Error::General("TLS 1.2".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
