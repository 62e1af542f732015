//! Shows what is here, what is missing and how to get it.

use std::fmt::Write as _;

use crate::failure::CannotRun;
use crate::host::Host;
use crate::preflight;
use crate::python;
use crate::requirements::{Fact, Need, Requirement, requirements};
use crate::say::say;

/// `cargo xtask doctor`: exits with 3 when something the suite needs is missing.
pub(crate) fn command() -> anyhow::Result<()> {
    let host = Host::detect();
    let socketio = python::version();
    let told = socketio.as_deref().unwrap_or("not found");
    say!(
        "{}{:<14} {told}\n\n{}",
        versions(&host),
        "socketio",
        facts(&host)
    );
    for warning in outside_ranges(&host) {
        say!("warning: {warning}");
    }
    let absent = preflight::missing(&host, &needs(&host));
    if absent.is_empty() && socketio.is_none() {
        let message = "missing: python-socketio, without which tests against services written in Python \
                       are skipped (in CI: fail); `cargo xtask setup` installs it into target/python";
        return Err(CannotRun(message.to_owned()).into());
    }
    if absent.is_empty() {
        say!("everything is here");
        return Ok(());
    }
    let reason = if host.in_nix_shell() {
        "it is the flake that must provide it"
    } else {
        "`cargo xtask setup` installs what has a package"
    };
    Err(CannotRun(preflight::advice(&host, &absent, reason)).into())
}

/// MediaMTX or the default server: one of the two has to be whole.
fn needs(host: &Host) -> Vec<Need> {
    let mut needs = vec![Need::Build, Need::Run];
    // The flake does without the others.
    needs.extend(
        Need::OPTIONAL
            .into_iter()
            .filter(|need| !host.in_nix_shell() || *need == Need::Python),
    );
    if host.mediamtx().is_none() {
        needs.push(Need::DefaultServer);
    }
    needs
}

fn versions(host: &Host) -> String {
    let surroundings = if host.in_nix_shell() {
        "nix develop".to_owned()
    } else {
        host.distributions().join(", ")
    };
    let mut text = format!("{:<14} {surroundings}\n", "system");
    for (name, program, arguments) in [
        ("rust", "rustc", &["--version"][..]),
        ("cargo", "cargo", &["--version"]),
        ("GStreamer", "gst-inspect-1.0", &["--gst-version"]),
        ("ffmpeg", "ffmpeg", &["-version"]),
        ("nginx", "nginx", &["-v"]),
        ("python", "python3", &["--version"]),
    ] {
        let version = host
            .version(program, arguments)
            .unwrap_or_else(|| "not found".into());
        // "ffmpeg version 5.1.6-0+deb12u1 Copyright (c) …": the rest is noise here.
        let version = version.split(" Copyright").next().unwrap_or_default();
        let _ = writeln!(text, "{name:<14} {version}");
    }
    let mediamtx = match (host.mediamtx(), host.mediamtx_bin()) {
        (Some(path), _) => {
            let program = path.display().to_string();
            let version = host.version(&program, &["--version"]);
            format!(
                "{} ({program})",
                version.unwrap_or_else(|| "version unknown".into())
            )
        }
        (None, Some(wanted)) => format!("not found: MEDIAMTX_BIN={wanted} is no program"),
        (None, None) => "not found; the default media server stands in".into(),
    };
    let _ = writeln!(text, "{:<14} {mediamtx}", "MediaMTX");
    text
}

/// What the suite was really run on: name, program and arguments, first and last version. docs/nix.md and
/// the README say the same.
const RANGES: [(&str, &str, &[&str], Version, Version); 2] = [
    (
        "GStreamer",
        "gst-inspect-1.0",
        &["--gst-version"],
        (1, 22),
        (1, 28),
    ),
    ("ffmpeg", "ffmpeg", &["-version"], (5, 1), (9, 0)),
];

type Version = (u32, u32);

/// A sentence for each program whose version nobody has run the suite on.
fn outside_ranges(host: &Host) -> Vec<String> {
    let sentence = |(name, program, arguments, first, last): (&str, _, _, Version, Version)| {
        let said = host.version(program, arguments)?;
        let Some(version) = version_in(&said) else {
            return Some(format!("{name} does not say which version it is: {said}"));
        };
        let text = |(major, minor)| format!("{major}.{minor}");
        (!(first..=last).contains(&version)).then(|| {
            format!(
                "the suite was never run on {name} {}, only on {} to {}",
                text(version),
                text(first),
                text(last)
            )
        })
    };
    RANGES.into_iter().filter_map(sentence).collect()
}

/// The first word that begins like a version: `n8.0-3`, `7:5.1.6`, `1.28.8`.
fn version_in(said: &str) -> Option<Version> {
    said.split_whitespace().find_map(|word| {
        let word = word
            .rsplit(':')
            .next()?
            .trim_start_matches(|c: char| c.is_alphabetic());
        let mut parts = word.split(|c: char| !c.is_ascii_digit());
        let major = parts.next()?.parse().ok()?;
        Some((major, parts.next()?.parse().ok()?))
    })
}

/// Every requirement with a mark.
fn facts(host: &Host) -> String {
    let mut text = String::new();
    for requirement in requirements() {
        let mark = match (host.has(requirement), applies(host, requirement)) {
            (true, _) => "ok",
            (false, true) => "MISSING",
            (false, false) => "not needed",
        };
        let detail = match requirement.fact {
            Fact::Element { plugin, .. } => format!("{} [plugin {plugin}]", requirement.purpose),
            _ => requirement.purpose.to_owned(),
        };
        let _ = writeln!(
            text,
            "{mark:<11} {:<18} {:<22} {detail}",
            requirement.kind(),
            requirement.name()
        );
    }
    text
}

fn applies(host: &Host, requirement: &Requirement) -> bool {
    needs(host).contains(&requirement.need)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::FakeMachine;

    #[test]
    fn versions_are_what_the_programs_say() {
        let machine = FakeMachine::bare_debian()
            .program(
                "ffmpeg",
                "echo 'ffmpeg version 5.1.6 Copyright (c) 2000-2024'",
            )
            .program("nginx", "echo 'nginx version: nginx/1.22.1' >&2");
        let text = versions(&machine.host());
        assert!(
            text.contains("ffmpeg         ffmpeg version 5.1.6\n"),
            "{text}"
        );
        assert!(text.contains("nginx version: nginx/1.22.1\n"), "{text}");
        assert!(text.contains("GStreamer      not found\n"), "{text}");
        assert!(
            text.contains("the default media server stands in"),
            "{text}"
        );
    }

    #[test]
    fn versions_nobody_has_run_are_told() {
        let warnings = |gst: &str, ffmpeg: &str| {
            let machine = FakeMachine::bare_debian()
                .program(
                    "gst-inspect-1.0",
                    &format!("echo 'GStreamer Core Library version {gst}'"),
                )
                .program(
                    "ffmpeg",
                    &format!("echo 'ffmpeg version {ffmpeg} Copyright (c) 2000-2026'"),
                );
            outside_ranges(&machine.host())
        };
        for (gst, ffmpeg) in [
            ("1.22.0", "5.1.9-0+deb12u1"),
            ("1.28.8", "9.0.2-4"),
            ("1.26.11", "n8.0"),
        ] {
            assert_eq!(warnings(gst, ffmpeg), [""; 0], "{gst} {ffmpeg}");
        }
        let old = warnings("1.20.3", "4.4.2-0ubuntu0.22.04.1");
        assert_eq!(
            old,
            [
                "the suite was never run on GStreamer 1.20, only on 1.22 to 1.28",
                "the suite was never run on ffmpeg 4.4, only on 5.1 to 9.0"
            ]
        );
        assert_eq!(warnings("1.30.0", "9.1").len(), 2);
        assert_eq!(
            warnings("1.22.0", "N-121-gabcdef").len(),
            1,
            "a build of no release"
        );
    }

    #[test]
    fn the_documents_name_the_same_ranges() {
        let text = |(major, minor): Version| format!("{major}.{minor}");
        for (name, _, _, first, last) in RANGES {
            let range = format!("{name} {} to {}", text(first), text(last));
            for document in ["README.md", "docs/nix.md"] {
                let words = std::fs::read_to_string(crate::root().join(document)).expect(document);
                let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
                assert!(words.contains(&range), "{document} does not say: {range}");
            }
        }
    }

    #[test]
    fn with_mediamtx_nginx_is_not_needed() {
        let line_of = |host: &Host, name: &str| {
            let text = facts(host);
            let line = text.lines().find(|l| l.contains(&format!(" {name} ")));
            line.expect("is listed").to_owned()
        };
        let machine = FakeMachine::bare_debian();
        assert!(line_of(&machine.host(), "nginx").starts_with("MISSING"));
        assert!(line_of(&machine.host(), "mediamtx").starts_with("not needed"));
        let machine = machine.program("mediamtx", "echo v1.18.2");
        assert!(line_of(&machine.host(), "nginx").starts_with("not needed"));
        assert!(line_of(&machine.host(), "mediamtx").starts_with("ok"));
    }
}
