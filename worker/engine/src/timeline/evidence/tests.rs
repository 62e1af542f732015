use super::*;

/// What makes a frame of audio, and a packet of five.
const FRAME: i64 = 20 * MS;
const PACKET: i64 = 5 * FRAME;
/// What the network takes, and by how much later than that audio is sent.
const NETWORK: i64 = 3_000 * MS;
const LATER: i64 = 30 * MS;

fn at(nanos: i64) -> At {
    At::ZERO + std::time::Duration::from_nanos(nanos.unsigned_abs())
}

/// `count` units of either track, so far apart.
fn units(pictures: (i64, i64), packets: (i64, i64)) -> Evidence {
    let mut evidence = Evidence::new(Some(FRAME));
    for time in (0..pictures.0).map(|n| n * pictures.1) {
        evidence.picture(at(time + NETWORK), time, true);
    }
    for time in (0..packets.0).map(|n| n * packets.1) {
        evidence.packet(at(time + NETWORK + LATER), time);
    }
    evidence
}

/// Packets that begin at these multiples of a frame and hold so many; each leaves when it is over.
fn bundled(packets: &[(i64, i64)]) -> Evidence {
    let mut evidence = units((20, 40 * MS), (0, 0));
    for (begin, frames) in packets {
        let leaves = (begin + frames) * FRAME + NETWORK + LATER;
        evidence.packet(at(leaves), begin * FRAME);
    }
    evidence
}

/// Packets of so many frames that follow each other.
fn in_a_row(frames: &[i64]) -> Vec<(i64, i64)> {
    let begins = frames.iter().scan(0, |next, frames| {
        let begin = *next;
        *next += frames;
        Some(begin)
    });
    begins.zip(frames.iter().copied()).collect()
}

#[test]
fn arrivals_count_for_six_seconds_and_for_eight_units_and_never_more_than_512() {
    for (count, apart, span) in [
        (100, 100 * MS, 6_000 * MS),
        (30, 2_000 * MS, 16_000 * MS),
        (1_000, MS, 511 * MS),
    ] {
        let long = (9, 10_000 * MS);
        assert_eq!(units((count, apart), long).span(), span, "pictures");
        assert_eq!(units(long, (count, apart)).span(), span, "packets");
    }
}

#[test]
fn arrivals_say_something_once_both_tracks_have_shown_a_second() {
    for (pictures, packets, told) in [(26, 51, true), (25, 51, false), (26, 50, false)] {
        let evidence = units((pictures, 40 * MS), (packets, FRAME));
        let offset = evidence.estimate().map(|estimate| estimate.offset);
        assert_eq!(
            offset,
            told.then_some(LATER),
            "{pictures} pictures, {packets} packets"
        );
    }
}

#[test]
fn what_came_before_a_step_says_nothing() {
    for track in [Track::Video, Track::Audio] {
        let mut evidence = units((50, 40 * MS), (100, FRAME));
        evidence.forget(track);
        assert_eq!(evidence.guess(), None);
    }
}

#[test]
fn one_unit_that_is_too_quick_says_nothing() {
    for track in [Track::Video, Track::Audio] {
        let mut evidence = units((23, 40 * MS), (23, FRAME));
        let stray = at(1_000 * MS + NETWORK);
        match track {
            Track::Video => evidence.picture(stray, 1_400 * MS, true),
            Track::Audio => evidence.packet(stray, 1_400 * MS),
        }
        assert_eq!(evidence.guess().map(|it| it.offset), Some(LATER));
    }
}

/// Decoded P B B B, the middle one first; each leaves at its turn in decoding.
#[test]
fn pictures_that_are_reordered_count_by_the_time_of_their_decoding() {
    let picture = 40 * MS;
    let order = [0, 4, 2, 1, 3, 8, 6, 5, 7, 12, 10, 9, 11, 16];
    for known in [10, 13, 14] {
        let mut evidence = units((0, 0), (50, FRAME));
        for (turn, shown) in (0..).zip(&order[..known]) {
            let leaves = turn * picture + NETWORK;
            evidence.picture(at(leaves), shown * picture, turn == 0);
        }
        // The keyframe is decoded two pictures before it is shown, the last of a group five before.
        let estimate = Estimate {
            offset: LATER - 2 * picture,
            taken_literally: vec![(0, 5 * picture), (0, 2 * picture)],
        };
        assert_eq!(evidence.guess(), Some(estimate), "of {known} pictures");
    }
}

#[test]
fn packets_of_several_frames_count_from_their_end() {
    for (frames, lengths) in [
        (vec![5; 12], vec![5]),
        (vec![2; 12], vec![2]),
        (vec![4, 3, 4, 4, 3, 4, 4, 3, 4, 4, 3, 4], vec![3, 4]),
        // A short one now and then changes nothing.
        (vec![1, 5, 5, 5, 5, 1, 5, 5, 5, 5, 5], vec![1, 5]),
    ] {
        let estimate = bundled(&in_a_row(&frames)).guess().expect("an estimate");
        assert_eq!(estimate.offset, LATER, "{frames:?}");
        // Pictures are in their order: literally or not, they are where they are.
        let lengths: Vec<_> = lengths.iter().map(|n| (n * FRAME, 0)).collect();
        let literally: Vec<_> = lengths.iter().flat_map(|it| [*it, *it]).collect();
        assert_eq!(estimate.taken_literally, literally, "{frames:?}");
    }
}

#[test]
fn a_packet_that_was_lost_makes_none_longer() {
    let mut packets = in_a_row(&[5; 12]);
    packets.remove(6);
    let evidence = bundled(&packets);
    assert_eq!(evidence.guess(), bundled(&in_a_row(&[5; 12])).guess());
}

#[test]
fn a_packet_is_several_frames_from_one_and_a_half_on() {
    for (apart, lengths) in [
        (20 * MS, vec![0]),
        (30 * MS - 1, vec![0]),
        (30 * MS, vec![30 * MS]),
    ] {
        let (_, told) = units((9, 40 * MS), (12, apart)).audio().expect("lengths");
        assert_eq!(told, lengths);
    }
}

#[test]
fn lengths_that_differ_by_less_than_five_milliseconds_are_one() {
    for (longer, lengths) in [
        (5 * MS - 1, vec![PACKET]),
        (5 * MS, vec![PACKET, PACKET + 5 * MS]),
    ] {
        let mut evidence = units((9, 40 * MS), (0, 0));
        for time in (0..10).map(|n| n * PACKET + n / 2 * longer) {
            evidence.packet(at(time + NETWORK), time);
        }
        let (_, told) = evidence.audio().expect("lengths");
        assert_eq!(told, lengths);
    }
}
