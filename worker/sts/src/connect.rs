//! From a URL to an open WebSocket: every address, TLS, redirects, and words for what went wrong.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf as _, BytesMut};
use dub_engine::Fatal;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use sts_protocol::heard::{clip, one_line};
use sts_protocol::{ErrorCode, limits};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::{Instant, timeout, timeout_at};
use tungstenite::handshake::client::generate_key;
use tungstenite::handshake::derive_accept_key;
use url::{Position, Url};

use super::config::StsClientConfig;
use super::target::{follow, requests};

/// How long an address may be silent before the next is tried beside it (RFC 8305).
const STAGGER: Duration = Duration::from_millis(250);
/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 8;
const MAX_REDIRECTS: usize = 3;
/// The kernel's send buffer.
const SEND_BUFFER: u32 = 256 * 1024;
/// Largest head of an HTTP answer.
const MAX_HEAD: usize = 16 * 1024;
/// Characters of a refusal's text that are passed on.
const WORDS: usize = 200;
/// How long a refusal's text may come behind its head.
const WORDS_PATIENCE: Duration = Duration::from_secs(1);

/// A byte stream, with or without TLS.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// An open WebSocket.
pub(super) struct Opened {
    pub(super) stream: Box<dyn Stream>,
    /// Whom it leads to.
    pub(super) address: SocketAddr,
    /// What came behind the handshake.
    pub(super) input: BytesMut,
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) struct OpenError {
    pub(super) reason: String,
    /// Trying again is pointless, unless it has worked before.
    pub(super) fatal: Option<Fatal>,
}

impl From<String> for OpenError {
    fn from(reason: String) -> Self {
        Self {
            reason,
            fatal: None,
        }
    }
}

/// What one address made of the request.
enum Refusal {
    /// In words; the next address may do better.
    No(String),
    /// The same, said in HTTP: another path may do better too.
    Answered(String),
    Redirect(String),
    Unauthorized(String),
}

/// Opens a WebSocket, or says by `deadline` why there is none.
pub(super) async fn open(config: &StsClientConfig, deadline: Instant) -> Result<Opened, OpenError> {
    let mut url = Url::parse(&config.url).map_err(|error| error.to_string())?;
    for _ in 0..=MAX_REDIRECTS {
        let addresses = resolve(&url, deadline).await?;
        let mut errors = vec![];
        let mut redirect = None;
        for target in requests(&url) {
            let addresses = addresses.clone();
            let opened =
                through_addresses(config, &url, &target, addresses, deadline, &mut errors).await;
            match opened {
                Ok(opened) => return Ok(opened),
                Err(Some(Refusal::Answered(_))) => {}
                Err(Some(Refusal::Redirect(to))) => {
                    redirect = Some(to);
                    break;
                }
                Err(Some(Refusal::Unauthorized(message))) => {
                    return Err(OpenError {
                        reason: errors.join("; "),
                        fatal: Some(Fatal {
                            code: ErrorCode::AuthFailed.as_str().to_owned(),
                            message,
                        }),
                    });
                }
                Err(_) => break,
            }
        }
        let Some(to) = redirect else {
            return Err(errors.join("; ").into());
        };
        url = follow(&url, &to)?;
    }
    Err(format!("redirected more than {MAX_REDIRECTS} times").into())
}

/// Asks one address after the other until one opens. What each answered is added to `errors`.
async fn through_addresses(
    config: &StsClientConfig,
    url: &Url,
    target: &str,
    mut addresses: VecDeque<SocketAddr>,
    deadline: Instant,
    errors: &mut Vec<String>,
) -> Result<Opened, Option<Refusal>> {
    let mut last = None;
    while let Some((stream, address)) = first_to_connect(&mut addresses, deadline, errors).await {
        let left = deadline.saturating_duration_since(Instant::now());
        let limit = left / (addresses.len() as u32 + 1);
        let result = timeout(limit, upgrade(config, url, target, stream)).await;
        let refusal = match result {
            Ok(Ok((stream, input))) => {
                return Ok(Opened {
                    stream,
                    address,
                    input,
                });
            }
            Ok(Err(refusal)) => refusal,
            Err(_) => Refusal::No(format!("no answer within {} ms", limit.as_millis())),
        };
        let path = target.split('?').next().unwrap_or_default();
        match refusal {
            Refusal::No(reason) => errors.push(format!("{address}: {reason}")),
            Refusal::Answered(said) => {
                errors.push(format!("{address}: {said} (path {path})"));
                last = Some(Refusal::Answered(said));
            }
            Refusal::Unauthorized(message) => {
                errors.push(format!("{address}: {message}"));
                return Err(Some(Refusal::Unauthorized(message)));
            }
            Refusal::Redirect(to) => return Err(Some(Refusal::Redirect(to))),
        }
    }
    Err(last)
}

/// All addresses of the host, the two families by turns.
async fn resolve(url: &Url, deadline: Instant) -> Result<VecDeque<SocketAddr>, String> {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let port = url.port_or_known_default().ok_or("the URL has no port")?;
    let found = timeout_at(deadline, lookup_host((host, port))).await;
    let found = found.map_err(|_| format!("{host}: its address is not found in time"))?;
    let found = found.map_err(|error| format!("{host}: {error}"))?;
    let all = by_turns(found.take(64));
    if all.is_empty() {
        return Err(format!("{host} has no address"));
    }
    Ok(all)
}

/// Each address once, the two families by turns, beginning with that of the first.
fn by_turns(found: impl Iterator<Item = SocketAddr>) -> VecDeque<SocketAddr> {
    let (mut these, mut others): (VecDeque<_>, VecDeque<_>) = (VecDeque::new(), VecDeque::new());
    for address in found {
        let first = these.front().unwrap_or(&address);
        let same = SocketAddr::is_ipv6(first) == address.is_ipv6();
        let list = if same { &mut these } else { &mut others };
        if !list.contains(&address) {
            list.push_back(address);
        }
    }
    let mut all = VecDeque::new();
    while all.len() < MAX_ADDRESSES {
        let before = all.len();
        all.extend(these.pop_front().into_iter().chain(others.pop_front()));
        if all.len() == before {
            break;
        }
    }
    all
}

/// Connects to the addresses one beside the other, each a little later than the one before.
async fn first_to_connect(
    addresses: &mut VecDeque<SocketAddr>,
    deadline: Instant,
    errors: &mut Vec<String>,
) -> Option<(TcpStream, SocketAddr)> {
    let mut attempts = FuturesUnordered::new();
    let mut tried: Vec<SocketAddr> = vec![];
    let start = Instant::now();
    loop {
        if attempts.is_empty() || !addresses.is_empty() {
            let address = addresses.pop_front()?;
            tried.push(address);
            attempts.push(async move { (address, connect(address).await) });
        }
        let next = if addresses.is_empty() {
            deadline
        } else {
            deadline.min(Instant::now() + STAGGER)
        };
        match timeout_at(next, attempts.next()).await {
            Ok(Some((address, Ok(stream)))) => {
                // Slower ones get another chance should this one not be what it looks like.
                addresses.extend(tried.into_iter().filter(|other| *other != address));
                return Some((stream, address));
            }
            Ok(Some((address, Err(error)))) => {
                tried.retain(|other| *other != address);
                errors.push(format!("{address}: {error}"));
            }
            Ok(None) => {}
            Err(_) if next < deadline => {}
            Err(_) => {
                let ms = start.elapsed().as_millis();
                let silent = tried.iter().chain(&*addresses);
                errors.extend(silent.map(|address| format!("{address}: no answer within {ms} ms")));
                return None;
            }
        }
    }
}

async fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // A full buffer wakes its writer when a third is free: on a slow link, with the megabytes that
    // the kernel would take, that looks like a peer that takes nothing.
    let _ = socket.set_send_buffer_size(SEND_BUFFER);
    socket.connect(address).await
}

/// TLS if the URL says so, then the WebSocket handshake.
async fn upgrade(
    config: &StsClientConfig,
    url: &Url,
    target: &str,
    tcp: TcpStream,
) -> Result<(Box<dyn Stream>, BytesMut), Refusal> {
    // A small message must not wait for the acknowledgement of the one before.
    let _ = tcp.set_nodelay(true);
    let mut stream: Box<dyn Stream> = match url.scheme() {
        "https" | "wss" => Box::new(tls(config, url, tcp).await.map_err(Refusal::No)?),
        _ => Box::new(tcp),
    };
    let broken = |error: std::io::Error| Refusal::No(format!("the connection broke: {error}"));
    let key = generate_key();
    let request = request(config, url, target, &key);
    stream.write_all(request.as_bytes()).await.map_err(broken)?;
    let mut input = BytesMut::with_capacity(MAX_HEAD);
    let mut waited = false;
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut headers);
        match response.parse(&input) {
            // 103 (early hints) and the like: the answer itself is still to come.
            Ok(httparse::Status::Complete(len))
                if matches!(response.code, Some(100 | 102..=199)) && len < MAX_HEAD =>
            {
                input.advance(len);
                continue;
            }
            // What a refusal says may come in a piece of its own.
            Ok(httparse::Status::Complete(len))
                if input.len() == len && !waited && has_words(&response) =>
            {
                waited = true;
                let _ = timeout(WORDS_PATIENCE, stream.read_buf(&mut input)).await;
                continue;
            }
            Ok(httparse::Status::Complete(len)) => {
                verdict(&response, &input[len..], &key)?;
                return Ok((stream, input.split_off(len)));
            }
            Ok(httparse::Status::Partial) if input.len() < MAX_HEAD => {}
            _ => return Err(Refusal::No("it does not speak HTTP".to_owned())),
        }
        if stream.read_buf(&mut input).await.map_err(broken)? == 0 {
            return Err(Refusal::No(
                "the service closed the connection during the handshake".to_owned(),
            ));
        }
    }
}

async fn tls(
    config: &StsClientConfig,
    url: &Url,
    tcp: TcpStream,
) -> Result<tokio_native_tls::TlsStream<TcpStream>, String> {
    let mut builder = native_tls::TlsConnector::builder();
    for certificate in &config.ca.0 {
        builder.add_root_certificate(certificate.clone());
    }
    let connector = builder.build().map_err(|error| format!("TLS: {error}"))?;
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    tokio_native_tls::TlsConnector::from(connector)
        .connect(host, tcp)
        .await
        // OpenSSL puts what people look for in brackets at the end.
        .map_err(|error| format!("TLS: {}", one_line(&error.to_string())))
}

fn request(config: &StsClientConfig, url: &Url, target: &str, key: &str) -> String {
    let mut head = format!(
        "GET {target} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\
         User-Agent: dub-worker/{}\r\n{}: {}\r\n{}: {}\r\n",
        &url[Position::BeforeHost..Position::AfterPort],
        env!("CARGO_PKG_VERSION"),
        limits::STREAM_ID_HEADER,
        config.stream_id,
        limits::WORKER_ID_HEADER,
        config.worker_id,
    );
    if !url.username().is_empty() || url.password().is_some() {
        let plain = |text: &str| percent_decode(text);
        let mut credentials = plain(url.username());
        credentials.push(b':');
        credentials.extend(plain(url.password().unwrap_or_default()));
        head.push_str("Authorization: Basic ");
        STANDARD.encode_string(credentials, &mut head);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    head
}

fn percent_decode(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.as_bytes();
    while let [first, rest @ ..] = bytes {
        let code = text
            .get(text.len() - rest.len()..text.len() - rest.len() + 2)
            .filter(|_| *first == b'%')
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        out.push(code.unwrap_or(*first));
        bytes = if code.is_some() { &rest[2..] } else { rest };
    }
    out
}

/// Whether a refusal says in its body why.
fn has_words(response: &httparse::Response<'_, '_>) -> bool {
    let empty = |header: &httparse::Header<'_>| {
        header.name.eq_ignore_ascii_case("Content-Length") && header.value == b"0"
    };
    response.code >= Some(400) && !response.headers.iter().any(empty)
}

/// What the answer to the request means.
fn verdict(response: &httparse::Response<'_, '_>, body: &[u8], key: &str) -> Result<(), Refusal> {
    let header = |name: &str| {
        let found = response
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(found.value).ok()
    };
    let status = response.code.unwrap_or_default();
    let mut said = format!("HTTP {status} {}", clip(response.reason.unwrap_or(""), 60));
    // A word from the service itself is worth more than a page for browsers.
    let body = String::from_utf8_lossy(&body[..body.len().min(4 * WORDS)]);
    if !body.is_empty() && !body.trim_start().starts_with('<') {
        said = format!("{said}: {}", clip(body.trim(), WORDS));
    }
    match status {
        101 if header("Sec-WebSocket-Accept") == Some(&derive_accept_key(key.as_bytes())) => Ok(()),
        101 => Err(Refusal::No("it does not speak WebSocket".to_owned())),
        200..=299 => Err(Refusal::Answered(format!("{said}: not a Socket.IO server"))),
        301 | 302 | 303 | 307 | 308 => Err(match header("Location") {
            Some(to) => Refusal::Redirect(to.to_owned()),
            None => Refusal::Answered(said),
        }),
        401 => Err(Refusal::Unauthorized(said)),
        404 => Err(Refusal::Answered(format!("{said}: wrong path?"))),
        // What ASGI servers say to a path they do not know.
        403 => Err(Refusal::Answered(format!(
            "{said}: not allowed, or wrong path?"
        ))),
        _ => Err(Refusal::Answered(said)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn the_families_take_turns() {
        let address = |ip: &str| SocketAddr::new(ip.parse().unwrap(), 80);
        let found = ["::1", "::2", "::1", "10.0.0.1", "::3", "10.0.0.2"].map(address);
        let turns = ["::1", "10.0.0.1", "::2", "10.0.0.2", "::3"].map(address);
        assert_eq!(Vec::from(by_turns(found.into_iter())), turns);
        let many = (1..30).map(|port| SocketAddr::new("10.0.0.1".parse().unwrap(), port));
        assert_eq!(by_turns(many).len(), MAX_ADDRESSES);
        assert_eq!(by_turns([].into_iter()).len(), 0);
    }

    /// A listener on an address of its own, whose queue holds one connection.
    fn bound(ip: &str) -> (tokio::net::TcpListener, SocketAddr) {
        let socket = TcpSocket::new_v4().unwrap();
        socket
            .bind(SocketAddr::new(ip.parse().unwrap(), 0))
            .unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    #[tokio::test]
    async fn addresses_that_hang_refuse_or_say_nothing_do_not_hide_one_that_works() {
        // Its queue is full: whoever connects hears nothing any more.
        let (_full, hangs) = bound("127.0.0.2");
        let mut waiting = vec![];
        while let Ok(Ok(stream)) =
            timeout(Duration::from_millis(100), TcpStream::connect(hangs)).await
        {
            waiting.push(stream);
        }
        let (closed, refuses) = bound("127.0.0.3");
        drop(closed);
        let (_silent, says_nothing) = bound("127.0.0.4");
        let (listener, works) = bound("127.0.0.5");
        let service = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            tokio_tungstenite::accept_async(stream).await.unwrap()
        });
        let config = StsClientConfig::new("http://h", "s", "w");
        let (url, mut errors) = (url(&config.url), vec![]);
        let addresses = VecDeque::from([hangs, refuses, says_nothing, works]);
        let start = Instant::now();
        let deadline = start + Duration::from_secs(4);
        let opened = through_addresses(&config, &url, "/", addresses, deadline, &mut errors).await;
        assert!(opened.is_ok(), "{errors:?}");
        assert!(
            start.elapsed() < Duration::from_secs(3),
            "{:?}",
            start.elapsed()
        );
        // Each is named with what it said.
        assert!(errors[0].starts_with("127.0.0.3:") && errors[0].contains("refused"));
        assert!(errors[1].starts_with("127.0.0.4:") && errors[1].contains("no answer"));
        assert_eq!(errors.len(), 2, "{errors:?}");
        service.await.unwrap();

        // One that is only slow is asked again after the first that took the connection.
        let (_listener, works) = bound("127.0.0.6");
        let mut left = VecDeque::from([hangs, works]);
        let first = first_to_connect(&mut left, deadline, &mut errors).await;
        assert_eq!(first.unwrap().1, works);
        assert_eq!(left, [hangs]);
    }

    #[tokio::test]
    async fn a_head_without_end_is_no_head() {
        let (listener, address) = bound("127.0.0.7");
        let service = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "a".repeat(4 * MAX_HEAD));
            // The other side hangs up on the way.
            let _ = stream.write_all(endless.as_bytes()).await;
            stream
        });
        let config = StsClientConfig::new("http://h", "s", "w");
        let url = url(&config.url);
        let tcp = connect(address).await.unwrap();
        let opened = timeout(Duration::from_secs(5), upgrade(&config, &url, "/", tcp)).await;
        let refused = opened.expect("it is not read for ever").err();
        assert!(
            matches!(&refused, Some(Refusal::No(reason)) if reason.contains("HTTP")),
            "it must be refused"
        );
        drop(service.await.unwrap());
    }

    #[test]
    fn credentials_of_the_url_go_into_the_header() {
        let config = StsClientConfig::new("http://h", "s", "w");
        let head = request(&config, &url("http://us%40er:p%3Aw%zz@h:81/"), "/", "k");
        let expected = STANDARD.encode("us@er:p:w%zz");
        assert!(
            head.contains(&format!("Authorization: Basic {expected}\r\n")),
            "{head}"
        );
        assert!(head.contains("Host: h:81\r\n"), "{head}");
        assert!(!request(&config, &url("http://h/"), "/", "k").contains("Authorization"));
    }
}
