//! More than one machine: streams as jobs of Slurm, with the files of `deploy/slurm`. Six streams on three nodes;
//! one node is lost with its workers and one without, a job is hopeless, another may recover, one is drained.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use camera::Manner;
use e2e::clock::{ClipSpec, cached};
use e2e::environment::{Environment, Scene, Way, output_path};
use e2e::failure::Skipped;
use e2e::probe::clock::pictures;
use e2e::probe::logs::{Log, Record};
use e2e::programs;
use e2e::runner::Context;
use e2e::secrets::{TOKEN, with_key, with_login};
use e2e::services::echo_sts::EchoStsOptions;
use e2e::services::fleet::{Fleet, Job, is_alive};
use e2e::threads::quietly;
use e2e::wait::Look;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const STREAMS: [&str; 6] = ["s1", "s2", "s3", "s4", "s5", "s6"];
const FPS: u32 = 30;
/// Long enough for two nodes to be missed and their streams to be seen elsewhere.
const CLIP: u32 = 150;
/// For a stream to be on air once its job runs.
const ON_AIR: Duration = Duration::from_secs(20);
/// For what is buffered to go out; on a busy machine that is more than usual.
const DRAINED: Duration = Duration::from_secs(45);
/// For the scheduler to miss a node and to start its jobs elsewhere; 16 to 28 s seen.
const MISSED: Duration = Duration::from_mins(1);

pub(crate) fn run(context: &Context) -> Result<()> {
    let missing = Fleet::missing();
    if !missing.is_empty() {
        // Neither the flake nor every system has one; it is the product's only test that needs it.
        let why = format!(
            "no scheduler here ({} missing), `cargo xtask setup` installs it",
            missing.join(", ")
        );
        return Err(Skipped::here(why).into());
    }
    let environment = context
        .environment()
        .also(&STREAMS)
        .scene(Scene {
            clip: cached(&ClipSpec::clock(CLIP).small())?,
            manner: Manner::default(),
            way: Way::Camera,
        })
        .echo_sts(EchoStsOptions::default())
        .start()?;
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/slurm");
    let lines = std::fs::read_to_string(deploy.join("slurm.conf.part"))?;
    let fleet = Fleet::start(environment.place(), &lines)?;
    let told = Stage {
        context,
        environment: &environment,
        fleet: &fleet,
        file: deploy.join("dub-worker.sbatch"),
    }
    .play();
    let said = told?;
    drop(fleet);
    environment.finish()?;
    println!("fleet: {said}");
    Ok(())
}

struct Stage<'a> {
    context: &'a Context,
    environment: &'a Environment,
    fleet: &'a Fleet,
    file: PathBuf,
}

/// A stream and the node its job runs on.
struct Stream {
    name: &'static str,
    job: u32,
    node: String,
}

impl Stage<'_> {
    fn play(&self) -> Result<String> {
        self.context.phase("six streams on three nodes");
        let streams = self.six_streams()?;
        let on =
            |node: &str| -> Vec<&Stream> { streams.iter().filter(|it| it.node == node).collect() };
        let nodes: Vec<_> = self.fleet.nodes().map(str::to_owned).collect();
        for node in &nodes {
            ensure!(
                on(node).len() == 2,
                "{} streams run on {node}",
                on(node).len()
            );
        }
        let [kept, dead, cut_off] = nodes.as_slice() else {
            anyhow::bail!("there are {} nodes", nodes.len())
        };

        self.context.phase("a node is lost, and one is cut off");
        let lost_at = Instant::now();
        self.fleet.lose(dead, true)?;
        let orphans = self.fleet.lose(cut_off, false)?;
        for stream in on(dead) {
            let elsewhere = |job: &Job| job.state == "RUNNING" && job.node.as_ref() == Some(kept);
            let what = format!("{} to run elsewhere", stream.name);
            self.fleet.wait_job(stream.job, &what, MISSED, elsewhere)?;
        }
        let moved = lost_at.elapsed();
        for stream in on(dead) {
            let server = self.environment.media_server();
            server.wait_rtmp_published(&output_path(stream.name), ON_AIR)?;
        }
        let back = lost_at.elapsed();

        let hopeless = self.submit("hopeless", "segment-duration = \"6\"\n")?;
        let retried = self.submit("retried", "input-url = \"rtsp://127.0.0.1:9/nothing\"\n")?;

        self.context.phase("second copies are turned away");
        for stream in on(cut_off) {
            let what = format!("a second copy of {} to be turned away", stream.name);
            self.fleet
                .wait_job(stream.job, &what, MISSED, |job| job.restarts >= 2)?;
        }
        // All that time the first copies went on. Now somebody ends them, and the second copies take over.
        for pid in &orphans {
            ensure!(is_alive(*pid), "a stream without its node has ended");
            kill(Pid::from_raw(*pid), Signal::SIGTERM)?;
        }
        e2e::wait::until("the first copies to end", DRAINED, || {
            let left = orphans.iter().filter(|pid| is_alive(**pid)).count();
            Ok(Look::when(left == 0, format!("{left} are there")))
        })?;
        for stream in on(cut_off) {
            let server = self.environment.media_server();
            server.wait_rtmp_published(&output_path(stream.name), MISSED)?;
        }

        self.context.phase("failures");
        let what = "the hopeless job to be held";
        self.fleet
            .wait_job(hopeless, what, MISSED, |job| job.state == "SPECIAL_EXIT")?;
        let starts = self.printed("hopeless")?.matches("invalid value").count();
        ensure!(starts == 1, "the hopeless job was tried {starts} times");
        let what = "the job that may recover to be tried again";
        self.fleet
            .wait_job(retried, what, MISSED, |job| job.restarts >= 1)?;

        self.context.phase("a drain");
        for stream in &streams {
            self.fleet.drain(stream.job)?;
        }
        for stream in &streams {
            let what = format!("{} to be complete", stream.name);
            let done = |job: &Job| job.state == "COMPLETED" && job.exit == "0:0";
            self.fleet.wait_job(stream.job, &what, DRAINED, done)?;
        }
        self.frames(&on(kept), &on(dead), &on(cut_off), moved, back)
    }

    fn six_streams(&self) -> Result<Vec<Stream>> {
        let mut jobs = Vec::new();
        for name in STREAMS {
            jobs.push((name, self.submit(name, "")?));
        }
        let mut streams = Vec::new();
        for (name, job) in jobs {
            let what = format!("{name} to run");
            let running = |job: &Job| job.state == "RUNNING";
            let node = self.fleet.wait_job(job, &what, ON_AIR, running)?.node;
            let server = self.environment.media_server();
            server.wait_rtmp_published(&output_path(name), ON_AIR)?;
            let node = node.context("it runs nowhere")?;
            streams.push(Stream { name, job, node });
        }
        Ok(streams)
    }

    /// A job for a stream of this name; `options` come after the usual ones.
    fn submit(&self, name: &str, options: &str) -> Result<u32> {
        let scratch = self.environment.scratch();
        let mut text = format!(
            "output-url = {:?}\nsts-service-url = {:?}\nsts-token = {TOKEN:?}\nsegment-dir = {:?}\nlog-format = \"json\"\n",
            with_key(&with_login(
                &self.environment.media_server().rtmp_url(&output_path(name))
            )),
            self.environment.echo_sts().url(),
            scratch.join("segments").display().to_string(),
        );
        if !options.contains("input-url") {
            let url = with_login(&self.environment.input_url());
            writeln!(text, "input-url = {url:?}")?;
        }
        if !options.contains("segment-duration") {
            writeln!(text, "segment-duration = \"2s\"")?;
        }
        std::fs::write(scratch.join(format!("{name}.toml")), text + options)?;
        let env = [
            ("WORKER_BIN", programs::own("worker")?.display().to_string()),
            ("DUB_CONFIG_DIR", scratch.display().to_string()),
        ];
        self.fleet.submit(name, &self.file, name, &env)
    }

    /// What a job's workers have printed.
    fn printed(&self, name: &str) -> Result<String> {
        let path = self.environment.artifacts().path(&format!("{name}.log"));
        Ok(std::fs::read_to_string(path)?)
    }

    /// Numbers of the pictures in each recording of a stream: each must be whole in itself.
    fn recorded(&self, stream: &Stream) -> Result<Vec<(u32, u32)>> {
        let server = self.environment.media_server();
        server.recording(&output_path(stream.name), ON_AIR)?;
        let mut runs: Vec<(u32, u32)> = Vec::new();
        for recording in server.recordings(&output_path(stream.name))? {
            // Of a copy that was turned away.
            if recording.metadata()?.len() < 10_000 {
                continue;
            }
            let pictures = quietly(move || pictures(&recording))?;
            let numbers: Vec<_> = pictures.iter().filter_map(|it| it.number).collect();
            let (Some(first), Some(last)) = (numbers.first(), numbers.last()) else {
                anyhow::bail!("a recording of {} shows nothing", stream.name);
            };
            let whole = numbers.iter().copied().eq(*first..=*last);
            ensure!(
                whole,
                "a recording of {} has holes: {numbers:?}",
                stream.name
            );
            // MediaMTX begins a new file when its clock and the stream's are apart.
            match runs.last_mut() {
                Some((_, end)) if *end + 1 == *first => *end = *last,
                _ => runs.push((*first, *last)),
            }
        }
        Ok(runs)
    }

    fn frames(
        &self,
        kept: &[&Stream],
        dead: &[&Stream],
        cut_off: &[&Stream],
        moved: Duration,
        back: Duration,
    ) -> Result<String> {
        self.context.phase("counting frames");
        for stream in kept {
            let runs = self.recorded(stream)?;
            ensure!(runs.len() == 1, "{} was recorded as {runs:?}", stream.name);
            let log = Log::parse(self.printed(stream.name)?.lines());
            // The drain ends with what is too short to be sent.
            let sent = |record: &&Record| record.text("reason") != Some("not_sent");
            let original = log.events("segment_original").filter(sent).count();
            ensure!(
                original == 0,
                "{original} segments of {} are not dubbed",
                stream.name
            );
            let ready = log.events("segment_ready");
            let ready: f64 = ready.filter_map(|it| it.number("video_units")).sum();
            let out = runs[0].1 - runs[0].0 + 1;
            ensure!(
                f64::from(out) == ready,
                "{}: {ready} pictures were cut, {out} are out",
                stream.name
            );
        }
        let mut gaps = Vec::new();
        for stream in dead {
            let runs = self.recorded(stream)?;
            ensure!(runs.len() == 2, "{} was recorded as {runs:?}", stream.name);
            ensure!(runs[1].0 > runs[0].1, "{} went back: {runs:?}", stream.name);
            let gap = runs[1].0 - runs[0].1 - 1;
            // A stream is off air from the loss until its successor is there; what is in the segments
            // of the dead worker is lost beside.
            let least = (moved.as_secs_f64() * f64::from(FPS)) as u32 / 2;
            let most = ((back + ON_AIR).as_secs_f64() * f64::from(FPS)) as u32;
            ensure!(
                (least..most).contains(&gap),
                "{} lost {gap} pictures",
                stream.name
            );
            gaps.push(f64::from(gap) / f64::from(FPS));
        }
        for stream in cut_off {
            let runs = self.recorded(stream)?;
            ensure!(runs.len() == 2, "{} was recorded as {runs:?}", stream.name);
            // The first copy went on for as long as it took to miss its node, to start the second copy
            // and to turn it away.
            let went_on = f64::from(runs[0].1 - runs[0].0) / f64::from(FPS);
            ensure!(
                went_on > moved.as_secs_f64(),
                "{} ended after {went_on} s, with its node",
                stream.name
            );
            ensure!(
                runs[1].0 > runs[0].1,
                "{} was on air twice: {runs:?}",
                stream.name
            );
        }
        Ok(format!(
            "streams of a lost node ran elsewhere after {:.1} s, were on air after {:.1} s, and lost {gaps:.1?} s of pictures",
            moved.as_secs_f64(),
            back.as_secs_f64()
        ))
    }
}
