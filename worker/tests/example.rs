//! `examples/sts_service.py` as a newcomer starts it, with the worker's own client.
//!
//! `E2E_PYTHON` names a Python with python-socketio; unset: the one that `cargo xtask setup` makes.
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use dub_engine::SessionFact;
use sts_client::{InitParams, OutgoingFragment, StsClient, StsClientConfig};

const PATIENCE: Duration = Duration::from_secs(20);

struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn interpreter() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let made = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../python/bin/python3");
    let found = set("E2E_PYTHON")
        .map(PathBuf::from)
        .or_else(|| made.is_file().then_some(made));
    if found.is_none() {
        assert!(
            set("CI").is_none(),
            "in CI nothing is skipped: python-socketio is missing"
        );
        eprintln!("SKIPPED: python-socketio is not installed, `cargo xtask setup` installs it");
    }
    found
}

#[tokio::test]
async fn three_fragments_come_back_and_the_stream_is_complete() {
    let Some(python) = interpreter() else { return };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/sts_service.py");
    let addr = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let service = Command::new(python)
        .arg(script)
        .arg(addr.port().to_string())
        .spawn();
    let _service = Service(service.unwrap());
    let until = Instant::now() + PATIENCE;
    while TcpStream::connect(addr).is_err() {
        assert!(Instant::now() < until, "the service does not listen");
        std::thread::sleep(Duration::from_millis(50));
    }

    let config = StsClientConfig::new(format!("http://{addr}"), "news", "worker-1");
    let (mut client, mut facts) = StsClient::new(config).unwrap();
    let mut next = async || {
        let fact = tokio::time::timeout(PATIENCE, facts.recv()).await;
        fact.expect("in time").expect("the link is there")
    };
    client.set_init(InitParams::default());
    client.connect(1);
    assert!(matches!(
        next().await.input,
        SessionFact::Connected { link: 1 }
    ));
    client.init(1);
    assert!(matches!(
        next().await.input,
        SessionFact::Ready {
            max_inflight: Some(3),
            ..
        }
    ));
    for sequence in 0..3 {
        let id = uuid::Uuid::new_v4().to_string();
        // Over the megabyte that the library takes by default.
        let m4a = vec![sequence as u8; 1_200_000];
        client.send(
            1,
            OutgoingFragment {
                id: id.clone(),
                sequence,
                pts_ns: 0,
                source_pts_ns: 0,
                duration_ms: 6000,
                sample_rate: 48_000,
                channels: 2,
                m4a: m4a.clone().into(),
            },
        );
        assert!(matches!(next().await.input, SessionFact::Acked { .. }));
        let answer = next().await;
        match (answer.input, answer.audio) {
            (SessionFact::Processed { id: answered, .. }, Some(Ok(audio))) => {
                assert_eq!((answered, audio.bytes.to_vec()), (id, m4a));
            }
            other => panic!("{other:?}"),
        }
    }
    client.end(1, "");
    let complete = next().await.input;
    assert!(
        matches!(complete, SessionFact::StreamComplete { .. }),
        "{complete:?}"
    );
    client.close().await;
}
