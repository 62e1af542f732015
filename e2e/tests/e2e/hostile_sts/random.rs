//! `echo-sts`, or the way to it, is killed, stopped or cut at 20 random moments.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use e2e::clock::{self, ClipSpec};
use e2e::pipeline::{Evidence, Live};
use e2e::process::exit_text;
use e2e::runner::Context;
use e2e::services::echo_sts::EchoStsOptions;
use e2e::services::tcp_proxy::Cut;
use e2e::wait::{self, Look};
use nix::sys::signal::Signal;
use sts_protocol::SimulateDisconnect;

use super::plan::{self, Family, HITS, Hit, What};
use super::{Fate, SEGMENT, complete, count, ended_within, fates, watch_memory};
use crate::stage::Stage as _;
use crate::wire;

/// The seed, unless the run is given another.
const SEED: u64 = 20;
const CLIP: u32 = 60;
/// Between a fragment and its answer, so that hits find fragments on their way.
const LATENCY: Duration = Duration::from_millis(300);
/// Silence is noticed after both together. The second is what `echo-sts` gives a pong: on a busy machine
/// one may be late by as much as a short silence and half a second more.
const PING_INTERVAL: Duration = Duration::from_millis(400);
const PING_TIMEOUT: Duration = Duration::from_secs(1);
/// From what happens to the line in the log, at most: a service that comes back, a busy machine.
const NOTICED_MS: f64 = 1_000.0;
/// A session this young, or noticed this shortly before, was not surely there when the hit came.
const UNSURE_MS: f64 = 50.0;
/// A hang-up that finds no session waits for the next one, which may take some retries.
const DEFERRED_MS: f64 = 10_000.0;
/// Sessions that hits must have cost, at least.
const LEAST_LOSSES: usize = 6;

/// A hit that was delivered, in Unix ms.
pub(crate) struct Delivered {
    pub(crate) what: What,
    pub(crate) from: f64,
    pub(crate) to: f64,
    /// Connections through the proxy that it cut.
    pub(crate) cut: Option<usize>,
}

pub(super) fn run(context: &Context) -> Result<()> {
    let seed = context.seed(SEED);
    let plan = plan::plan(seed);
    let told = plan::told(seed, &plan);
    println!("{}-random: {told}", context.name());
    let spec = ClipSpec::clock(CLIP).small();
    let mut delivered = Vec::new();
    let evidence = context
        .part(
            "random",
            clock::cached(&spec)?,
            Duration::from_secs(CLIP.into()),
        )
        .tcp_proxy()
        .sts(
            EchoStsOptions::mode("mark")
                .latency(LATENCY)
                .pings(PING_INTERVAL, PING_TIMEOUT),
        )
        .worker(|options| options.segment_duration = Some(SEGMENT))
        .extra_time(Duration::from_secs(30))
        .run(|live| {
            live.environment.artifacts().write("plan.txt", &told)?;
            for (number, hit) in plan.iter().enumerate() {
                let hit = deliver(live, hit).with_context(|| format!("hit {number}"))?;
                live.tell(&format!("hit {} of {HITS}: {}", number + 1, hit.what));
                delivered.push(hit);
            }
            watch_memory(live)
        })?;
    complete(&evidence, &spec)?;
    ensure!(delivered.len() == HITS, "{} hits", delivered.len());
    felt(&evidence, &delivered)?;
    let fates = fates(&evidence, CLIP.into())?;
    // With a service that answers whatever reaches it there is only one reason.
    for (batch, fate) in fates.iter().enumerate() {
        ensure!(
            matches!(fate, Fate::Dubbed | Fate::Tail)
                || matches!(fate, Fate::Fallback(reason) if reason == "disconnected"),
            "segment {batch}: {fate:?}"
        );
    }
    journalled(&evidence, &fates)
}

fn unix_ms() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs_f64() * 1e3
}

/// Waits for the hit's moment and carries it out; fails unless it was.
fn deliver(live: &mut Live, hit: &Hit) -> Result<Delivered> {
    let pause = |live: &Live, time| {
        ensure!(!ended_within(live, time), "the worker has ended");
        Ok(())
    };
    pause(live, hit.after)?;
    let from = unix_ms();
    let mut cut = None;
    match hit.what {
        What::Kill => {
            let exit = live.environment.echo_sts().process().kill();
            ensure!(
                exit.code().is_none(),
                "echo-sts ended by itself: {}",
                exit_text(exit)
            );
            live.environment.echo_sts_mut().restart()?;
        }
        What::Stop(time) => {
            let process = live.environment.echo_sts().process();
            process.signal(Signal::SIGSTOP);
            stopped(process.pid())?;
            let went_on = pause(live, time);
            process.signal(Signal::SIGCONT);
            went_on?;
        }
        What::HangUp => {
            let control = live.environment.echo_sts().control()?;
            let stream_id = Some(live.environment.stream_id().to_owned());
            control.send(SimulateDisconnect {
                stream_id,
                ..SimulateDisconnect::default()
            })?;
        }
        What::Reset => cut = Some(live.environment.tcp_proxy().cut(Cut::Reset)?),
        What::Close => cut = Some(live.environment.tcp_proxy().cut(Cut::Close)?),
        What::Silence(time) => {
            live.environment.tcp_proxy().stall();
            pause(live, time)?;
            live.environment.tcp_proxy().restore();
        }
        What::SilenceAndReset(time) => {
            live.environment.tcp_proxy().stall();
            pause(live, time)?;
            cut = Some(live.environment.tcp_proxy().cut(Cut::Reset)?);
            live.environment.tcp_proxy().restore();
        }
    }
    Ok(Delivered {
        what: hit.what,
        from,
        to: unix_ms(),
        cut,
    })
}

/// Waits until every thread of the process has stopped.
fn stopped(pid: i32) -> Result<()> {
    let state = |task: &std::path::Path| -> Result<char> {
        let stat = std::fs::read_to_string(task.join("stat"))?;
        let state = stat
            .rsplit_once(") ")
            .and_then(|(_, rest)| rest.chars().next());
        state.context("no state")
    };
    wait::until("echo-sts to be stopped", Duration::from_secs(2), || {
        for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let found = state(&task?.path())?;
            if found != 'T' {
                return Ok(Look::NotYet(format!("a thread is {found}")));
            }
        }
        Ok(Look::Done(()))
    })
}

/// Every hit on a worker with a session that it must notice cost that session, soon.
pub(crate) fn felt(evidence: &Evidence, hits: &[Delivered]) -> Result<()> {
    let sessions = sessions(evidence)?;
    let mut costly: BTreeMap<Family, usize> = BTreeMap::new();
    let mut told = String::new();
    for (number, hit) in hits.iter().enumerate() {
        let there = sessions
            .iter()
            .find(|(ready, lost)| *ready + UNSURE_MS < hit.from && *lost + UNSURE_MS > hit.from);
        let lost = there.map(|(_, lost)| lost - hit.from);
        let lasted = hit.to - hit.from;
        let _ = writeln!(
            told,
            "{number:2} {} ({lasted:.0} ms): {}",
            hit.what,
            match lost {
                None => "the worker had no session".to_owned(),
                Some(lost) if lost > lasted + NOTICED_MS => "the session went on".to_owned(),
                Some(lost) => format!("lost after {lost:.0} ms"),
            }
        );
        if let Some(lost) = lost
            && hit.what.must_be_noticed()
        {
            ensure!(
                lost <= lasted + NOTICED_MS,
                "hit {number}, {}, was not noticed by the worker\n{told}",
                hit.what
            );
            ensure!(
                hit.cut.is_none_or(|cut| cut > 0),
                "hit {number}, {}, cut no connection\n{told}",
                hit.what
            );
            *costly.entry(hit.what.family()).or_default() += 1;
        }
    }
    println!("hostile_sts-random:\n{told}");
    std::fs::write(evidence.directory.join("hits.txt"), &told)?;
    // And nothing else cost one.
    for (_, lost) in sessions.iter().filter(|(_, lost)| lost.is_finite()) {
        let cause = hits.iter().any(|hit| {
            let deferred = hit.what == What::HangUp;
            let patience = if deferred { DEFERRED_MS } else { NOTICED_MS };
            (hit.from - UNSURE_MS..hit.to + patience).contains(lost)
        });
        ensure!(
            cause,
            "a session was lost for nothing, at {lost:.0}\n{told}"
        );
    }
    let losses = count(evidence, "sts_disconnected");
    ensure!(
        costly.len() == 3 && costly.values().sum::<usize>() >= LEAST_LOSSES,
        "too few hits found a session, of {losses} losses: {costly:?}\n{told}"
    );
    let back = evidence.count("worker_reconnection_total", &[])?;
    ensure!(
        back == count(evidence, "reconnected") as u64,
        "{back} reconnections counted"
    );
    Ok(())
}

/// When sessions became usable and when the worker noticed their ends, Unix ms.
fn sessions(evidence: &Evidence) -> Result<Vec<(f64, f64)>> {
    let mut sessions = Vec::new();
    let mut ready = None;
    for record in &evidence.log.records {
        match record.event() {
            Some("sts_ready") => ready = Some(record.unix_ms()?),
            Some("sts_disconnected") => {
                sessions.extend(ready.take().map(|ready| (ready, 0.0)));
                if let Some(last) = sessions.last_mut()
                    && last.1 == 0.0
                {
                    last.1 = record.unix_ms()?;
                }
            }
            _ => {}
        }
    }
    sessions.extend(ready.map(|ready| (ready, f64::INFINITY)));
    Ok(sessions)
}

/// The journals of all processes agree: nothing was used that was not answered, what was applied
/// is dubbed, and the word of it only got lost together with a session.
pub(crate) fn journalled(evidence: &Evidence, fates: &[Fate]) -> Result<()> {
    let mut batches: BTreeMap<&str, u64> = BTreeMap::new();
    for record in evidence.log.events("fragment_sent") {
        let id = record.text("fragment_id").context("no fragment_id")?;
        let twice = batches.insert(id, wire::number(record, "batch")?);
        ensure!(twice.is_none(), "{id} was sent twice");
    }
    let segments: BTreeSet<u64> = batches.values().copied().collect();
    ensure!(
        segments.len() == batches.len(),
        "a segment was sent twice: {batches:?}"
    );
    let epoch = wire::epoch(&evidence.journal)?;
    let mut answered = BTreeMap::new();
    let mut applied = BTreeSet::new();
    for fragment in evidence.journal.fragments() {
        let Some(batch) = batches.get(fragment.fragment_id.as_str()) else {
            bail!("the worker never sent {fragment:?}");
        };
        if let Some(at) = fragment.processed_ms {
            answered.insert(*batch, at + epoch);
        }
        if fragment.applied_ms.is_some() {
            applied.insert(*batch);
        }
    }
    let dubbed: BTreeSet<u64> = (0..)
        .zip(fates)
        .filter(|(_, fate)| **fate == Fate::Dubbed)
        .map(|(batch, _)| batch)
        .collect();
    ensure!(
        dubbed.iter().all(|batch| answered.contains_key(batch)),
        "dubbed {dubbed:?}, answered only {answered:?}"
    );
    ensure!(
        applied.is_subset(&dubbed),
        "applied {applied:?}, dubbed only {dubbed:?}"
    );
    let losses = sessions(evidence)?;
    for batch in dubbed.difference(&applied) {
        let at = answered[batch];
        ensure!(
            losses
                .iter()
                .any(|(_, lost)| (at - UNSURE_MS..at + 1.5 * NOTICED_MS).contains(lost)),
            "segment {batch} is dubbed, and the service was not told while there was a session"
        );
    }
    println!(
        "hostile_sts-random: {} of {} segments dubbed, {} told as applied",
        dubbed.len(),
        fates.len(),
        applied.len()
    );
    ensure!(!applied.is_empty(), "nothing was dubbed");
    Ok(())
}
