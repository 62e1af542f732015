//! `publisher`: sends a clip to an RTSP server as a live source would.

use std::io::BufRead as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use clap::Parser;
use e2e::media::clip::Clip;
use e2e::media::publish::{Cue, Options, RtspUrl, publish, select};

/// Publish a clip over RTSP (TCP) in real time, coded frames untouched
///
/// Says 'announced' on standard output once the server takes the stream, waits for a line 'go' on
/// standard input, then sends, and ends with 'done video=<frames> audio=<frames>'.
#[derive(Debug, Parser)]
#[command(name = "publisher", version)]
struct Arguments {
    /// The clip: H.264 with AAC or Opus, or one of the two alone
    clip: PathBuf,
    /// Where to, rtsp://[user:password@]host[:port]/path
    url: String,
    /// How long to wait for 'go', in seconds; 0 starts at once
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    hold: u64,
    #[command(flatten)]
    options: Options,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("publisher: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let url: RtspUrl = arguments.url.parse()?;
    let clip = Clip::open(&arguments.clip)?;
    let clip = select(clip, &arguments.options).map_err(|error| {
        anyhow::anyhow!("{} cannot be published: {error}", arguments.clip.display())
    })?;
    let hold = (arguments.hold > 0).then(|| Duration::from_secs(arguments.hold));
    let (notes, cues) = mpsc::channel();
    if hold.is_some() {
        let notes = notes.clone();
        std::thread::spawn(move || {
            let go = std::io::stdin()
                .lock()
                .lines()
                .any(|line| line.is_ok_and(|line| line.trim() == "go"));
            let _ = notes.send(if go { Cue::Go } else { Cue::InputEnded });
        });
    }
    publish(
        &clip,
        &url,
        &arguments.options,
        hold,
        (notes, cues),
        &mut std::io::stdout(),
    )?;
    Ok(())
}
