//! The relay over real sockets: a fake publisher and fake readers that look at every byte.
#![expect(
    clippy::unwrap_used,
    reason = "a test may fail where its preparations fail"
)]

use std::{fmt::Write as _, net::SocketAddr, time::Duration};

use e2e::rtsp_relay::Relay;
use rtsp_types::{Message, ParseError, Response, StatusCode};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(5);
const PATH: &str = "live/test/in";
const SDP: &str = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\n\
    a=rtpmap:96 H264/90000\r\na=control:streamid=0\r\nm=audio 0 RTP/AVP 97\r\n\
    a=rtpmap:97 mpeg4-generic/48000/2\r\na=control:streamid=1\r\n";

struct Servers {
    rtsp: SocketAddr,
    api: SocketAddr,
}

async fn start() -> Servers {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let relay = Relay::bind(any, any).await.unwrap();
    let servers = Servers {
        rtsp: relay.rtsp_addr().unwrap(),
        api: relay.api_addr().unwrap(),
    };
    tokio::spawn(relay.serve());
    servers
}

/// A peer that speaks RTSP one message at a time.
struct Peer {
    socket: TcpStream,
    buffer: Vec<u8>,
    cseq: u32,
    base: String,
    session: Option<String>,
}

impl Peer {
    async fn connect(servers: &Servers) -> Self {
        let socket = TcpStream::connect(servers.rtsp).await.unwrap();
        let base = format!("rtsp://{}/{PATH}", servers.rtsp);
        Self {
            socket,
            buffer: Vec::new(),
            cseq: 0,
            base,
            session: None,
        }
    }

    async fn publisher(servers: &Servers) -> Self {
        let mut peer = Self::connect(servers).await;
        let announced = peer
            .ask("ANNOUNCE", "", &["Content-Type: application/sdp"], SDP)
            .await;
        assert_eq!(announced.status(), StatusCode::Ok);
        for track in 0..2 {
            let transport = format!(
                "Transport: RTP/AVP/TCP;unicast;interleaved={}-{};mode=record",
                track * 2,
                track * 2 + 1
            );
            let set_up = peer
                .ask("SETUP", &format!("/streamid={track}"), &[&transport], "")
                .await;
            assert_eq!(set_up.status(), StatusCode::Ok);
        }
        assert_eq!(
            peer.ask("RECORD", "", &[], "").await.status(),
            StatusCode::Ok
        );
        peer
    }

    /// A reader that has set up both tracks, audio on channels 0-1 and video on 4-5.
    async fn reader(servers: &Servers) -> Self {
        let mut peer = Self::connect(servers).await;
        let described = peer
            .ask("DESCRIBE", "", &["Accept: application/sdp"], "")
            .await;
        assert_eq!(described.status(), StatusCode::Ok);
        for (track, channels) in [(0, "4-5"), (1, "0-1")] {
            let transport = format!("Transport: RTP/AVP/TCP;unicast;interleaved={channels}");
            let set_up = peer
                .ask("SETUP", &format!("/trackID={track}"), &[&transport], "")
                .await;
            let answer = set_up
                .header(&rtsp_types::headers::TRANSPORT)
                .unwrap()
                .as_str();
            assert!(
                answer.contains(&format!("interleaved={channels}")),
                "{answer}"
            );
        }
        peer
    }

    async fn play(&mut self) -> Response<Vec<u8>> {
        let played = self.ask("PLAY", "", &["Range: npt=0-"], "").await;
        assert_eq!(played.status(), StatusCode::Ok);
        played
    }

    async fn ask(
        &mut self,
        method: &str,
        control: &str,
        headers: &[&str],
        body: &str,
    ) -> Response<Vec<u8>> {
        self.cseq += 1;
        let mut request = format!(
            "{method} {}{control} RTSP/1.0\r\nCSeq: {}\r\n",
            self.base, self.cseq
        );
        for header in headers {
            request += header;
            request += "\r\n";
        }
        if let Some(session) = &self.session {
            let _ = write!(request, "Session: {session}\r\n");
        }
        if !body.is_empty() {
            let _ = write!(request, "Content-Length: {}\r\n", body.len());
        }
        request += "\r\n";
        request += body;
        self.socket.write_all(request.as_bytes()).await.unwrap();
        let Some(Message::Response(response)) = self.next().await else {
            panic!("no answer to {method}")
        };
        let cseq = response
            .header(&rtsp_types::headers::CSEQ)
            .unwrap()
            .as_str();
        assert_eq!(cseq, self.cseq.to_string());
        if let Some(session) = response.header(&rtsp_types::headers::SESSION) {
            self.session = session.as_str().split(';').next().map(str::to_owned);
        }
        response
    }

    async fn send(&mut self, channel: u8, payload: &[u8]) {
        let mut frame = vec![b'$', channel];
        frame.extend((payload.len() as u16).to_be_bytes());
        frame.extend(payload);
        self.socket.write_all(&frame).await.unwrap();
    }

    /// The next frame as channel and payload; `None` at the end of the connection.
    async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        match self.next().await? {
            Message::Data(data) => Some((data.channel_id(), data.into_body())),
            other => panic!("not a frame: {other:?}"),
        }
    }

    async fn next(&mut self) -> Option<Message<Vec<u8>>> {
        loop {
            match Message::parse(&self.buffer) {
                Ok((message, used)) => {
                    self.buffer.drain(..used);
                    return Some(message);
                }
                Err(ParseError::Incomplete(_)) => {}
                Err(ParseError::Error) => panic!("not RTSP: {:?}", self.buffer),
            }
            let read = timeout(PATIENCE, self.socket.read_buf(&mut self.buffer)).await;
            if read.expect("nothing came").unwrap() == 0 {
                assert!(
                    self.buffer.is_empty(),
                    "the connection ended within a message"
                );
                return None;
            }
        }
    }
}

fn rtp(seq: u16, time: u32, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x80, 96];
    packet.extend(seq.to_be_bytes());
    packet.extend(time.to_be_bytes());
    packet.extend([0, 0, 0, 7]);
    packet.extend(payload);
    packet
}

fn sender_report(ntp_seconds: u32, time: u32) -> Vec<u8> {
    let mut packet = vec![0x80, 200, 0, 6, 0, 0, 0, 7];
    packet.extend(ntp_seconds.to_be_bytes());
    packet.extend([0; 4]);
    packet.extend(time.to_be_bytes());
    packet.extend([0; 8]);
    packet
}

async fn api(servers: &Servers, path: &str) -> (u16, serde_json::Value) {
    let url = format!("http://{}{path}", servers.api);
    let ask = move || {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .build()
            .new_agent();
        let mut response = agent.get(&url).call().unwrap();
        let body = response.body_mut().read_to_string().unwrap();
        (
            response.status().as_u16(),
            serde_json::from_str(&body).unwrap(),
        )
    };
    tokio::task::spawn_blocking(ask).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_packet_and_report_arrives_verbatim_and_in_order() {
    let servers = start().await;
    let mut publisher = Peer::publisher(&servers).await;
    let mut reader = Peer::reader(&servers).await;
    let played = reader.play().await;
    assert!(
        played.header(&rtsp_types::headers::RTP_INFO).is_none(),
        "nothing was sent yet"
    );

    let mut sent = Vec::new();
    for n in 0..500u16 {
        // Sizes around every boundary that a buffer could have, up to the largest frame.
        let payload = vec![n as u8; usize::from(n) * 131];
        for (channel, packet) in [
            (0, rtp(n, u32::from(n) * 3000, &payload)),
            (2, rtp(n, u32::from(n) * 1024, b"a")),
            (1, sender_report(u32::from(n), 1)),
        ] {
            sent.push((channel, packet));
        }
    }
    let send = async {
        for (channel, packet) in &sent {
            publisher.send(*channel, packet).await;
        }
        publisher
    };
    let receive = async {
        let mut received = Vec::new();
        while received.len() < sent.len() {
            received.push(reader.frame().await.expect("the connection ended"));
        }
        (reader, received)
    };
    let (publisher, (mut reader, received)) = tokio::join!(send, receive);
    let readers_channel = |channel| match channel {
        0 => 4,
        1 => 5,
        2 => 0,
        other => panic!("unexpected channel {other}"),
    };
    for ((channel, packet), got) in sent.iter().zip(&received) {
        assert!(
            (readers_channel(*channel), packet) == (got.0, &got.1),
            "not verbatim"
        );
    }
    drop(publisher);
    assert!(
        reader.frame().await.is_none(),
        "the reader is not told of the end"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_reader_is_told_one_instant_for_all_tracks() {
    let servers = start().await;
    let mut publisher = Peer::publisher(&servers).await;
    let mut first = Peer::reader(&servers).await;
    first.play().await;
    for (channel, packet) in [
        (1, sender_report(100, 90_000)),
        (3, sender_report(100, 48_000)),
        (0, rtp(10, 180_000, b"v")),
        (2, rtp(20, 95_000, b"a")),
    ] {
        publisher.send(channel, &packet).await;
        first.frame().await.unwrap();
    }
    let mut late = Peer::reader(&servers).await;
    let played = late.play().await;
    let info = played
        .header(&rtsp_types::headers::RTP_INFO)
        .unwrap()
        .as_str()
        .to_owned();
    let base = format!("rtsp://{}/{PATH}", servers.rtsp);
    assert_eq!(
        info,
        format!(
            "url={base}/trackID=0;seq=11;rtptime=180000,url={base}/trackID=1;seq=21;rtptime=96000"
        )
    );
    publisher.send(0, &rtp(11, 183_000, b"v")).await;
    let (_, packet) = late.frame().await.unwrap();
    assert_eq!(
        &packet[2..4],
        &11u16.to_be_bytes(),
        "the first packet is not the announced one"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_or_not_allowed_is_refused_clearly() {
    let servers = start().await;
    let mut reader = Peer::connect(&servers).await;
    assert_eq!(
        reader.ask("OPTIONS", "", &[], "").await.status(),
        StatusCode::Ok
    );
    assert_eq!(
        reader.ask("DESCRIBE", "", &[], "").await.status(),
        StatusCode::NotFound
    );
    assert_eq!(
        reader.ask("PLAY", "", &[], "").await.status(),
        StatusCode::MethodNotValidInThisState
    );

    let mut announced = Peer::connect(&servers).await;
    assert_eq!(
        announced.ask("ANNOUNCE", "", &[], SDP).await.status(),
        StatusCode::Ok
    );
    assert_eq!(
        reader.ask("DESCRIBE", "", &[], "").await.status(),
        StatusCode::NotFound,
        "announced, not recording"
    );
    assert_eq!(
        announced.ask("RECORD", "", &[], "").await.status(),
        StatusCode::MethodNotValidInThisState,
        "no track was set up"
    );
    drop(announced);

    // The path is free again as soon as the relay has seen the end; ask until it has.
    let publisher = timeout(PATIENCE, async {
        loop {
            let mut peer = Peer::connect(&servers).await;
            if peer.ask("ANNOUNCE", "", &[], SDP).await.status() == StatusCode::Ok {
                break peer;
            }
        }
    })
    .await
    .expect("the path stayed taken");
    drop(publisher);

    let mut publisher = timeout(PATIENCE, async {
        loop {
            let mut peer = Peer::connect(&servers).await;
            let udp = ["Transport: RTP/AVP;unicast;client_port=5000-5001;mode=record"];
            if peer.ask("ANNOUNCE", "", &[], SDP).await.status() == StatusCode::Ok {
                let refused = peer.ask("SETUP", "/streamid=0", &udp, "").await;
                assert_eq!(refused.status(), StatusCode::UnsupportedTransport);
                break peer;
            }
        }
    })
    .await
    .expect("the path stayed taken");
    let mut second = Peer::connect(&servers).await;
    assert_eq!(
        second.ask("ANNOUNCE", "", &[], SDP).await.status(),
        StatusCode::Forbidden
    );
    assert_eq!(
        publisher.ask("TEARDOWN", "", &[], "").await.status(),
        StatusCode::Ok
    );
    assert!(
        publisher.next().await.is_none(),
        "not closed after TEARDOWN"
    );
    assert_eq!(
        second.ask("ANNOUNCE", "", &[], SDP).await.status(),
        StatusCode::Ok
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_and_floods_close_the_connection_and_hurt_nobody() {
    let servers = start().await;
    let mut publisher = Peer::publisher(&servers).await;
    let mut reader = Peer::reader(&servers).await;
    reader.play().await;
    for garbage in [b"\x16\x03\x01\x02\0\x01\0\x01".to_vec(), vec![b'A'; 80_000]] {
        let mut peer = Peer::connect(&servers).await;
        // The relay may close before everything is written.
        let _ = peer.socket.write_all(&garbage).await;
        let mut rest = Vec::new();
        let read = timeout(PATIENCE, peer.socket.read_to_end(&mut rest)).await;
        assert!(
            read.is_ok() && rest.is_empty(),
            "not closed, or answered: {rest:?}"
        );
    }
    publisher.send(0, &rtp(1, 1, b"still here")).await;
    assert_eq!(reader.frame().await.unwrap().0, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_tells_who_publishes_and_who_reads() {
    let servers = start().await;
    let one = format!("/v3/paths/get/{PATH}");
    let (status, body) = api(&servers, &one).await;
    assert_eq!(
        (status, body["error"].as_str()),
        (404, Some("path not found"))
    );

    let mut publisher = Peer::publisher(&servers).await;
    let mut reader = Peer::reader(&servers).await;
    let (status, body) = api(&servers, &one).await;
    assert_eq!((status, &body["ready"]), (200, &serde_json::json!(true)));
    assert_eq!(
        body["readers"],
        serde_json::json!([]),
        "set up is not reading yet"
    );

    reader.play().await;
    publisher.send(0, &rtp(1, 1, b"12345678")).await;
    reader.frame().await.unwrap();
    let (_, body) = api(&servers, "/v3/paths/list").await;
    let item = &body["items"][0];
    assert_eq!(item["readers"].as_array().unwrap().len(), 1);
    let (_, sessions) = api(&servers, "/v3/rtspsessions/list").await;
    let session = &sessions["items"][0];
    assert_eq!(
        (&session["state"], &session["path"]),
        (&"read".into(), &PATH.into())
    );
    assert_eq!(item["bytesReceived"], 20);
    assert_eq!(item["tracks"], serde_json::json!(["H264", "mpeg4-generic"]));

    assert_eq!(
        reader.ask("PAUSE", "", &[], "").await.status(),
        StatusCode::Ok
    );
    let (_, body) = api(&servers, &one).await;
    assert_eq!(body["readers"], serde_json::json!([]));
}
