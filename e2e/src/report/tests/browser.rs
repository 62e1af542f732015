//! The pages in a real browser: nothing on its console, what a person must see is there, with the
//! keyboard alone, in the dark, and on a narrow screen. Skipped where Chromium is not installed, but
//! not in CI, except in the flake's sandbox, which does without.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::{Message, WebSocket, client};

use super::{failed, left_behind};
use crate::programs;

/// For one answer; a busy machine needs seconds for a page.
const PATIENCE: Duration = Duration::from_mins(1);

/// A page in a browser of its own, by its debugging protocol.
struct Browser {
    process: Child,
    socket: WebSocket<TcpStream>,
    _profile: tempfile::TempDir,
    asked: u64,
    /// What the console and the page's scripts complained about.
    complaints: Vec<String>,
}

impl Browser {
    /// Nothing where there is no browser, which is said.
    fn open(page: &Path) -> Option<Self> {
        let names = ["chromium", "chromium-browser", "google-chrome"];
        let Some(program) = names.into_iter().find_map(programs::find) else {
            // Not by `eprintln`, which a test that passes keeps to itself.
            let text = "SKIPPED: the report in a browser: `cargo xtask setup` installs Chromium";
            let set = |name| std::env::var_os(name).is_some_and(|it| !it.is_empty());
            assert!(
                !set("CI") || set("NIX_BUILD_TOP"),
                "in CI nothing is skipped: {text}"
            );
            let _ = writeln!(std::io::stderr(), "{text}");
            return None;
        };
        let profile = tempfile::tempdir().unwrap();
        let mut process = Command::new(program)
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
            ])
            .args([
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ])
            .args(["--remote-debugging-port=0", "--disable-dev-shm-usage"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(process.stderr.take().unwrap());
        let mut lines = said.lines().map_while(Result::ok);
        let listening = lines.find_map(|line| {
            line.strip_prefix("DevTools listening on ws://")
                .map(str::to_owned)
        });
        let listening = listening.expect("Chromium listens");
        std::thread::spawn(move || lines.for_each(drop));
        let address = listening.split('/').next().unwrap();
        let targets = ureq::get(format!("http://{address}/json/list"))
            .call()
            .unwrap();
        let targets: Value =
            serde_json::from_str(&targets.into_body().read_to_string().unwrap()).unwrap();
        let all = targets.as_array().unwrap();
        let target = all.iter().find(|target| target["type"] == "page").unwrap();
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let url = target["webSocketDebuggerUrl"].as_str().unwrap();
        let (socket, _) = client(url, stream).unwrap();
        let mut browser = Self {
            process,
            socket,
            _profile: profile,
            asked: 0,
            complaints: Vec::new(),
        };
        for domain in ["Page", "Runtime", "Log"] {
            browser.ask(&format!("{domain}.enable"), json!({}));
        }
        let url = format!("file://{}", page.display());
        browser.ask("Page.navigate", json!({ "url": url }));
        let end = Instant::now() + PATIENCE;
        while browser.value("document.readyState + location.protocol") != "completefile:" {
            assert!(Instant::now() < end, "the page does not load");
        }
        Some(browser)
    }

    fn ask(&mut self, method: &str, parameters: Value) -> Value {
        self.asked += 1;
        let question = json!({"id": self.asked, "method": method, "params": parameters});
        self.socket
            .send(Message::text(question.to_string()))
            .unwrap();
        loop {
            let Message::Text(text) = self.socket.read().unwrap() else {
                continue;
            };
            let said: Value = serde_json::from_str(&text).unwrap();
            match said["method"].as_str() {
                Some("Log.entryAdded" | "Runtime.exceptionThrown" | "Runtime.consoleAPICalled") => {
                    self.complaints.push(said["params"].to_string());
                }
                _ if said["id"] == self.asked => {
                    assert!(said["error"].is_null(), "{method}: {said}");
                    return said["result"].clone();
                }
                _ => {}
            }
        }
    }

    fn value(&mut self, expression: &str) -> Value {
        let asked = json!({"expression": expression, "returnByValue": true});
        let result = self.ask("Runtime.evaluate", asked);
        assert!(
            result["exceptionDetails"].is_null(),
            "{expression}: {result}"
        );
        result["result"]["value"].clone()
    }

    fn press(&mut self, key: &str) {
        for kind in ["keyDown", "keyUp"] {
            let mut event = json!({"type": kind, "key": key, "code": key});
            if key == "Tab" {
                event["windowsVirtualKeyCode"] = json!(9);
            }
            self.ask("Input.dispatchKeyEvent", event);
        }
    }

    fn narrow(&mut self, width: u32) {
        let screen =
            json!({"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": false});
        self.ask("Emulation.setDeviceMetricsOverride", screen);
    }

    fn screen(&mut self, dark: bool) {
        let scheme = if dark { "dark" } else { "light" };
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.ask(
            "Emulation.setEmulatedMedia",
            json!({ "features": features }),
        );
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_failed_run_looks_failed_and_its_page_works() {
    let directory = tempfile::tempdir().unwrap();
    left_behind(directory.path(), &failed());
    let Some(mut page) = Browser::open(&directory.path().join(super::FILE)) else {
        return;
    };
    // The verdict comes before everything else, with what was expected, what there was, and where.
    let first = page.value("document.querySelector('header').nextElementSibling.innerText");
    let first = first.as_str().unwrap();
    for words in [
        "Failed",
        "coded frames are not",
        "5 frames",
        "4 frames",
        "12.800 s on the timeline",
    ] {
        assert!(first.contains(words), "{words}: {first}");
    }
    assert_eq!(
        page.value("document.querySelectorAll('#chart .wrong').length"),
        1
    );
    // Lanes, rows and lines are all there.
    let lanes = page
        .value("[...document.querySelectorAll('#chart .name')].map((it) => it.textContent).join()");
    assert_eq!(
        lanes,
        "input,STS link,STS service,,in flight,breaker,backpressure,A/V delta,output latency"
    );
    assert_eq!(
        page.value("document.querySelectorAll('tr[id^=f]').length"),
        5
    );
    let lines = super::sample::log().records.len();
    assert_eq!(
        page.value("document.querySelectorAll('#lines li').length"),
        lines
    );
    let tips = page.value(
        "[...document.querySelectorAll('#chart title')].map((it) => it.textContent).join('\\n')",
    );
    let tips = tips.as_str().unwrap();
    for tip in [
        "STS link: away from",
        "reset <&> by peer",
        "attempt 1 in 2000 ms",
        "breaker: open from",
        "output waited 500 ms",
    ] {
        assert!(tips.contains(tip), "{tip}: {tips}");
    }
    assert!(
        !page
            .value("document.documentElement.outerHTML.includes('NaN')")
            .as_bool()
            .unwrap()
    );

    // A curve is drawn whole, however long it is.
    let points = page.value(
        "Math.max(...[...document.querySelectorAll('polyline')].map((it) => it.points.numberOfItems))",
    );
    assert!(points.as_u64().unwrap() >= 400, "{points} points");

    // The keyboard: to the timeline, along it, and to the log of that moment.
    page.value("document.querySelector('#chart').focus()");
    (0..100).for_each(|_| page.press("ArrowRight"));
    assert_ne!(
        page.value("document.querySelector('#cursor text').textContent"),
        ""
    );
    page.press("Enter");
    let here = page.value("Number(document.querySelector('#lines .here').dataset.at)");
    assert!((15.0..30.0).contains(&here.as_f64().unwrap()), "{here}");
    page.press("Tab");
    assert_eq!(
        page.value("document.activeElement.tagName.toLowerCase()"),
        "a",
        "fragments are next"
    );
    // The filter: by level, and by a whole word where a link asks for it.
    page.value("const level = document.querySelector('select'); level.value = '3'; level.dispatchEvent(new Event('change'))");
    let loud = super::sample::log().problems().len();
    assert_eq!(
        page.value("document.querySelectorAll('#lines li:not([hidden])').length"),
        loud
    );
    page.value("document.querySelector('[data-find=\"batch=1\"]').click()");
    assert_eq!(
        page.value("document.querySelectorAll('#lines li:not([hidden])').length"),
        7
    );

    // In the dark it is dark, and what is wrong stays readable.
    page.screen(true);
    let dark = page.value("getComputedStyle(document.body).backgroundColor");
    page.screen(false);
    assert_ne!(
        dark,
        page.value("getComputedStyle(document.body).backgroundColor")
    );

    // On a phone nothing is wider than the screen, the page stays short and lines stack.
    page.narrow(400);
    let width = page.value("document.documentElement.scrollWidth");
    assert!(width.as_u64().unwrap() <= 400, "{width} px");
    let height = page
        .value("document.documentElement.scrollHeight")
        .as_u64()
        .unwrap();
    assert!(height < 8_000, "{height} px");
    let below = "const li = document.querySelector('#lines li:not([hidden])'); \
                 li.querySelector('.said').offsetTop > li.querySelector('.event').offsetTop";
    assert_eq!(page.value(below), true);
    assert_eq!(page.complaints, [""; 0]);
}

#[test]
fn captions_lie_over_the_recording() {
    let directory = tempfile::tempdir().unwrap();
    left_behind(directory.path(), &failed());
    std::fs::copy(
        crate::testclip::path(crate::testclip::FLV),
        directory.path().join("output.flv"),
    )
    .unwrap();
    // As the worker escapes them.
    let vtt = "WEBVTT\n\n00:00:01.000 --> 00:00:01.500\nSegundo 1.\n\n00:00:02.000 --> 00:00:03.000\na &lt;b&gt; &amp; c\n\n";
    std::fs::write(directory.path().join("news.vtt"), vtt).unwrap();
    super::build(directory.path()).unwrap();
    let Some(mut page) = Browser::open(&directory.path().join(super::FILE)) else {
        return;
    };
    let end = Instant::now() + PATIENCE;
    while page.value("document.querySelector('track').readyState") != 2 {
        assert!(Instant::now() < end, "the captions do not load");
    }
    let cues = "[...document.querySelector('video').textTracks[0].cues].map((it) => `${it.startTime} ${it.endTime} ${it.text}`).join('|')";
    assert_eq!(page.value(cues), "1 1.5 Segundo 1.|2 3 a &lt;b&gt; &amp; c");
    page.value("const player = document.querySelector('video'); player.muted = true; player.load(); player.currentTime = 2.5");
    let shown = "[...(document.querySelector('video').textTracks[0].activeCues ?? [])].map((it) => it.getCueAsHTML().textContent).join()";
    while page.value(shown) != "a <b> & c" {
        assert!(
            Instant::now() < end,
            "not shown at its time: {}",
            page.value(shown)
        );
    }
    page.value("player.currentTime = 1.75");
    while page.value(shown) != "" {
        assert!(Instant::now() < end, "shown between its times");
    }
    assert_eq!(page.complaints, [""; 0]);
}

#[test]
fn the_list_of_runs_shows_what_failed() {
    let root = tempfile::tempdir().unwrap();
    left_behind(&root.path().join("broken"), &failed());
    super::rebuild(root.path()).unwrap();
    let Some(mut page) = Browser::open(&root.path().join("index.html")) else {
        return;
    };
    let text = page.value("document.body.innerText");
    let text = text.as_str().unwrap();
    for words in [
        "1 of 1 run failed",
        "broken",
        "coded frames are not those of the input",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    page.value("document.querySelector('main a').click()");
    let end = Instant::now() + PATIENCE;
    while page.value("document.querySelector('h1')?.textContent") != "broken" {
        assert!(Instant::now() < end, "the link leads nowhere");
    }
    assert_eq!(page.complaints, [""; 0]);
}
