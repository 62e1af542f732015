//! What the worker costs beside the programs people would use instead, on the same server and clip.
//!
//! All peers of a row read the same stream at the same time, so whatever else the machine does weighs on
//! all of them alike: compare the ratios of one run, not the seconds of two.

mod ages;
mod cost;
mod rig;
mod table;

use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

use crate::flags::{Bench, MediaOptions, MediaServer};
use crate::programs::{self, Profile};
use crate::say::{say, tell};
use crate::{preflight, process};

use self::cost::{Cost, Reading};
use self::rig::{Peer, Rig, Stream};
use self::table::{Ladder, Report, Row, Spread};

/// Windows that a measurement is cut into; their median counts, their range is told.
const WINDOWS: u32 = 3;
/// Start-up is a matter of its own: the first output comes after a segment and its answer.
const WARM_UP: Duration = Duration::from_secs(16);
/// Output this much later than when it began has fallen behind.
const BEHIND_SECONDS: f64 = 0.2;

/// `cargo xtask bench`.
pub(crate) fn command(options: &Bench) -> anyhow::Result<()> {
    // It takes and gives the streams of all peers alike.
    preflight::ensure_media(&MediaOptions {
        media_server: Some(MediaServer::Mediamtx),
        fixture: options.fixture.clone(),
    })?;
    programs::build(Profile::Release)?;
    let seconds = Duration::from_secs(options.seconds.into());
    let fixture = options.fixture.as_deref();
    let mut report = Report::new()?;
    report.engine_seconds = Some(engine()?);
    for &megabits in &options.megabits {
        let stream = Stream::at(megabits, fixture)?;
        let rig = Rig::start(&stream)?;
        tell!("{stream}: all peers side by side for {seconds:?}");
        report.rows.extend(side_by_side(&rig, &stream, seconds)?);
    }
    for peer in [Peer::WorkerDubbing, Peer::FfmpegAac] {
        for count in options.streams.iter().map(|&count| usize::from(count)) {
            if count == 0 {
                break;
            }
            let rig = Rig::start(&Stream::at(0, fixture)?)?;
            tell!("{peer}: {count} at once for {seconds:?}");
            let step = at_once(&rig, peer, count, seconds)?;
            let over = step.fell_behind(BEHIND_SECONDS) || step.ended > 0;
            report.ladder.push(step);
            if over {
                break;
            }
        }
    }
    if options.json {
        say!("{}", report.json());
    } else {
        say!("{report}");
    }
    Ok(())
}

/// CPU seconds that the engine takes for an hour of stream.
fn engine() -> anyhow::Result<f64> {
    let mut build = process::cargo(&["build", "--release", "--quiet"]);
    build.args(["--package", "dub-engine", "--example", "hour"]);
    process::run("the build of the engine's hour", &mut build)?;
    let mut hour = programs::program("examples/hour", Profile::Release)?;
    let before = children_cpu()?;
    process::run("the engine's hour", hour.stdout(Stdio::null()))?;
    Ok(children_cpu()? - before)
}

/// CPU time of all children that have ended so far.
fn children_cpu() -> anyhow::Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let seconds = |t: TimeVal| t.tv_sec() as f64 + t.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}

/// Every peer once, on the same stream, at the same time; then how old the dubbed output is.
fn side_by_side(rig: &Rig, stream: &Stream, seconds: Duration) -> anyhow::Result<Vec<Row>> {
    let mut started = Vec::new();
    for &peer in rig::peers(stream) {
        started.push((peer, rig.run(peer, 0)?));
    }
    process::pause(WARM_UP)?;
    let start_up: Vec<_> = started
        .iter()
        .map(|(_, child)| child.reading().map(|reading| reading.cpu_seconds))
        .collect();
    let mut windows: Vec<Vec<Cost>> = vec![Vec::new(); started.len()];
    for _ in 0..WINDOWS {
        let before: Vec<Option<Reading>> =
            started.iter().map(|(_, child)| child.reading()).collect();
        process::pause(seconds / WINDOWS)?;
        for ((window, (_, child)), before) in windows.iter_mut().zip(&started).zip(before) {
            if let (Some(before), Some(after)) = (before, child.reading()) {
                window.push(after.since(&before));
            }
        }
    }
    let mut rows = Vec::new();
    for (((peer, child), windows), start_up) in started.iter().zip(windows).zip(start_up) {
        let ages = if *peer == Peer::WorkerDubbing {
            let least = child.expected_age().unwrap_or_default();
            let ages = ages::between(&rig.source_by_rtmp(), child.output(), seconds)?;
            table::Ages::of(ages.into_iter().map(|age| age - least).collect())
        } else {
            None
        };
        rows.push(Row {
            stream: stream.to_string(),
            peer: peer.to_string(),
            alive: child.reading().is_some(),
            cpu: Spread::of(windows.iter().map(|cost| cost.cpu_per_minute)),
            start_up,
            megabytes: windows
                .iter()
                .map(|cost| cost.megabytes)
                .fold(0.0, f64::max),
            threads: windows.iter().map(|cost| cost.threads).max().unwrap_or(0),
            added: ages,
        });
    }
    Ok(rows)
}

/// `count` of the same peer at once.
fn at_once(rig: &Rig, peer: Peer, count: usize, seconds: Duration) -> anyhow::Result<Ladder> {
    let mut children = Vec::new();
    for n in 0..count {
        children.push(rig.run(peer, n)?);
    }
    process::pause(WARM_UP)?;
    let machine = cost::machine_ticks()?;
    let look = || -> Vec<_> {
        let look = |child: &rig::Running| Some((child.reading()?, child.shown()?));
        children.iter().map(look).collect()
    };
    let before = look();
    process::pause(seconds)?;
    let after = look();
    let busy = cost::busy_share(machine, cost::machine_ticks()?);
    let both = before.into_iter().zip(after);
    let both: Vec<_> = both
        .filter_map(|(before, after)| before.zip(after))
        .collect();
    let costs = both
        .iter()
        .map(|((before, _), (after, _))| after.since(before));
    Ok(Ladder {
        peer: peer.to_string(),
        count,
        ended: count - both.len(),
        cpu: Spread::of(costs.map(|cost| cost.cpu_per_minute)),
        busy,
        stalls: both
            .iter()
            .map(|((_, before), (_, after))| after.stalls - before.stalls)
            .sum(),
        lateness: Spread::of(
            both.iter()
                .map(|((_, before), (_, after))| after.late_since(before)),
        ),
        latency: Spread::of(both.iter().filter_map(|(_, (_, shown))| shown.latency)),
    })
}

/// Starts `command` with its output thrown away.
fn quiet(command: &mut Command) -> &mut Command {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
}
