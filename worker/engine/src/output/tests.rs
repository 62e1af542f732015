use super::*;

/// Where the moment does not matter.
const NOW: At = at(21_070);

const fn at(ms: u64) -> At {
    At::from_millis(ms)
}

const fn video(keyframe: bool, ms: i64) -> Leaving {
    Leaving::Video {
        keyframe,
        pts: Pts::from_millis(ms),
    }
}

const fn audio(ms: i64) -> Leaving {
    Leaving::Audio {
        pts: Pts::from_millis(ms),
    }
}

fn orders(life: &mut OutputLife) -> Vec<String> {
    let order = |order| match order {
        OutputOrder::Event(event) => event.to_string(),
        other => format!("{other:?}"),
    };
    std::iter::from_fn(|| life.poll_order())
        .map(order)
        .collect()
}

/// Accepted at 100 ms.
fn working(retry_s: u64) -> OutputLife {
    let mut life = OutputLife::new(Duration::from_secs(retry_s));
    life.pair_ready(at(0));
    assert_eq!(orders(&mut life), ["Connect(1)"]);
    life.accepted(at(100), 1);
    life
}

/// What becomes of the video from `from` on, one unit per 500 ms with a keyframe every 2 s.
fn run(life: &mut OutputLife, from: u64, to: u64) -> Vec<String> {
    let mut seen = Vec::new();
    for now in (from..to).step_by(500) {
        while life.poll_timeout().is_some_and(|due| due <= at(now)) {
            life.handle_timeout(at(now));
        }
        seen.extend(orders(life));
        life.leaves(at(now), video(now % 2_000 == 0, now as i64));
    }
    seen
}

#[test]
fn from_the_first_pair_to_the_last_byte() {
    let mut life = OutputLife::new(Duration::ZERO);
    assert_eq!(life.poll_timeout(), None);
    assert!(!life.is_connecting());
    life.pair_ready(at(0));
    life.pair_ready(at(10));
    assert_eq!(orders(&mut life), ["Connect(1)"]);
    assert_eq!(life.connection(), 1);
    assert_eq!(life.leaves(NOW, video(true, 0)), Admission::Keep);
    assert!(life.is_connecting() && !life.is_connected());
    life.accepted(at(100), 1);
    assert!(!life.is_connecting() && life.is_connected());
    assert_eq!(life.leaves(NOW, video(false, 40)), Admission::Send);
    life.emptied(at(150)); // Between two pairs: nothing ends.
    assert!(life.is_running());
    life.input_over();
    life.input_over();
    assert!(!life.is_running() && !life.is_flushed());
    assert_eq!(orders(&mut life), ["Flush"]);
    life.flushed();
    assert!(life.is_flushed());
    life.emptied(at(200));
    assert_eq!(orders(&mut life), [""; 0]);
    assert_eq!(life.poll_timeout(), Some(at(500)));
    life.handle_timeout(at(499));
    assert_eq!(orders(&mut life), [""; 0]);
    life.handle_timeout(at(500));
    assert_eq!(orders(&mut life), ["Finish"]);
    life.handle_timeout(at(505)); // The driver wakes for other things too.
    life.finished(at(510), 1);
    assert!(!life.is_finished());
    for look in [560, 610] {
        assert_eq!(life.poll_timeout(), Some(at(look)));
        life.handle_timeout(at(look - 1));
        assert_eq!(orders(&mut life), [""; 0]);
        life.handle_timeout(at(look));
        assert_eq!(orders(&mut life), ["Look"]);
    }
    life.settled();
    assert!(life.is_finished());
    assert_eq!(life.poll_timeout(), None);
    assert_eq!(orders(&mut life), [""; 0]);
}

#[test]
fn a_server_that_hangs_up_upon_the_goodbye_has_everything() {
    for (said_goodbye, told) in [(true, "Look"), (false, "Fail(\"closed\")")] {
        let mut life = working(0);
        life.input_over();
        life.flushed();
        life.emptied(at(200));
        life.handle_timeout(at(500));
        assert_eq!(orders(&mut life), ["Flush", "Finish"]);
        if said_goodbye {
            life.finished(at(510), 1);
        }
        life.failed(at(515), 1, false, "closed");
        life.handle_timeout(at(560));
        assert_eq!(orders(&mut life), [told]);
        life.settled();
        assert!(life.is_finished());
        assert_eq!(life.poll_timeout(), None);
    }
}

#[test]
fn without_a_pair_there_is_nothing_to_close() {
    let mut life = OutputLife::new(Duration::ZERO);
    life.input_over();
    life.flushed();
    life.emptied(at(5));
    assert!(life.is_finished());
    assert_eq!(orders(&mut life), ["Flush"]);
}

#[test]
fn a_stream_shorter_than_the_handshake_waits_for_it() {
    for name_taken in [false, true] {
        let mut life = OutputLife::new(Duration::ZERO);
        life.pair_ready(at(0));
        if name_taken {
            life.failed(at(3), 1, true, "BadName");
        }
        life.input_over();
        life.flushed();
        life.emptied(at(5));
        assert!(!life.is_finished());
        life.handle_timeout(at(1_003));
        orders(&mut life);
        life.accepted(at(1_400), life.connection());
        assert_eq!(orders(&mut life), [""; 0]);
        assert_eq!(life.poll_timeout(), Some(at(1_700)));
    }
}

#[test]
fn what_never_worked_ends_at_once_however_long_it_may_retry() {
    for retry in [0, 3_600] {
        let mut life = OutputLife::new(Duration::from_secs(retry));
        life.pair_ready(at(0));
        life.failed(at(20), 1, false, "refused");
        assert_eq!(orders(&mut life), ["Connect(1)", "Fail(\"refused\")"]);
        assert!(life.is_finished());
        life.failed(at(30), 1, false, "again");
        assert_eq!(orders(&mut life), [""; 0]);
    }
}

#[test]
fn a_name_still_held_is_tried_again_for_some_seconds_and_nothing_is_lost() {
    let mut life = OutputLife::new(Duration::ZERO);
    life.pair_ready(at(0));
    orders(&mut life);
    for (n, now) in [(1, 10), (2, 1_020), (3, 2_030)] {
        assert_eq!(life.leaves(NOW, video(n == 1, now as i64)), Admission::Keep);
        life.failed(at(now), n, true, "BadName");
        assert_eq!(life.leaves(NOW, audio(now as i64)), Admission::Keep);
        let told = orders(&mut life);
        assert_eq!(
            told,
            [
                "Disconnect { forget: false }",
                "output_name_taken delay_ms=1000"
            ]
        );
        life.handle_timeout(at(now + 999));
        assert_eq!(orders(&mut life), [""; 0]);
        life.handle_timeout(at(now + 1_000));
        assert_eq!(orders(&mut life), [format!("Connect({})", n + 1)]);
    }
    life.accepted(at(3_050), 4);
    assert_eq!(life.leaves(NOW, video(false, 3_060)), Admission::Send);
    // Somebody else's name is somebody else's.
    let mut life = OutputLife::new(Duration::from_mins(1));
    life.pair_ready(at(0));
    let mut now = 0;
    for n in 1..20 {
        now += 10;
        life.failed(at(now), n, true, "BadName");
        if life.is_finished() {
            break;
        }
        now += 1_000;
        life.handle_timeout(at(now));
    }
    assert_eq!(
        orders(&mut life).last().map(String::as_str),
        Some("Fail(\"BadName\")")
    );
    assert!((8_000..=10_000).contains(&now), "{now}");
}

#[test]
fn without_retry_a_loss_ends_at_once() {
    let mut life = working(0);
    life.failed(at(20_000), 1, false, "closed");
    assert_eq!(orders(&mut life), ["Fail(\"closed\")"]);
}

#[test]
fn an_output_that_worked_goes_on_with_the_next_keyframe() {
    let mut life = working(30);
    life.failed(at(20_100), 1, false, "closed");
    // It worked for long: the first attempt is made at once.
    assert_eq!(
        orders(&mut life),
        ["Disconnect { forget: true }", "output_lost reason=closed"]
    );
    assert!(!life.is_connected());
    life.handle_timeout(at(20_100));
    life.failed(at(20_110), 2, false, "refused");
    assert_eq!(
        orders(&mut life),
        ["Connect(2)", "Disconnect { forget: true }"]
    );
    assert_eq!(life.leaves(NOW, video(true, 20_500)), Admission::Skip);
    assert_eq!(life.leaves(NOW, audio(20_510)), Admission::Skip);
    life.handle_timeout(at(21_110));
    assert_eq!(orders(&mut life), ["Connect(3)"]);
    assert_eq!(life.leaves(NOW, video(false, 21_150)), Admission::Skip);
    assert_eq!(life.leaves(NOW, video(true, 21_200)), Admission::Send);
    assert_eq!(life.leaves(NOW, audio(21_190)), Admission::Skip);
    assert_eq!(life.leaves(NOW, audio(21_210)), Admission::Send);
    life.accepted(at(21_250), 3);
    assert_eq!(
        orders(&mut life),
        ["output_reconnected away_ms=1150 skipped_video=2 skipped_audio=2"]
    );
    assert_eq!(life.leaves(NOW, video(false, 21_300)), Admission::Send);
    // Later it is as if nothing had been.
    life.handle_timeout(at(26_250));
    life.failed(at(90_000), 3, false, "closed");
    assert_eq!(
        orders(&mut life),
        ["Disconnect { forget: true }", "output_lost reason=closed"]
    );
}

#[test]
fn what_a_refused_connection_was_given_counts_as_skipped() {
    let mut life = working(30);
    life.failed(at(20_000), 1, false, "closed");
    life.handle_timeout(at(20_000));
    assert_eq!(life.leaves(NOW, video(true, 20_000)), Admission::Send);
    assert_eq!(life.leaves(NOW, video(false, 20_040)), Admission::Send);
    for ms in [20_000, 20_021] {
        assert_eq!(life.leaves(NOW, audio(ms)), Admission::Send);
    }
    life.failed(at(20_050), 2, true, "BadName");
    life.handle_timeout(at(21_050));
    life.accepted(at(21_060), 3);
    assert_eq!(life.leaves(NOW, video(false, 21_100)), Admission::Skip);
    let told = orders(&mut life);
    assert_eq!(told.last().map(String::as_str), Some("Connect(3)"));
    assert_eq!(life.leaves(NOW, video(true, 22_000)), Admission::Send);
    assert_eq!(
        orders(&mut life),
        ["output_reconnected away_ms=1070 skipped_video=3 skipped_audio=2"]
    );
}

#[test]
fn an_output_that_stays_away_is_given_up_in_time() {
    let mut life = working(10);
    life.failed(at(20_000), 1, false, "closed");
    let mut attempts = 0;
    let mut given_up = None;
    for now in (20_000..40_000).step_by(10) {
        if life.poll_timeout().is_some_and(|due| due <= at(now)) {
            life.handle_timeout(at(now));
        }
        for order in orders(&mut life) {
            if let Some(n) = order.strip_prefix("Connect(") {
                attempts += 1;
                let n = n.trim_end_matches(')').parse().unwrap();
                life.failed(at(now + 5), n, false, "refused");
            }
            if order.starts_with("Fail") {
                given_up.get_or_insert(now);
            }
        }
    }
    assert!((9..=11).contains(&attempts), "{attempts}");
    assert!(
        given_up.is_some_and(|at| (28_900..=30_010).contains(&at)),
        "{given_up:?}"
    );
}

/// A server that accepts and hangs up in turns was away all the time.
#[test]
fn accepting_alone_is_no_recovery() {
    let mut life = working(10);
    life.failed(at(20_000), 1, false, "closed");
    let mut connections = 0;
    let mut now = 20_000;
    while !life.is_finished() && now < 60_000 {
        now += 10;
        life.handle_timeout(at(now));
        for order in orders(&mut life) {
            if let Some(n) = order.strip_prefix("Connect(") {
                connections += 1;
                let n = n.trim_end_matches(')').parse().unwrap();
                life.accepted(at(now), n);
                life.failed(at(now + 10), n, false, "closed");
            }
        }
    }
    assert!(now <= 30_100, "given up at {now}");
    assert!(connections <= 11, "{connections} connections in 10 s");
}

/// With and without a keyframe on the connection that was lost.
#[test]
fn an_absence_is_over_when_viewers_have_seen_something_for_five_seconds() {
    for (keyframe, lasts, another) in [
        (true, 4_999, false),
        (true, 5_000, true),
        (false, 5_000, false),
    ] {
        let mut life = working(60);
        life.failed(at(20_000), 1, false, "closed");
        life.handle_timeout(at(20_000));
        life.accepted(at(20_100), 2);
        life.leaves(at(20_200), video(keyframe, 20_200));
        life.handle_timeout(at(20_100 + lasts));
        orders(&mut life);
        life.failed(at(25_200), 2, false, "again");
        let lost = orders(&mut life).contains(&"output_lost reason=again".to_owned());
        assert_eq!(lost, another, "{keyframe} {lasts}");
    }
}

/// Encoders make groups of ten seconds and more; a deadline in the past would be a busy loop until then.
#[test]
fn until_the_next_keyframe_nothing_is_due() {
    let mut life = working(60);
    life.failed(at(10_000), 1, false, "closed");
    life.handle_timeout(at(10_000));
    life.accepted(at(10_100), 2);
    orders(&mut life);
    for now in (10_500..20_000).step_by(500) {
        life.leaves(at(now), video(false, now as i64));
        assert_eq!(life.poll_timeout(), None, "{now}");
    }
    life.leaves(at(20_000), video(true, 20_000));
    assert_eq!(
        orders(&mut life),
        ["output_reconnected away_ms=10000 skipped_video=19 skipped_audio=0"]
    );
    assert!(run(&mut life, 20_500, 30_000).is_empty());
    assert_eq!(life.poll_timeout(), None);
}

#[test]
fn a_server_that_never_answers_is_a_failure() {
    let mut life = OutputLife::new(Duration::ZERO);
    life.pair_ready(at(0));
    orders(&mut life);
    assert_eq!(life.poll_timeout(), Some(at(10_000)));
    life.handle_timeout(at(10_000));
    assert_eq!(
        orders(&mut life),
        ["Fail(\"the server did not accept the stream within 10s\")"]
    );
}

#[test]
fn a_server_that_takes_nothing_is_a_failure_but_not_at_the_start() {
    let mut life = working(0);
    life.backlog(at(4_000), Duration::from_secs(7));
    assert_eq!(orders(&mut life), [""; 0]);
    life.backlog(at(5_200), Duration::from_secs(5));
    assert_eq!(orders(&mut life), [""; 0]);
    life.backlog(at(5_200), Duration::from_millis(5_001));
    assert_eq!(
        orders(&mut life),
        ["Fail(\"the server takes no data, 5.001s are waiting\")"]
    );
}

#[test]
fn the_end_is_bounded() {
    let mut life = working(60);
    life.input_over();
    life.flushed();
    life.emptied(at(1_000));
    life.handle_timeout(at(1_300));
    orders(&mut life);
    let failure = "Fail(\"the server did not take the last bytes within 10s\")";
    // Neither the sink's end nor that of its last bytes is waited for without limit.
    let mut other = OutputLife::new(Duration::ZERO);
    std::mem::swap(&mut life, &mut other);
    other.handle_timeout(at(11_300));
    assert_eq!(orders(&mut other), [failure]);
    let mut life = working(60);
    life.input_over();
    life.flushed();
    life.emptied(at(1_000));
    life.handle_timeout(at(1_300));
    life.finished(at(1_310), 1);
    life.handle_timeout(at(11_250));
    life.handle_timeout(at(11_300));
    assert_eq!(orders(&mut life), ["Flush", "Finish", "Look", failure]);
    // Away when the input ends: what is left has nowhere to go.
    let mut life = working(60);
    life.failed(at(20_000), 1, false, "closed");
    life.input_over();
    life.flushed();
    life.emptied(at(20_500));
    let told = orders(&mut life);
    assert_eq!(told.last().map(String::as_str), Some("Fail(\"closed\")"));
}

#[test]
fn last_words_of_an_old_connection_mean_nothing() {
    let mut life = working(60);
    life.failed(at(20_000), 1, false, "closed");
    life.handle_timeout(at(20_000));
    life.failed(at(20_001), 1, false, "closed");
    life.finished(at(20_002), 1);
    life.settled();
    life.accepted(at(20_002), 1);
    assert!(!life.is_connected() && !life.is_finished());
    let seen = run(&mut life, 20_500, 22_000);
    assert!(
        seen.iter().all(|order| !order.starts_with("Fail")),
        "{seen:?}"
    );
}

#[test]
fn bytes_that_wait_are_told_as_time() {
    let mut handed = HandedOver::default();
    assert_eq!(handed.behind(1_000), Duration::ZERO);
    for n in 0..100 {
        handed.push(
            Pts::from_millis(n * 40),
            if n % 25 == 0 { 10_000 } else { 1_000 },
        );
    }
    assert_eq!(handed.behind(0), Duration::ZERO);
    assert_eq!(handed.behind(1_000), Duration::from_millis(40));
    assert_eq!(handed.behind(10_000), Duration::from_millis(400));
    assert_eq!(handed.behind(u64::MAX), Duration::from_millis(99 * 40));
    for n in 0..100_000 {
        handed.push(Pts::from_millis(4_000 + n * 40), 1_000);
    }
    assert!(handed.units.len() <= 1_502);
    // A minute is remembered, and no more.
    for (newest, behind) in [(60_000, 60_000), (60_001, 59_961), (90_000, 40)] {
        let mut handed = HandedOver::default();
        for ms in [0, 40, newest - 40, newest] {
            handed.push(Pts::from_millis(ms), 1_000);
        }
        assert_eq!(handed.behind(u64::MAX), Duration::from_millis(behind));
    }
}
