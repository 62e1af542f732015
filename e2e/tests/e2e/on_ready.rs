//! `deploy/mediamtx`: MediaMTX starts a worker for every stream that is published. Publish, dub, unpublish,
//! publish again; and what a restart cannot fix is not tried again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::clock::{ClipSpec, cached};
use e2e::environment::Environment;
use e2e::failure::Skipped;
use e2e::probe::clock::pictures;
use e2e::probe::logs::{Log, Record};
use e2e::runner::Context;
use e2e::secrets::TOKEN;
use e2e::services::echo_sts::EchoStsOptions;
use e2e::services::media_server::{Kind, RtspSettings};
use e2e::threads::quietly;

const SECONDS: u32 = 20;
/// The worker joins a stream that runs, and gets nothing before the publisher's first sender report, which
/// ffmpeg sends after 5 s.
const MISSED: u32 = 9;
const PATIENCE: Duration = Duration::from_secs(40);
/// The script waits so long between two tries.
const BETWEEN_TRIES: Duration = Duration::from_secs(5);

pub(crate) fn run(context: &Context) -> Result<()> {
    if context.media_server() != Kind::MediaMtx {
        return Err(Skipped::here("it is MediaMTX that starts workers, MEDIAMTX_BIN").into());
    }
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/mediamtx");
    let script = deploy.join("dub-worker-on-ready").canonicalize()?;
    let file = std::fs::read_to_string(deploy.join("mediamtx.yml"))?;
    let (_, paths) = file
        .split_once("\npaths:\n")
        .context("mediamtx.yml has no paths")?;
    let installed = paths
        .split_whitespace()
        .find(|word| word.ends_with("/dub-worker-on-ready"))
        .context("mediamtx.yml does not name the script")?;
    let options = tempfile::NamedTempFile::new()?;
    let environment = context
        .environment()
        .echo_sts(EchoStsOptions::default())
        .rtsp(RtspSettings {
            paths: paths.replace(installed, &script.display().to_string()),
            env: vec![
                ("WORKER_BIN".into(), worker()?.display().to_string()),
                ("WORKER_CONFIG".into(), options.path().display().to_string()),
                ("LOG_FORMAT".into(), "json".into()),
            ],
            ..RtspSettings::default()
        })
        .start()?;
    let segments = environment.scratch().join("segments");
    let text = format!(
        "sts-service-url = {:?}\nsts-token = {TOKEN:?}\nsegment-dir = {:?}\nsegment-duration = \"2s\"\n",
        environment.echo_sts().url(),
        segments.display().to_string()
    );
    std::fs::write(options.path(), text)?;

    let clip = cached(&ClipSpec::clock(SECONDS).small())?;
    let mut recordings = Vec::new();
    for time in 1..=2 {
        context.phase(&format!("published for the {time}. time"));
        publish(&environment, &clip)?;
        let server = environment.media_server();
        let recording = server.recording(&environment.output_path(), PATIENCE)?;
        ensure!(
            !recordings.contains(&recording),
            "nothing new was recorded the {time}. time"
        );
        // The page shows the last.
        let name = if time == 2 { "output.ts" } else { "first.ts" };
        let kept = environment.artifacts().keep(&recording, name)?;
        recordings.push(recording);
        whole(kept)?;
    }
    let codes = exits(&environment, 2)?;
    ensure!(codes == [0, 0], "the workers ended with {codes:?}");
    let sessions = environment.journal()?.sessions();
    ensure!(sessions.len() == 2, "there were {sessions:?} STS sessions");

    context.phase("published without sound");
    publish(&environment, &cached(&ClipSpec::silent(SECONDS).small())?)?;
    // It was published for longer than the script waits between two tries.
    ensure!(Duration::from_secs(SECONDS.into()) > 2 * BETWEEN_TRIES);
    let codes = exits(&environment, 3)?;
    ensure!(codes == [0, 0, 11], "the workers ended with {codes:?}");
    environment.finish()
}

fn worker() -> Result<PathBuf> {
    e2e::programs::own("worker")
}

/// Publishes the whole clip.
fn publish(environment: &Environment, clip: &Path) -> Result<()> {
    let url = environment
        .media_server()
        .rtsp_url(&environment.input_path())?;
    let place = environment.place();
    let call = e2e_ffmpeg::publish(clip, None, &url);
    let publisher = place.group.spawn(&place.call("publisher", &call))?;
    let exit = publisher.wait_exit(Duration::from_secs(u64::from(SECONDS)) + PATIENCE)?;
    ensure!(
        exit.success(),
        "the publisher failed: {:?}",
        publisher.last_lines(5)
    );
    Ok(())
}

/// From its first picture on everything is there, to the end.
fn whole(recording: PathBuf) -> Result<()> {
    let pictures = quietly(move || pictures(&recording))?;
    let numbers: Vec<_> = pictures.iter().filter_map(|it| it.number).collect();
    let frames = ClipSpec::clock(SECONDS).frames();
    let first = numbers.first().copied().context("nothing was recorded")?;
    ensure!(
        first <= MISSED * 30,
        "the recording begins with picture {first}"
    );
    ensure!(
        numbers.iter().copied().eq(first..frames),
        "the recording has holes: {numbers:?}"
    );
    Ok(())
}

/// Exit codes of the workers so far, once `count` of those that were started have ended.
fn exits(environment: &Environment, count: usize) -> Result<Vec<i64>> {
    let process = environment.media_server().process();
    let mut ended = 0;
    process.wait_line("that a worker ends", PATIENCE, |line| {
        let record = Record::parse(&line.text)?;
        ended += usize::from(record.event() == Some("exiting"));
        (ended == count).then_some(())
    })?;
    let lines = process.lines();
    let lines: Vec<_> = lines.iter().map(|line| line.text.as_str()).collect();
    // Among the server's lines nobody would look for secrets.
    let workers = lines.iter().filter(|line| Record::parse(line).is_some());
    let text: String = workers.flat_map(|line| [line, "\n"]).collect();
    std::fs::write(environment.artifacts().path("worker.log"), text)?;
    let log = Log::parse(lines);
    let started = log.events("started").count();
    ensure!(started == count, "{started} workers were started");
    let codes = log.events("exiting").filter_map(|it| it.number("code"));
    Ok(codes.map(|code| code as i64).collect())
}
