//! The one reader of a pipeline's bus.

use gst::prelude::*;

use crate::MediaUrl;

/// What a bus message means to the worker.
#[derive(Debug)]
pub(crate) enum BusFact {
    /// The pipeline cannot go on; the text names the element.
    Error {
        /// GStreamer's error domain and code, for the metric's label.
        kind: &'static str,
        /// Message, without the file and line numbers GStreamer adds.
        text: String,
    },
    /// Something the element worked around.
    Warning { text: String },
    /// All sinks have seen the end.
    Eos,
    /// RTSP session progress: `open`, `connect`, `request` … complete.
    Progress { code: String },
}

/// Hands every message that matters to `on_fact`, on the thread that posted it.
///
/// A sync handler rather than a polling thread: nothing to stop, nothing to leak, and the
/// message is there before the element goes on.
///
/// Elements quote URLs in their messages; the secrets of `url` are taken out.
pub(crate) fn watch(
    pipeline: &gst::Pipeline,
    url: &MediaUrl,
    on_fact: impl Fn(BusFact) + Send + Sync + 'static,
) {
    let Some(bus) = pipeline.bus() else { return };
    let url = url.clone();
    bus.set_sync_handler(move |_, message| {
        if let Some(fact) = classify(message, &url) {
            on_fact(fact);
        }
        gst::BusSyncReply::Drop
    });
}

fn classify(message: &gst::Message, url: &MediaUrl) -> Option<BusFact> {
    use gst::MessageView;
    match message.view() {
        MessageView::Error(error) => Some(BusFact::Error {
            kind: kind_of(&error.error()),
            text: url.redact(&text_of(&error.error(), error.debug().as_deref())),
        }),
        MessageView::Warning(warning) => Some(BusFact::Warning {
            text: url.redact(&text_of(&warning.error(), warning.debug().as_deref())),
        }),
        MessageView::Eos(_) => Some(BusFact::Eos),
        MessageView::Progress(progress) => {
            let (kind, code, _) = progress.get();
            (kind == gst::ProgressType::Complete).then(|| BusFact::Progress {
                code: code.to_string(),
            })
        }
        // State changes, tags, latency, QoS, stream status: nothing to decide on.
        _ => None,
    }
}

fn kind_of(error: &gst::glib::Error) -> &'static str {
    if error.is::<gst::ResourceError>() {
        "resource"
    } else if error.is::<gst::StreamError>() {
        "stream"
    } else if error.is::<gst::CoreError>() {
        "core"
    } else if error.is::<gst::LibraryError>() {
        "library"
    } else {
        "other"
    }
}

/// Label values of `worker_gst_bus_errors_total`.
pub const ERROR_KINDS: [&str; 5] = ["resource", "stream", "core", "library", "other"];

/// The last line of the debug text says the cause ("Not Found (404)"); the first is a
/// source position.
fn text_of(error: &gst::glib::Error, debug: Option<&str>) -> String {
    let message = error.message().trim().trim_end_matches('.').to_owned();
    let detail = debug
        .and_then(|debug| {
            debug
                .lines()
                .skip(1)
                .map(str::trim)
                .filter(|line| !line.is_empty())
                .last()
        })
        .map(|line| line.trim_end_matches('.').to_owned());
    match detail {
        Some(detail) if detail != message => format!("{message}: {detail}"),
        _ => message,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn what_an_element_quotes_shows_no_secret() {
        crate::init().unwrap();
        let pipeline = gst::Pipeline::new();
        let (told, heard) = channel();
        let url = MediaUrl::new("rtsp://u:geheim@h/cam");
        watch(&pipeline, &url, move |fact| told.send(fact).unwrap());
        let text = "no rtsp://u:geheim@h/cam";
        let error = gst::message::Error::builder(gst::ResourceError::Failed, text);
        let warning = gst::message::Warning::builder(gst::ResourceError::Failed, text);
        for message in [
            error.debug("geheim").src(&pipeline).build(),
            warning.debug("geheim").src(&pipeline).build(),
        ] {
            pipeline.post_message(message).unwrap();
        }
        let all: Vec<_> = heard.try_iter().collect();
        assert!(
            matches!(
                &all[..],
                [
                    BusFact::Error {
                        kind: "resource",
                        ..
                    },
                    BusFact::Warning { .. }
                ]
            ),
            "{all:?}"
        );
        let said = format!("{all:?}");
        assert!(
            said.contains("***@h/cam") && !said.contains("geheim"),
            "{said}"
        );
    }
}
