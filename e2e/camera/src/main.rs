//! `camera`: plays a clip over RTSP to whoever asks, with every fault a camera can have.

use std::io::{BufRead as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, mpsc};

use anyhow::{Context as _, Result};
use camera::{Camera, Clip, Event, Manner};
use clap::Parser;

/// Play a clip over RTSP (TCP) in real time to whoever asks, coded frames untouched
///
/// The clip begins with the first PLAY. Says what happens as lines of JSON on standard output, beginning
/// with {"event":"listening","address":…}. A line 'go' on standard input lets a camera that holds its
/// first packet send it. Runs until it is stopped.
#[derive(Debug, Parser)]
#[command(name = "camera", version)]
struct Arguments {
    /// The clip: MP4 with H.264 and AAC or Opus, or one of the two alone
    clip: PathBuf,
    /// Where to listen; port 0 is a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8554")]
    listen: SocketAddr,
    /// How it behaves: JSON, @FILE with JSON, or the name 'mediamtx' (what MediaMTX makes of ffmpeg)
    #[arg(long, value_name = "MANNER", default_value = "{}", value_parser = manner)]
    manner: Manner,
    /// Write what was sent to this file whenever a session ends
    #[arg(long, value_name = "FILE")]
    sent: Option<PathBuf>,
}

fn manner(text: &str) -> Result<Manner> {
    if text == "mediamtx" {
        return Ok(Manner::mediamtx_and_ffmpeg());
    }
    let text = match text.strip_prefix('@') {
        Some(file) => {
            std::fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?
        }
        None => text.to_owned(),
    };
    Ok(serde_json::from_str(&text)?)
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("camera: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<()> {
    let clip = Clip::open(&arguments.clip, arguments.manner.audio_codec)?;
    let (events, received) = mpsc::channel::<Event>();
    let tell = Arc::new(move |event: &Event| drop(events.send(event.clone())));
    let camera = Arc::new(Camera::start(
        arguments.listen,
        clip,
        arguments.manner,
        tell,
    )?);
    let told = Arc::clone(&camera);
    std::thread::spawn(move || {
        let mut lines = std::io::stdin().lock().lines();
        if lines.any(|line| line.is_ok_and(|line| line.trim() == "go")) {
            told.go();
        }
    });
    for event in received {
        if let (Event::Ended { .. }, Some(file)) = (&event, &arguments.sent) {
            write(&camera, file)?;
        }
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", serde_json::to_string(&event)?)?;
        out.flush()?;
    }
    Ok(())
}

/// Whole or not at all.
fn write(camera: &Camera, file: &Path) -> Result<()> {
    let part = file.with_extension("part");
    std::fs::write(&part, serde_json::to_vec(&camera.sent())?)?;
    std::fs::rename(&part, file).with_context(|| format!("cannot write {}", file.display()))
}
