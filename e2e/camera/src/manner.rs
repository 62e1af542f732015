//! How a camera behaves: one declarative value, everything optional, the default a good camera.
//!
//! As JSON: `{"video": {"jumps": [{"at": 7, "ms": 10000}]}, "reports": {"kind": "arrival", "first": 10}}`.
//! Times are in seconds of the clip unless said otherwise.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// How a camera behaves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fault of its own")]
pub struct Manner {
    /// What is wrong with the video track.
    pub video: TrackManner,
    /// What is wrong with the audio track.
    pub audio: TrackManner,
    /// Codes the clip's audio anew.
    pub audio_codec: Option<AudioCodec>,
    /// Goes on with the pictures of another clip.
    pub splices: Vec<Splice>,
    /// Starts the clip again when it ends, on one timeline.
    pub repeat: bool,
    /// Ends in good order at this second.
    pub end_at: Option<f64>,
    pub end: End,
    /// Largest RTP packet in bytes, header included.
    pub max_packet: usize,
    /// AAC or MPEG audio frames in one packet at most, as long as they fit.
    pub frames_per_packet: usize,
    /// A packet of several frames leaves when the next frame comes, as with ffmpeg, not with its last.
    pub packets_wait: bool,
    /// Pictures leave at their decoding time, as from a file; else as late as a live encoder that
    /// reorders has to be.
    pub from_file: bool,
    /// Where video has its markers.
    pub markers: Markers,
    /// Small units of a picture, parameter sets among them, share packets (STAP-A).
    pub aggregated: bool,
    /// A delimiter before every picture, and filler data behind it.
    pub delimiters: bool,
    /// Packets of both tracks.
    pub packets: Packets,
    /// Parameter sets before every keyframe, not only in the description.
    pub sets_in_band: bool,
    /// Parameter sets in front of keyframes have the timestamp of the picture before.
    pub sets_early: bool,
    /// Makes pictures larger, by SEI.
    pub padding: Padding,
    /// One SSRC for both tracks.
    pub one_ssrc: bool,
    /// Sender reports.
    pub reports: Reports,
    /// The wall clock, as sender reports tell it.
    pub wall: Wall,
    /// The network holds everything back for a while, then delivers it at once.
    pub bursts: Vec<Hole>,
    /// So many seconds of the clip are there already when the first reader comes, and leave at once.
    pub head_start: f64,
    /// Changes to the description.
    pub sdp: Vec<Edit>,
    pub more_media: Vec<MoreMedia>,
    /// What is asked of readers.
    pub session: SessionManner,
    /// What happens to connections that play.
    pub faults: Vec<Fault>,
    /// Seed of SSRCs, sequence numbers, timestamps and whatever else is random; 0: another each time.
    pub seed: u64,
}

impl Default for Manner {
    fn default() -> Self {
        Self {
            video: TrackManner::default(),
            audio: TrackManner::default(),
            audio_codec: None,
            splices: Vec::new(),
            repeat: false,
            end_at: None,
            end: End::default(),
            max_packet: 1400,
            frames_per_packet: 1,
            packets_wait: false,
            from_file: false,
            markers: Markers::default(),
            aggregated: false,
            delimiters: false,
            packets: Packets::default(),
            sets_in_band: false,
            sets_early: false,
            padding: Padding::default(),
            one_ssrc: false,
            reports: Reports::default(),
            wall: Wall::default(),
            bursts: Vec::new(),
            head_start: 0.0,
            sdp: Vec::new(),
            more_media: Vec::new(),
            session: SessionManner::default(),
            faults: Vec::new(),
            seed: 0,
        }
    }
}

impl Manner {
    /// What readers get from MediaMTX, as configured by default, when ffmpeg publishes to it: audio
    /// frames by fives, reports by arrival, the first after 10 s.
    #[must_use]
    pub fn mediamtx_and_ffmpeg() -> Self {
        Self {
            frames_per_packet: 5,
            packets_wait: true,
            from_file: true,
            reports: Reports {
                kind: ReportKind::Arrival,
                first: 10.0,
                every: 10.0,
                cname: false,
            },
            ..Self::default()
        }
    }
}

/// What is wrong with one track.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrackManner {
    /// It is not there.
    pub off: bool,
    /// Sent from this second on; announced and never sent if that is beyond the clip's end.
    pub from: Option<f64>,
    /// Not sent from this second on.
    pub until: Option<f64>,
    /// Not sent meanwhile; timestamps go on.
    pub holes: Vec<Hole>,
    /// Sent this many seconds late, stamped right.
    pub late: f64,
    /// Its clock runs so much faster than it says: 0.005 is half a percent. Timestamps keep counting
    /// samples, while sending and reports follow the clock.
    pub drift: f64,
    /// RTP timestamp of second 0; unset: random.
    pub rtp_base: Option<u32>,
    /// Its timestamps jump.
    pub jumps: Vec<Jump>,
    /// Single timestamps are wrong.
    pub stray: Option<Stray>,
    /// RTP packets that do not arrive.
    pub lost: Vec<Loss>,
    /// Its packets never carry the marker.
    pub unmarked: bool,
    /// RTCP BYE at these seconds, and it goes on: a microphone that was muted for a moment.
    pub byes: Vec<f64>,
    /// The wall time of its sender reports is off by a random amount up to this, either way.
    pub reports_wander_ms: f64,
}

/// A while in which something does not happen.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hole {
    /// When it begins.
    pub at: f64,
    /// How long it is.
    pub seconds: f64,
}

/// RTP timestamps go on elsewhere.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Jump {
    /// From here on.
    pub at: f64,
    /// By so much.
    pub ms: f64,
    /// Or: the first timestamp after it is this one.
    pub to: Option<u32>,
    /// The track gets another SSRC (and starts its sequence numbers anew).
    pub new_ssrc: bool,
    /// Its sequence numbers go on so many further, or back.
    pub sequence: i16,
    /// Sender reports go along: timestamps jump, but by the reports no wall time was skipped. Otherwise
    /// they keep the old relation, and by all the evidence the media moved.
    pub reports_follow: bool,
}

/// Single RTP timestamps that are wrong.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stray {
    /// One in the middle of every so many seconds.
    pub every: f64,
    /// By so much.
    pub ms: f64,
}

/// RTP packets that do not arrive.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Loss {
    /// From the first packet of this second on.
    pub at: f64,
    /// How many.
    pub packets: usize,
}

/// Another coding of the clip's audio.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AudioCodec {
    Opus,
    /// MPEG-1 layer III.
    Mp3,
    /// G.711 µ-law, 8 kHz mono.
    Pcmu,
    /// G.711 A-law, 8 kHz mono.
    Pcma,
    /// 16-bit samples, 48 kHz stereo.
    L16,
    /// G.722, 16 kHz mono, which says 8000.
    G722,
    /// G.726 of 32 kbit/s, 8 kHz mono.
    G726,
    /// AAC-LC of 32 kHz.
    Aac32k,
    /// The clip's AAC frames, the LATM way.
    Latm,
    /// The clip's AAC frames, each with an ADTS header.
    Adts,
}

/// Where video has its markers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Markers {
    /// On the last packet of every picture, where they belong.
    #[default]
    Pictures,
    /// On the last one of every slice.
    Slices,
    /// On all.
    Packets,
    Never,
}

/// How packets are dressed, and in what order they come. Numbers are "one in so many", 0 none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Packets {
    /// They have a header extension and padding.
    pub dressed: bool,
    /// Come twice.
    pub doubled: u16,
    /// Come after the next one.
    pub swapped: u16,
    /// Are preceded by one without payload.
    pub empty: u16,
    /// Are preceded by one of an H.264 type without a meaning, in which cameras put data of their own.
    pub private: u16,
    /// Are preceded by one of the interleaved mode (MTAP).
    pub interleaved: u16,
}

/// Goes on with the pictures of another clip of the same scene.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Splice {
    /// From its first keyframe in or after this second.
    pub at: f64,
    /// The other clip.
    pub clip: PathBuf,
}

/// How a stream ends. Whoever asks for it after that is told 404.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// RTCP BYE, then the connection is closed.
    #[default]
    Bye,
    /// The connection is closed.
    Close,
}

/// Makes pictures larger by SEI that decoders skip.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Padding {
    /// Bytes more in keyframes.
    pub keyframe: usize,
    /// Bytes more in other pictures.
    pub picture: usize,
}

/// Sender reports.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Reports {
    /// What they tell.
    pub kind: ReportKind,
    /// When the first one is sent, seconds after the first packet of any track.
    pub first: f64,
    /// Seconds between two of a track.
    pub every: f64,
    /// A CNAME beside them.
    pub cname: bool,
}

impl Default for Reports {
    fn default() -> Self {
        Self {
            kind: ReportKind::Honest,
            first: 0.0,
            every: 5.0,
            cname: true,
        }
    }
}

/// What sender reports tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReportKind {
    /// When media was captured.
    #[default]
    Honest,
    /// When packets arrived, as MediaMTX tells: of video those of keyframes, of audio all.
    Arrival,
    /// Nothing: there are none.
    Absent,
}

/// A camera's wall clock.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Wall {
    /// Seconds since 1970 when it starts to send; unset: what it is.
    pub starts: Option<f64>,
    /// It is set.
    pub steps: Vec<WallStep>,
}

/// A wall clock is set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WallStep {
    /// Seconds after the first packet.
    pub at: f64,
    /// By so many seconds.
    pub by: f64,
    /// Or: to the true time.
    pub right: bool,
}

/// A change to the description, as a regular expression; one that changes nothing is an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    /// What is looked for, `^` and `$` being ends of lines.
    pub find: String,
    /// What stands in its place.
    pub replace: String,
}

/// One more medium in the description: talk-back, metadata.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MoreMedia {
    /// Before video and audio instead of after them.
    pub first: bool,
    /// Its lines, without its control.
    pub lines: Vec<String>,
    /// What it sends, if anything.
    pub payload: Option<String>,
    /// How often, in seconds.
    pub every: f64,
}

impl MoreMedia {
    /// The channel back to an intercom, which no camera sends anything on.
    #[must_use]
    pub fn talk_back() -> Self {
        let lines = ["m=audio 0 RTP/AVP 0", "a=rtpmap:0 PCMU/8000", "a=sendonly"];
        Self {
            first: true,
            lines: lines.map(str::to_owned).to_vec(),
            ..Self::default()
        }
    }

    /// ONVIF metadata, once a second.
    #[must_use]
    pub fn metadata() -> Self {
        let lines = [
            "m=application 0 RTP/AVP 107",
            "a=rtpmap:107 vnd.onvif.metadata/90000",
            "a=recvonly",
        ];
        Self {
            first: false,
            lines: lines.map(str::to_owned).to_vec(),
            payload: Some(
                "<tt:MetadataStream xmlns:tt=\"http://www.onvif.org/ver10/schema\"/>".to_owned(),
            ),
            every: 1.0,
        }
    }
}

/// What is asked of readers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is a rule of its own")]
pub struct SessionManner {
    /// Session timeout that is told, in seconds.
    pub timeout: u64,
    /// A reader from which no request comes for that long is cut off.
    pub enforced: bool,
    /// Who may read.
    pub login: Option<Login>,
    /// DESCRIBE of any other path is sent on (302) to this path.
    pub redirect: Option<String>,
    /// Requests that are refused.
    pub refusals: Vec<Refusal>,
    /// Every answer takes so many seconds.
    pub slow: f64,
    /// The description takes so many seconds more: a source that is started on demand.
    pub describes_after: f64,
    /// The first packet is sent when [`Camera::go`](crate::Camera::go) says so, not with the first PLAY.
    pub hold: bool,
    /// PLAY is answered with `RTP-Info`.
    pub rtp_info: bool,
    /// By so many is the sequence number in it wrong.
    pub rtp_info_off: i16,
    /// DESCRIBE is answered without `Content-Base`.
    pub no_base: bool,
    /// Other interleaved channels are used than were asked for.
    pub other_channels: bool,
    /// Blanks around the parts of the `Session` header.
    pub spaced: bool,
    /// Whoever comes again sees the clip from its start, by another SSRC, instead of where it is by now.
    pub again_from_start: bool,
}

impl Default for SessionManner {
    fn default() -> Self {
        Self {
            timeout: 60,
            enforced: false,
            login: None,
            redirect: None,
            refusals: Vec::new(),
            slow: 0.0,
            describes_after: 0.0,
            hold: false,
            rtp_info: false,
            rtp_info_off: 0,
            no_base: false,
            other_channels: false,
            spaced: false,
            again_from_start: false,
        }
    }
}

/// Who may read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Login {
    /// User name.
    pub user: String,
    pub password: String,
    /// Basic instead of digest.
    pub basic: bool,
    /// Other challenges that are made before that, word by word.
    pub others: Vec<String>,
    /// So many requests are answered with one nonce; 0: any number.
    pub nonce_lasts: u64,
}

/// A request that is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// The method, such as `DESCRIBE`.
    pub method: String,
    /// The answer, such as 404.
    pub status: u16,
    /// So many times, then it is answered.
    pub times: u64,
}

/// What happens to a connection that plays.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Seconds after its PLAY.
    pub at: f64,
    /// What happens.
    pub how: Failure,
}

/// What happens to a connection. The n-th fault is that of the n-th session that plays; sessions beyond
/// them live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    Close,
    Reset,
    /// No media any more, but requests are answered.
    Silence,
    /// Not a byte any more, as with a cable pulled out.
    HalfOpen,
    /// The camera asks something itself, and goes on.
    Ask,
}
