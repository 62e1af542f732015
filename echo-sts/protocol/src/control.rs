//! Control events of `echo-sts`: how tests make it misbehave.
//!
//! Every one takes an optional `stream_id`. With it, it acts on that stream's
//! session, now or when it appears; without it, on the sender's own session if it
//! has one, else on every session present and future.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    BackpressureAction, BackpressureSeverity, ErrorCode, Refusal, event,
    read::{null_default, object, parse, whole, whole_opt, whole_or_zero},
};

/// What selects the fragments an [`ErrorRule`] fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// The fragment with sequence number `value`.
    SequenceNumber,
    /// The fragment with id `value`.
    FragmentId,
    /// Every `value`th fragment.
    NthFragment,
    /// Every fragment; `value` is not looked at.
    Always,
}

/// A [`Trigger`] with its value, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// This sequence number.
    SequenceNumber(u64),
    /// This id.
    FragmentId(String),
    /// Every nth, n ≥ 1.
    NthFragment(u64),
    /// Every fragment.
    Always,
}

/// One rule of [`ErrorSimulation`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ErrorRule {
    /// What kind of match.
    pub trigger: Trigger,
    /// A number or an id, by `trigger`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    /// How often the rule may fire; unlimited when absent.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "whole_opt"
    )]
    pub count: Option<u64>,
    /// The code to fail with.
    pub error_code: ErrorCode,
    /// The message to fail with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_message: Option<String>,
    /// Overrides the code's own flag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retryable: Option<bool>,
    /// The stage that is said to have failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
}

impl ErrorRule {
    /// A rule that fails every fragment with `error_code`, without limit.
    pub fn always(error_code: ErrorCode) -> Self {
        Self {
            trigger: Trigger::Always,
            value: None,
            count: None,
            error_code,
            error_message: None,
            retryable: None,
            stage: None,
        }
    }

    /// A rule that fails the fragment with this sequence number.
    pub fn sequence(sequence_number: u64, error_code: ErrorCode) -> Self {
        Self {
            trigger: Trigger::SequenceNumber,
            value: Some(sequence_number.into()),
            ..Self::always(error_code)
        }
    }

    /// This rule, firing at most `count` times.
    #[must_use]
    pub fn times(mut self, count: u64) -> Self {
        self.count = Some(count);
        self
    }

    /// The trigger with its value.
    ///
    /// # Errors
    /// `INVALID_CONFIG` when `value` does not suit `trigger`.
    pub fn condition(&self) -> Result<Condition, Refusal> {
        let number = self.value.as_ref().and_then(Value::as_u64);
        match self.trigger {
            Trigger::SequenceNumber => number
                .map(Condition::SequenceNumber)
                .ok_or_else(|| Refusal::invalid("value: sequence_number needs a number from 0")),
            Trigger::NthFragment => number
                .filter(|n| *n > 0)
                .map(Condition::NthFragment)
                .ok_or_else(|| Refusal::invalid("value: nth_fragment needs a number from 1")),
            Trigger::FragmentId => match &self.value {
                Some(Value::String(id)) => Ok(Condition::FragmentId(id.clone())),
                _ => Err(Refusal::invalid("value: fragment_id needs a string")),
            },
            Trigger::Always => Ok(Condition::Always),
        }
    }
}

/// `config:error_simulation`: the first matching rule fails the fragment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ErrorSimulation {
    /// Whose session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_id: Option<String>,
    /// Whether rules are looked at.
    pub enabled: bool,
    /// In order.
    #[serde(default, deserialize_with = "null_default")]
    pub rules: Vec<ErrorRule>,
}

/// `config:latency`: delay before `fragment:processed`, uniform in
/// `base_ms ..= base_ms + jitter_ms`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatencyConfig {
    /// Whose session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_id: Option<String>,
    /// Fixed part, in ms.
    #[serde(deserialize_with = "whole")]
    pub base_ms: u64,
    /// Largest random part, in ms.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "whole_opt"
    )]
    pub jitter_ms: Option<u64>,
    /// Makes the random part repeatable: fragment `n` of a session always gets the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
}

/// `config:backpressure`: automatic load reports, thresholds as shares of `max_inflight`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackpressureConfig {
    /// Whose session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_id: Option<String>,
    /// Whether reports are sent.
    pub enabled: bool,
    /// From here on severity `low`, action `none`; falling below it reports `none`.
    #[serde(default = "threshold_low")]
    pub threshold_low: f64,
    /// From here on `medium`, `slow_down` by 500 ms.
    #[serde(default = "threshold_medium")]
    pub threshold_medium: f64,
    /// From here on `high`, `pause`.
    #[serde(default = "threshold_high")]
    pub threshold_high: f64,
}

fn threshold_low() -> f64 {
    0.5
}

fn threshold_medium() -> f64 {
    0.7
}

fn threshold_high() -> f64 {
    0.9
}

impl Default for BackpressureConfig {
    fn default() -> Self {
        Self {
            stream_id: None,
            enabled: false,
            threshold_low: threshold_low(),
            threshold_medium: threshold_medium(),
            threshold_high: threshold_high(),
        }
    }
}

impl BackpressureConfig {
    /// Checks that the thresholds rise and are shares of more than nothing.
    ///
    /// # Errors
    /// `INVALID_CONFIG` when they do not.
    pub fn validate(&self) -> Result<(), Refusal> {
        let (low, medium, high) = (
            self.threshold_low,
            self.threshold_medium,
            self.threshold_high,
        );
        if low > 0.0 && low <= medium && medium <= high && high.is_finite() {
            Ok(())
        } else {
            Err(Refusal::invalid(format!(
                "thresholds must rise from above 0: low {low}, medium {medium}, high {high}"
            )))
        }
    }
}

/// `simulate:backpressure`: emit one such report now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SimulateBackpressure {
    /// Whose session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_id: Option<String>,
    /// What is asked of the worker.
    pub action: BackpressureAction,
    /// Said to be this loaded; by default what suits the action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<BackpressureSeverity>,
    /// Wait before each fragment, in ms.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "whole_opt"
    )]
    pub recommended_delay_ms: Option<u64>,
}

/// What comes back as dubbed audio.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AudioMode {
    /// The very same audio.
    #[default]
    Echo,
    /// The original made quieter under a steady tone.
    Mark,
    /// As long, but silent.
    Silence,
    /// Longer or shorter by `ratio`.
    Resize,
    /// Like `mark`, as long as speech happens to be: drawn around `ratio` with `spread`, silence at the
    /// ends, perhaps late.
    Speech,
    /// Bytes no decoder understands.
    Corrupt,
    /// No answer at all.
    Hold,
}

/// How a decoded answer is coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplyFormat {
    /// RIFF WAVE, 16-bit.
    Wav,
    /// Bare interleaved 16-bit little-endian samples.
    PcmS16le,
}

/// `config:audio`: what comes back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AudioConfig {
    /// Whose session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_id: Option<String>,
    /// The mode.
    pub mode: AudioMode,
    /// For `resize`: new length over old, 0.1..=10. For `speech`: the mean of it, 1.22 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// For `resize` and `speech`: instead, new lengths over old, one after the other by sequence number and
    /// from the start again; up to 1000.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_default"
    )]
    pub ratios: Vec<f64>,
    /// For `speech`: standard deviation of the ratio, 0..=1; 0.12 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread: Option<f64>,
    /// For `speech`: the same seed draws the same lengths.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "whole_opt"
    )]
    pub seed: Option<u64>,
    /// For `speech`: silence at each end in ms, up to 10000; 80 when absent.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "whole_opt"
    )]
    pub silence_ms: Option<u64>,
    /// For `speech`: how much later than that it starts, in ms, up to 10000.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "whole_opt"
    )]
    pub late_ms: Option<u64>,
    /// How many fragments this mode lasts; then it is `echo` again. Unlimited when absent.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "whole_opt"
    )]
    pub count: Option<u64>,
    /// Coding of the answer. `echo` without it returns the bytes as they came;
    /// `mark`, `silence`, `resize` and `speech` default to `wav`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<ReplyFormat>,
}

impl AudioConfig {
    /// A mode without options.
    pub fn new(mode: AudioMode) -> Self {
        Self {
            mode,
            ..Self::default()
        }
    }

    /// Checks that a ratio is there for `resize`, and that every number is sensible.
    ///
    /// # Errors
    /// `INVALID_CONFIG` when it is not.
    pub fn validate(&self) -> Result<(), Refusal> {
        let refuse = |text: String| Err(Refusal::invalid(text));
        if self.mode == AudioMode::Resize && self.ratio.is_none() && self.ratios.is_empty() {
            return refuse("ratio: resize needs it, or ratios".to_owned());
        }
        let mut ratios = self.ratio.iter().chain(&self.ratios);
        if let Some(ratio) = ratios.find(|ratio| !(0.1..=10.0).contains(*ratio)) {
            return refuse(format!("ratio: {ratio} is not within 0.1..=10"));
        }
        if self.ratios.len() > 1_000 {
            return refuse("ratios: more than 1000 are not allowed".to_owned());
        }
        if let Some(spread) = self.spread.filter(|spread| !(0.0..=1.0).contains(spread)) {
            return refuse(format!("spread: {spread} is not within 0..=1"));
        }
        for (name, ms) in [("silence_ms", self.silence_ms), ("late_ms", self.late_ms)] {
            if let Some(ms) = ms.filter(|ms| *ms > 10_000) {
                return refuse(format!("{name}: {ms} is not within 0..=10000"));
            }
        }
        Ok(())
    }
}

/// `simulate:disconnect`: the server drops the connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SimulateDisconnect {
    /// Whose session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_id: Option<String>,
    /// Wait before it, in ms.
    #[serde(default, deserialize_with = "whole_or_zero")]
    pub delay_ms: u64,
    /// Refuse new connections for this long afterwards, in ms.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "whole_opt"
    )]
    pub refuse_for_ms: Option<u64>,
}

/// `simulate:session_loss`: the server forgets the session and keeps the
/// connection, so the stream's next message is answered `STREAM_NOT_FOUND`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SimulateSessionLoss {
    /// Whose session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_id: Option<String>,
    /// Wait before it, in ms.
    #[serde(default, deserialize_with = "whole_or_zero")]
    pub delay_ms: u64,
}

/// Whether a control event was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ControlStatus {
    /// In force, or waiting for its stream.
    Accepted,
    /// Not understood; nothing changed.
    Rejected,
}

/// `<event>:ack`: the answer to a control event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlAck {
    /// Taken or not.
    pub status: ControlStatus,
    /// Why not, or what it acts on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Any control event.
#[derive(Clone, Debug, PartialEq)]
pub enum ControlMessage {
    /// `config:error_simulation`
    Errors(ErrorSimulation),
    /// `config:latency`
    Latency(LatencyConfig),
    /// `config:backpressure`
    Backpressure(BackpressureConfig),
    /// `simulate:backpressure`
    SimulateBackpressure(SimulateBackpressure),
    /// `config:audio`
    Audio(AudioConfig),
    /// `simulate:disconnect`
    Disconnect(SimulateDisconnect),
    /// `simulate:session_loss`
    SessionLoss(SimulateSessionLoss),
}

/// Each kind of message from what it carries.
macro_rules! from_contents {
    ($($kind:ident: $contents:ty),*) => {
        $(impl From<$contents> for ControlMessage {
            fn from(contents: $contents) -> Self {
                Self::$kind(contents)
            }
        })*
    };
}
from_contents!(
    Errors: ErrorSimulation, Latency: LatencyConfig, Backpressure: BackpressureConfig,
    SimulateBackpressure: SimulateBackpressure, Audio: AudioConfig, Disconnect: SimulateDisconnect,
    SessionLoss: SimulateSessionLoss
);

impl ControlMessage {
    /// Reads and checks the payload of event `name`; `None` if no control event has that name.
    pub fn parse(name: &str, payload: Value) -> Option<Result<Self, Refusal>> {
        if !event::CONTROL.contains(&name) {
            return None;
        }
        Some(object(&payload).and_then(|()| {
            let message = match name {
                event::CONFIG_ERROR_SIMULATION => Self::Errors(parse(payload)?),
                event::CONFIG_LATENCY => Self::Latency(parse(payload)?),
                event::CONFIG_BACKPRESSURE => Self::Backpressure(parse(payload)?),
                event::SIMULATE_BACKPRESSURE => Self::SimulateBackpressure(parse(payload)?),
                event::CONFIG_AUDIO => Self::Audio(parse(payload)?),
                event::SIMULATE_DISCONNECT => Self::Disconnect(parse(payload)?),
                _ => Self::SessionLoss(parse(payload)?),
            };
            message.validate()?;
            Ok(message)
        }))
    }

    /// The event name this goes under.
    pub fn event(&self) -> &'static str {
        match self {
            Self::Errors(_) => event::CONFIG_ERROR_SIMULATION,
            Self::Latency(_) => event::CONFIG_LATENCY,
            Self::Backpressure(_) => event::CONFIG_BACKPRESSURE,
            Self::SimulateBackpressure(_) => event::SIMULATE_BACKPRESSURE,
            Self::Audio(_) => event::CONFIG_AUDIO,
            Self::Disconnect(_) => event::SIMULATE_DISCONNECT,
            Self::SessionLoss(_) => event::SIMULATE_SESSION_LOSS,
        }
    }

    /// Whose session it names.
    pub fn stream_id(&self) -> Option<&str> {
        match self {
            Self::Errors(m) => m.stream_id.as_deref(),
            Self::Latency(m) => m.stream_id.as_deref(),
            Self::Backpressure(m) => m.stream_id.as_deref(),
            Self::SimulateBackpressure(m) => m.stream_id.as_deref(),
            Self::Audio(m) => m.stream_id.as_deref(),
            Self::Disconnect(m) => m.stream_id.as_deref(),
            Self::SessionLoss(m) => m.stream_id.as_deref(),
        }
    }

    /// The JSON object for the wire.
    ///
    /// # Errors
    /// Never for the types of this crate; `serde_json`'s signature.
    pub fn payload(&self) -> serde_json::Result<Value> {
        match self {
            Self::Errors(m) => serde_json::to_value(m),
            Self::Latency(m) => serde_json::to_value(m),
            Self::Backpressure(m) => serde_json::to_value(m),
            Self::SimulateBackpressure(m) => serde_json::to_value(m),
            Self::Audio(m) => serde_json::to_value(m),
            Self::Disconnect(m) => serde_json::to_value(m),
            Self::SessionLoss(m) => serde_json::to_value(m),
        }
    }

    fn validate(&self) -> Result<(), Refusal> {
        match self {
            Self::Errors(m) => m
                .rules
                .iter()
                .try_for_each(|rule| rule.condition().map(drop)),
            Self::Backpressure(m) => m.validate(),
            Self::Audio(m) => m.validate(),
            Self::Latency(_)
            | Self::SimulateBackpressure(_)
            | Self::Disconnect(_)
            | Self::SessionLoss(_) => Ok(()),
        }
    }
}
