use super::*;
use crate::egress::tests::unit;
use std::fs::FileTimes;

fn place(root: &Path) -> Place {
    Place {
        root: root.to_owned(),
        private: false,
        stream_id: "news".to_owned(),
        retention: Duration::from_secs(100),
    }
}

fn audio(batch: u64) -> SegmentFile {
    SegmentFile::Audio {
        batch,
        m4a: b"new".to_vec(),
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn plant(path: &Path, age: u64) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, "old").unwrap();
    make_old(path, age);
}

fn make_old(path: &Path, age: u64) {
    let then = SystemTime::now() - Duration::from_secs(age);
    let file = fs::File::open(path).unwrap();
    file.set_times(FileTimes::new().set_modified(then)).unwrap();
}

#[test]
fn runs_are_never_mixed_and_old_files_go() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("news");
    for (name, age) in [
        ("000000_audio.m4a", 10),
        ("000001_audio_dubbed.m4a", 10),
        ("000002_audio_dubbed.m4a", 200),
        ("000003_video.mp4", 200),
        ("000003_audio_dubbed.tmp", 10),
        ("earlier-5/000009_audio_dubbed.m4a", 200),
        ("earlier-5/000010_video.mp4", 50),
        ("notes.txt", 5000),
    ] {
        plant(&dir.join(name), age);
    }
    let mut writer = FileWriter::new(place(root.path()));
    writer.write(audio(0), |dir| panic!("busy: {dir}")).unwrap();
    let aside = names(&dir)
        .into_iter()
        .find(|name| name.starts_with("earlier-"))
        .unwrap();
    assert_eq!(
        names(&dir),
        ["000000_audio.m4a", &aside, "earlier-5", "notes.txt"].map(String::from)
    );
    assert_eq!(fs::read(dir.join("000000_audio.m4a")).unwrap(), b"new");
    assert_eq!(
        names(&dir.join(&aside)),
        ["000000_audio.m4a", "000001_audio_dubbed.m4a"]
    );
    assert_eq!(names(&dir.join("earlier-5")), ["000010_video.mp4"]);
}

#[test]
fn what_streams_that_never_come_back_have_left_goes_when_nobody_can_want_it() {
    const WEEK: u64 = 7 * 24 * 3600;
    let root = tempfile::tempdir().unwrap();
    let dir = |name: &str| root.path().join(name);
    for (name, age) in [
        ("gone/000001_audio.m4a", WEEK + 60),
        ("gone/earlier-5/000002_video.mp4", WEEK + 60),
        ("kept/000001_audio.m4a", WEEK + 60),
        // Its stream may keep files for a week, whatever this one does.
        ("kept/000002_audio.m4a", WEEK - 60),
        ("locked/000001_audio.m4a", WEEK + 60),
        ("foreign/000001_audio.wav", WEEK + 60),
        ("foreign/run-1/000002_audio.m4a", WEEK + 60),
        ("000003_audio.m4a", WEEK + 60),
    ] {
        plant(&dir(name), age);
    }
    fs::create_dir(dir("empty")).unwrap();
    for name in ["gone/earlier-5", "empty", "foreign", "foreign/run-1"] {
        make_old(&dir(name), WEEK + 60);
    }
    let lock = fs::File::open(dir("locked")).unwrap();
    lock.lock().unwrap();
    let mut writer = FileWriter::new(place(root.path()));
    writer.write(audio(0), |dir| panic!("busy: {dir}")).unwrap();
    let left = "000003_audio.m4a empty foreign kept locked news";
    assert_eq!(names(root.path()).join(" "), left);
    assert_eq!(names(&dir("kept")), ["000002_audio.m4a"]);
    assert_eq!(names(&dir("locked")), ["000001_audio.m4a"]);
    assert_eq!(names(&dir("foreign")), ["000001_audio.wav", "run-1"]);
    assert_eq!(names(&dir("foreign/run-1")), ["000002_audio.m4a"]);
}

/// The file that the live stream writes next waits for it.
#[test]
fn other_streams_are_swept_a_few_at_a_time_and_each_in_turn() {
    let root = tempfile::tempdir().unwrap();
    let age = 8 * 24 * 3600;
    for stream in 0..AT_ONCE * 2 {
        let name = format!("s{stream}/000000_audio.m4a");
        plant(&root.path().join(name), age);
    }
    let mut writer = FileWriter::new(place(root.path()));
    for left in [AT_ONCE, 0] {
        writer.swept = None;
        writer.write(audio(0), |_| ()).unwrap();
        assert_eq!(names(root.path()).len(), left + 1);
    }
    let many = root.path().join("many");
    for batch in 0..=FILES_AT_ONCE {
        plant(&many.join(format!("{batch:06}_audio.m4a")), age);
    }
    writer.swept = None;
    writer.write(audio(0), |_| ()).unwrap();
    assert_eq!(names(&many).len(), 1);
}

#[test]
fn a_run_beside_another_has_its_own_directory() {
    let root = tempfile::tempdir().unwrap();
    let mut first = FileWriter::new(place(root.path()));
    let mut second = FileWriter::new(place(root.path()));
    first.write(audio(0), |dir| panic!("busy: {dir}")).unwrap();
    let mut own = None;
    second.write(audio(0), |dir| own = Some(dir)).unwrap();
    second
        .write(audio(1), |dir| panic!("told twice: {dir}"))
        .unwrap();
    first.write(audio(1), |dir| panic!("busy: {dir}")).unwrap();
    let own = PathBuf::from(own.expect("it is told"));
    assert_eq!(names(&own), ["000000_audio.m4a", "000001_audio.m4a"]);
    drop(first);
    // The next one takes the stream's directory and leaves the other run alone.
    let mut third = FileWriter::new(place(root.path()));
    third.write(audio(7), |dir| panic!("busy: {dir}")).unwrap();
    assert_eq!(names(&own).len(), 2);
    assert!(names(&root.path().join("news")).contains(&"000007_audio.m4a".to_owned()));
}

#[test]
fn the_default_directory_is_this_users_alone() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("worker-segments");
    let mut own = place(&dir);
    own.private = true;
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    FileWriter::new(own.clone())
        .write(audio(0), |_| ())
        .unwrap();
    assert_eq!(
        fs::metadata(&dir).unwrap().permissions().mode() & 0o777,
        0o700
    );
    fs::rename(&dir, root.path().join("elsewhere")).unwrap();
    std::os::unix::fs::symlink(root.path().join("elsewhere"), &dir).unwrap();
    let error = FileWriter::new(own)
        .write(audio(0), |_| ())
        .expect_err("a link");
    assert!(
        error.to_string().contains("belongs to somebody else"),
        "{error}"
    );
}

#[test]
fn a_directory_that_cannot_be_written_is_told_once_and_comes_back() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("news"), "in the way").unwrap();
    let files = SegmentFiles::start(place(root.path())).unwrap();
    let wait = |files: &SegmentFiles| {
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(fact) = files.poll() {
                return fact;
            }
            assert!(Instant::now() < until, "nothing is told");
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    files.write(audio(0));
    let FileFact::Failed {
        batch: 0,
        count: 1,
        first: true,
        reason,
    } = wait(&files)
    else {
        panic!("it is told");
    };
    assert!(reason.contains("news"), "{reason}");
    files.write(audio(1));
    assert!(matches!(
        wait(&files),
        FileFact::Failed {
            first: false,
            count: 1,
            ..
        }
    ));
    fs::remove_file(root.path().join("news")).unwrap();
    files.write(audio(2));
    assert_eq!(wait(&files), FileFact::Back { missed: 2 });
    assert_eq!(names(&root.path().join("news")), ["000002_audio.m4a"]);
}

/// Half a second of pictures at 25 a second, the second and third exchanged in presentation as with
/// B-frames.
fn video(batch: u64) -> SegmentFile {
    let ms = |ms: i64| ms * 1_000_000;
    let pts = |n: i64| match n {
        1 => 2,
        2 => 1,
        n => n,
    };
    let unit = |n: i64| (unit(n == 0, 900), ms(80 + pts(n) * 40), ms(n * 40));
    let units = (0..12).map(unit).collect();
    SegmentFile::Video { batch, units }
}

#[test]
fn a_segment_is_three_files_with_their_names_and_contents() {
    crate::init().unwrap();
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("news");
    let mut writer = FileWriter::new(place(root.path()));
    let dubbed = SegmentFile::Dubbed {
        batch: 12,
        m4a: b"dub".to_vec(),
    };
    for file in [video(12), audio(12), dubbed, audio(1_000_000)] {
        writer.write(file, |dir| panic!("busy: {dir}")).unwrap();
    }
    let expected = [
        "000012_audio.m4a",
        "000012_audio_dubbed.m4a",
        "000012_video.mp4",
        "1000000_audio.m4a",
    ];
    assert_eq!(names(&dir), expected);
    assert_eq!(fs::read(dir.join(expected[0])).unwrap(), b"new");
    assert_eq!(fs::read(dir.join(expected[1])).unwrap(), b"dub");
    let told = e2e_ffmpeg::probe(dir.join(expected[2]), e2e_ffmpeg::Detail::Packets("v:0"));
    let told = String::from_utf8(told.run().unwrap()).unwrap();
    let field = |name: &str| -> Vec<_> {
        let pattern = format!("\"{name}\": \"");
        let values = told.split(&pattern).skip(1);
        values.filter_map(|rest| rest.split('"').next()).collect()
    };
    let times = |order: [i64; 12]| order.map(|n| format!("{:.6}", n as f64 * 0.04));
    let decoded = std::array::from_fn(|n| n as i64);
    let mut shown = decoded;
    shown.swap(1, 2);
    assert_eq!(field("dts_time"), times(decoded.map(|n| n - 2)));
    assert_eq!(field("pts_time"), times(shown));
    assert_eq!(field("size"), ["904"; 12]);
    let keys = field("flags")
        .iter()
        .map(|flags| flags.starts_with('K'))
        .collect::<Vec<_>>();
    assert!(keys[0] && !keys[1..].contains(&true), "{keys:?}");
}

#[test]
fn files_stay_for_as_long_as_retention_says() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("news");
    let mut writer = FileWriter::new(place(root.path()));
    for batch in 0..3 {
        writer.write(audio(batch), |_| ()).unwrap();
    }
    assert_eq!(names(&dir).len(), 3, "100 s are not over");
    // The first two become old.
    for (at, _) in writer.written.iter_mut().take(2) {
        *at -= Duration::from_secs(101);
    }
    writer.write(audio(3), |_| ()).unwrap();
    assert_eq!(names(&dir), ["000002_audio.m4a", "000003_audio.m4a"]);
}

#[test]
fn a_file_appears_whole_or_not_at_all() {
    crate::init().unwrap();
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("news");
    let mut writer = FileWriter::new(place(root.path()));
    let (batch, units) = (0, Vec::new());
    let nothing = SegmentFile::Video { batch, units };
    let error = writer.write(nothing, |_| ()).unwrap_err().to_string();
    assert!(
        error.contains("000000_video.mp4: ") && error.ends_with("no video in this segment"),
        "{error}"
    );
    // A directory in the way: written beside it, and what cannot take its place is removed.
    fs::create_dir(dir.join("000001_audio.m4a")).unwrap();
    writer.write(audio(1), |_| ()).unwrap_err();
    assert_eq!(names(&dir), ["000001_audio.m4a"]);
}

/// The end of the worker waits a moment for the disk.
#[test]
fn what_is_queued_at_the_end_is_written() {
    let root = tempfile::tempdir().unwrap();
    let files = SegmentFiles::start(place(root.path())).unwrap();
    for batch in 0..12 {
        let m4a = vec![7; 1 << 20];
        files.write(SegmentFile::Audio { batch, m4a });
    }
    drop(files);
    assert_eq!(names(&root.path().join("news")).len(), 12);
}
