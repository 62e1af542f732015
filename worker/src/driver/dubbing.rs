//! The engine's session and its hands: the STS client and the decoders.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use dub_engine::{
    AppliedAcks, At, BadAudio, DubFit, End, Event, FragmentId, Resolution, Saying, Session,
    SessionConfig, SessionFact, SessionOrder,
};
use tokio::sync::mpsc;

use crate::captions::Words;
use crate::config::Config;
use crate::error::WorkerError;
use dub_media::aac::{AacFormat, FRAME_SAMPLES};
use dub_media::audio::{self, AudioError, Budget, Label, Pcm};
use dub_media::fit;
use sts_client::{
    DubbedAudio, InitParams, OutgoingFragment, Secret, StsClient, StsClientConfig, StsFact,
};

/// How long decoding an answer of 6 s may take.
const DECODE_TIME: Duration = Duration::from_secs(2);
/// Answers longer than this are no answers to any segment.
const LONGEST_SECONDS: usize = 90;

/// A fragment's audio, ready to send.
pub(super) struct FragmentAudio {
    /// Media time of its first sample, in nanoseconds.
    pub pts: i64,
    /// AAC frames in it.
    pub frames: usize,
    /// The M4A file.
    pub m4a: Vec<u8>,
}

/// What the dubbing side wants the driver to do.
pub(super) enum DubbingOrder {
    /// Publish this segment with this audio (`None`: its own), which says these words.
    Publish {
        batch: u64,
        dubbed: Option<Pcm>,
        words: Words,
    },
    /// Everything told so far is published.
    Drained(End),
    /// Log and count.
    Event(Event),
}

enum HeldAnswer {
    Answer(DubbedAudio),
    Unusable(String),
    /// A decoder is at it; forgotten meanwhile, its verdict comes too late.
    Decoding,
    Checked(Pcm, Words),
}

/// A decoder's verdict.
pub(super) struct Decoded {
    batch: u64,
    id: FragmentId,
    words: Words,
    result: Result<Pcm, AudioError>,
}

/// Everything between a complete segment and the decision what it sounds like.
pub(super) struct Dubbing {
    session: Session,
    client: Option<StsClient>,
    /// What the STS client tells.
    pub facts: mpsc::Receiver<StsFact>,
    verdicts: mpsc::Sender<Decoded>,
    /// What decoders found.
    pub decoded: mpsc::Receiver<Decoded>,
    fragments: BTreeMap<u64, FragmentAudio>,
    held: BTreeMap<FragmentId, HeldAnswer>,
    /// Segments whose dub has a length that does not fit.
    refused: VecDeque<u64>,
    format: Option<AacFormat>,
    init: InitParams,
    acks: AppliedAcks,
    config: Config,
}

impl Dubbing {
    /// A session that waits for [`Dubbing::start`].
    pub(super) fn new(config: &Config) -> Result<Self, WorkerError> {
        let client_config = client_config(config);
        let init = client_config.init.clone();
        let (client, facts) = StsClient::new(client_config)
            .map_err(|error| WorkerError::Usage(format!("--sts-service-url: {error}")))?;
        let session = Session::new(session_config(config));
        // At most one verdict per fragment in flight.
        let (verdicts, decoded) = mpsc::channel(32);
        Ok(Self {
            session,
            client: Some(client),
            facts,
            verdicts,
            decoded,
            fragments: BTreeMap::new(),
            held: BTreeMap::new(),
            refused: VecDeque::new(),
            format: None,
            init,
            acks: AppliedAcks::default(),
            config: config.clone(),
        })
    }

    /// The input's format is known: connect.
    pub(super) fn start(&mut self, at: At, format: &AacFormat) {
        self.init.rate = format.rate;
        self.init.channels = format.channels;
        if let Some(client) = &mut self.client {
            client.set_init(self.init.clone());
        }
        self.format = Some(format.clone());
        self.session.handle(at, SessionFact::Start);
    }

    /// A segment is complete, and there is no sound in it to dub.
    pub(super) fn segment_silent(&mut self, at: At, batch: u64) {
        self.session
            .handle(at, SessionFact::SegmentSilent { batch });
    }

    /// A segment is complete; `fragment` is `None` if it is too short to be dubbed.
    pub(super) fn segment_ready(&mut self, at: At, batch: u64, fragment: Option<FragmentAudio>) {
        let sendable = fragment.is_some();
        let bytes = fragment
            .as_ref()
            .map_or(0, |fragment| sts_client::message_len(fragment.m4a.len()));
        if let Some(fragment) = fragment {
            self.fragments.insert(batch, fragment);
        }
        let ready = SessionFact::SegmentReady {
            batch,
            sendable,
            bytes,
        };
        self.session.handle(at, ready);
    }

    /// No more segments.
    pub(super) fn input_ended(&mut self, at: At) {
        self.session.handle(at, SessionFact::InputEnded);
    }

    /// When [`Dubbing::wake`] is due.
    pub(super) fn poll_timeout(&self) -> Option<At> {
        let session = self.session.poll_timeout();
        session.into_iter().chain(self.acks.poll_timeout()).min()
    }

    /// A deadline has passed.
    pub(super) fn wake(&mut self, at: At) {
        self.session.handle_timeout(at);
        self.acks.handle_timeout(at);
    }

    /// Fragments on their way.
    pub(super) fn in_flight(&self) -> usize {
        self.session.in_flight()
    }

    /// The STS client told something. What audio it brought is kept until the session says what
    /// becomes of it.
    pub(super) fn handle(&mut self, at: At, fact: StsFact) {
        if let SessionFact::Disconnected { link, .. } = fact.input {
            self.acks.lost(link);
        }
        if let (SessionFact::Processed { id, .. }, Some(answer)) = (&fact.input, fact.audio)
            && let Some(id) = FragmentId::parse(id)
        {
            let held = answer.map_or_else(HeldAnswer::Unusable, HeldAnswer::Answer);
            // A repeated answer never replaces the first, which may be in use.
            self.held.entry(id).or_insert(held);
        }
        self.session.handle(at, fact.input);
    }

    /// A decoder is done.
    pub(super) fn checked(&mut self, at: At, decoded: Decoded) {
        let ok = match decoded.result {
            Ok(pcm) => {
                if let Some(held) = self.held.get_mut(&decoded.id) {
                    *held = HeldAnswer::Checked(pcm, decoded.words);
                }
                Ok(())
            }
            Err(error) => {
                if let AudioError::WrongLength(_) = error {
                    self.refused.push_back(decoded.batch);
                }
                Err(BadAudio {
                    reason: error.to_string(),
                })
            }
        };
        self.session.handle(
            at,
            SessionFact::AudioChecked {
                batch: decoded.batch,
                ok,
            },
        );
    }

    /// Carries out what the session orders; what concerns others is returned.
    pub(super) fn poll_order(&mut self, at: At) -> Option<DubbingOrder> {
        if let Some(batch) = self.refused.pop_front() {
            return Some(DubbingOrder::Event(Event::dub_refused(batch)));
        }
        while let Some(output) = self.session.poll_order() {
            match output {
                SessionOrder::Connect { link } => self.with_client(|client| client.connect(link)),
                SessionOrder::Init { link } => {
                    self.acks.lost(link);
                    self.with_client(|client| client.init(link));
                }
                SessionOrder::Send {
                    link,
                    batch,
                    id,
                    sequence,
                } => self.send(link, batch, id, sequence),
                SessionOrder::Applied { link, id } => self.acks.good(link, id),
                SessionOrder::Decode { batch, id, .. } => self.decode(at, batch, id),
                SessionOrder::Forget { id } => drop(self.held.remove(&id)),
                SessionOrder::End { link } => self.acks.end(at, link),
                SessionOrder::Disconnect { link } => {
                    self.acks.lost(link);
                    self.with_client(|client| client.disconnect(link));
                }
                SessionOrder::Resolve { batch, with } => {
                    self.fragments.remove(&batch);
                    let dubbed = match with {
                        Resolution::Dubbed { id } => {
                            self.acks.resolved(batch, id);
                            match self.held.remove(&id) {
                                Some(HeldAnswer::Checked(pcm, words)) => Some((pcm, words)),
                                _ => None,
                            }
                        }
                        Resolution::Original(_) => None,
                    };
                    let (dubbed, words) = dubbed.unzip();
                    return Some(DubbingOrder::Publish {
                        batch,
                        dubbed,
                        words: words.unwrap_or_default(),
                    });
                }
                SessionOrder::Drained(end) => return Some(DubbingOrder::Drained(end)),
                SessionOrder::Event(event) => return Some(DubbingOrder::Event(event)),
            }
        }
        self.say();
        None
    }

    /// A segment's audio is mixed and on its way out, with its dub or, after all, without.
    pub(super) fn mixed(&mut self, batch: u64, dubbed: bool) {
        self.acks.mixed(batch, dubbed);
        self.say();
    }

    fn say(&mut self) {
        while let Some(saying) = self.acks.poll_saying() {
            self.with_client(|client| match saying {
                Saying::Applied { link, id } => client.applied(link, id.to_string()),
                Saying::End { link } => client.end(link, ""),
            });
        }
    }

    /// Closes the connection, bounded.
    pub(super) async fn close(&mut self) {
        if let Some(client) = self.client.take() {
            client.close().await;
        }
    }

    fn with_client(&mut self, order: impl FnOnce(&mut StsClient)) {
        if let Some(client) = &mut self.client {
            order(client);
        }
    }

    fn send(&mut self, link: u32, batch: u64, id: FragmentId, sequence: u64) {
        let (Some(fragment), Some(format)) = (self.fragments.get_mut(&batch), &self.format) else {
            return;
        };
        let outgoing = outgoing(fragment, format, id, sequence);
        self.with_client(|client| client.send(link, outgoing));
    }

    fn decode(&mut self, at: At, batch: u64, id: FragmentId) {
        let want = self
            .fragments
            .get(&batch)
            .map_or(0, |f| f.frames * FRAME_SAMPLES as usize);
        let answer = match self.held.insert(id, HeldAnswer::Decoding) {
            Some(HeldAnswer::Answer(answer)) => Ok(answer),
            Some(HeldAnswer::Unusable(reason)) => Err(reason),
            Some(HeldAnswer::Decoding | HeldAnswer::Checked(..)) | None => {
                Err("there is no audio in the answer".to_owned())
            }
        };
        match (answer, self.format.clone()) {
            (Ok(answer), Some(format)) => {
                let verdicts = self.verdicts.clone();
                let fit = DubFit::new(self.config.fit_rules(format.rate));
                let words = Words {
                    transcript: answer.transcript.clone(),
                    translated: answer.translated_text.clone(),
                };
                tokio::task::spawn_blocking(move || {
                    let result = check(&answer, &format, want, &fit);
                    // The receiver is gone only when the worker is.
                    let _ = verdicts.blocking_send(Decoded {
                        batch,
                        id,
                        words,
                        result,
                    });
                });
            }
            (answer, _) => {
                let reason = answer
                    .err()
                    .unwrap_or_else(|| "the input has no audio format".to_owned());
                self.session.handle(
                    at,
                    SessionFact::AudioChecked {
                        batch,
                        ok: Err(BadAudio { reason }),
                    },
                );
            }
        }
    }
}

/// A segment's audio as it is sent, at most once: it is taken out of `fragment`.
fn outgoing(
    fragment: &mut FragmentAudio,
    format: &AacFormat,
    id: FragmentId,
    sequence: u64,
) -> OutgoingFragment {
    let samples = fragment.frames as u64 * u64::from(FRAME_SAMPLES);
    OutgoingFragment {
        id: id.to_string(),
        sequence,
        pts_ns: fragment.pts,
        source_pts_ns: fragment.pts,
        duration_ms: samples * 1000 / u64::from(format.rate),
        sample_rate: format.rate,
        channels: format.channels,
        m4a: std::mem::take(&mut fragment.m4a).into(),
    }
}

fn client_config(config: &Config) -> StsClientConfig {
    let sts = &config.sts;
    let new = StsClientConfig::new(sts.url.secret(), &config.stream_id, &config.worker_id);
    StsClientConfig {
        token: sts.token.as_ref().map(|token| Secret::new(&*token.0)),
        max_silence: sts.max_silence,
        ca: sts.ca.clone(),
        init: InitParams {
            source_language: sts.source_language.clone(),
            target_language: sts.target_language.clone(),
            voice_profile: sts.voice_profile.clone(),
            chunk_ms: config.segment_duration.as_millis() as u32,
            max_inflight: sts.max_inflight,
            timeout_ms: sts.timeout.as_millis() as u32,
            ..InitParams::default()
        },
        ..new
    }
}

fn session_config(config: &Config) -> SessionConfig {
    let sts = &config.sts;
    SessionConfig {
        enabled: sts.enabled,
        max_inflight: sts.max_inflight,
        fragment_timeout: sts.timeout,
        breaker_failures: sts.breaker_failures,
        breaker_cooldown: sts.breaker_cooldown,
        gone: sts.gone,
        max_message: sts_client::MAX_MESSAGE,
        id_seed: uuid::Uuid::new_v4().as_u64_pair().0,
        ..SessionConfig::default()
    }
}

fn check(
    answer: &DubbedAudio,
    format: &AacFormat,
    want: usize,
    rules: &DubFit,
) -> Result<Pcm, AudioError> {
    let label = Label {
        format: &answer.format,
        rate: answer.sample_rate.unwrap_or(format.rate),
        channels: answer.channels.unwrap_or(format.channels),
    };
    let longest = LONGEST_SECONDS * format.rate as usize;
    let budget = Budget::lasting(want, format.rate, DECODE_TIME, longest);
    let pcm = audio::decode(answer.bytes.to_vec(), label, format, want, budget)?;
    rules
        .judge(fit::measure(&pcm, format.rate), want as u64)
        .map_err(AudioError::WrongLength)?;
    Ok(pcm)
}

#[cfg(test)]
mod tests;
