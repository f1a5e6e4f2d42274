//! Nodes that know each other by certificates.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::rig::{Cluster, ensure, wait_for};
use crate::common::Node;
use crate::common::http::get;

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A node's folder: a certificate by this authority, and whom the node believes.
    fn write(&self, folder: &Path, believed: &Self) {
        std::fs::create_dir_all(folder).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["some-host.example".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        for (name, text) in [
            ("certificate.pem", certificate.pem()),
            ("key.pem", key.serialize_pem()),
            ("authority.pem", believed.0.pem()),
        ] {
            std::fs::write(folder.join(name), text).unwrap();
        }
    }
}

#[test]
fn nodes_with_certificates_serve_and_one_with_another_authoritys_is_refused() {
    let (ours, other) = (Authority::new(), Authority::new());
    let mut cluster = Cluster::of(3, |index, home| {
        let folder = home.join(format!("tls-{index}"));
        match index {
            // It believes the cluster's nodes, but was not signed by their authority; and one that believes only its own.
            3 => other.write(&folder, &ours),
            4 => other.write(&folder, &other),
            _ => ours.write(&folder, &ours),
        }
        vec!["--cluster-tls".to_owned(), folder.to_str().unwrap().to_owned()]
    });
    let user = cluster.user("writer");
    let mut values = Vec::new();
    let mut serve = |cluster: &Cluster, nodes: &[usize]| {
        for index in nodes {
            values.push(format!("value {}", values.len()));
            user.at(cluster.http(*index)).add("key", values.last().unwrap());
            for index in nodes {
                assert_eq!(user.at(cluster.http(*index)).get("key"), values);
            }
        }
    };
    serve(&cluster, &[0, 1, 2]);
    for stranger in [3, 4] {
        let before = cluster.metric(0, "kv_peer_refused_total", "");
        let node = Node::start(cluster.command(stranger));
        wait_for("the stranger is refused", || {
            let now = cluster.metric(0, "kv_peer_refused_total", "");
            ensure(now > before, || format!("{now}"))
        });
        assert_eq!(get(cluster.http(stranger), "/readyz").status, 503);
        let up = cluster.up(0).unwrap();
        assert_eq!(up.len(), 3, "{up:?}");
        drop(node);
    }
    // They find each other again.
    cluster.kill(1);
    serve(&cluster, &[0, 2]);
    cluster.start(1);
    cluster.wait_whole();
    serve(&cluster, &[0, 1, 2]);
}
