//! What values an option accepts, and what is said of one that it does not.

use std::time::Duration;

use sts_client::Ca;

pub(super) fn identifier(value: &str) -> Result<String, String> {
    let fits = (1..=64).contains(&value.len())
        && value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if fits {
        Ok(value.to_owned())
    } else {
        Err("allowed: 1 to 64 of A-Z a-z 0-9 _ -".to_owned())
    }
}

pub(super) fn short_text(value: &str) -> Result<String, String> {
    let fits = (1..=128).contains(&value.chars().count()) && !value.chars().any(char::is_control);
    if fits {
        Ok(value.to_owned())
    } else {
        Err("allowed: 1 to 128 printable characters".to_owned())
    }
}

/// A token; from the environment of a container it often comes with a line break behind it.
pub(super) fn token(value: &str) -> Result<String, String> {
    let token = value.trim();
    if token.is_empty() || token.chars().any(char::is_control) {
        return Err("allowed: one line that is not empty".to_owned());
    }
    Ok(token.to_owned())
}

fn url_of(value: &str, schemes: &[&str]) -> Result<String, String> {
    let value = value.trim();
    let allowed = || {
        format!(
            "allowed: a URL that starts with {}",
            schemes.join(":// or ") + "://"
        )
    };
    let url = url::Url::parse(value).map_err(|error| format!("{error}; {}", allowed()))?;
    let has_host = url.host_str().is_some_and(|host| !host.is_empty());
    if schemes.contains(&url.scheme()) && has_host {
        Ok(value.to_owned())
    } else {
        Err(allowed())
    }
}

pub(super) fn rtsp_url(value: &str) -> Result<String, String> {
    url_of(value, &["rtsp", "rtsps"])
}

pub(super) fn rtmp_url(value: &str) -> Result<String, String> {
    let url = url_of(value, &["rtmp", "rtmps"])?;
    let target = dub_media::RtmpTarget::parse(&url);
    target
        .map(|_| url)
        .ok_or_else(|| "allowed: rtmp://HOST/APPLICATION/STREAM".to_owned())
}

pub(super) fn ca_file(path: &str) -> Result<Ca, String> {
    let pem = std::fs::read(path).map_err(|error| error.to_string())?;
    Ca::from_pem(&pem)
}

pub(super) fn max_silence(value: &str) -> Result<Duration, String> {
    duration_in(value, Duration::from_secs(1), Duration::from_mins(5))
}

pub(super) fn sts_url(value: &str) -> Result<String, String> {
    url_of(value, &["http", "https", "ws", "wss"])
}

fn duration_in(value: &str, least: Duration, most: Duration) -> Result<Duration, String> {
    let allowed = || {
        format!(
            "allowed: {} to {}, such as 6s, 500ms or 1m 30s",
            humantime::format_duration(least),
            humantime::format_duration(most)
        )
    };
    let duration =
        humantime::parse_duration(value).map_err(|error| format!("{error}; {}", allowed()))?;
    if (least..=most).contains(&duration) {
        Ok(duration)
    } else {
        Err(allowed())
    }
}

pub(super) fn segment_duration(value: &str) -> Result<Duration, String> {
    duration_in(value, Duration::from_secs(1), Duration::from_mins(1))
}

pub(super) fn retention(value: &str) -> Result<Duration, String> {
    duration_in(
        value,
        Duration::ZERO,
        dub_media::segment_files::SegmentFiles::LONGEST_RETENTION,
    )
}

pub(super) fn output_retry(value: &str) -> Result<Duration, String> {
    duration_in(value, Duration::ZERO, Duration::from_hours(24))
}

pub(super) fn cooldown(value: &str) -> Result<Duration, String> {
    duration_in(value, Duration::from_millis(100), Duration::from_hours(1))
}

pub(super) fn av_offset(value: &str) -> Result<Duration, String> {
    duration_in(value, Duration::ZERO, Duration::from_mins(1))
}

/// Quieter than the lowest nobody hears; louder than the highest the dub is not understood.
pub(super) fn duck_level(value: &str) -> Result<f64, String> {
    let level = value.parse().ok();
    level
        .filter(|level| (-60.0..=-3.0).contains(level))
        .ok_or_else(|| "allowed: -60 to -3, such as -15 or -12.5".to_owned())
}

/// Slower than 1 is not faster; at twice its speed nobody follows speech.
pub(super) fn max_speed(value: &str) -> Result<f64, String> {
    let speed = value.parse().ok();
    speed
        .filter(|speed| (1.0..=2.0).contains(speed))
        .ok_or_else(|| "allowed: 1 to 2, such as 1.4".to_owned())
}

/// The shortest segment is 1 s: what runs on ends within the next one.
pub(super) fn dub_spill(value: &str) -> Result<Duration, String> {
    duration_in(value, Duration::ZERO, Duration::from_secs(1))
}

/// A bare word that is no level would be taken for a target, and then nothing is logged.
pub(super) fn log_level(value: &str) -> Result<String, String> {
    let is_level = |word: &str| {
        let levels = ["off", "error", "warn", "info", "debug", "trace"];
        levels.iter().any(|level| level.eq_ignore_ascii_case(word))
    };
    let allowed = "allowed: error, warn, info, debug, trace, off, or a filter such as info,worker::driver=debug";
    let directive = |part: &str| match part.rsplit_once('=') {
        Some((_, level)) => is_level(level),
        None => is_level(part),
    };
    if !value.split(',').map(str::trim).all(directive) {
        return Err(allowed.to_owned());
    }
    tracing_subscriber::EnvFilter::try_new(value)
        .map(|_| value.to_ascii_lowercase())
        .map_err(|error| format!("{error}; {allowed}"))
}
