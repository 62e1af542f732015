//! How old a picture is when it comes out: the same coded picture is looked for at the source and at the
//! output, through the same server, so the clip's own clock is what counts.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::rig::Owned;
use crate::process;

/// What a reader looks at before it begins arrives in a lump.
const LUMP: Duration = Duration::from_secs(5);
/// The worker's latency is less than this.
const LONGEST: Duration = Duration::from_secs(20);

/// When pictures came, and what each was.
type Seen = Vec<(Instant, String)>;

/// Ages in seconds of the pictures that left `output` within `seconds`.
pub(super) fn between(source: &str, output: &str, seconds: Duration) -> anyhow::Result<Vec<f64>> {
    let start = Instant::now();
    let (first, sources) = reader(source)?;
    let (second, outputs) = reader(output)?;
    process::pause(LUMP + LONGEST / 2 + seconds)?;
    drop((first, second));
    let clean = |seen: Receiver<(Instant, String)>| -> Seen {
        seen.into_iter()
            .filter(|(at, _)| *at > start + LUMP)
            .collect()
    };
    let ages = ages(&clean(sources), &clean(outputs));
    anyhow::ensure!(
        !ages.is_empty(),
        "no picture of {source} was seen again at {output}"
    );
    Ok(ages)
}

/// A process that tells of every picture of `url`.
fn reader(url: &str) -> anyhow::Result<(Owned, Receiver<(Instant, String)>)> {
    let mut command: Command = e2e_ffmpeg::watch_frames(url, LONGEST).command();
    let mut child = Owned::start(
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null()),
    )?;
    let lines = BufReader::new(child.take_stdout().context("a reader without output")?).lines();
    let (sender, seen) = channel();
    std::thread::spawn(move || {
        for line in lines
            .map_while(Result::ok)
            .filter(|line| !line.starts_with('#'))
        {
            let hash = line
                .rsplit(',')
                .next()
                .unwrap_or_default()
                .trim()
                .to_owned();
            if sender.send((Instant::now(), hash)).is_err() {
                return;
            }
        }
    });
    Ok((child, seen))
}

/// Of each picture at the output, how long ago it last was at the source.
fn ages(source: &[(Instant, String)], output: &[(Instant, String)]) -> Vec<f64> {
    let mut when: HashMap<&str, Vec<Instant>> = HashMap::new();
    for (at, hash) in source {
        when.entry(hash).or_default().push(*at);
    }
    let age = |(at, hash): &(Instant, String)| {
        let before = when
            .get(hash.as_str())?
            .iter()
            .rfind(|before| *before < at)?;
        Some((*at - *before).as_secs_f64())
    };
    output.iter().filter_map(age).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_time_a_picture_came_in_counts() {
        let start = Instant::now();
        let at = |ms: u64, name: &str| (start + Duration::from_millis(ms), name.to_owned());
        let source = [at(0, "a"), at(40, "b"), at(60_000, "a"), at(60_040, "b")];
        let output = [
            at(6_100, "a"),
            at(66_250, "a"),
            at(66_290, "b"),
            at(70_000, "c"),
        ];
        let ages = ages(&source, &output);
        let wanted = [6.1, 6.25, 6.25];
        assert_eq!(ages.len(), wanted.len());
        assert!(
            ages.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-6),
            "{ages:?}"
        );
    }
}
