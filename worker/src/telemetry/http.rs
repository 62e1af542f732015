//! `/metrics`, `/livez`, `/readyz`, `/status`, `/health` and `/captions`, for whom and however many: whatever
//! a client does here takes a bounded number of descriptors for a bounded time.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use metrics_exporter_prometheus::PrometheusHandle;
use metrics_process::Collector;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use crate::captions::Captions;
use crate::observe::{Board, Fact, Observer};

/// Connections at once; one more ends the oldest.
const CONNECTIONS: usize = 16;
/// From accepting a connection to the last byte of its one answer.
const LONGEST_REQUEST: Duration = Duration::from_secs(10);
/// Between two tries to get an address that cannot be had yet, or a descriptor.
const RETRY: Duration = Duration::from_secs(1);
/// Between two times that the recorder tidies up.
const UPKEEP: Duration = Duration::from_secs(5);

/// What is served.
struct Pages {
    metrics: PrometheusHandle,
    process: Collector,
    board: Arc<Board>,
    captions: Captions,
}

/// Serves in the background until the process ends. A port that is taken is asked for again every
/// second, so that a successor gets it when its predecessor has left; so is an address that this
/// machine does not have, which DHCP or VRRP may bring.
///
/// # Errors
/// When this user may not have the port.
pub async fn serve(
    addr: SocketAddr,
    metrics: PrometheusHandle,
    observer: Observer,
    captions: Captions,
) -> std::io::Result<()> {
    let upkeep = metrics.clone();
    let process = Collector::default();
    process.describe();
    let pages = Arc::new(Pages {
        metrics,
        process,
        board: observer.board(),
        captions,
    });
    tokio::spawn(async move {
        loop {
            // Without it, observations of histograms pile up where nobody scrapes.
            tokio::time::sleep(UPKEEP).await;
            upkeep.run_upkeep();
        }
    });
    let first = TcpListener::bind(addr).await;
    if let Err(error) = &first
        && error.kind() == ErrorKind::PermissionDenied
    {
        return first.map(drop);
    }
    tokio::spawn(async move {
        let listener = listen(addr, first, &observer).await;
        accept(listener, pages).await;
    });
    Ok(())
}

async fn listen(
    addr: SocketAddr,
    first: std::io::Result<TcpListener>,
    observer: &Observer,
) -> TcpListener {
    let mut result = first;
    let mut told = false;
    loop {
        match result {
            Ok(listener) => {
                let addr = listener.local_addr().unwrap_or(addr);
                observer.fact(&Fact::MetricsListening { addr });
                return listener;
            }
            Err(error) if !std::mem::replace(&mut told, true) => {
                let error = error.to_string();
                observer.fact(&Fact::MetricsUnavailable {
                    addr,
                    error: &error,
                });
            }
            Err(_) => {}
        }
        tokio::time::sleep(RETRY).await;
        result = TcpListener::bind(addr).await;
    }
}

async fn accept(listener: TcpListener, pages: Arc<Pages>) {
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, or the client has left already.
            tokio::time::sleep(RETRY).await;
            continue;
        };
        open.retain(|connection| !connection.is_finished());
        if open.len() >= CONNECTIONS
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        let answer = tokio::time::timeout(LONGEST_REQUEST, answer(stream, Arc::clone(&pages)));
        open.push_back(tokio::spawn(answer).abort_handle());
    }
}

/// One request, one answer.
async fn answer(stream: TcpStream, pages: Arc<Pages>) {
    let service = service_fn(move |request| {
        let page = pages.page(&request);
        async move { Ok::<_, Infallible>(page) }
    });
    // What goes wrong on the way is the client's own affair.
    let _ = http1::Builder::new()
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

impl Pages {
    fn page(&self, request: &Request<Incoming>) -> Response<String> {
        const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
        const JSON: &str = "application/json";
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return page(
                StatusCode::METHOD_NOT_ALLOWED,
                TEXT,
                "only GET\n".to_owned(),
            );
        }
        match request.uri().path() {
            "/metrics" => {
                self.process.collect();
                page(StatusCode::OK, TEXT, self.metrics.render())
            }
            "/livez" | "/health" => health(self.board.stuck().iter()),
            "/readyz" => health(self.board.unready().iter()),
            "/status" => match serde_json::to_string_pretty(&self.board.snapshot()) {
                Ok(status) => page(StatusCode::OK, JSON, status + "\n"),
                Err(error) => page(StatusCode::INTERNAL_SERVER_ERROR, TEXT, error.to_string()),
            },
            "/captions" | "/captions.vtt" if wants_vtt(request) => page(
                StatusCode::OK,
                "text/vtt; charset=utf-8",
                self.captions.vtt(),
            ),
            "/captions" => page(StatusCode::OK, JSON, self.captions.json() + "\n"),
            _ => {
                let pages =
                    "not found; there are /metrics /livez /readyz /status /health /captions\n";
                page(StatusCode::NOT_FOUND, TEXT, pages.to_owned())
            }
        }
    }
}

fn wants_vtt<T>(request: &Request<T>) -> bool {
    let accept = request.headers().get(ACCEPT).and_then(|a| a.to_str().ok());
    request.uri().path() == "/captions.vtt" || accept.is_some_and(|a| a.starts_with("text/vtt"))
}

fn health<T: ToString>(reasons: impl Iterator<Item = T>) -> Response<String> {
    let reasons: Vec<String> = reasons.map(|reason| reason.to_string() + "\n").collect();
    let text = "text/plain; charset=utf-8";
    if reasons.is_empty() {
        page(StatusCode::OK, text, "ok\n".to_owned())
    } else {
        page(StatusCode::SERVICE_UNAVAILABLE, text, reasons.concat())
    }
}

fn page(status: StatusCode, kind: &'static str, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
