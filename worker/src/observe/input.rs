//! What happens to the input, as log lines and metrics.

use dub_engine::input::InputNews;
use dub_engine::timeline::Note;
use metrics::counter;

use super::{Observer, line, ms, round};
use crate::telemetry::names;

impl Observer {
    pub(super) fn input_news(&self, news: &InputNews) {
        match news {
            InputNews::Connected { connection } => {
                self.input(true, None);
                self.board
                    .status(|status| status.input.connections = *connection);
                line! { self, info, "input_connected", "input connected", connection }
            }
            InputNews::Lost { reason } => {
                self.input(false, Some(reason));
                line! { self, info, "input_lost", "input lost", error = reason }
            }
            InputNews::Retry {
                attempt,
                delay,
                reason,
            } => {
                self.input(false, Some(reason));
                line! {
                    self, info, "input_retry", "trying the input again", attempt, delay_ms = ms(*delay), reason
                }
            }
            InputNews::NoKeyframe { pictures, frames } => {
                counter!(names::INPUT_ANOMALIES, "kind" => "no_keyframe").increment(1);
                line! {
                    self, warn, "no_keyframe", "media arrives, but no keyframe to start from", pictures,
                    audio_frames = frames
                }
            }
        }
    }

    /// Each is counted; those that the operator can do something about are warnings.
    pub(super) fn anomaly(&self, note: Note) {
        if let Some(kind) = note.anomaly() {
            counter!(names::INPUT_ANOMALIES, "kind" => kind).increment(1);
        }
        let millis = |nanos: i64| round(nanos as f64 / 1e6);
        match note {
            Note::Stepped { track, by } => line! {
                self, warn, "rtp_step", "RTP time stepped, the length of the gap is taken from arrival times",
                track = track.label(), by_ms = millis(by)
            },
            Note::Paced { track, by } => line! {
                self, warn, "rtp_pace", "RTP time does not go on as time does and is multiplied from here on",
                track = track.label(), times = f64::from(by) / 1e3
            },
            Note::ClockSet { track, by } => line! {
                self, info, "clock_set", "the sender's wall clock was set, waiting for both reports",
                track = track.label(), by_ms = millis(by)
            },
            Note::ReportRefused { by } => line! {
                self, warn, "report_refused", "sender reports would move the audio by seconds", by_ms = millis(by)
            },
            Note::ReportsByArrival { late } => line! {
                self, info, "reports_by_arrival", "sender reports carry arrival times, not capture times: ignored",
                late_ms = millis(late)
            },
            Note::Realigned { by } => line! {
                self, info, "realigned", "audio is moved to match the video", by_ms = millis(by)
            },
            Note::AudioMissing { waited } => line! {
                self, warn, "audio_missing", "no audio arrives, video goes on with silence", waited_ms = ms(waited)
            },
            Note::AudioJoined { silence } => line! {
                self, info, "audio_joined", "audio has arrived", silence_ms = ms(silence)
            },
            Note::Aligned(_) | Note::Dropped { .. } => {}
        }
    }
}
