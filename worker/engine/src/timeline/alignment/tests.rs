use super::*;
use Track::{Audio, Video};

const SECONDS: i64 = 1_000 * MS;
/// Where the first arrivals put the audio.
const ARRIVED: i64 = 30 * MS;
const PATIENCE: i64 = 6 * SECONDS;

fn at(nanos: i64) -> At {
    At::ZERO + std::time::Duration::from_nanos(nanos.unsigned_abs())
}

/// Arrivals for so long that put the audio there; packets of one frame, or of five.
fn arrivals(length: i64, offset: i64, bundled: bool) -> Evidence {
    let mut evidence = Evidence::new(Some(20 * MS));
    for time in (0..=length / 25 / MS).map(|n| n * 25 * MS) {
        evidence.picture(at(time + SECONDS), time, true);
    }
    let (packet, over) = if bundled {
        (100 * MS, 100 * MS)
    } else {
        (20 * MS, 0)
    };
    for time in (0..=length / packet).map(|n| n * packet) {
        evidence.packet(at(time + SECONDS + over), time - offset);
    }
    evidence
}

/// Single frames, for two seconds.
fn plain(offset: i64) -> Evidence {
    arrivals(2 * SECONDS, offset, false)
}

fn bundled(offset: i64) -> Evidence {
    arrivals(2 * SECONDS, offset, true)
}

/// An alignment that had to do with what arrives.
fn by_arrival(evidence: &Evidence) -> Alignment {
    let mut alignment = Alignment::new(PATIENCE);
    let finding = alignment.weigh(At::ZERO, true, evidence);
    assert_eq!(
        finding.notes,
        [Some(Note::Aligned(AlignedBy::Arrival)), None]
    );
    alignment
}

/// The same by reports, which came before.
fn by_reports(claim: i64, evidence: &Evidence) -> Alignment {
    let mut alignment = Alignment::new(PATIENCE);
    claims(&mut alignment, claim, evidence);
    let finding = alignment.weigh(At::ZERO, false, evidence);
    assert_eq!(
        finding.notes,
        [Some(Note::Aligned(AlignedBy::Reports)), None]
    );
    assert_eq!(alignment.offset(), Some(claim));
    alignment
}

fn report(alignment: &mut Alignment, track: Track, ntp: i64, evidence: &Evidence) -> Finding {
    alignment.report(track, 0, 0, (ntp, true), evidence)
}

/// Reports of both tracks that put the audio there.
fn claims(alignment: &mut Alignment, claim: i64, evidence: &Evidence) -> Finding {
    report(alignment, Video, 0, evidence);
    report(alignment, Audio, claim, evidence)
}

/// Looks once a second at the same arrivals; by how much the audio moves each time.
fn looks<const N: usize>(alignment: &mut Alignment, arrivals: [&Evidence; N]) -> [i64; N] {
    let mut now = 0;
    arrivals.map(|evidence| {
        now += SECONDS;
        alignment.weigh(at(now), false, evidence).moved
    })
}

#[test]
fn a_sender_s_clock_that_moves_by_more_than_100_ms_was_set() {
    for (video, audio, told) in [
        (100 * MS, 0, [false, false]),
        (100 * MS, 150 * MS, [false, true]),
        (-100 * MS - 1, 0, [true, false]),
        (100 * MS + 1, 0, [true, false]),
        // It is one clock: what the other track's reports tell as well is no news.
        (SECONDS, SECONDS + 100 * MS, [true, false]),
        (SECONDS, SECONDS + 100 * MS + 1, [true, true]),
    ] {
        let mut alignment = Alignment::new(PATIENCE);
        let evidence = plain(0);
        claims(&mut alignment, 0, &evidence);
        for (track, by, told) in [(Video, video, told[0]), (Audio, audio, told[1])] {
            let [note, _] = report(&mut alignment, track, by, &evidence).notes;
            let expected = told.then_some(Note::ClockSet { track, by });
            assert_eq!(note, expected, "{video} {audio}");
        }
    }
}

#[test]
fn a_report_whose_time_moves_before_the_packets_do_waits_for_another() {
    for (ahead, moved) in [
        (100 * MS, [50 * MS, 0]),
        (-100 * MS, [50 * MS, 0]),
        (100 * MS + 1, [0, 50 * MS]),
        (-100 * MS - 1, [0, 50 * MS]),
    ] {
        let evidence = plain(0);
        let mut alignment = by_reports(0, &evidence);
        let mut told = || {
            let claim = (50 * MS, true);
            alignment.report(Audio, 0, ahead, claim, &evidence).moved
        };
        assert_eq!([told(), told()], moved, "{ahead}");
    }
}

#[test]
fn reports_move_the_audio_by_up_to_three_seconds() {
    let most = 3 * SECONDS;
    for by in [40 * MS, -40 * MS, 40 * MS + 1, -50 * MS, most, -most] {
        let evidence = plain(ARRIVED);
        let mut alignment = by_arrival(&evidence);
        let finding = claims(&mut alignment, ARRIVED + by, &evidence);
        assert_eq!(finding.moved, by);
        assert_eq!(alignment.offset(), Some(ARRIVED + by));
        let told = (by.abs() > 40 * MS).then_some(Note::Realigned { by });
        assert_eq!(finding.notes, [told, None]);
    }
    for by in [most + 1, -most - 1] {
        let evidence = plain(ARRIVED);
        let mut alignment = by_arrival(&evidence);
        let finding = claims(&mut alignment, ARRIVED + by, &evidence);
        assert_eq!(finding.moved, 0);
        assert_eq!(finding.notes, [None, Some(Note::ReportRefused { by })]);
    }
}

#[test]
fn the_start_believes_reports_up_to_the_patience() {
    for (claim, by, note) in [
        (None, AlignedBy::Arrival, None),
        (Some(PATIENCE), AlignedBy::Reports, None),
        (Some(-PATIENCE), AlignedBy::Reports, None),
        (
            Some(PATIENCE + 1),
            AlignedBy::Arrival,
            Some(Note::ReportRefused { by: PATIENCE + 1 }),
        ),
    ] {
        let evidence = plain(ARRIVED);
        let mut alignment = Alignment::new(PATIENCE);
        if let Some(claim) = claim {
            claims(&mut alignment, ARRIVED + claim, &evidence);
        }
        let finding = alignment.weigh(At::ZERO, true, &evidence);
        assert_eq!(finding.notes, [Some(Note::Aligned(by)), note]);
        let claim = claim.filter(|_| by == AlignedBy::Reports).unwrap_or(0);
        assert_eq!(alignment.offset(), Some(ARRIVED + claim));
    }
}

#[test]
fn reports_that_are_arrival_are_told_by_how_late_they_are() {
    let (packet, reordering) = (100 * MS, 80 * MS);
    let (arrival, honest) = (Some(ReportKind::ByArrival), Some(ReportKind::Honest));
    for (late, literally, named, kind) in [
        // Late by what is known here to make it late, give or take ten milliseconds.
        (packet, (packet, 0), true, arrival),
        (packet - 10 * MS, (packet, 0), true, arrival),
        (packet + 10 * MS + 1, (packet, 0), true, honest),
        (packet + reordering, (packet, reordering), true, arrival),
        // A live encoder is as late by its reordering; it names itself.
        (reordering, (0, reordering), false, arrival),
        (reordering, (0, reordering), true, honest),
        // Single frames in their order tell nothing, nor does what is refused.
        (0, (10 * MS, 0), false, None),
        (0, (5 * MS, 5 * MS + 1), false, honest),
        (3 * SECONDS, (packet, 0), true, honest),
        (-3 * SECONDS, (packet, 0), true, honest),
        (3 * SECONDS + 1, (packet, 0), true, None),
    ] {
        let alignment = Alignment {
            named,
            ..Alignment::new(PATIENCE)
        };
        let estimate = Estimate {
            offset: ARRIVED,
            taken_literally: vec![literally],
        };
        let told = alignment.kind_of(ARRIVED + late, &estimate);
        assert_eq!(told, kind, "late by {late} where {literally:?} {named}");
    }
}

#[test]
fn reports_that_turn_out_to_be_arrival_are_not_followed_any_more() {
    let late = 100 * MS;
    let told = Some(Note::ReportsByArrival { late });
    // They were before: back to what arrival says.
    let mut alignment = by_reports(ARRIVED + 60 * MS, &bundled(ARRIVED));
    let now = bundled(ARRIVED + 5 * MS);
    let finding = claims(&mut alignment, ARRIVED + 5 * MS + late, &now);
    let by = -55 * MS;
    assert_eq!(finding.moved, by);
    assert_eq!(finding.notes, [Some(Note::Realigned { by }), told]);
    // They never were: the audio stays.
    let mut alignment = by_arrival(&bundled(ARRIVED));
    let finding = claims(&mut alignment, ARRIVED + 5 * MS + late, &now);
    assert_eq!((finding.moved, finding.notes), (0, [None, told]));
    // Nor is any later one, whatever it says.
    let finding = claims(&mut alignment, ARRIVED + 50 * MS, &now);
    assert_eq!((finding.moved, finding.notes), (0, [None, None]));
}

#[test]
fn after_another_pace_a_track_s_older_report_does_not_count() {
    for (track, other, by) in [(Video, Audio, -50 * MS), (Audio, Video, 50 * MS)] {
        let evidence = plain(0);
        let mut alignment = by_reports(0, &evidence);
        alignment.doubt(track);
        looks(&mut alignment, [&evidence]);
        assert_eq!(report(&mut alignment, other, 20 * MS, &evidence).moved, 0);
        let moved = report(&mut alignment, track, 70 * MS, &evidence).moved;
        assert_eq!(moved, by);
    }
}

#[test]
fn after_a_step_of_one_track_the_older_report_does_not_count() {
    for (track, other) in [(Video, Audio), (Audio, Video)] {
        let evidence = plain(0);
        let mut alignment = by_reports(0, &evidence);
        alignment.stepped(At::ZERO, track, -10 * SECONDS);
        assert_eq!(report(&mut alignment, other, 50 * MS, &evidence).moved, 0);
    }
}

#[test]
fn a_step_of_both_tracks_within_three_seconds_keeps_their_relation() {
    let step = 10 * SECONDS;
    for (after, more, together) in [
        (0, 0, true),
        (3 * SECONDS, 300 * MS, true),
        (3 * SECONDS, -300 * MS, true),
        (3 * SECONDS + 1, 300 * MS, false),
        (3 * SECONDS, 300 * MS + 1, false),
        (3 * SECONDS, -300 * MS - 1, false),
    ] {
        for (first, second, sign) in [(Video, Audio, -1), (Audio, Video, 1)] {
            let mut alignment = by_arrival(&plain(ARRIVED));
            alignment.stepped(at(SECONDS), first, step);
            alignment.stepped(at(SECONDS + after), second, step + more);
            let moved = if together { sign * more } else { 0 };
            assert_eq!(alignment.offset(), Some(ARRIVED + moved), "{after} {more}");
        }
    }
}

#[test]
fn after_a_step_arrival_puts_the_audio_right_once_it_shows_a_second_and_a_half() {
    for (length, off, moved) in [
        (1_475 * MS, 50 * MS, 0),
        (1_500 * MS, 50 * MS, 50 * MS),
        (1_500 * MS, -50 * MS, -50 * MS),
        (1_500 * MS, 8 * MS, 0),
        (1_500 * MS, 8 * MS + 1, 8 * MS + 1),
        (1_500 * MS, -8 * MS - 1, -8 * MS - 1),
    ] {
        // The sender's coding of the audio takes so long by the reports, be they the first or later ones.
        let coding = 25 * MS;
        let before = plain(ARRIVED);
        let mut later = by_arrival(&before);
        claims(&mut later, ARRIVED + coding, &before);
        for mut alignment in [by_reports(ARRIVED + coding, &before), later] {
            alignment.stepped(At::ZERO, Audio, -10 * SECONDS);
            let after = arrivals(length, ARRIVED + off, false);
            assert_eq!(looks(&mut alignment, [&after, &after]), [moved, 0], "{off}");
            assert_eq!(alignment.offset(), Some(ARRIVED + coding + moved));
        }
    }
}

#[test]
fn without_reports_what_arrival_says_twice_is_followed_beyond_40_ms() {
    for (first, second, moved) in [
        (40 * MS, 40 * MS, 0),
        (40 * MS + 1, 40 * MS + 1, 40 * MS + 1),
        (-41 * MS, -60 * MS, -60 * MS),
        (60 * MS, 41 * MS, 41 * MS),
        (60 * MS, 80 * MS, 0),
        (80 * MS, 60 * MS, 0),
        (60 * MS, -60 * MS, 0),
        (60 * MS, 40 * MS, 0),
    ] {
        let mut alignment = by_arrival(&plain(ARRIVED));
        let [first, second] = [first, second].map(|off| plain(ARRIVED + off));
        assert_eq!(looks(&mut alignment, [&first, &second]), [0, moved]);
    }
}
