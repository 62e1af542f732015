//! The check before each run: is everything here? If not, install it where we may, else say
//! exactly what is missing and how to get it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::failure::{CannotRun, Interrupted};
use crate::flags::{MediaOptions, MediaServer};
use crate::host::Host;
use crate::requirements::{Need, Requirement, requirements};
use crate::setup;

/// What of the list is not here, for these needs.
pub(crate) fn missing(host: &Host, needs: &[Need]) -> Vec<&'static Requirement> {
    requirements()
        .filter(|requirement| needs.contains(&requirement.need) && !host.has(requirement))
        .collect()
}

/// Makes sure that the needs are met, by `setup` if it may act.
pub(crate) fn ensure(needs: &[Need]) -> anyhow::Result<()> {
    let host = Host::detect();
    let absent = missing(&host, needs);
    if absent.is_empty() {
        return Ok(());
    }
    installable(&host, &absent)?;
    match setup::permission(&host) {
        setup::Permission::Granted(privilege) => {
            crate::say::tell!("missing here, to be installed:\n{}", table(&absent));
            setup::install(privilege, &absent)?;
            let absent = missing(&Host::detect(), needs);
            if absent.is_empty() {
                return Ok(());
            }
            Err(CannotRun(format!(
                "still missing after the installation:\n{}",
                table(&absent)
            ))
            .into())
        }
        setup::Permission::Denied(reason) => Err(CannotRun(advice(&host, &absent, &reason)).into()),
    }
}

/// Nothing is installed for a run that cannot be all the same.
fn installable(host: &Host, absent: &[&Requirement]) -> anyhow::Result<()> {
    if absent
        .iter()
        .all(|requirement| requirement.debian.is_some())
    {
        return Ok(());
    }
    Err(CannotRun(advice(host, absent, "no Debian package has all of it")).into())
}

/// Makes sure that the needs are met where they can be; `otherwise` says what becomes of it where they
/// cannot. In CI that is an error. The flake does without all of them but Python.
pub(crate) fn ensure_optional(need: Need, otherwise: &str) -> anyhow::Result<()> {
    if Host::detect().in_nix_shell() {
        return Ok(());
    }
    forgive(ensure(&[need]), otherwise)
}

/// Outside CI only an interruption is an error.
pub(crate) fn forgive(result: anyhow::Result<()>, otherwise: &str) -> anyhow::Result<()> {
    let in_ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty());
    match result {
        Err(error) if !in_ci && !error.is::<Interrupted>() => {
            crate::say::tell!("warning: {otherwise}: {error:#}");
            Ok(())
        }
        result => result,
    }
}

/// Makes sure that everything a run with a media server needs is here. The harness makes the same
/// choice of server and says which it is.
pub(crate) fn ensure_media(options: &MediaOptions) -> anyhow::Result<()> {
    if let Some(fixture) = &options.fixture
        && !fixture.is_file()
    {
        let message = format!("--fixture {}: there is no such file", fixture.display());
        return Err(CannotRun(message).into());
    }
    let server = server_need(&Host::detect(), options.media_server)?;
    ensure(&[Need::Build, Need::Run, server])
}

/// What the media server of a run needs: MediaMTX where it is asked for or installed.
fn server_need(host: &Host, wanted: Option<MediaServer>) -> anyhow::Result<Need> {
    let found = host.mediamtx().is_some();
    if wanted != Some(MediaServer::Default)
        && !found
        && let Some(path) = host.mediamtx_bin()
    {
        // Somebody meant this; silently testing something else would be worse than stopping.
        return Err(CannotRun(format!("MEDIAMTX_BIN={path}: there is no such program")).into());
    }
    Ok(match wanted {
        Some(MediaServer::Mediamtx) => Need::MediaMtx,
        None if found => Need::MediaMtx,
        Some(MediaServer::Default) | None => Need::DefaultServer,
    })
}

/// The whole story for a person: what is missing, why we do not act, what to type.
pub(crate) fn advice(host: &Host, absent: &[&Requirement], reason: &str) -> String {
    let mut text = format!("missing here, and {reason}:\n{}", table(absent));
    let packages = setup::packages(absent);
    if !packages.is_empty() {
        let _ = write!(
            text,
            "\non Debian or Ubuntu: {}",
            setup::command_line(&packages)
        );
    }
    if absent
        .iter()
        .any(|requirement| requirement.need == Need::MediaMtx)
    {
        text.push_str(
            "\nmediamtx has no Debian package: take it from `nix develop`, put it on PATH or \
             set MEDIAMTX_BIN (demo, e2e and soak go without: --media-server default)",
        );
    }
    if !host.in_nix_shell() {
        text.push_str("\nwith Nix, anywhere: nix develop");
    }
    text
}

/// One line per Debian package, with what it is wanted for.
pub(crate) fn table(requirements: &[&Requirement]) -> String {
    let mut rows: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for requirement in requirements {
        let package = requirement.debian.unwrap_or("(no Debian package)");
        rows.entry(package).or_default().push(requirement.name());
    }
    let width = rows.keys().map(|package| package.len()).max().unwrap_or(0);
    let lines: Vec<_> = rows
        .iter()
        .map(|(package, names)| format!("  {package:<width$}  {}", names.join(", ")))
        .collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::exit_code;
    use crate::host::fake::FakeMachine;

    #[test]
    fn a_bare_machine_misses_all_but_what_was_not_asked_for() {
        let host = FakeMachine::bare_debian().host();
        let mut needs = vec![Need::Build, Need::Run, Need::DefaultServer];
        needs.extend(Need::OPTIONAL);
        let absent = missing(&host, &needs);
        let all = requirements().filter(|r| r.need != Need::MediaMtx).count();
        assert_eq!(absent.len(), all);
        assert!(
            missing(&host, &[Need::Build])
                .iter()
                .all(|r| r.need == Need::Build)
        );
    }

    #[test]
    fn nothing_is_installed_where_mediamtx_is_missing_too() {
        let host = FakeMachine::bare_debian().host();
        let absent = missing(&host, &[Need::Build, Need::Run, Need::MediaMtx]);
        let error = installable(&host, &absent).expect_err("refused");
        assert_eq!(exit_code(&error), 3);
        assert!(error.to_string().contains("MEDIAMTX_BIN"), "{error}");
        assert!(installable(&host, &missing(&host, &[Need::Build])).is_ok());
    }

    #[test]
    fn only_what_is_missing_is_named() {
        let machine = FakeMachine::bare_debian()
            .program("ffmpeg", "exit 0")
            .program("ffprobe", "exit 0")
            .program("pkg-config", "exit 0");
        let absent = missing(&machine.host(), &[Need::Build, Need::Run]);
        assert!(
            absent
                .iter()
                .all(|r| r.debian != Some("ffmpeg") && r.need != Need::Build)
        );
        assert!(absent.iter().any(|r| r.name() == "rtspsrc"));
    }

    #[test]
    fn mediamtx_is_taken_where_it_is_installed() {
        let machine = FakeMachine::bare_debian();
        let need =
            |machine: &FakeMachine, wanted| server_need(&machine.host(), wanted).expect("chosen");
        assert_eq!(need(&machine, None), Need::DefaultServer);
        assert_eq!(need(&machine, Some(MediaServer::Mediamtx)), Need::MediaMtx);
        let machine = machine.program("mediamtx", "exit 0");
        assert_eq!(need(&machine, None), Need::MediaMtx);
        assert_eq!(
            need(&machine, Some(MediaServer::Default)),
            Need::DefaultServer
        );
    }

    #[test]
    fn a_mediamtx_bin_that_is_not_there_is_refused() {
        let host = FakeMachine::bare_debian()
            .env("MEDIAMTX_BIN", "/nonexistent/mtx")
            .host();
        let error = server_need(&host, None).expect_err("refused");
        assert_eq!(exit_code(&error), 3);
        assert!(error.to_string().contains("MEDIAMTX_BIN=/nonexistent/mtx"));
        assert!(server_need(&host, Some(MediaServer::Default)).is_ok());
    }

    #[test]
    fn the_advice_names_the_exact_command() {
        let host = FakeMachine::bare_debian().host();
        let absent = missing(&host, &[Need::Build]);
        let text = advice(&host, &absent, "this is a test");
        assert!(
            text.contains(
                "sudo apt-get update && sudo apt-get install --no-install-recommends --yes \
                 libgstreamer-plugins-base1.0-dev libgstreamer1.0-dev libssl-dev pkg-config"
            ),
            "{text}"
        );
        assert!(text.contains("nix develop"));
        assert!(
            text.contains("  pkg-config                        pkg-config\n"),
            "{text}"
        );
        let text = advice(&host, &missing(&host, &[Need::MediaMtx]), "this is a test");
        assert!(
            text.contains("MEDIAMTX_BIN") && !text.contains("apt-get"),
            "{text}"
        );
    }
}
