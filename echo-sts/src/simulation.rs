//! The misbehaviour tests ask for: which fragment fails, how late answers are,
//! what they sound like, how loaded the server claims to be. Pure: no clock, no
//! socket; a seeded jitter is the only randomness.

use std::{collections::BTreeMap, time::Duration};

use sts_protocol::{
    AudioConfig, AudioMode, BackpressureAction, BackpressureConfig, BackpressureSeverity,
    Condition, ErrorRule, ErrorSimulation, FragmentError, LatencyConfig, Refusal,
};

use crate::audio::{Job, Work};

/// Most streams that can have settings of their own.
const MAX_STREAMS: usize = 1_024;

/// Whose sessions a setting is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Every session, present and future.
    Everyone,
    /// Every session of this stream, present and future.
    Stream(String),
}

/// One kind of misbehaviour.
#[derive(Clone, Debug, PartialEq)]
pub enum Setting {
    /// Fail chosen fragments.
    Errors(ErrorSimulation),
    /// Answer late.
    Latency(LatencyConfig),
    /// Report load.
    Backpressure(BackpressureConfig),
    /// Answer with other sound.
    Audio(AudioConfig),
}

/// What a fragment is chosen by.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// `fragment_id`.
    pub fragment_id: &'a str,
    /// `sequence_number`.
    pub sequence: u64,
    /// Which fragment of its session this is, from 1.
    pub nth: u64,
}

/// What is to happen to a fragment.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Time between the start of processing and the answer.
    pub delay: Duration,
    /// The answer.
    pub fate: Fate,
}

/// How a fragment is answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Fate {
    /// The very same audio.
    Echo,
    /// Audio made by this job.
    Render(Job),
    /// `failed`, with this error.
    Fail(FragmentError),
    /// Never.
    Hold,
}

/// All settings in force.
#[derive(Clone, Debug, Default)]
pub struct Simulation {
    everyone: Behaviour,
    streams: BTreeMap<String, Behaviour>,
}

/// Settings of one scope; `None` leaves the word to the wider scope.
#[derive(Clone, Debug, Default)]
struct Behaviour {
    errors: Option<Errors>,
    latency: Option<Latency>,
    backpressure: Option<BackpressureConfig>,
    audio: Option<Sound>,
}

#[derive(Clone, Debug)]
struct Errors {
    enabled: bool,
    rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Rule {
    error: ErrorRule,
    condition: Condition,
    fired: u64,
}

#[derive(Clone, Copy, Debug)]
struct Latency {
    base_ms: u64,
    jitter_ms: u64,
    seed: u64,
}

#[derive(Clone, Debug)]
struct Sound {
    config: AudioConfig,
    used: u64,
}

impl Simulation {
    /// Puts a setting in force. A setting for everyone also replaces those of its
    /// kind that single streams have, so the last word counts.
    ///
    /// # Errors
    /// When a rule makes no sense or too many streams have settings of their own.
    pub fn set(&mut self, scope: &Scope, setting: &Setting) -> Result<(), Refusal> {
        let mut behaviour = Behaviour::default();
        match setting {
            Setting::Errors(config) => {
                let rules = config.rules.iter().map(|rule| {
                    Ok(Rule {
                        condition: rule.condition()?,
                        error: rule.clone(),
                        fired: 0,
                    })
                });
                let rules = rules.collect::<Result<_, Refusal>>()?;
                behaviour.errors = Some(Errors {
                    enabled: config.enabled,
                    rules,
                });
            }
            Setting::Latency(config) => {
                behaviour.latency = Some(Latency {
                    base_ms: config.base_ms,
                    jitter_ms: config.jitter_ms.unwrap_or(0),
                    seed: config.seed.unwrap_or(0),
                });
            }
            Setting::Backpressure(config) => behaviour.backpressure = Some(config.clone()),
            Setting::Audio(config) => {
                behaviour.audio = Some(Sound {
                    config: config.clone(),
                    used: 0,
                });
            }
        }
        match scope {
            Scope::Everyone => {
                for stream in self.streams.values_mut() {
                    stream.forget(setting);
                }
                self.everyone.overlay(behaviour);
            }
            Scope::Stream(id) => {
                if !self.streams.contains_key(id) && self.streams.len() >= MAX_STREAMS {
                    return Err(Refusal::invalid(format!(
                        "more than {MAX_STREAMS} streams with settings of their own"
                    )));
                }
                self.streams
                    .entry(id.clone())
                    .or_default()
                    .overlay(behaviour);
            }
        }
        Ok(())
    }

    /// Decides a fragment's fate and spends what is bounded by a `count`.
    pub fn plan(&mut self, stream: &str, subject: Subject<'_>) -> Plan {
        let delay = self
            .layers(stream)
            .find_map(|layer| layer.latency)
            .map_or(Duration::ZERO, |latency| latency.of(subject.sequence));
        let failure = self
            .layers(stream)
            .find_map(|layer| layer.errors.as_mut())
            .and_then(|errors| errors.judge(subject));
        let fate = match failure {
            Some(error) => Fate::Fail(error),
            None => self
                .layers(stream)
                .find_map(|layer| layer.audio.as_mut())
                .map_or(Fate::Echo, |sound| sound.next(subject.sequence)),
        };
        Plan { delay, fate }
    }

    /// The load reports a stream's session is to send; `None` for none.
    pub fn backpressure(&mut self, stream: &str) -> Option<BackpressureConfig> {
        self.layers(stream)
            .find_map(|layer| layer.backpressure.clone())
            .filter(|config| config.enabled)
    }

    /// From the narrowest scope to the widest.
    fn layers(&mut self, stream: &str) -> impl Iterator<Item = &mut Behaviour> {
        self.streams
            .get_mut(stream)
            .into_iter()
            .chain([&mut self.everyone])
    }
}

impl Behaviour {
    /// Takes over what `other` has an opinion on.
    fn overlay(&mut self, other: Self) {
        self.errors = other.errors.or(self.errors.take());
        self.latency = other.latency.or(self.latency);
        self.backpressure = other.backpressure.or(self.backpressure.take());
        self.audio = other.audio.or(self.audio.take());
    }

    fn forget(&mut self, kind: &Setting) {
        match kind {
            Setting::Errors(_) => self.errors = None,
            Setting::Latency(_) => self.latency = None,
            Setting::Backpressure(_) => self.backpressure = None,
            Setting::Audio(_) => self.audio = None,
        }
    }
}

impl Errors {
    fn judge(&mut self, subject: Subject<'_>) -> Option<FragmentError> {
        if !self.enabled {
            return None;
        }
        let rule = self.rules.iter_mut().find(|rule| rule.matches(subject))?;
        rule.fired += 1;
        let ErrorRule {
            error_code,
            error_message,
            retryable,
            stage,
            ..
        } = &rule.error;
        Some(FragmentError {
            code: error_code.clone(),
            message: error_message
                .clone()
                .unwrap_or_else(|| format!("simulated {error_code}")),
            stage: stage.clone(),
            retryable: retryable.or(error_code.retryable()).unwrap_or(false),
        })
    }
}

impl Rule {
    fn matches(&self, subject: Subject<'_>) -> bool {
        let spent = self.error.count.is_some_and(|count| self.fired >= count);
        !spent
            && match &self.condition {
                Condition::SequenceNumber(number) => *number == subject.sequence,
                Condition::FragmentId(id) => id == subject.fragment_id,
                Condition::NthFragment(n) => subject.nth.is_multiple_of(*n),
                Condition::Always => true,
            }
    }
}

impl Latency {
    /// Depends on seed and sequence number only, so that a run can be repeated
    /// whatever its timing, and every session sees the same series.
    fn of(self, sequence: u64) -> Duration {
        let jitter = match self.jitter_ms.checked_add(1) {
            Some(span) => splitmix(self.seed.wrapping_add(sequence.wrapping_mul(GOLDEN))) % span,
            None => 0,
        };
        Duration::from_millis(self.base_ms.saturating_add(jitter))
    }
}

/// 2^64 divided by the golden ratio: the step of the splitmix64 generator.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The output function of splitmix64.
fn splitmix(state: u64) -> u64 {
    let mut z = state.wrapping_add(GOLDEN);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Sound {
    /// The length of fragment `sequence`: the next of a list, else for speech one around `mean`, by seed
    /// and number only. The sum of twelve even draws is normal enough.
    fn ratio(&self, sequence: u64, mean: f64) -> f64 {
        if let Some(among) = (self.config.ratios.len() as u64).checked_sub(1) {
            return self.config.ratios[(sequence % (among + 1)) as usize];
        }
        if self.config.mode != AudioMode::Speech {
            return mean;
        }
        let seed = self.config.seed.unwrap_or(0);
        let even = |n: u64| {
            let place = sequence.wrapping_mul(12).wrapping_add(n);
            let draw = splitmix(seed.wrapping_add(place.wrapping_mul(GOLDEN)));
            (draw >> 11) as f64 / (1_u64 << 53) as f64
        };
        let normal: f64 = (0..12).map(even).sum::<f64>() - 6.0;
        (mean + normal * self.config.spread.unwrap_or(0.12)).clamp(0.1, 10.0)
    }

    fn next(&mut self, sequence: u64) -> Fate {
        if self.config.count.is_some_and(|count| self.used >= count) {
            return Fate::Echo;
        }
        self.used += 1;
        match (self.config.mode, Job::of(&self.config)) {
            (AudioMode::Hold, _) => Fate::Hold,
            (_, Some(mut job)) => {
                if let Work::Speech { ratio, .. } | Work::Resize(ratio) = &mut job.work {
                    *ratio = self.ratio(sequence, *ratio);
                }
                Fate::Render(job)
            }
            (_, None) => Fate::Echo,
        }
    }
}

/// How full a session is, in the steps automatic reports distinguish.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Below the low threshold.
    #[default]
    Calm,
    /// From the low threshold.
    Low,
    /// From the medium threshold.
    Medium,
    /// From the high threshold.
    High,
}

impl Level {
    /// The level of `inflight` fragments out of `max_inflight`.
    pub fn of(config: &BackpressureConfig, inflight: usize, max_inflight: u32) -> Self {
        let share = inflight as f64 / f64::from(max_inflight.max(1));
        if share >= config.threshold_high {
            Self::High
        } else if share >= config.threshold_medium {
            Self::Medium
        } else if share >= config.threshold_low {
            Self::Low
        } else {
            Self::Calm
        }
    }

    /// What reaching this level tells the worker.
    pub fn report(self) -> (BackpressureSeverity, BackpressureAction, Option<u64>) {
        use {BackpressureAction as Action, BackpressureSeverity as Severity};
        match self {
            Self::Calm | Self::Low => (Severity::Low, Action::None, None),
            Self::Medium => (Severity::Medium, Action::SlowDown, Some(SLOW_DOWN_MS)),
            Self::High => (Severity::High, Action::Pause, None),
        }
    }
}

/// Delay an automatic `slow_down` recommends, in ms.
pub const SLOW_DOWN_MS: u64 = 500;

/// The severity a simulated report has when the control event does not say.
pub fn severity_of(action: BackpressureAction) -> BackpressureSeverity {
    match action {
        BackpressureAction::None => BackpressureSeverity::Low,
        BackpressureAction::SlowDown => BackpressureSeverity::Medium,
        BackpressureAction::Pause => BackpressureSeverity::High,
    }
}

#[cfg(test)]
#[path = "simulation/tests.rs"]
mod tests;
