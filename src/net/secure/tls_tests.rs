//! Two sides with certificates over an in-memory pipe.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use tokio::io::{AsyncReadExt, duplex};
use tokio_rustls::TlsConnector;

use super::*;
use crate::env::WallClock;
use crate::net::frame_reader::FrameError;
use crate::net::key::ClusterKey;
use crate::net::tls::{TlsError, TlsPem};
use crate::os::entropy::OsEntropy;
use crate::types::WallMs;

/// 2030-01-01; the certificates are valid from 1975 to 4096.
const NOW: WallMs = WallMs(1_893_456_000_000);

struct At(WallMs);

impl WallClock for At {
    fn now(&self) -> WallMs {
        self.0
    }
}

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Certificate and key of a node.
    fn sign(&self, purposes: &[ExtendedKeyUsagePurpose]) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["some-host.example".to_owned()]).unwrap();
        params.extended_key_usages = purposes.to_vec();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn tls_at(&self, signed_by: &Self, now: WallMs, purposes: &[ExtendedKeyUsagePurpose]) -> Tls {
        let (certificate, key) = signed_by.sign(purposes);
        let pem = TlsPem {
            certificate: &certificate,
            key: &key,
            authority: &self.0.pem(),
        };
        Tls::from_pem(pem, Arc::new(At(now))).unwrap()
    }

    fn tls(&self) -> Tls {
        self.tls_at(self, NOW, &[])
    }
}

fn local(node: u64, tls: Option<Tls>, versions: Versions) -> Local {
    Local {
        keys: KeyRing::of(&ClusterKey::from_bytes([1; 32])),
        tls,
        versions,
        hello: Hello {
            node: NodeId(node),
            generation: node * 10,
            cluster: 77,
        },
        entropy: Arc::new(OsEntropy),
    }
}

const ALL: Versions = Versions { lowest: 1, highest: 3 };

type Outcome = Result<Channel, HandshakeError>;

async fn handshake(one: &Local, two: &Local) -> (Outcome, Outcome) {
    let (a, b) = duplex(1 << 16);
    tokio::join!(connect(Box::new(a), one), accept(Box::new(b), two))
}

#[tokio::test]
async fn two_certificates_of_one_authority_make_a_channel_whatever_their_names() {
    let authority = Authority::new();
    let both = [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let one = local(1, Some(authority.tls()), ALL);
    let two = local(2, Some(authority.tls_at(&authority, NOW, &both)), Versions::only(2));
    let (a, b) = handshake(&one, &two).await;
    let (mut a, mut b) = (a.unwrap(), b.unwrap());
    assert_eq!((a.peer, b.peer, a.version, b.version), (two.hello, one.hello, 2, 2));
    let long: Vec<u8> = (0..1_000_000).map(|at| at as u8).collect();
    let send = async {
        a.writer.queue(&[b"short"]).unwrap();
        a.writer.queue(&[]).unwrap();
        a.writer.send(&[&long, b"end"]).await.unwrap();
        a.writer.close().await.unwrap();
    };
    let receive = async {
        assert_eq!(b.reader.recv().await.unwrap().unwrap(), "short");
        assert_eq!(b.reader.recv().await.unwrap().unwrap(), "");
        let frame = b.reader.recv().await.unwrap().unwrap();
        assert!(frame[..long.len()] == long[..] && frame.ends_with(b"end"));
        assert!(b.reader.recv().await.unwrap().is_none());
    };
    tokio::join!(send, receive);
    b.writer.send(&[b"back"]).await.unwrap();
    assert_eq!(a.reader.recv().await.unwrap().unwrap(), "back");
    drop(b);
    assert!(matches!(
        a.reader.recv().await,
        Err(FrameError::CutOff | FrameError::Io(_))
    ));
}

#[tokio::test]
async fn another_authority_an_expired_certificate_and_a_wrong_purpose_are_refused() {
    let (ours, other) = (Authority::new(), Authority::new());
    let honest = || local(1, Some(ours.tls()), ALL);
    // What the stranger trusts is its own choice: it trusts us.
    let stranger = local(2, Some(ours.tls_at(&other, NOW, &[])), ALL);
    let late = local(2, Some(ours.tls_at(&ours, WallMs(u64::MAX / 4), &[])), ALL);
    let for_servers = local(
        2,
        Some(ours.tls_at(&ours, NOW, &[ExtendedKeyUsagePurpose::ServerAuth])),
        ALL,
    );
    for (connects, accepts) in [
        (&stranger, &honest()),
        (&honest(), &stranger),
        (&late, &honest()),
        (&honest(), &late),
        (&for_servers, &honest()),
    ] {
        let (a, b) = handshake(connects, accepts).await;
        assert!(a.is_err() && b.is_err(), "{a:?} {b:?}");
        let labels = [a.unwrap_err().label(), b.unwrap_err().label()];
        assert!(labels.contains(&"tls"), "{labels:?}");
    }
}

#[tokio::test]
async fn no_certificate_is_refused() {
    let authority = Authority::new();
    let mut roots = rustls::RootCertStore::empty();
    let root = rustls::pki_types::CertificateDer::from_pem_slice(authority.0.pem().as_bytes()).unwrap();
    roots.add(root).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let anonymous = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let two = local(2, Some(authority.tls()), ALL);
    let (a, b) = duplex(1 << 16);
    let name = ServerName::try_from("some-host.example").unwrap();
    let stranger = async {
        // To itself, the handshake may look complete.
        let mut stream = TlsConnector::from(Arc::new(anonymous)).connect(name, a).await.unwrap();
        stream.read_u8().await.unwrap_err()
    };
    let (_, outcome) = tokio::join!(stranger, accept(Box::new(b), &two));
    assert_eq!(outcome.unwrap_err().label(), "tls");
}

#[tokio::test]
async fn a_side_with_certificates_and_one_without_do_not_meet() {
    let authority = Authority::new();
    let (with, without) = (local(1, Some(authority.tls()), ALL), local(2, None, ALL));
    let (a, b) = handshake(&with, &without).await;
    assert!(a.is_err());
    assert_eq!(b.unwrap_err().label(), "other_protocol");
    let (a, b) = handshake(&without, &with).await;
    assert_eq!(
        (a.unwrap_err().label(), b.unwrap_err().label()),
        ("other_protocol", "tls")
    );
}

#[tokio::test]
async fn versions_are_agreed_on_inside() {
    let authority = Authority::new();
    let new = local(1, Some(authority.tls()), Versions { lowest: 2, highest: 3 });
    let old = local(2, Some(authority.tls()), Versions::only(1));
    let (a, b) = handshake(&new, &old).await;
    assert_eq!((a.unwrap_err().label(), b.unwrap_err().label()), ("version", "version"));
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let authority = Authority::new();
    let ((certificate, key), (_, other_key)) = (authority.sign(&[]), authority.sign(&[]));
    let ca = authority.0.pem();
    let load = |certificate: &str, key: &str, authority: &str| {
        let pem = TlsPem {
            certificate,
            key,
            authority,
        };
        Tls::from_pem(pem, Arc::new(At(NOW))).err()
    };
    assert!(load(&certificate, &key, &ca).is_none());
    let what = "certificate file";
    assert!(matches!(load("", &key, &ca), Some(TlsError::Empty { what: named }) if named == what));
    assert!(matches!(load(&certificate, &key, ""), Some(TlsError::Empty { .. })));
    assert!(matches!(load(&certificate, &ca, &ca), Some(TlsError::Pem { .. })));
    assert!(matches!(load(&certificate, &other_key, &ca), Some(TlsError::Unfit(_))));
    let many = ca.repeat(65);
    assert!(matches!(
        load(&certificate, &key, &many),
        Some(TlsError::TooMany { .. })
    ));
}
