//! `https` and `wss` URLs: a service with a certificate the system trusts, and one without.
//!
//! Which certificates the system trusts is a matter of the process's environment, so that case runs in
//! a process of its own: this binary again.

mod support;

use std::path::Path;
use std::process::Stdio;

use dub_engine::SessionFact;
use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509, X509NameBuilder};
use sts_client::{Ca, StsClientConfig};
use support::{PATIENCE, Worker, config, listen};
use tokio::io::{AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::time::timeout;

const URL: &str = "STS_TLS_TEST_URL";

/// A certificate for `localhost` that vouches for itself.
fn certificate() -> (X509, PKey<Private>) {
    let key = PKey::from_rsa(Rsa::generate(2048).expect("key")).expect("key");
    let mut name = X509NameBuilder::new().expect("name");
    name.append_entry_by_text("CN", "localhost").expect("name");
    let name = name.build();
    let mut serial = BigNum::new().expect("serial");
    serial
        .rand(127, MsbOption::MAYBE_ZERO, false)
        .expect("serial");
    let mut cert = X509::builder().expect("builder");
    cert.set_version(2).expect("version");
    cert.set_serial_number(&serial.to_asn1_integer().expect("serial"))
        .expect("serial");
    cert.set_subject_name(&name).expect("subject");
    cert.set_issuer_name(&name).expect("issuer");
    cert.set_not_before(&Asn1Time::days_from_now(0).expect("time"))
        .expect("time");
    cert.set_not_after(&Asn1Time::days_from_now(1).expect("time"))
        .expect("time");
    cert.set_pubkey(&key).expect("key");
    cert.append_extension(BasicConstraints::new().critical().ca().build().expect("ca"))
        .expect("ca");
    let names = SubjectAlternativeName::new()
        .dns("localhost")
        .build(&cert.x509v3_context(None, None));
    cert.append_extension(names.expect("names")).expect("names");
    cert.sign(&key, MessageDigest::sha256()).expect("sign");
    (cert.build(), key)
}

/// Takes TLS off in front of `plain`, for ever.
async fn terminate_tls(listener: TcpListener, plain: String, cert: X509, key: PKey<Private>) {
    let key = key.private_key_to_pem_pkcs8().expect("pem");
    let identity = native_tls::Identity::from_pkcs8(&cert.to_pem().expect("pem"), &key);
    let acceptor = native_tls::TlsAcceptor::new(identity.expect("identity")).expect("acceptor");
    let acceptor = tokio_native_tls::TlsAcceptor::from(acceptor);
    loop {
        let (stream, _) = listener.accept().await.expect("accept");
        // A client that does not trust us is gone by now.
        let Ok(mut inside) = acceptor.accept(stream).await else {
            continue;
        };
        let mut outside = TcpStream::connect(&plain).await.expect("plain");
        tokio::spawn(async move {
            let _ = copy_bidirectional(&mut inside, &mut outside).await;
        });
    }
}

/// What comes of a connection.
async fn verdict(url: &str, ca: Ca) -> String {
    let mut worker = Worker::connect(StsClientConfig {
        connect_timeout: PATIENCE,
        ca,
        ..config(url)
    });
    match worker.kind(1).await {
        SessionFact::Connected { .. } => {
            worker.client.init(1);
            let ready = worker.kind(1).await;
            assert!(matches!(ready, SessionFact::Ready { .. }), "{ready:?}");
            worker.client.close().await;
            "ready".to_owned()
        }
        SessionFact::ConnectFailed {
            reason,
            fatal: None,
            ..
        } => reason,
        other => panic!("{other:?}"),
    }
}

/// Runs `test`, this very one, in a process whose system trusts `trusted` and nothing else.
async fn in_a_world_of_its_own(test: &str, url: &str, trusted: &Path) -> String {
    let output = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", test, "--nocapture"])
        .env(URL, url)
        .env("SSL_CERT_DIR", "/nonexistent")
        .env("SSL_CERT_FILE", trusted)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(PATIENCE, output).await.expect("in time");
    let output = output.expect("started");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let verdict = text.lines().find_map(|line| line.split("verdict: ").nth(1));
    let verdict = verdict.map(str::to_owned);
    verdict.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)))
}

#[tokio::test]
async fn certificates_of_the_system_and_of_a_file_are_trusted_and_no_others() {
    const NAME: &str = "certificates_of_the_system_and_of_a_file_are_trusted_and_no_others";
    if let Ok(url) = std::env::var(URL) {
        println!("verdict: {}", verdict(&url, Ca::default()).await);
        return;
    }
    let (listener, url) = listen().await;
    let plain = url.replace("http://", "");
    let tls = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let port = tls.local_addr().expect("address").port();
    let (cert, key) = certificate();
    let pem = cert.to_pem().expect("pem");
    let dir = tempfile::tempdir().expect("dir");
    let trusted = dir.path().join("cert.pem");
    std::fs::write(&trusted, &pem).expect("write");
    let proxy = tokio::spawn(terminate_tls(tls, plain, cert, key));
    let service = tokio::spawn(async move {
        loop {
            let mut peer = support::Peer::joined(&listener).await;
            assert_eq!(peer.received().await.0, "stream:init");
            peer.event("stream:ready", &serde_json::json!({ "max_inflight": 3 }))
                .await;
            while peer.packet().await.is_some() {}
        }
    });
    for scheme in ["https", "wss"] {
        let url = format!("{scheme}://localhost:{port}");
        let system = in_a_world_of_its_own(NAME, &url, &trusted).await;
        assert_eq!(system, "ready", "{scheme}");
        let file = Ca::from_pem(&pem).expect("a certificate");
        assert_eq!(format!("{file:?}"), "1 certificates");
        assert_eq!(verdict(&url, file).await, "ready", "{scheme}");
        let refused = verdict(&url, Ca::default()).await;
        assert!(refused.contains("certificate"), "{scheme}: {refused}");
        // The name counts too.
        let other = url.replace("localhost", "127.0.0.1");
        let file = Ca::from_pem(&pem).expect("a certificate");
        let refused = verdict(&other, file).await;
        assert!(refused.contains("TLS"), "{scheme}: {refused}");
    }
    assert!(Ca::from_pem(b"no certificate").is_err());
    proxy.abort();
    service.abort();
}

#[tokio::test]
async fn a_redirect_to_tls_on_the_same_host_is_followed() {
    let (listener, plain) = listen().await;
    let (behind, service) = listen().await;
    let tls = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let port = tls.local_addr().expect("address").port();
    let (cert, key) = certificate();
    let ca = Ca::from_pem(&cert.to_pem().expect("pem")).expect("a certificate");
    let proxy = tokio::spawn(terminate_tls(
        tls,
        service.replace("http://", ""),
        cert,
        key,
    ));
    let mut worker = Worker::connect(StsClientConfig {
        connect_timeout: PATIENCE,
        ca,
        ..config(&plain.replace("127.0.0.1", "localhost"))
    });
    let (mut stream, _) = listener.accept().await.expect("accept");
    let answer = format!(
        "HTTP/1.1 308 Permanent Redirect\r\nLocation: https://localhost:{port}/socket.io/\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).await.expect("answer");
    let peer = timeout(PATIENCE, support::Peer::joined(&behind)).await;
    let _peer = peer.expect("the worker comes in time");
    worker.connected(1).await;
    proxy.abort();
}
