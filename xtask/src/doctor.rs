//! Shows what is here, what is missing and how to get it.

use std::fmt::Write as _;

use crate::failure::CannotRun;
use crate::host::Host;
use crate::preflight;
use crate::python;
use crate::requirements::{Fact, Need, REQUIREMENTS, Requirement};

/// `cargo xtask doctor`: exits with 3 when something the suite needs is missing.
pub(crate) fn command() -> anyhow::Result<()> {
    let host = Host::detect();
    print!("{}", versions(&host));
    println!("{:<14} {}\n", "socketio", python::version());
    print!("{}", facts(&host));
    let absent = preflight::missing(&host, &needs(&host));
    if absent.is_empty() {
        println!("\neverything is here");
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
    let mut needs = vec![Need::Build, Need::Run, Need::Python];
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

/// Every requirement with a mark.
fn facts(host: &Host) -> String {
    let mut text = String::new();
    for requirement in REQUIREMENTS {
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
