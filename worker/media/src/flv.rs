//! FLV tags, which are what RTMP carries (Adobe, "Video File Format Specification" 10.1, annex E).

use super::aac::AacFormat;

const AUDIO: u8 = 8;
const VIDEO: u8 = 9;
const SCRIPT: u8 = 18;
/// AAC; FLV wants 44.1 kHz, 16 bit, stereo here whatever the sound is.
const AAC: u8 = 0xaf;
const H264: u8 = 7;
const KEY: u8 = 1 << 4;
const INTER: u8 = 2 << 4;
/// Second byte of a body: a decoder's configuration, or coded media.
const CONFIG: u8 = 0;
const CODED: u8 = 1;

/// One H.264 picture, in the AVC format; times are milliseconds since the stream's start.
pub(crate) fn picture(unit: &[u8], keyframe: bool, pts: i64, dts: i64) -> Vec<u8> {
    let kind = if keyframe { KEY } else { INTER };
    let [_, offset @ ..] = ((pts - dts) as i32).to_be_bytes();
    let [a, b, c] = offset;
    tag(VIDEO, dts, &[kind | H264, CODED, a, b, c], unit)
}

/// What a decoder of the pictures that follow must know (an AVCDecoderConfigurationRecord).
pub(crate) fn video_config(record: &[u8], dts: i64) -> Vec<u8> {
    tag(VIDEO, dts, &[KEY | H264, CONFIG, 0, 0, 0], record)
}

/// One AAC frame.
pub(crate) fn sound(frame: &[u8], pts: i64) -> Vec<u8> {
    tag(AUDIO, pts, &[AAC, CODED], frame)
}

/// What a decoder of the sound must know.
pub(crate) fn audio_config(format: &AacFormat, pts: i64) -> Vec<u8> {
    tag(AUDIO, pts, &[AAC, CONFIG], &format.config)
}

/// What the stream is, for servers that look: `size` is the picture's width and height.
pub(crate) fn metadata(format: &AacFormat, size: Option<(i32, i32)>, encoder: &str) -> Vec<u8> {
    let mut numbers = vec![
        ("audiocodecid", 10.0),
        ("audiosamplerate", f64::from(format.rate)),
        ("audiosamplesize", 16.0),
        ("audiochannels", f64::from(format.channels)),
    ];
    if let Some((width, height)) = size {
        numbers.extend([
            ("videocodecid", f64::from(H264)),
            ("width", f64::from(width)),
            ("height", f64::from(height)),
        ]);
    }
    // AMF 0: a string, then an array of named values.
    let mut body = vec![2];
    text(&mut body, "onMetaData");
    body.push(8);
    body.extend((numbers.len() as u32 + 2).to_be_bytes());
    for (name, value) in numbers {
        text(&mut body, name);
        body.push(0);
        body.extend(f64::to_be_bytes(value));
    }
    text(&mut body, "stereo");
    body.extend([1, u8::from(format.channels == 2)]);
    text(&mut body, "encoder");
    body.push(2);
    text(&mut body, encoder);
    body.extend([0, 0, 9]);
    tag(SCRIPT, 0, &body, &[])
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u16).to_be_bytes());
    out.extend(text.as_bytes());
}

fn tag(kind: u8, at: i64, head: &[u8], body: &[u8]) -> Vec<u8> {
    let length = (head.len() + body.len()) as u32;
    let mut out = Vec::with_capacity(length as usize + 15);
    out.push(kind);
    out.extend(&length.to_be_bytes()[1..]);
    // The lower 24 bits, then the upper 8; it wraps after 49 days.
    let [upper, lower @ ..] = (at.max(0) as u32).to_be_bytes();
    out.extend(lower);
    out.push(upper);
    out.extend([0; 3]);
    out.extend(head);
    out.extend(body);
    out.extend((length + 11).to_be_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_what_the_specification_says() {
        let expected = [
            9, 0, 0, 8, 0x34, 0x56, 0x78, 0x12, 0, 0, 0, // at 0x12345678 ms
            0x17, 1, 0, 0, 66, 7, 7, 7, // 66 ms later, three bytes
            0, 0, 0, 19,
        ];
        let at = 0x1234_5678;
        assert_eq!(picture(&[7, 7, 7], true, at + 66, at), expected);
        let shown_before = picture(&[7], false, 0, 1);
        assert_eq!(shown_before[11..16], [0x27, 1, 0xff, 0xff, 0xff]);
        assert_eq!(sound(&[5], 20)[4..14], [0, 0, 20, 0, 0, 0, 0, 0xaf, 1, 5]);
    }

    #[test]
    fn metadata_is_an_array_with_as_many_entries_as_it_says() {
        let tag = metadata(&AacFormat::lc(48_000, 2), Some((1280, 720)), "us");
        assert_eq!(tag[11..24], *b"\x02\x00\x0aonMetaData");
        assert_eq!(tag[24..29], [8, 0, 0, 0, 9]);
        let wanted = [&b"\x00\x05width\x00"[..], &1280_f64.to_be_bytes()].concat();
        assert!(tag.windows(wanted.len()).any(|part| part == wanted));
        assert!(tag[..tag.len() - 4].ends_with(b"\x00\x07encoder\x02\x00\x02us\x00\x00\x09"));
    }
}
