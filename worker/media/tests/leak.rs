//! A binary of its own: it counts what the whole process holds.

#![expect(
    clippy::unwrap_used,
    reason = "a test says what it expects by unwrapping it"
)]

mod bench;

use std::time::{Duration, Instant};

use bench::{Bench, PART, budget, encode, tone};
use dub_media::audio::{self, Label, Pcm};
use dub_media::tempo;

/// Threads and open files of this process.
fn usage() -> [usize; 2] {
    ["/proc/self/task", "/proc/self/fd"].map(|dir| std::fs::read_dir(dir).unwrap().count())
}

/// The same once threads that are on their way out are gone, or after some seconds.
fn settled(limit: [usize; 2]) -> [usize; 2] {
    let start = Instant::now();
    loop {
        let now = usage();
        let calm = now.iter().zip(limit).all(|(now, limit)| *now <= limit);
        if calm || start.elapsed() > Duration::from_secs(5) {
            return now;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Every answer is decoded and may be stretched, and a hole of the input begins another encoder.
#[test]
fn decoders_stretchers_and_encoders_leave_nothing_behind() {
    let format = Bench::new(None).format;
    let sound = Pcm {
        samples: tone(PART * 1024, 440.0, 0.25),
        channels: 2,
    };
    let bytes: Vec<u8> = sound
        .samples
        .iter()
        .flat_map(|x| ((x * 32_767.0) as i16).to_le_bytes())
        .collect();
    let label = Label {
        format: "pcm_s16le",
        rate: 48_000,
        channels: 2,
    };
    let round = || {
        encode(&format, &sound.samples[..20_480]);
        audio::decode(bytes.clone(), label, &format, PART * 1024, budget()).unwrap();
        tempo::change(&sound, 80_000, 48_000).unwrap();
    };
    (0..5).for_each(|_| round());
    let before = settled(usage());
    (0..40).for_each(|_| round());
    let after = settled(before);
    assert!(
        after[0] <= before[0] + 1,
        "threads: {before:?}, then {after:?}"
    );
    assert!(
        after[1] <= before[1] + 2,
        "files: {before:?}, then {after:?}"
    );
}
