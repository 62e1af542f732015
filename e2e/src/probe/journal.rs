//! The journal of `echo-sts`: what went over the wire, seen from the STS side.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use sts_protocol::{Direction, JournalEntry, event};

/// Everything `echo-sts` has written so far, in order.
#[derive(Debug, Clone, Default)]
pub struct Journal {
    entries: Vec<JournalEntry>,
}

/// One fragment's way through STS. Times are ms since `echo-sts` started.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Fragment {
    /// Which session it belonged to, from 1.
    pub session: Option<u64>,
    /// Its sequence number.
    pub sequence: Option<u64>,
    pub fragment_id: String,
    /// Length of its audio in ms.
    pub duration_ms: Option<u64>,
    /// When its audio arrived.
    pub data_ms: f64,
    /// When it was acknowledged as queued.
    pub queued_ms: Option<f64>,
    /// When its answer left.
    pub processed_ms: Option<f64>,
    /// `status` of its answer.
    pub status: Option<String>,
    /// Error code of its answer, or of the error it was refused with.
    pub code: Option<String>,
    /// When an error was sent about it instead of an answer.
    pub refused_ms: Option<f64>,
    /// When the worker said that it has put the answer into the output.
    pub applied_ms: Option<f64>,
    /// When the connection ended while it had no answer.
    pub abandoned_ms: Option<f64>,
}

impl Fragment {
    /// When it stopped being in flight: answered, refused, abandoned, or `timeout` after its data.
    pub fn settled_ms(&self, timeout: Option<Duration>) -> Option<f64> {
        let timed_out = timeout.map(|timeout| self.data_ms + timeout.as_secs_f64() * 1e3);
        [
            self.processed_ms,
            self.refused_ms,
            self.abandoned_ms,
            timed_out,
        ]
        .into_iter()
        .flatten()
        .min_by(f64::total_cmp)
    }

    /// Time from data to answer.
    pub fn processing_ms(&self) -> Option<f64> {
        Some(self.processed_ms? - self.data_ms)
    }
}

impl Journal {
    /// Reads a journal file. A last line that is not complete yet is left for the next time.
    ///
    /// # Errors
    /// When the file cannot be read or a complete line is not a journal entry.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the journal {}", path.display()))?;
        Self::parse(&text)
    }

    /// Parses journal lines.
    ///
    /// # Errors
    /// When a complete line is not a journal entry.
    pub fn parse(text: &str) -> Result<Self> {
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        let entries = complete
            .lines()
            .enumerate()
            .map(|(index, line)| {
                serde_json::from_str(line)
                    .with_context(|| format!("journal line {}: {line}", index + 1))
            })
            .collect::<Result<_>>()?;
        Ok(Self { entries })
    }

    /// This journal with that of a later run of `echo-sts` behind it: on this one's clock, with
    /// sessions counted on.
    #[must_use]
    pub fn followed_by(mut self, later: Self) -> Self {
        let epoch = |journal: &Self| {
            let first = journal.entries.first();
            first.map_or(0.0, |entry| entry.time_ms - entry.at_ms)
        };
        if self.entries.is_empty() {
            return later;
        }
        let apart = epoch(&later) - epoch(&self);
        let sessions = self.sessions().last().copied().unwrap_or(0);
        self.entries
            .extend(later.entries.into_iter().map(|mut entry| {
                entry.at_ms += apart;
                entry.session = entry.session.map(|session| session + sessions);
                entry
            }));
        self
    }

    pub fn entries(&self) -> &[JournalEntry] {
        &self.entries
    }

    /// The entries of one stream (and those that belong to none, such as refused connections).
    #[must_use]
    pub fn of_stream(&self, stream_id: &str) -> Self {
        let belongs =
            |entry: &&JournalEntry| entry.stream_id.as_deref().is_none_or(|id| id == stream_id);
        Self {
            entries: self.entries.iter().filter(belongs).cloned().collect(),
        }
    }

    /// Entries of one event in one direction.
    pub fn events<'a>(
        &'a self,
        direction: Direction,
        event: &'a str,
    ) -> impl Iterator<Item = &'a JournalEntry> {
        self.entries
            .iter()
            .filter(move |entry| entry.direction == direction && entry.event == event)
    }

    /// Every fragment that arrived, in the order of arrival, with what happened to it.
    pub fn fragments(&self) -> Vec<Fragment> {
        let mut all: Vec<Fragment> = Vec::new();
        // An id names one fragment; a duplicate is refused and does not become a second one.
        let mut by_id: BTreeMap<&str, usize> = BTreeMap::new();
        for entry in &self.entries {
            if entry.direction == Direction::Local && entry.event == "disconnect" {
                abandon(&mut all, entry);
                continue;
            }
            let Some(id) = entry.fragment_id.as_deref() else {
                continue;
            };
            if entry.direction == Direction::In && entry.event == event::FRAGMENT_DATA {
                by_id.entry(id).or_insert_with(|| {
                    all.push(Fragment {
                        session: entry.session,
                        sequence: entry.sequence,
                        fragment_id: id.to_owned(),
                        duration_ms: entry.duration_ms,
                        data_ms: entry.at_ms,
                        ..Fragment::default()
                    });
                    all.len() - 1
                });
            } else if let Some(index) = by_id.get(id) {
                follow(&mut all[*index], entry);
            }
        }
        all
    }

    /// Number of fragments in flight after each change, as seen by the server: from a fragment's
    /// data to its answer, its refusal, the end of its connection, or (if given) the worker's timeout.
    pub fn in_flight(&self, timeout: Option<Duration>) -> Vec<(f64, usize)> {
        let fragments = self.fragments().into_iter();
        count_open(fragments.map(|it| (it.data_ms, it.settled_ms(timeout))))
    }

    /// The most fragments that were in flight at once.
    pub fn most_in_flight(&self, timeout: Option<Duration>) -> usize {
        self.in_flight(timeout)
            .into_iter()
            .map(|(_, count)| count)
            .max()
            .unwrap_or(0)
    }

    /// Numbers of the sessions, in order.
    pub fn sessions(&self) -> BTreeSet<u64> {
        self.entries
            .iter()
            .filter_map(|entry| entry.session)
            .collect()
    }

    /// One line per event with what is the same on every run: direction, name, sequence, status,
    /// code, action. For snapshots; order and counts are meaning, times and ids are not.
    pub fn transcript(&self) -> Vec<String> {
        self.entries.iter().map(step).collect()
    }

    /// Fails unless every fragment went the whole way: data, queued, answered with success, applied,
    /// each step after the one before, sequence numbers 0, 1, 2, … in order.
    ///
    /// # Errors
    /// When one did not; the message says which and how far it got.
    pub fn assert_complete(&self, expected: usize) -> Result<()> {
        let fragments = self.fragments();
        if fragments.len() != expected {
            bail!(
                "{} fragments arrived at STS, expected {expected}",
                fragments.len()
            );
        }
        for (index, fragment) in fragments.iter().enumerate() {
            let name = format!("fragment {index} ({})", fragment.fragment_id);
            if fragment.sequence != Some(index as u64) {
                bail!("{name} has sequence number {:?}", fragment.sequence);
            }
            if fragment.status.as_deref() != Some("success") {
                bail!(
                    "{name} was answered with {:?}, code {:?}",
                    fragment.status,
                    fragment.code
                );
            }
            let steps = [
                ("data", Some(fragment.data_ms)),
                ("queued", fragment.queued_ms),
                ("processed", fragment.processed_ms),
                ("applied", fragment.applied_ms),
            ];
            for pair in steps.windows(2) {
                match (pair[0], pair[1]) {
                    ((_, Some(before)), (_, Some(after))) if before <= after => {}
                    ((before, _), (after, None)) => bail!("{name}: {before}, but never {after}"),
                    ((before, _), (after, _)) => bail!("{name}: {after} before {before}"),
                }
            }
        }
        Ok(())
    }
}

/// How many of these spans, each from its begin to its end if it has one, are open after each change.
pub(crate) fn count_open(spans: impl Iterator<Item = (f64, Option<f64>)>) -> Vec<(f64, usize)> {
    let mut changes: Vec<(f64, isize)> = Vec::new();
    for (begin, end) in spans {
        changes.push((begin, 1));
        changes.extend(end.map(|at| (at, -1)));
    }
    // At the same moment the answer comes before the next fragment that it made room for.
    changes.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let mut open = 0;
    let step = |(at, change)| {
        open += change;
        (at, usize::try_from(open).unwrap_or(0))
    };
    changes.into_iter().map(step).collect()
}

fn follow(fragment: &mut Fragment, entry: &JournalEntry) {
    let status = entry.status.as_deref();
    match (entry.direction, entry.event.as_str()) {
        (Direction::Out, event::FRAGMENT_ACK) if status == Some("queued") => {
            fragment.queued_ms.get_or_insert(entry.at_ms);
        }
        (Direction::Out, event::FRAGMENT_PROCESSED) if fragment.processed_ms.is_none() => {
            fragment.processed_ms = Some(entry.at_ms);
            fragment.status.clone_from(&entry.status);
            fragment.code.clone_from(&entry.code);
        }
        (Direction::Out, event::ERROR)
            if fragment.processed_ms.is_none() && fragment.refused_ms.is_none() =>
        {
            fragment.refused_ms = Some(entry.at_ms);
            fragment.code.clone_from(&entry.code);
        }
        (Direction::In, event::FRAGMENT_ACK) if status == Some("applied") => {
            fragment.applied_ms.get_or_insert(entry.at_ms);
        }
        _ => {}
    }
}

fn abandon(fragments: &mut [Fragment], entry: &JournalEntry) {
    for fragment in fragments.iter_mut().filter(|fragment| {
        entry.session.is_some()
            && fragment.session == entry.session
            && fragment.settled_ms(None).is_none()
    }) {
        fragment.abandoned_ms = Some(entry.at_ms);
    }
}

fn step(entry: &JournalEntry) -> String {
    let mut text = match entry.direction {
        Direction::In => "→ ".to_owned(),
        Direction::Out => "← ".to_owned(),
        Direction::Local => "· ".to_owned(),
    };
    text += &entry.event;
    if let Some(sequence) = entry.sequence {
        let _ = write!(text, " {sequence}");
    }
    for (name, value) in [
        ("", &entry.status),
        ("code=", &entry.code),
        ("action=", &entry.action),
    ] {
        if let Some(value) = value {
            let _ = write!(text, " {name}{value}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(
        at_ms: f64,
        direction: Direction,
        event: &str,
        id: Option<&str>,
        status: Option<&str>,
    ) -> String {
        let entry = JournalEntry {
            at_ms,
            direction,
            event: event.into(),
            stream_id: Some("t".into()),
            session: Some(1),
            sequence: id.and_then(|id| id.parse().ok()),
            fragment_id: id.map(str::to_owned),
            status: status.map(str::to_owned),
            ..JournalEntry::default()
        };
        serde_json::to_string(&entry).unwrap() + "\n"
    }

    /// Fragments 0 to `count` - 1, sent every 100 ms, answered after `answer` ms.
    fn journal(count: usize, answer: f64) -> String {
        let mut lines = Vec::new();
        for n in 0..count {
            let (id, at) = (n.to_string(), n as f64 * 100.0);
            let id = Some(id.as_str());
            lines.push((at, line(at, Direction::In, event::FRAGMENT_DATA, id, None)));
            let out = |at, event, status| (at, line(at, Direction::Out, event, id, Some(status)));
            lines.push(out(at + 1.0, event::FRAGMENT_ACK, "queued"));
            lines.push(out(at + answer, event::FRAGMENT_PROCESSED, "success"));
            let at = at + answer + 1.0;
            lines.push((
                at,
                line(at, Direction::In, event::FRAGMENT_ACK, id, Some("applied")),
            ));
        }
        lines.sort_by(|a, b| a.0.total_cmp(&b.0));
        lines.into_iter().map(|(_, line)| line).collect()
    }

    fn kept(text: &str, keep: impl Fn(&str) -> bool) -> String {
        text.split_inclusive('\n')
            .filter(|line| keep(line))
            .collect()
    }

    #[test]
    fn a_clean_run_is_complete_and_in_order() {
        let journal = Journal::parse(&journal(10, 50.0)).unwrap();
        journal.assert_complete(10).unwrap();
        assert_eq!(journal.most_in_flight(None), 1);
        assert!(
            journal
                .fragments()
                .iter()
                .all(|f| f.processing_ms() == Some(50.0))
        );
        assert_eq!(
            &journal.transcript()[..4],
            [
                "→ fragment:data 0",
                "← fragment:ack 0 queued",
                "← fragment:processed 0 success",
                "→ fragment:ack 0 applied"
            ]
        );
    }

    #[test]
    fn what_is_missing_is_said() {
        let text = journal(2, 50.0);
        let without = |wanted: &str| {
            let kept = kept(&text, |line| {
                !(line.contains(wanted) && line.contains("\"1\""))
            });
            format!(
                "{:#}",
                Journal::parse(&kept)
                    .unwrap()
                    .assert_complete(2)
                    .unwrap_err()
            )
        };
        assert_eq!(
            without("applied"),
            "fragment 1 (1): processed, but never applied"
        );
        assert_eq!(without("queued"), "fragment 1 (1): data, but never queued");
        assert_eq!(
            without("success"),
            "fragment 1 (1) was answered with None, code None"
        );
        assert_eq!(
            without("fragment:data"),
            "1 fragments arrived at STS, expected 2"
        );
    }

    #[test]
    fn in_flight_counts_from_data_to_answer() {
        let journal = Journal::parse(&journal(5, 250.0)).unwrap();
        assert_eq!(journal.most_in_flight(None), 3);
        assert_eq!(journal.in_flight(None).last().unwrap().1, 0);
        // With a shorter patience than the answers take, fragments leave earlier.
        assert_eq!(journal.most_in_flight(Some(Duration::from_millis(150))), 2);
    }

    #[test]
    fn the_end_of_a_connection_abandons_what_has_no_answer() {
        let mut text = kept(&journal(2, 150.0), |line| !line.contains("success"));
        text += &line(900.0, Direction::Local, "disconnect", None, None);
        let journal = Journal::parse(&text).unwrap();
        assert!(
            journal
                .fragments()
                .iter()
                .all(|f| f.abandoned_ms == Some(900.0))
        );
        assert_eq!(journal.in_flight(None).last().unwrap().1, 0);
    }

    #[test]
    fn a_journal_goes_on_over_a_restart() {
        let line = |time_ms, at_ms, session| JournalEntry {
            time_ms,
            at_ms,
            session,
            ..JournalEntry::default()
        };
        let before = Journal {
            entries: vec![line(1_010.0, 10.0, Some(1)), line(1_020.0, 20.0, Some(2))],
        };
        let after = Journal {
            entries: vec![line(5_001.0, 1.0, None), line(5_003.0, 3.0, Some(1))],
        };
        let all = before.followed_by(Journal::default()).followed_by(after);
        let told: Vec<_> = all
            .entries()
            .iter()
            .map(|entry| (entry.time_ms, entry.at_ms, entry.session))
            .collect();
        assert_eq!(
            told[1..],
            [
                (1_020.0, 20.0, Some(2)),
                (5_001.0, 4_001.0, None),
                (5_003.0, 4_003.0, Some(3))
            ]
        );
    }

    #[test]
    fn an_incomplete_last_line_is_left_and_a_broken_one_refused() {
        let text = journal(1, 50.0);
        let cut = &text[..text.len() - 5];
        assert_eq!(Journal::parse(cut).unwrap().entries().len(), 3);
        let error = Journal::parse("{}\nnot json\n").unwrap_err().to_string();
        assert_eq!(error, "journal line 2: not json");
    }
}
