//! Answers that are no sound but point to some: under every label, nothing is fetched, nothing opened.
//!
//! An answer that was an HLS playlist once made the worker ask `http://127.0.0.1:PORT/secret.ts`.

#![expect(
    clippy::unwrap_used,
    reason = "a test says what it expects by unwrapping it"
)]

use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use dub_media::aac::AacFormat;
use dub_media::audio::{self, Budget, Label};
use dub_media::encoder::silent_frame;
use dub_media::m4a;
use rustix::fs::inotify;

/// A listener and a file that nobody may touch.
struct Trap {
    listener: TcpListener,
    file: PathBuf,
    watch: rustix::fd::OwnedFd,
    _dir: tempfile::TempDir,
}

impl Trap {
    fn set(sound: &[u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret.m4a");
        std::fs::write(&file, sound).unwrap();
        let flags = inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC;
        let watch = inotify::init(flags).unwrap();
        let what = inotify::WatchFlags::OPEN | inotify::WatchFlags::ACCESS;
        inotify::add_watch(&watch, &file, what).unwrap();
        Self {
            listener,
            file,
            watch,
            _dir: dir,
        }
    }

    /// What was touched since the last call.
    fn touched(&self) -> Vec<&'static str> {
        let mut touched = vec![];
        match self.listener.accept() {
            Ok(_) => touched.push("a connection was made"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        let mut events = [0; 4096];
        if rustix::io::read(&self.watch, &mut events).is_ok() {
            touched.push("the file was opened");
        }
        touched
    }
}

/// Puts `location` where an MP4 says which file its samples are in.
fn with_external_samples(mp4: &[u8], location: &str) -> Vec<u8> {
    let mut out = mp4.to_vec();
    let mut at = 0;
    for name in [
        b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref", b"url ",
    ] {
        at += out[at..].windows(4).position(|w| w == name).unwrap();
        let size = u32::from_be_bytes(*out[at - 4..].first_chunk().unwrap());
        let grown = size + location.len() as u32 + 1;
        out[at - 4..at].copy_from_slice(&grown.to_be_bytes());
    }
    // No flags: the samples are not in this file.
    out[at + 4..at + 8].fill(0);
    let tail = out.split_off(at + 8);
    out.extend(location.bytes().chain([0]));
    out.extend(tail);
    out
}

/// A QuickTime file that is nothing but a pointer to another.
fn reference_movie(location: &str) -> Vec<u8> {
    fn atom(kind: [u8; 4], body: &[u8]) -> Vec<u8> {
        let size = (8 + body.len()) as u32;
        [&size.to_be_bytes(), &kind[..], body].concat()
    }
    let length = (location.len() as u32 + 1).to_be_bytes();
    let data = [&[0; 4], &b"url "[..], &length, location.as_bytes(), &[0]].concat();
    let rmra = atom(*b"rmra", &atom(*b"rmda", &atom(*b"rdrf", &data)));
    [atom(*b"ftyp", b"qt  \0\0\0\0qt  "), atom(*b"moov", &rmra)].concat()
}

/// An MP3 whose cover picture lies elsewhere.
fn linked_cover(location: &str) -> Vec<u8> {
    let body = [b"\0-->\0\x03\0", location.as_bytes()].concat();
    let frame = [
        b"APIC".as_slice(),
        &(body.len() as u32).to_be_bytes(),
        &[0; 2],
        &body,
    ]
    .concat();
    let mut tag = [
        b"ID3\x03\0\0\0\0".as_slice(),
        &[0, frame.len() as u8],
        &frame,
    ]
    .concat();
    tag.extend([0xff, 0xfb, 0x90, 0].repeat(400));
    tag
}

/// A FLAC whose picture lies elsewhere.
fn linked_picture(location: &str) -> Vec<u8> {
    let number = |n: usize| (n as u32).to_be_bytes();
    let picture = [
        &number(3)[..],
        &number(3),
        b"-->",
        &[0; 20],
        &number(location.len()),
        location.as_bytes(),
    ]
    .concat();
    let mut file = b"fLaC\x00\x00\x00\x22".to_vec();
    // 4096 samples a block, 48 kHz, two channels of 16 bits.
    file.extend([0x10, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0x0b, 0xb8, 0x02, 0xf0]);
    file.extend([0; 20]);
    file.push(0x86);
    file.extend(&number(picture.len())[1..]);
    file.extend(picture);
    file
}

fn answers(mp4: &[u8], url: &str, file: &Path) -> Vec<(&'static str, Vec<u8>)> {
    let path = file.display();
    let mut all = vec![
        ("a reference movie", reference_movie(url)),
        (
            "a reference movie to a file",
            reference_movie(&format!("file://{path}")),
        ),
        ("samples elsewhere", with_external_samples(mp4, url)),
        (
            "samples in a file",
            with_external_samples(mp4, &format!("file://{path}")),
        ),
        ("a linked cover", linked_cover(url)),
        ("a linked picture", linked_picture(url)),
        (
            "a linked picture in a file",
            linked_picture(&format!("file://{path}")),
        ),
    ];
    for target in [url.to_owned(), format!("file://{path}"), path.to_string()] {
        for (name, text) in [
            (
                "HLS",
                format!(
                    "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:6\n#EXTINF:6.0,\n{target}\n#EXT-X-ENDLIST\n"
                ),
            ),
            (
                "HLS master",
                format!("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1000\n{target}\n"),
            ),
            ("M3U", format!("{target}\n")),
            (
                "ffconcat",
                format!("ffconcat version 1.0\nfile '{target}'\n"),
            ),
            (
                "PLS",
                format!("[playlist]\nFile1={target}\nNumberOfEntries=1\nVersion=2\n"),
            ),
            (
                "DASH",
                format!(
                    "<?xml version=\"1.0\"?><MPD xmlns=\"urn:mpeg:dash:schema:mpd:2011\" type=\"static\" mediaPresentationDuration=\"PT6S\" minBufferTime=\"PT1S\" profiles=\"urn:mpeg:dash:profile:full:2011\"><Period><AdaptationSet mimeType=\"audio/mp4\"><Representation id=\"1\" bandwidth=\"1\"><BaseURL>{target}</BaseURL></Representation></AdaptationSet></Period></MPD>"
                ),
            ),
            (
                "smooth streaming",
                format!(
                    "<?xml version=\"1.0\"?><SmoothStreamingMedia MajorVersion=\"2\" MinorVersion=\"0\" Duration=\"60000000\"><StreamIndex Type=\"audio\" Url=\"{target}\"/></SmoothStreamingMedia>"
                ),
            ),
            (
                "XSPF",
                format!(
                    "<?xml version=\"1.0\"?><playlist version=\"1\" xmlns=\"http://xspf.org/ns/0/\"><trackList><track><location>{target}</location></track></trackList></playlist>"
                ),
            ),
            (
                "ASX",
                format!("<asx version=\"3.0\"><entry><ref href=\"{target}\"/></entry></asx>"),
            ),
            (
                "SMIL",
                format!("<smil><body><audio src=\"{target}\"/></body></smil>"),
            ),
            (
                "SDP",
                format!(
                    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\na=control:{target}\r\nm=audio 5004 RTP/AVP 0\r\n"
                ),
            ),
            ("RTSP text", format!("RTSPtext\r\n{target}\r\n")),
        ] {
            all.push((name, text.clone().into_bytes()));
            // Behind what makes the content look like sound.
            for magic in [
                &b"\0\0\0\x10ftypM4A \0\0\0\0"[..],
                b"RIFF\xff\xff\xff\x7fWAVE",
                b"OggS",
                b"ID3\x03\0\0\0\0\0\0",
                b"\xff\xf1\x4c\x80",
                b"\x1a\x45\xdf\xa3",
                b"fLaC",
            ] {
                all.push((name, [magic, text.as_bytes()].concat()));
            }
        }
    }
    all
}

#[test]
fn an_answer_that_points_elsewhere_opens_nothing_under_any_label() {
    dub_media::init().expect("the machine has the plugins: cargo xtask setup");
    let format = AacFormat::lc(48_000, 2);
    let silence = silent_frame(2);
    let frames: Vec<&[u8]> = (0..94).map(|_| &silence[..]).collect();
    let mp4 = m4a::write(&format, None, &frames);
    let trap = Trap::set(&mp4);
    // The trap works.
    let url = format!("http://{}/secret.ts", trap.listener.local_addr().unwrap());
    TcpStream::connect(trap.listener.local_addr().unwrap()).unwrap();
    std::fs::read(&trap.file).unwrap();
    assert_eq!(trap.touched().len(), 2);

    let budget = Budget {
        time: Duration::from_secs(2),
        frames: 48_000 * 90,
    };
    for (name, data) in answers(&mp4, &url, &trap.file) {
        for label in [
            "",
            "m4a",
            "mp4",
            "aac",
            "adts",
            "wav",
            "pcm_s16le",
            "s16le",
            "pcm16",
            "mp3",
            "ogg",
            "opus",
            "vorbis",
            "flac",
            "m3u8",
            "hls",
            "mpd",
            "dash",
            "sdp",
            "concat",
            "ffconcat",
            "xspf",
            "asx",
            "mov",
            "auto",
        ] {
            let said = Label {
                format: label,
                rate: 48_000,
                channels: 2,
            };
            let _ = audio::decode(data.clone(), said, &format, 94 * 1024, budget);
            assert_eq!(trap.touched(), [] as [&str; 0], "{name} labelled {label:?}");
        }
    }
}
