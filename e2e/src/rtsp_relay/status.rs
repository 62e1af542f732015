//! The status API: the questions of MediaMTX's API that the harness asks, in its shape.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use axum::{
    Router,
    extract::{Path, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::hub::{Hub, Summary};

/// Serves the API until the future is dropped.
pub(super) async fn serve(listener: TcpListener, hub: Arc<Hub>) -> Result<()> {
    let routes = Router::new()
        .route("/v3/paths/list", get(list))
        .route("/v3/paths/get/{*name}", get(one))
        .route("/v3/rtspsessions/list", get(sessions))
        .with_state(hub);
    axum::serve(listener, routes)
        .await
        .context("the status server failed")
}

async fn list(State(hub): State<Arc<Hub>>) -> Response {
    let items: Vec<_> = hub.summaries().iter().map(item).collect();
    answer(
        StatusCode::OK,
        &json!({ "itemCount": items.len(), "pageCount": 1, "items": items }),
    )
}

async fn one(State(hub): State<Arc<Hub>>, Path(name): Path<String>) -> Response {
    match hub.summaries().iter().find(|summary| summary.path == name) {
        Some(summary) => answer(StatusCode::OK, &item(summary)),
        None => answer(StatusCode::NOT_FOUND, &json!({ "error": "path not found" })),
    }
}

/// Sessions that read; those that publish are not asked for.
async fn sessions(State(hub): State<Arc<Hub>>) -> Response {
    let summaries = hub.summaries();
    let items: Vec<_> = summaries
        .iter()
        .flat_map(|summary| summary.readers.iter().map(move |id| (id, &summary.path)))
        .map(|(id, path)| json!({ "id": id.to_string(), "state": "read", "path": path }))
        .collect();
    answer(
        StatusCode::OK,
        &json!({ "itemCount": items.len(), "pageCount": 1, "items": items }),
    )
}

fn item(summary: &Summary) -> Value {
    let reader = |id| json!({ "type": "rtspSession", "id": format!("{id}") });
    json!({
        "name": summary.path,
        "ready": summary.recording,
        "tracks": summary.codecs,
        "bytesReceived": summary.bytes,
        "readers": summary.readers.iter().map(reader).collect::<Vec<_>>(),
    })
}

fn answer(status: StatusCode, body: &Value) -> Response {
    (
        status,
        [(CONTENT_TYPE, "application/json")],
        body.to_string(),
    )
        .into_response()
}
