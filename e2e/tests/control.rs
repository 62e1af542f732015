//! The control client against the real `echo-sts`, in this process.
#![expect(
    clippy::unwrap_used,
    reason = "a test may fail where its preparations fail"
)]

use std::time::{Duration, Instant};

use e2e::{control::Control, probe::journal::Journal};
use sts_protocol::{
    AudioConfig, AudioMode, BackpressureAction, BackpressureConfig, Direction, ErrorCode,
    ErrorRule, ErrorSimulation, LatencyConfig, SimulateBackpressure, SimulateDisconnect,
    SimulateSessionLoss, event,
};

/// `echo-sts` on a runtime of its own, with its journal in a file as in an environment.
struct Server {
    runtime: Option<tokio::runtime::Runtime>,
    url: String,
    journal: tempfile::NamedTempFile,
    _running: echo_sts::Running,
}

impl Server {
    fn start() -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let journal = tempfile::NamedTempFile::new().unwrap();
        let config = echo_sts::Config {
            journal: Some(journal.path().to_owned()),
            ..echo_sts::Config::default()
        };
        let running = runtime.block_on(echo_sts::Server::start(config)).unwrap();
        Self {
            url: running.url(),
            runtime: Some(runtime),
            journal,
            _running: running,
        }
    }

    fn events_in(&self) -> Vec<String> {
        let journal = Journal::read(self.journal.path()).unwrap();
        let received = journal
            .entries()
            .iter()
            .filter(|entry| entry.direction == Direction::In);
        received.map(|entry| entry.event.clone()).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

#[test]
fn every_control_event_is_accepted_and_in_the_journal() {
    let server = Server::start();
    let control = Control::connect(&server.url).unwrap();
    let stream_id = Some("test".to_owned());
    control
        .send(ErrorSimulation {
            stream_id: stream_id.clone(),
            enabled: true,
            rules: vec![ErrorRule::sequence(2, ErrorCode::Timeout).times(1)],
        })
        .unwrap();
    control
        .send(LatencyConfig {
            base_ms: 100,
            ..LatencyConfig::default()
        })
        .unwrap();
    control
        .send(BackpressureConfig {
            enabled: true,
            ..BackpressureConfig::default()
        })
        .unwrap();
    control
        .send(SimulateBackpressure {
            stream_id: stream_id.clone(),
            action: BackpressureAction::Pause,
            severity: None,
            recommended_delay_ms: None,
        })
        .unwrap();
    control.send(AudioConfig::new(AudioMode::Hold)).unwrap();
    control
        .send(SimulateSessionLoss {
            stream_id: stream_id.clone(),
            delay_ms: 0,
        })
        .unwrap();
    control
        .send(SimulateDisconnect {
            stream_id,
            delay_ms: 0,
            refuse_for_ms: None,
        })
        .unwrap();
    let mut expected = event::CONTROL.map(str::to_owned).to_vec();
    let mut received = server.events_in();
    expected.sort();
    received.sort();
    assert_eq!(received, expected);
}

#[test]
fn a_rejected_event_is_an_error_with_the_servers_reason() {
    let server = Server::start();
    let control = Control::connect(&server.url).unwrap();
    let error = control
        .send(AudioConfig::new(AudioMode::Resize))
        .unwrap_err();
    let text = format!("{error:#}");
    assert!(text.starts_with("config:audio was rejected: "), "{text}");
    assert!(text.contains("ratio"), "{text}");
    control
        .send(AudioConfig::new(AudioMode::Echo))
        .expect("the connection must go on");
}

#[test]
fn a_server_that_is_not_there_or_says_nothing_is_an_error_in_time() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addresses = [
        "127.0.0.1:1".to_owned(),
        silent.local_addr().unwrap().to_string(),
    ];
    for address in addresses {
        let started = Instant::now();
        let error = Control::connect(&format!("http://{address}")).unwrap_err();
        assert!(format!("{error:#}").contains(&address), "{error:#}");
        assert!(started.elapsed() < Duration::from_secs(10));
    }
}
