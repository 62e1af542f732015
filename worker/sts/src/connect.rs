//! From a URL to an open WebSocket: every address, TLS, redirects, and words for what went wrong.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::pin::Pin;
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
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tungstenite::handshake::client::generate_key;
use tungstenite::handshake::derive_accept_key;
use url::{Position, Url};

use super::config::StsClientConfig;
use super::dial::{Dialled, first_to_connect, resolve};
use super::target::{follow, requests};

const MAX_REDIRECTS: usize = 3;
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
        let mut targets = requests(&url).into_iter();
        while let Some(target) = targets.next() {
            let asked = Asked {
                config,
                url: &url,
                target: &target,
                others: targets.len() as u32,
            };
            let opened = through_addresses(asked, addresses.clone(), deadline, &mut errors).await;
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

/// What addresses are asked for.
#[derive(Clone, Copy)]
struct Asked<'a> {
    config: &'a StsClientConfig,
    url: &'a Url,
    target: &'a str,
    /// So many other paths may be asked for afterwards.
    others: u32,
}

/// What has come of something under way.
enum Step {
    Dialled(Dialled),
    Answered(SocketAddr, Result<(Box<dyn Stream>, BytesMut), Refusal>),
}

/// Asks the addresses until one opens. Each has its share of the time before the next is asked beside
/// it: a service may be slow at all of them. What each answered is added to `errors`.
async fn through_addresses(
    asked: Asked<'_>,
    mut left: VecDeque<SocketAddr>,
    deadline: Instant,
    errors: &mut Vec<String>,
) -> Result<Opened, Option<Refusal>> {
    type Steps<'a> = FuturesUnordered<Pin<Box<dyn Future<Output = Step> + Send + 'a>>>;
    let mut steps = Steps::new();
    let mut silent: Vec<(SocketAddr, Instant)> = vec![];
    let (mut last, mut dialling, mut next) = (None, false, Instant::now());
    loop {
        if !left.is_empty() && next <= Instant::now() {
            dialling = true;
            let dial = first_to_connect(std::mem::take(&mut left), deadline);
            steps.push(Box::pin(async { Step::Dialled(dial.await) }));
        }
        // Dialling keeps to the deadline itself.
        let step = if dialling {
            Ok(steps.next().await)
        } else {
            timeout_at(next, steps.next()).await
        };
        let now = Instant::now();
        let (mut answered, rest) = (false, deadline.saturating_duration_since(now));
        match step {
            Ok(Some(Step::Dialled(dialled))) => {
                dialling = false;
                left = dialled.left;
                errors.extend(dialled.errors);
                if let Some((tcp, address)) = dialled.found {
                    silent.push((address, now));
                    steps.push(Box::pin(async move {
                        Step::Answered(address, upgrade(asked, tcp).await)
                    }));
                }
            }
            Ok(Some(Step::Answered(address, Ok((stream, input))))) => {
                return Ok(Opened {
                    stream,
                    address,
                    input,
                });
            }
            Ok(Some(Step::Answered(address, Err(refusal)))) => {
                answered = true;
                silent.retain(|(other, _)| *other != address);
                let path = asked.target.split('?').next().unwrap_or_default();
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
            Err(_) if !left.is_empty() => continue,
            Ok(None) | Err(_) => {
                errors.extend(silent.into_iter().map(|(address, since)| {
                    let ms = now.duration_since(since).as_millis();
                    format!("{address}: no answer within {ms} ms")
                }));
                return Err(last);
            }
        }
        next = if answered && !left.is_empty() {
            now
        } else {
            // Where something is there, another path may be right: it needs time too.
            let paths = last.as_ref().map_or(0, |_| asked.others);
            now + rest / (left.len() as u32 + paths + 1)
        };
    }
}

/// TLS if the URL says so, then the WebSocket handshake.
async fn upgrade(asked: Asked<'_>, tcp: TcpStream) -> Result<(Box<dyn Stream>, BytesMut), Refusal> {
    let Asked {
        config,
        url,
        target,
        ..
    } = asked;
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
                if matches!(response.code, Some(100 | 102..=199)) =>
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
    use crate::dial::tests::{bound, closed, full};

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    /// For the root, and there is another path.
    fn asked<'a>(config: &'a StsClientConfig, url: &'a Url) -> Asked<'a> {
        Asked {
            config,
            url,
            target: "/",
            others: 1,
        }
    }

    #[tokio::test]
    async fn addresses_that_hang_refuse_or_say_nothing_do_not_hide_one_that_works() {
        let (_full, hangs) = full("127.0.0.2").await;
        let refuses = closed("127.0.0.3");
        let (_silent, says_nothing) = bound("127.0.0.4");
        let (listener, works) = bound("127.0.0.5");
        let service = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            tokio_tungstenite::accept_async(stream).await.unwrap()
        });
        let config = StsClientConfig::new("http://h", "s", "w");
        let url = url(&config.url);
        let mut errors = vec![];
        let addresses = VecDeque::from([hangs, refuses, says_nothing, works]);
        let start = Instant::now();
        let deadline = start + Duration::from_secs(4);
        let asked = asked(&config, &url);
        let opened = through_addresses(asked, addresses, deadline, &mut errors).await;
        assert!(opened.is_ok(), "{errors:?}");
        assert!(
            start.elapsed() < Duration::from_secs(3),
            "{:?}",
            start.elapsed()
        );
        // Each is named with what it said.
        assert!(errors[0].starts_with("127.0.0.3:") && errors[0].contains("refused"));
        assert_eq!(errors.len(), 1, "{errors:?}");
        service.await.unwrap();
    }

    /// Answers every request on `ip` after so long.
    fn answers(ip: &str, after: Duration, answer: &'static str) -> SocketAddr {
        let (listener, address) = bound(ip);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::time::sleep(after).await;
                let _ = stream.write_all(answer.as_bytes()).await;
                // Its end before the request is read would be a reset.
                let _ = stream.read(&mut [0; 2048]).await;
            }
        });
        address
    }

    const NO_SUCH_PATH: &str = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";

    /// How long asking them for a path takes of 2 s, and what came of each.
    async fn time_taken(addresses: &[SocketAddr], others: u32) -> (Duration, Vec<String>) {
        let config = StsClientConfig::new("http://h", "s", "w");
        let url = url(&config.url);
        let mut errors = vec![];
        let asked = Asked {
            others,
            ..asked(&config, &url)
        };
        let (start, addresses) = (Instant::now(), addresses.to_vec().into());
        let deadline = start + Duration::from_secs(2);
        let refused = through_addresses(asked, addresses, deadline, &mut errors).await;
        assert!(matches!(refused, Err(Some(Refusal::Answered(_)))));
        (start.elapsed(), errors)
    }

    #[tokio::test]
    async fn silence_does_not_take_the_time_that_another_path_needs() {
        let (_silent, says_nothing) = bound("127.0.0.8");
        let addresses = [
            says_nothing,
            answers("127.0.0.9", Duration::ZERO, NO_SUCH_PATH),
        ];
        let (another, none) = tokio::join!(time_taken(&addresses, 1), time_taken(&addresses, 0));
        // Half of the time for the first address, and half of the rest for another path.
        let (short, long) = (Duration::from_millis(1_500), Duration::from_secs(2));
        assert!(another.0 >= short && another.0 < long, "{another:?}");
        assert!(none.0 >= long, "{none:?}");
        for (_, errors) in [another, none] {
            assert_eq!(errors.len(), 2, "{errors:?}");
            assert!(errors[0].starts_with("127.0.0.9:") && errors[0].contains("404"));
            assert!(errors[1].starts_with("127.0.0.8:") && errors[1].contains("no answer"));
        }
    }

    #[tokio::test]
    async fn the_next_address_is_asked_at_once_after_a_no_and_not_before_its_time_otherwise() {
        let now = Duration::ZERO;
        let no = [
            answers("127.0.0.13", now, NO_SUCH_PATH),
            answers("127.0.0.14", now, NO_SUCH_PATH),
        ];
        let (took, errors) = time_taken(&no, 0).await;
        assert!(took < Duration::from_millis(900), "{took:?}");
        assert!(errors[0].starts_with("127.0.0.13:") && errors[1].starts_with("127.0.0.14:"));
        // A little slow: its answer is waited for, here for a second.
        let slow = answers("127.0.0.15", Duration::from_millis(200), NO_SUCH_PATH);
        let (_, errors) = time_taken(&[slow, no[0]], 0).await;
        assert!(errors[0].starts_with("127.0.0.15:"), "{errors:?}");
    }

    #[tokio::test]
    async fn a_service_that_is_slow_at_every_address_is_waited_for() {
        let limit = Duration::from_secs(3);
        let mut addresses = VecDeque::new();
        for ip in ["127.0.0.10", "127.0.0.11", "127.0.0.12"] {
            let (listener, address) = bound(ip);
            addresses.push_back(address);
            tokio::spawn(async move {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::time::sleep(limit.mul_f64(0.6)).await;
                let opened = tokio_tungstenite::accept_async(stream).await;
                // The first is waited for; the others are left as soon as it opens.
                tokio::time::sleep(limit).await;
                drop(opened);
            });
        }
        let config = StsClientConfig::new("http://h", "s", "w");
        let (url, mut errors) = (url(&config.url), vec![]);
        let (first, deadline) = (addresses[0], Instant::now() + limit);
        let opened = through_addresses(asked(&config, &url), addresses, deadline, &mut errors);
        let opened = opened.await.ok().expect("one of them opens");
        assert_eq!((opened.address, errors), (first, vec![]));
    }

    #[tokio::test]
    async fn a_head_over_16_kib_is_no_head() {
        for (len, is_one) in [(16_384, true), (16_385, false)] {
            let (listener, address) = bound("127.0.0.7");
            let service = tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (start, end) = ("HTTP/1.1 200 OK\r\nX: ", "\r\n\r\n");
                let padding = "a".repeat(len - start.len() - end.len());
                let head = format!("{start}{padding}{end}");
                // The other side may hang up on the way.
                let _ = stream.write_all(head.as_bytes()).await;
                stream
            });
            let config = StsClientConfig::new("http://h", "s", "w");
            let url = url(&config.url);
            let tcp = TcpStream::connect(address).await.unwrap();
            let asked = asked(&config, &url);
            let refused = upgrade(asked, tcp).await.err();
            let Some(Refusal::No(said) | Refusal::Answered(said)) = refused else {
                panic!("it must be refused")
            };
            let answered = if is_one {
                "HTTP 200 OK: not a Socket.IO server"
            } else {
                "it does not speak HTTP"
            };
            assert_eq!(said, answered, "{len} bytes");
            drop(service.await.unwrap());
        }
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
        // One of them may be all there is.
        for (given, login) in [("http://token@h/", "token:"), ("http://:word@h/", ":word")] {
            let expected = format!("Authorization: Basic {}\r\n", STANDARD.encode(login));
            let head = request(&config, &url(given), "/", "k");
            assert!(head.contains(&expected), "{head}");
        }
        assert!(!request(&config, &url("http://h/"), "/", "k").contains("Authorization"));
    }
}
