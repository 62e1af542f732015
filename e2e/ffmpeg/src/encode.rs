//! What writes media: clips, answers, copies, publishers.

use std::path::Path;

use crate::Call;

/// AAC that can be listened to for faults. No noise substitution: a decoder would fill it with dice of
/// its own, and sound that is random cannot be compared. No noise shaping in time: ffmpeg's adds bursts
/// of up to -30 dB at some beeps (with 9.0 at many), which are heard, and found, as clicks.
const AAC: &str = "-c:a aac -aac_coder twoloop -aac_pns 0 -aac_tns 0";
/// H.264 where only the times and the bytes matter.
const FAST_H264: &str = "-c:v libx264 -preset ultrafast -threads 1 -pix_fmt yuv420p";
/// Everything as it is.
const COPY: &str = "-c copy";

/// Raw pictures on standard input and how to encode them.
#[derive(Debug, Clone)]
pub struct Picture<'a> {
    /// Width and height of the raw pictures, which are enlarged pixel by pixel.
    pub drawn: (usize, usize),
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Pictures per second.
    pub fps: u32,
    /// Pictures from keyframe to keyframe.
    pub gop: u32,
    /// B-frames between the others.
    pub bframes: u32,
    /// Quality; less is better.
    pub crf: u32,
    /// Name of an x264 preset.
    pub preset: &'a str,
}

/// Raw samples (f32le, interleaved) in a file and how to encode them.
#[derive(Debug, Clone)]
pub struct RawSound<'a> {
    /// Where they are.
    pub file: &'a Path,
    /// Hertz.
    pub rate: u32,
    /// 1 or 2.
    pub channels: u16,
    /// Kilobits per second.
    pub kbps: u32,
}

/// An MP4 of raw pictures (yuv420p on standard input) and raw sound, the same bytes on every run.
pub fn clip(picture: Option<&Picture>, sound: Option<&RawSound>, to: &Path) -> Call {
    let mut call = Call::ffmpeg();
    if let Some(Picture {
        drawn: (width, height),
        fps,
        ..
    }) = picture
    {
        call = call.with(format!(
            "-f rawvideo -pix_fmt yuv420p -s {width}x{height} -r {fps} -i pipe:0"
        ));
    }
    if let Some(sound) = sound {
        call = call
            .with(format!(
                "-f f32le -ar {} -ac {}",
                sound.rate, sound.channels
            ))
            .input(sound.file);
    }
    if let Some(Picture {
        width,
        height,
        gop,
        bframes,
        crf,
        preset,
        ..
    }) = picture
    {
        call = call
            .with("-map 0:v -vf")
            .arg(format!(
                "scale={width}:{height}:flags=neighbor,\
                 setparams=range=tv:colorspace=bt709:color_primaries=bt709:color_trc=bt709"
            ))
            .with(format!("-c:v libx264 -preset {preset} -crf {crf}"))
            .with(format!("-g {gop} -keyint_min {gop} -bf {bframes}"))
            .with("-sc_threshold 0 -threads 1 -profile:v high -pix_fmt yuv420p -x264-params")
            .with("open-gop=0:range=tv:colorprim=bt709:transfer=bt709:colormatrix=bt709");
    }
    if let Some(sound) = sound {
        call = call
            .with(format!("-map {}:a", usize::from(picture.is_some())))
            .with(AAC)
            .with(format!("-b:a {}k", sound.kbps))
            // Edit lists count in movie time: in samples they are exact.
            .with(format!("-movie_timescale {}", sound.rate));
    }
    call.with("-map_metadata -1 -fflags +bitexact -flags:v +bitexact -flags:a +bitexact")
        .with("-movflags +faststart")
        .arg(to)
}

/// A test picture (320x180, 30 per second, a keyframe each second) with a tone; the container follows
/// from the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TestClip {
    /// Length.
    pub seconds: u32,
    /// B-frames between the others.
    pub bframes: u32,
    /// MP4 in fragments, as MediaMTX records.
    pub fragmented: bool,
}

impl TestClip {
    /// The plainest: no B-frames, one piece.
    pub const fn plain(seconds: u32) -> Self {
        Self {
            seconds,
            bframes: 0,
            fragmented: false,
        }
    }
}

/// Makes a [`TestClip`].
pub fn test_clip(clip: TestClip, to: &Path) -> Call {
    let seconds = clip.seconds;
    let call = Call::ffmpeg()
        .with(format!(
            "-f lavfi -i testsrc2=size=320x180:rate=30:duration={seconds}"
        ))
        .with(format!(
            "-f lavfi -i sine=frequency=440:sample_rate=48000:duration={seconds}"
        ))
        .with(FAST_H264)
        .with(format!("-bf {} -g 30", clip.bframes))
        .with(AAC)
        .with("-ac 2 -b:a 96k");
    let call = if clip.fragmented {
        call.with("-movflags +frag_keyframe+empty_moov+default_base_moof")
    } else {
        call
    };
    call.arg(to)
}

/// A copy whose audio holds `counted` samples a second at the rate `rate`, as a wrong clock would have
/// taken them; the video is copied.
pub fn reclock(from: &Path, counted: u32, rate: u32, to: &Path) -> Call {
    Call::ffmpeg()
        .input(from)
        .with("-map 0:v? -map 0:a:0 -c:v copy")
        .with(AAC)
        .with(format!("-b:a 160k -af aresample={counted},asetrate={rate}"))
        .arg(to)
}

/// The first track of each kind as an MP4, nothing encoded anew.
pub fn copy(from: &Path, to: &Path) -> Call {
    Call::ffmpeg()
        .input(from)
        .with("-map 0:v:0? -map 0:a:0?")
        .with(COPY)
        .with("-f mp4")
        .arg(to)
}

/// A recording in another form, for what reads recordings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Change {
    /// Only another container, as the name says.
    Container,
    /// The same in fragments (MP4).
    Fragments,
    /// Access unit delimiters in front of the units.
    Delimiters,
    /// Everything later by so many seconds.
    Later(f64),
    /// The pictures later by so many seconds.
    PicturesLater(f64),
}

/// Writes a copy in another form; nothing is encoded anew.
pub fn change(from: &Path, change: Change, to: &Path) -> Call {
    let call = Call::ffmpeg().input(from);
    let call = match change {
        Change::PicturesLater(seconds) => call
            .with(format!("-itsoffset {seconds}"))
            .input(from)
            // A transport stream begins at 0, too, as MediaMTX writes it.
            .with("-map 0:a -map 1:v -muxdelay 0 -muxpreload 0"),
        _ => call,
    };
    let call = call.with(COPY);
    let call = match change {
        Change::Container | Change::PicturesLater(_) => call,
        Change::Fragments => call.with("-movflags +frag_keyframe+delay_moov"),
        Change::Delimiters => call.with("-bsf:v h264_metadata=aud=insert"),
        Change::Later(seconds) => call.with(format!("-output_ts_offset {seconds}")),
    };
    call.arg(to)
}

/// A recording that something happened to, for what looks for it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rework {
    /// Half the size at a very low quality.
    PoorPicture,
    /// The picture by another codec, in an MP4.
    OtherPicture,
    /// The sound at 22.05 kHz, mono, 48 kbit/s.
    PoorSound,
    /// The sound as MP3.
    OtherSound,
    /// One picture dropped together with its time.
    Dropped(u32),
    /// One picture with a grey patch over its left.
    Blotted(u32),
}

/// Writes a copy that something happened to.
pub fn rework(from: &Path, rework: Rework, to: &Path) -> Call {
    let call = Call::ffmpeg().input(from);
    let fast = format!("{FAST_H264} -c:a copy");
    let call = match rework {
        Rework::PoorPicture => call.with("-s 160x90 -crf 36").with(fast),
        Rework::OtherPicture => call.with("-c:v mpeg4 -q:v 20 -c:a copy -f mp4"),
        Rework::PoorSound => call
            .with("-c:v copy")
            .with(AAC)
            .with("-b:a 48k -ar 22050 -ac 1"),
        Rework::OtherSound => call.with("-c:v copy -c:a libmp3lame -b:a 64k"),
        Rework::Dropped(number) => call
            .with(format!("-vf select=not(eq(n\\,{number}))"))
            .with("-fps_mode passthrough")
            .with(fast),
        Rework::Blotted(number) => call
            .with(format!(
                "-vf drawbox=x=100:y=130:w=60:h=20:color=gray:t=fill:enable='eq(n,{number})'"
            ))
            .with(fast),
    };
    call.arg(to)
}

/// What happens to the times of the sound.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Stretch {
    /// From this sample on later by so many seconds; the sound becomes PCM.
    Gap(u32, f64),
    /// All times by this factor; the sound is copied.
    Slew(f64),
}

impl Stretch {
    /// Writes a copy (Matroska) with the times so. By a filter, not a bitstream filter, where samples
    /// are counted: what units the latter counts in differs between versions.
    pub fn write(self, from: &Path, to: &Path) -> Call {
        let call = Call::ffmpeg().input(from);
        let call = match self {
            Self::Gap(sample, seconds) => call.with(format!(
                "-af asetpts=PTS+gte(N\\,{sample})*{seconds}/TB -c:a pcm_s16le"
            )),
            Self::Slew(factor) => call.with(COPY).with(format!("-bsf:a setts=ts=TS*{factor}")),
        };
        call.arg(to)
    }
}

/// What an STS service may answer with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// AAC in MP4, as phones and ffmpeg write it.
    M4a,
    /// AAC in MP4 that says nothing about its priming.
    M4aWithoutEdits,
    /// AAC frames one after the other.
    Adts,
    /// Vorbis in Ogg.
    Vorbis,
    /// Opus in Ogg.
    Opus,
    Mp3,
    /// 16 bit samples in WAV.
    Wav,
    /// Float samples in WAV.
    WavFloat,
    /// Bare 16 bit samples.
    Pcm,
}

/// Encodes raw samples (f32le, 48 kHz, stereo, on standard input) at another rate.
pub fn encode_answer(codec: Codec, rate: u32, channels: u32, to: &Path) -> Call {
    let how = match codec {
        Codec::M4a => "-c:a aac -f ipod",
        Codec::M4aWithoutEdits => "-c:a aac -use_editlist 0 -f ipod",
        Codec::Adts => "-c:a aac -f adts",
        Codec::Vorbis => "-c:a libvorbis -f ogg",
        Codec::Opus => "-c:a libopus -f ogg",
        Codec::Mp3 => "-c:a libmp3lame -f mp3",
        Codec::Wav => "-c:a pcm_s16le -f wav",
        Codec::WavFloat => "-c:a pcm_f32le -f wav",
        Codec::Pcm => "-f s16le",
    };
    Call::ffmpeg()
        .with("-f f32le -ar 48000 -ac 2 -i pipe:0")
        .with(format!("-ar {rate} -ac {channels}"))
        .with(how)
        .arg(to)
}

/// Sound that cameras send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CameraSound {
    /// Opus in MP4.
    Opus,
    /// AAC of 32 kHz in MP4.
    Aac32k,
    /// Bare MPEG frames, 48 kHz stereo.
    Mp3,
    /// G.711 µ-law, 8 kHz mono.
    Pcmu,
    /// G.711 A-law, 8 kHz mono.
    Pcma,
    /// 16 bit samples, big-endian, 48 kHz stereo.
    L16,
    /// G.722, 16 kHz mono.
    G722,
    /// G.726 of 32 kbit/s as RTP packs it, 8 kHz mono.
    G726,
}

/// Encodes the first audio track of a file as a camera would.
pub fn encode_for_camera(from: &Path, sound: CameraSound, to: &Path) -> Call {
    let how = match sound {
        CameraSound::Opus => "-c:a libopus -b:a 96k -ar 48000 -f mp4",
        CameraSound::Aac32k => "-c:a aac -b:a 96k -ar 32000 -f mp4",
        CameraSound::Mp3 => {
            "-c:a libmp3lame -b:a 128k -ar 48000 -ac 2 -write_xing 0 -id3v2_version 0 -f mp3"
        }
        CameraSound::Pcmu => "-ar 8000 -ac 1 -f mulaw",
        CameraSound::Pcma => "-ar 8000 -ac 1 -f alaw",
        CameraSound::L16 => "-ar 48000 -ac 2 -f s16be",
        CameraSound::G722 => "-ar 16000 -ac 1 -f g722",
        CameraSound::G726 => "-c:a g726le -b:a 32k -ar 8000 -ac 1 -f g726le",
    };
    Call::ffmpeg()
        .input(from)
        .with("-map 0:a:0")
        .with(how)
        .arg(to)
}

/// A clip in another form that cameras have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recode {
    /// So many slices a picture; 30 pictures from keyframe to keyframe.
    Slices(u32),
    /// MP3 beside the same pictures.
    Mp3,
}

/// Writes a clip in another form.
pub fn recode(from: &Path, recode: Recode, to: &Path) -> Call {
    let how = match recode {
        Recode::Slices(slices) => format!(
            "-c:a copy -c:v libx264 -preset ultrafast -crf 20 -bf 0 -g 30 -sc_threshold 0 -threads 1 \
             -x264-params slices={slices}"
        ),
        Recode::Mp3 => "-c:v copy -c:a libmp3lame -b:a 128k".to_owned(),
    };
    Call::ffmpeg().input(from).with("-map 0").with(how).arg(to)
}

/// Publishes a file in real time, copied; RTSP over TCP or RTMP, as the URL says. `seconds`: no more
/// than that of it.
pub fn publish(from: &Path, seconds: Option<u32>, url: &str) -> Call {
    let call = Call::ffmpeg().with("-re");
    let call = match seconds {
        Some(seconds) => call.with(format!("-t {seconds}")),
        None => call,
    };
    let call = call.input(from).with(COPY);
    let call = if url.starts_with("rtsp") {
        call.with("-f rtsp -rtsp_transport tcp")
    } else {
        call.with("-f flv")
    };
    call.arg(url)
}

/// Records so many seconds of a stream, copied.
pub fn record(url: &str, seconds: u32, to: &Path) -> Call {
    let call = Call::ffmpeg();
    let call = if url.starts_with("rtsp") {
        call.with("-rtsp_transport tcp")
    } else {
        call
    };
    call.input(url)
        .with(format!("-t {seconds}"))
        .with(COPY)
        .arg(to)
}

/// Publishes a file over RTSP in real time, copied, again and again.
pub fn publish_again_and_again(from: &Path, url: &str) -> Call {
    Call::ffmpeg()
        .with("-re -stream_loop -1")
        .input(from)
        .with(COPY)
        .with("-f rtsp -rtsp_transport tcp")
        .arg(url)
}

/// Passes a stream on from RTSP to RTMP, copied or with the audio encoded again, and writes how far it is
/// to `progress` now and then.
pub fn pass_on(from: &str, encode_audio: bool, progress: &Path, to: &str) -> Call {
    let call = Call::ffmpeg().with("-progress").arg(progress);
    let call = call.with("-rtsp_transport tcp").input(from);
    let call = if encode_audio {
        call.with("-c:v copy -c:a aac")
    } else {
        call.with(COPY)
    };
    call.with("-f flv").arg(to)
}

/// A clip of so many megabits a second, with the sound of another: noise, which does not compress.
pub fn heavy(sound: &Path, megabits: u32, to: &Path) -> Call {
    Call::ffmpeg()
        .with("-f lavfi -i nullsrc=size=1280x720:rate=30:duration=20,noise=alls=100:allf=t")
        .input(sound)
        .with("-map 0:v -map 1:a -t 20 -pix_fmt yuv420p -c:v libx264 -preset ultrafast -g 60 -bf 0")
        .with(format!(
            "-b:v {megabits}M -maxrate {megabits}M -bufsize {megabits}M -c:a copy"
        ))
        .arg(to)
}
