//! What reads media: probing, decoding, watching, playing.

use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use crate::Call;

/// Only the slices of access units count: parameter sets, delimiters and SEI come and go on the way.
const SLICES: &str = "-bsf:v filter_units=pass_types=1-5";
/// Each picture once, at its own time. Without it ffmpeg fills up to the frame rate it supposes.
const EACH_ONCE: &str = "-fps_mode passthrough";
/// Times to the millisecond, as RTMP has them. Where the encoder's time base is left to ffmpeg it is that
/// of the supposed frame rate, and times are rounded to 25 a second; `-1` for "that of the input" is
/// deprecated in ffmpeg 8 and refused by 9.
const MILLISECONDS: &str = "-enc_time_base 1:1000";
/// Tells of each picture, without its side data, which it would print byte by byte: the SEI of 8 s of
/// video at 100 Mbit/s took 140 s.
const TELL: &str = "sidedata=mode=delete,showinfo=checksum=0";
/// Decode, let the filters tell, and keep nothing.
const NOWHERE: &str = "-f null -";
/// Asks for all tracks, and so for the times of the file: in a transport stream that begins at 0 ffmpeg
/// moves the earliest track that is asked for there, `-copyts` or not. Where the sound begins before
/// the pictures, these would be early by what lies between.
const ALL_TRACKS: &str = "-map 0:v? -map 0:a? -c copy -f null -";

/// What ffprobe is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail<'a> {
    /// Streams and container.
    Streams,
    /// Packets of the streams that a selector names (`v`, `a`, `v:0`).
    Packets(&'a str),
    /// The times of the decoded frames of the first audio track, and its format.
    SoundFrames,
}

/// ffprobe on a file; JSON on its standard output.
pub fn probe(input: impl AsRef<OsStr>, detail: Detail<'_>) -> Call {
    let call = Call::ffprobe().with("-of json");
    let call = match detail {
        Detail::Streams => call.with("-show_streams -show_format"),
        Detail::Packets(select) => call
            .with(format!("-select_streams {select} -show_entries"))
            .with("packet=pos,pts_time,dts_time,size,flags"),
        Detail::SoundFrames => call.with("-select_streams a:0 -show_entries").with(
            "frame=pts,best_effort_timestamp,nb_samples:stream=sample_rate,channels,time_base",
        ),
    };
    call.input(input)
}

/// The first line of what ffmpeg says of itself.
///
/// # Errors
/// When it is not installed.
pub fn version() -> anyhow::Result<String> {
    let said = Call::new("ffmpeg").with("-version").run()?;
    let said = String::from_utf8_lossy(&said);
    Ok(said.lines().next().unwrap_or_default().to_owned())
}

/// Every sample of the first audio track, f32le and interleaved, on standard output.
pub fn decode_sound(media: &Path) -> Call {
    Call::ffmpeg()
        .input(media)
        .with("-map 0:a:0 -c:a pcm_f32le -f f32le -")
}

/// The cues of a file of captions as SubRip, on standard output.
pub fn subtitles(media: &Path) -> Call {
    Call::ffmpeg()
        .with("-xerror")
        .input(media)
        .with("-map 0:s:0 -c:s subrip -f srt -")
}

/// Every picture of the first video track once, through `filter` (a graph that ends in `size` grey
/// bytes), on standard output; `showinfo` tells the time of each on standard error.
pub fn pictures(media: &Path, filter: &str) -> Call {
    Call::telling_ffmpeg()
        // Times as they are in the file.
        .with("-copyts")
        .input(media)
        .with("-map 0:v:0 -an")
        .with(EACH_ONCE)
        .arg("-vf")
        .arg(format!("{filter},{TELL}"))
        .with("-c:v rawvideo -pix_fmt gray -f rawvideo -")
        .with(ALL_TRACKS)
}

/// One line (`framemd5`) per coded picture of a file, on standard output.
pub fn hash_frames(clip: &Path) -> Call {
    hashes(Call::ffmpeg().input(clip))
}

/// One line (`framehash`, SHA-256) for what counts of each packet of a track, on standard output, with
/// the container's own times.
pub fn hash_track(media: &Path, track: Track) -> Call {
    let call = Call::ffmpeg().with("-xerror -copyts").input(media);
    let bare = media.extension().is_some_and(|kind| kind == "ts");
    let call = match track {
        Track::Pictures => call.with("-map 0:v:0 -c copy").with(SLICES),
        Track::Sound if bare => call.with("-map 0:a:0 -c copy -bsf:a aac_adtstoasc"),
        Track::Sound => call.with("-map 0:a:0 -c copy"),
    };
    call.with("-f framehash -hash sha256 -").with(ALL_TRACKS)
}

/// A track of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Track {
    /// H.264, of which the slices count.
    Pictures,
    /// AAC, of which all counts but the head of a bare frame.
    Sound,
}

/// Tells of every keyframe (`showinfo`) or block of audio (`ashowinfo`) of a file on standard error, with
/// its format. One track a call: newer releases filter them side by side, and lines run together.
pub fn formats(media: &Path, track: Track) -> Call {
    let filter = match track {
        Track::Pictures => format!("-an -vf {TELL}"),
        Track::Sound => "-vn -af ashowinfo".to_owned(),
    };
    Call::telling_ffmpeg()
        .with("-copyts -skip_frame nokey")
        .input(media)
        .with(&filter)
        .with(NOWHERE)
}

/// `count` small pictures side by side, one every so many seconds, as a JPEG on standard output. They
/// are keyframes, which is quick.
pub fn film_strip(media: &Path, every: f64, count: u32, (width, height): (u32, u32)) -> Call {
    Call::ffmpeg()
        .with("-skip_frame nokey")
        .input(media)
        .with(format!(
            "-an -vf fps=1/{every:.6}:round=up,scale={width}:{height},tile={count}x1"
        ))
        .with("-frames:v 1 -c:v mjpeg -q:v 6 -f image2pipe -")
}

/// The same of a stream, each line when the picture arrives; ends when the server says nothing for
/// `silence`.
pub fn watch_frames(url: &str, silence: Duration) -> Call {
    let call = Call::ffmpeg()
        // What is looked at before playing arrives in a lump: little, but a keyframe must be in it.
        .with("-fflags nobuffer -analyzeduration 2000000")
        .with(rw_timeout(silence));
    hashes(call.input(url))
}

fn hashes(call: Call) -> Call {
    call.with("-map 0:v:0 -c copy")
        .with(SLICES)
        .with("-flush_packets 1 -f framemd5 -")
}

/// A player that decodes a stream for `limit` and tells of every picture (`showinfo`) and block of audio
/// (`ashowinfo`) on standard error; the coded video also goes to `received`, from its first packet on.
pub fn play(url: &str, limit: Duration, silence: Duration, received: &Path) -> Call {
    let limit = format!("-t {:.3}", limit.as_secs_f64());
    Call::telling_ffmpeg()
        // The stream's own time base where pictures are copied.
        .with("-copytb 1")
        .with(rw_timeout(silence))
        .input(url)
        .with(format!("-map 0:v:0 {limit} -vf {TELL}"))
        .with(EACH_ONCE)
        .with(MILLISECONDS)
        .with(NOWHERE)
        .with(format!("-map 0:a:0? {limit} -af ashowinfo"))
        .with(NOWHERE)
        // Copied beside it, also what comes before a keyframe: decoders hide that.
        .with(format!("-map 0:v:0 {limit} -c copy -copyinkf"))
        .with("-flush_packets 1 -f h264")
        .arg(received)
}

fn rw_timeout(silence: Duration) -> String {
    format!("-rw_timeout {}", silence.as_micros())
}
