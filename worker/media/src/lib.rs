//! Everything that knows GStreamer: ingest, audio coding, egress, segment files.
//!
//! The rest of the worker sees plain facts and opaque payloads. Callbacks run on
//! GStreamer's threads: they take what is needed, `try_send` into a bounded channel and
//! return; no lock is held while GStreamer is called.
#![warn(missing_docs)]

pub mod aac;
pub mod audio;
pub mod bus;
mod decoder;
pub mod duck;
mod ear;
pub mod egress;
mod element;
pub mod encoder;
mod error;
pub mod fit;
mod flv;
pub mod ingest;
pub mod limiter;
pub mod loudness;
pub mod m4a;
pub mod messages;
mod meter;
pub mod mixer;
mod rtmp_target;
pub mod rtp;
pub mod segment_files;
mod socket_queue;
pub mod splice;
pub mod tempo;
mod url;
mod wav;

use std::sync::Arc;

pub use self::error::MediaError;
pub use self::rtmp_target::RtmpTarget;
pub use self::url::MediaUrl;

/// One H.264 access unit as it came in, AVC formatted (length-prefixed).
///
/// The payload is shared, never copied or changed: what goes out is what came in.
#[derive(Debug, Clone)]
pub struct AccessUnit {
    pub(crate) buffer: gst::Buffer,
    pub(crate) caps: gst::Caps,
}

impl AccessUnit {
    /// Size of the coded data in bytes.
    pub fn size(&self) -> usize {
        self.buffer.size()
    }

    /// One that no camera sent, for tests of this crate and of those above: a NAL unit of `size` bytes that
    /// nobody decodes, with parameter sets that tell this level.
    #[doc(hidden)]
    pub fn made_up(level: u8, keyframe: bool, size: usize) -> Self {
        let mut data = (size as u32).to_be_bytes().to_vec();
        data.push(if keyframe { 0x65 } else { 0x41 });
        data.resize(4 + size, 0x11);
        let mut buffer = gst::Buffer::from_slice(data);
        if !keyframe {
            buffer.make_mut().set_flags(gst::BufferFlags::DELTA_UNIT);
        }
        let codec_data = gst::Buffer::from_slice([1_u8, 0x42, 0, level, 0xff, 0xe1, 0, 0, 1, 0, 0]);
        let caps = gst::Caps::builder("video/x-h264")
            .field("stream-format", "avc")
            .field("alignment", "au")
            .field("codec_data", codec_data)
            .field("width", 1280)
            .field("height", 720)
            .build();
        Self { buffer, caps }
    }
}

/// One raw AAC frame (1024 samples per channel), without ADTS header.
pub type AacFrame = Arc<[u8]>;

/// Makes GStreamer usable and says which of the elements the worker makes are missing.
pub fn init() -> Result<(), MediaError> {
    gst::init().map_err(|error| MediaError::Init(error.to_string()))?;
    let missing = element::missing();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(MediaError::MissingElements(missing))
    }
}
