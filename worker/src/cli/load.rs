//! Where values come from: a flag, else an environment variable, else the configuration file, else
//! a default; some of them through a file of their own. Whatever is said about them hides secrets.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::Path;

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, CommandFactory as _, FromArgMatches as _};
use dub_media::MediaUrl;

use super::{Cli, CutChoice, value};

/// Largest configuration file, and largest secret.
const LARGEST: u64 = 1 << 20;

/// The options, and how they read without secrets.
#[derive(Debug)]
pub struct Loaded {
    /// The options.
    pub cli: Cli,
    /// What was set or is a default, by the name of the flag.
    pub shown: BTreeMap<String, String>,
}

/// Why there are no options: what to print, and the exit code (0 for `--help` and `--version`).
#[derive(Debug)]
pub struct Refused(pub String, pub u8);

/// Reads flags, environment and files.
///
/// # Errors
/// When a value is not allowed, or help was asked for.
pub fn load(args: impl Iterator<Item = OsString>) -> Result<Loaded, Refused> {
    let args: Vec<OsString> = args.collect();
    let mut command = Cli::command().mut_args(without_empty);
    let file = config_path(&command, &args);
    let mut in_file = BTreeMap::new();
    if let Some(path) = &file {
        let refused = |message: String| refuse(&format!("{}: {message}", path.display()));
        in_file = read_config(&command, path).map_err(refused)?;
        for (name, value) in in_file.clone() {
            command = command.mut_arg(name.replace('-', "_"), |arg| {
                // As if it were the environment's, --help shows no secret of the file.
                let hidden = arg.is_hide_env_values_set();
                arg.default_value(value).hide_default_value(hidden)
            });
        }
    }
    let matches = command
        .try_get_matches_from_mut(&args)
        .map_err(|error| explain(error, &args, file.as_deref(), &in_file))?;
    let mut cli = Cli::from_arg_matches(&matches)
        .map_err(|error| explain(error, &args, file.as_deref(), &in_file))?;
    let shown = shown(&command, &matches);
    let chosen = |plain: &str, file: &str| file_is_chosen(&matches, &in_file, plain, file);
    if let Some(path) = cli.input_url_file.as_deref()
        && chosen("input-url", "input-url-file")?
    {
        cli.input_url = Some(secret("input-url-file", path, value::rtsp_url)?);
    }
    if let Some(path) = cli.output_url_file.as_deref()
        && chosen("output-url", "output-url-file")?
    {
        cli.output_url = Some(secret("output-url-file", path, value::rtmp_url)?);
    }
    if let Some(path) = cli.sts_service_url_file.as_deref()
        && chosen("sts-service-url", "sts-service-url-file")?
    {
        cli.sts_service_url = secret("sts-service-url-file", path, value::sts_url)?;
    }
    if let Some(path) = cli.sts_token_file.as_deref()
        && chosen("sts-token", "sts-token-file")?
    {
        cli.sts_token = Some(secret("sts-token-file", path, value::token)?);
    }
    lengths(&cli, |name| {
        in_file.contains_key(name)
            || matches!(
                matches.value_source(&name.replace('-', "_")),
                Some(ValueSource::CommandLine | ValueSource::EnvVariable)
            )
    })?;
    Ok(Loaded { cli, shown })
}

/// An empty variable is one that a template did not fill in: as if it were not set. An empty token would
/// be none where one was meant, so it is refused.
fn without_empty(arg: Arg) -> Arg {
    let is_empty = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    if arg.get_id() != "sts_token" && arg.get_env().is_some_and(is_empty) {
        return arg.env(Resettable::Reset);
    }
    arg
}

/// Checks that the lengths of segments rise. A default that does not matter offends nobody.
fn lengths(cli: &Cli, given: impl Fn(&str) -> bool) -> Result<(), Refused> {
    let matters = |name| cli.segment_cut == CutChoice::Pause || given(name);
    let duration = cli.segment_duration;
    let (name, value, allowed) = if cli.segment_min > duration && matters("segment-min") {
        ("segment-min", cli.segment_min, "at most")
    } else if cli.segment_max < duration && matters("segment-max") {
        ("segment-max", cli.segment_max, "at least")
    } else {
        return Ok(());
    };
    let text = humantime::format_duration;
    Err(refuse(&format!(
        "invalid value '{}' for '--{name} <{}>': allowed: {allowed} --segment-duration, which is {}",
        text(value),
        name.replace('-', "_").to_uppercase(),
        text(duration)
    )))
}

fn refuse(message: &str) -> Refused {
    let text = format!("error: {message}\n\nFor more information, try '--help'.\n");
    Refused(text, crate::exit::USAGE)
}

/// Where the configuration file is, whatever is wrong with other options.
fn config_path(command: &Command, args: &[OsString]) -> Option<std::path::PathBuf> {
    let command = command.clone().ignore_errors(true).disable_help_flag(true);
    let matches = command
        .disable_version_flag(true)
        .try_get_matches_from(args);
    matches.ok()?.get_one("config").cloned()
}

/// The file's options by the name of their flag, as text.
fn read_config(command: &Command, path: &Path) -> Result<BTreeMap<String, String>, String> {
    let text = read(path)?;
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let line = error
            .span()
            .map_or(1, |span| text[..span.start].lines().count().max(1));
        // Its own text quotes the line, which may hold a secret.
        format!("line {line}: {}", error.message())
    })?;
    let mut options = BTreeMap::new();
    for (name, value) in table {
        let known = command.get_arguments().any(|arg| {
            arg.get_long() == Some(&name) && arg.get_env().is_some() && name != "config"
        });
        if !known {
            return Err(format!(
                "unknown key '{name}'; allowed: the names of the options without --, such as stream-id"
            ));
        }
        let value = match value {
            toml::Value::String(text) => text,
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Float(number) => number.to_string(),
            toml::Value::Boolean(flag) => flag.to_string(),
            _ => return Err(format!("'{name}' needs a text or a number")),
        };
        options.insert(name, value);
    }
    Ok(options)
}

fn read(path: &Path) -> Result<String, String> {
    use std::io::Read as _;
    let file = fs::File::open(path).map_err(|error| format!("cannot be read: {error}"))?;
    let mut text = String::new();
    file.take(LARGEST + 1)
        .read_to_string(&mut text)
        .map_err(|error| format!("cannot be read: {error}"))?;
    if text.len() as u64 > LARGEST {
        return Err(format!("is larger than {LARGEST} bytes"));
    }
    Ok(text)
}

/// The content of a secret's file, without white space around it.
fn secret(
    option: &str,
    path: &Path,
    parse: impl Fn(&str) -> Result<String, String>,
) -> Result<String, Refused> {
    let refused = |message: String| {
        refuse(&format!(
            "invalid value '{}' for '--{option} <PATH>': {message}",
            path.display()
        ))
    };
    let text = read(path).map_err(|error| refused(format!("the file {error}")))?;
    match text.trim() {
        "" => Err(refused("the file is empty".to_owned())),
        text => parse(text).map_err(|error| refused(format!("the file's content: {error}"))),
    }
}

/// Whether the file variant of an option is nearer to the user than the option itself.
fn file_is_chosen(
    matches: &ArgMatches,
    in_file: &BTreeMap<String, String>,
    plain: &str,
    file: &str,
) -> Result<bool, Refused> {
    let rank = |name: &str| match matches.value_source(&name.replace('-', "_")) {
        Some(ValueSource::CommandLine) => 3,
        Some(ValueSource::EnvVariable) => 2,
        Some(_) if in_file.contains_key(name) => 1,
        _ => 0,
    };
    let (plain_rank, file_rank) = (rank(plain), rank(file));
    if plain_rank == file_rank {
        return Err(refuse(&format!(
            "the option '--{plain}' cannot be used with '--{file}'; allowed: one of the two"
        )));
    }
    Ok(file_rank > plain_rank)
}

/// Every option with a value, as it may be seen.
fn shown(command: &Command, matches: &ArgMatches) -> BTreeMap<String, String> {
    let mut shown = BTreeMap::new();
    for arg in command.get_arguments() {
        let (id, name) = (arg.get_id().as_str(), arg.get_long().unwrap_or_default());
        if let Some(value) = matches.get_raw(id).and_then(|mut values| values.next()) {
            shown.insert(name.to_owned(), visible(name, &value.to_string_lossy()));
        }
    }
    shown
}

/// An option's value without its secrets.
fn visible(name: &str, value: &str) -> String {
    match name {
        "sts-token" => "***".to_owned(),
        "output-url" => MediaUrl::output(value).to_string(),
        name if name.ends_with("-url") => MediaUrl::new(value).to_string(),
        _ => hide_urls(value),
    }
}

/// Text of a user's in which nothing should be a URL, but may be.
fn hide_urls(text: &str) -> String {
    let words = text.split_inclusive([' ', '\n', '\'', '"', '=', '\t']);
    words
        .map(|word| {
            let end = word.trim_end_matches([' ', '\n', '\'', '"', '=', '\t']);
            if end.contains("://") {
                MediaUrl::output(end).to_string() + &word[end.len()..]
            } else {
                word.to_owned()
            }
        })
        .collect()
}

/// What is printed about an error, without secrets, and with where the value came from.
fn explain(
    mut error: clap::Error,
    args: &[OsString],
    file: Option<&Path>,
    in_file: &BTreeMap<String, String>,
) -> Refused {
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    ) {
        return Refused(error.render().to_string(), crate::exit::OK);
    }
    let context = |error: &clap::Error, kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    let argument = context(&error, ContextKind::InvalidArg).unwrap_or_default();
    let name = argument
        .split(' ')
        .next()
        .unwrap_or_default()
        .trim_start_matches("--")
        .to_owned();
    if let Some(value) = context(&error, ContextKind::InvalidValue) {
        let value = visible(&name, &value);
        error.insert(ContextKind::InvalidValue, ContextValue::String(value));
    }
    if error.kind() == ErrorKind::UnknownArgument && !argument.starts_with('-') {
        // A word too many may be the second half of a token with a space in it.
        let secret = args
            .iter()
            .any(|arg| arg.to_string_lossy().starts_with("--sts-token"));
        let argument = if secret {
            "***".to_owned()
        } else {
            hide_urls(&argument)
        };
        error.insert(ContextKind::InvalidArg, ContextValue::String(argument));
    }
    let flag = format!("--{name}");
    let is_flag = |arg: &OsString| {
        let arg = arg.to_string_lossy();
        arg == flag || arg.starts_with(&format!("{flag}="))
    };
    let mut text = error.render().to_string();
    let command = Cli::command();
    let known = command
        .get_arguments()
        .find(|arg| arg.get_long() == Some(&name));
    let says_what = ["allowed:", "possible values:", " is not in "]
        .iter()
        .any(|word| text.contains(word));
    if error.kind() == ErrorKind::ValueValidation
        && !says_what
        && let Some(help) = known.and_then(Arg::get_help)
    {
        // A number that is none is refused before anybody looks at its limits.
        text = text.replacen("\n\n", &format!("\n  [{help}]\n\n"), 1);
    }
    if !name.is_empty() && !args.iter().any(is_flag) {
        let variable = known
            .and_then(|arg| arg.get_env())
            .filter(|variable| std::env::var_os(variable).is_some());
        let source = match (variable, file, in_file.contains_key(&name)) {
            (Some(variable), _, _) => Some(variable.to_string_lossy().into_owned()),
            (None, Some(file), true) => Some(file.display().to_string()),
            _ => None,
        };
        if let Some(source) = source {
            text = text.replacen("\n\n", &format!("\n  [from {source}]\n\n"), 1);
        }
    }
    Refused(text, crate::exit::USAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(args: &[&str]) -> Result<Loaded, String> {
        let args = std::iter::once("worker").chain(args.iter().copied());
        load(args.map(Into::into)).map_err(|refused| refused.0)
    }

    fn file(dir: &tempfile::TempDir, name: &str, content: &str) -> String {
        let path = dir.path().join(name);
        fs::write(&path, content).unwrap();
        path.display().to_string()
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let dir = tempfile::tempdir().unwrap();
        let config = file(
            &dir,
            "worker.toml",
            "stream-id = \"news\"\nsts-max-inflight = 5\ndub-duck-db = -12.5\n",
        );
        let cli = loaded(&["--config", &config]).unwrap().cli;
        assert_eq!((&*cli.stream_id, cli.sts_max_inflight), ("news", 5));
        assert!((cli.dub_duck_db + 12.5).abs() < 1e-9);
        assert_eq!(cli.sts_timeout_ms, 8000);
        let cli = loaded(&["--config", &config, "--stream-id=other"])
            .unwrap()
            .cli;
        assert_eq!((&*cli.stream_id, cli.sts_max_inflight), ("other", 5));
    }

    #[test]
    fn the_lengths_of_segments_rise() {
        let pause = |args: &[&str]| loaded(&[&["--segment-cut=pause"], args].concat()).map(|_| ());
        assert_eq!(pause(&[]), Ok(()));
        assert_eq!(pause(&["--segment-min=6s", "--segment-max=6s"]), Ok(()));
        for (args, parts) in [
            (
                &["--segment-min=7s"][..],
                ["--segment-min", "7s", "at most", "6s"],
            ),
            (
                &["--segment-max=5s"],
                ["--segment-max", "5s", "at least", "6s"],
            ),
            (
                &["--segment-duration=2s"],
                ["--segment-min", "3s", "at most", "2s"],
            ),
            (
                &["--segment-duration=11s"],
                ["--segment-max", "10s", "at least", "11s"],
            ),
            (
                &["--segment-max=61s"],
                ["--segment-max", "61s", "1s to 1m", "61s"],
            ),
        ] {
            let message = pause(args).unwrap_err();
            assert!(parts.iter().all(|part| message.contains(part)), "{message}");
        }
        // On the grid the defaults do not matter, what is asked for does.
        assert!(loaded(&["--segment-duration=2s"]).is_ok());
        assert!(loaded(&["--segment-duration=30s"]).is_ok());
        assert!(loaded(&["--segment-min=7s"]).is_err());
        let dir = tempfile::tempdir().unwrap();
        let path = file(
            &dir,
            "w.toml",
            "segment-cut = \"pause\"\nsegment-min = \"8s\"\n",
        );
        assert!(loaded(&["--config", &path]).is_err());
        let args = ["--config", &path, "--segment-min=4s"];
        assert_eq!(loaded(&args).unwrap().cli.segment_min.as_secs(), 4);
    }

    #[test]
    fn a_bad_configuration_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for (content, told) in [
            ("stream_id = \"x\"", "unknown key 'stream_id'; allowed"),
            ("config = \"x\"", "unknown key 'config'"),
            ("print = \"man\"", "unknown key 'print'"),
            ("stream-id = [1]", "'stream-id' needs a text or a number"),
            ("sts-max-inflight = 11", "11 is not in 1..=10\n  [from "),
            ("a = 1\nsts-token = \"se", "line 2: "),
        ] {
            let config = file(&dir, "worker.toml", content);
            let error = loaded(&["--config", &config]).expect_err(content);
            assert!(
                error.contains(told) && error.contains(&config),
                "{content}: {error}"
            );
        }
        let error = loaded(&["--config", "/nowhere.toml"]).expect_err("no file");
        assert!(error.contains("/nowhere.toml: cannot be read"), "{error}");
    }

    #[test]
    fn secrets_come_from_files() {
        let dir = tempfile::tempdir().unwrap();
        let (input, token) = (
            file(&dir, "in", " rtsp://u:p@cam/x\n"),
            file(&dir, "token", "s3cret\n"),
        );
        let (output, sts) = (
            file(&dir, "out", "rtmp://cdn/a/k\n"),
            file(&dir, "sts", "http://sts/x\n"),
        );
        let urls = ["--output-url-file", &output, "--sts-service-url-file", &sts];
        let found = loaded(&urls).unwrap();
        assert_eq!(found.cli.input_url, None);
        assert_eq!(found.cli.output_url.as_deref(), Some("rtmp://cdn/a/k"));
        assert_eq!(found.cli.sts_service_url, "http://sts/x");
        let found = loaded(&["--input-url-file", &input, "--sts-token-file", &token]).unwrap();
        assert_eq!(found.cli.input_url.as_deref(), Some("rtsp://u:p@cam/x"));
        assert_eq!(found.cli.sts_token.as_deref(), Some("s3cret"));
        assert!(!format!("{:?}", found.shown).contains("s3cret"));

        let error = loaded(&["--input-url-file", &input, "--input-url", "rtsp://cam/y"]);
        let error = error.expect_err("two inputs");
        assert!(
            error.contains("'--input-url' cannot be used with '--input-url-file'"),
            "{error}"
        );
        let config = file(
            &dir,
            "worker.toml",
            &format!("input-url-file = {input:?}\n"),
        );
        let found = loaded(&["--config", &config, "--input-url", "rtsp://cam/y"]).unwrap();
        assert_eq!(
            found.cli.input_url.as_deref(),
            Some("rtsp://cam/y"),
            "the nearer one wins"
        );

        for (content, told) in [("", "is empty"), ("http://u:geheim@x/y", "rtsp://")] {
            let bad = file(&dir, "bad", content);
            let error = loaded(&["--input-url-file", &bad]).expect_err(content);
            assert!(error.contains(told) && !error.contains("geheim"), "{error}");
        }
    }

    #[test]
    fn no_refusal_shows_a_secret() {
        for args in [
            &["--input-url", "http://u:geheim@cam/x"][..],
            &["--input-url", "rtsp://u:gehe/im@cam/x"],
            &["--input-url=u:geheim@cam/x"],
            &["--output-url", "rtmp://host/geheim"],
            &["--output-url", "http://host/live/geheim"],
            &["--output-url", "geheim"],
            &["--output-url", "rtmps://"],
            &["--output-url", "rtmp://a/b/c", "rtmp://host/live/geheim"],
            &["--output", "rtmp://host/live/geheim"],
            &["--sts-service-url", "ftp://u:geheim@sts/x?token=geheim"],
            &["--sts-token", "a", "geheim"],
            &["--sts-token=a", "geheim"],
            &["--sts-tokens=geheim"],
            &["--stream-id", "rtmp://host/live/geheim"],
            &["rtmp://host/live/geheim"],
        ] {
            let error = loaded(args).expect_err("must be refused");
            assert!(
                !error.contains("geheim") && !error.contains("gehe/im"),
                "{args:?}: {error}"
            );
        }
    }

    #[test]
    fn what_is_shown_has_every_default_and_no_secret() {
        let found = loaded(&[
            "--input-url=rtsp://u:geheim@cam/x",
            "--output-url=rtmp://h/live/geheim",
            "--sts-token=geheim",
        ])
        .unwrap();
        assert_eq!(found.shown["input-url"], "rtsp://***@cam/x");
        assert_eq!(found.shown["output-url"], "rtmp://h/live/***");
        assert_eq!(found.shown["sts-token"], "***");
        assert_eq!(found.shown["sts-timeout-ms"], "8000");
        // Whatever hides its value from --help hides it here.
        for arg in Cli::command()
            .get_arguments()
            .filter(|arg| arg.is_hide_env_values_set())
        {
            let shown = visible(arg.get_long().unwrap(), "x://u:geheim@h/a?b=geheim");
            assert!(!shown.contains("geheim"), "{}: {shown}", arg.get_id());
        }
    }
}
