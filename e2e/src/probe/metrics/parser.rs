//! The Prometheus text format 0.0.4, strictly.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, anyhow, bail, ensure};

use super::{Family, Kind, Labels, Sample};

/// Parses a whole scrape.
pub(super) fn parse(text: &str) -> Result<BTreeMap<String, Family>> {
    ensure!(
        text.is_empty() || text.ends_with('\n'),
        "the last line does not end"
    );
    let mut reader = Reader::default();
    for (index, line) in text.lines().enumerate() {
        reader
            .line(line)
            .with_context(|| format!("line {}: {line}", index + 1))?;
    }
    for (name, family) in &reader.families {
        check_family(name, family).with_context(|| format!("metric {name}"))?;
    }
    Ok(reader.families)
}

#[derive(Default)]
struct Reader {
    families: BTreeMap<String, Family>,
    /// Whether a `# TYPE` line was seen for a family.
    typed: BTreeSet<String>,
    /// Family of the last line: each family's lines have to stand together.
    current: Option<String>,
    seen: BTreeSet<(String, Labels)>,
}

impl Reader {
    fn line(&mut self, line: &str) -> Result<()> {
        let line = line.trim_matches([' ', '\t']);
        match line.strip_prefix('#') {
            Some(comment) => self.comment(comment.trim_start_matches([' ', '\t'])),
            None if line.is_empty() => Ok(()),
            None => self.sample(line),
        }
    }

    fn comment(&mut self, comment: &str) -> Result<()> {
        let (keyword, rest) = split_blank(comment);
        match keyword {
            "HELP" => {
                let (name, help) = split_blank(rest);
                let family = self.enter(name)?;
                ensure!(family.help.is_none(), "a second HELP line");
                ensure!(family.samples.is_empty(), "HELP after samples");
                family.help = Some(unescape(help, false)?);
                Ok(())
            }
            "TYPE" => {
                let (name, kind) = split_blank(rest);
                let kind = match kind {
                    "counter" => Kind::Counter,
                    "gauge" => Kind::Gauge,
                    "histogram" => Kind::Histogram,
                    "summary" => Kind::Summary,
                    "untyped" => Kind::Untyped,
                    other => bail!("unknown type {other:?}"),
                };
                let family = self.enter(name)?;
                ensure!(family.samples.is_empty(), "TYPE after samples");
                family.kind = kind;
                ensure!(self.typed.insert(name.to_owned()), "a second TYPE line");
                Ok(())
            }
            // Any other comment is for people.
            _ => Ok(()),
        }
    }

    fn sample(&mut self, line: &str) -> Result<()> {
        let end = line.find(|c| !is_name_char(c)).unwrap_or(line.len());
        let (name, mut rest) = line.split_at(end);
        check_name(name, true)?;
        rest = rest.trim_start_matches([' ', '\t']);
        let mut labels = Labels::new();
        if let Some(inside) = rest.strip_prefix('{') {
            rest = read_labels(inside, &mut labels)?;
        }
        let mut words = rest.split([' ', '\t']).filter(|word| !word.is_empty());
        let value = number(words.next().context("no value")?)?;
        let timestamp_ms = words
            .next()
            .map(|word| {
                word.parse()
                    .map_err(|_| anyhow!("{word:?} is not a timestamp"))
            })
            .transpose()?;
        ensure!(words.next().is_none(), "something after the timestamp");

        let family = self.family_of(name);
        ensure!(
            self.seen.insert((name.to_owned(), labels.clone())),
            "the same series twice"
        );
        let sample = Sample {
            name: name.to_owned(),
            labels,
            value,
            timestamp_ms,
        };
        self.enter(&family)?.samples.push(sample);
        Ok(())
    }

    /// The family a series belongs to: `x_bucket` is part of `x` if `x` is a histogram.
    fn family_of(&self, name: &str) -> String {
        let part_of = |suffix, kinds: &[Kind]| {
            let base: &str = name.strip_suffix(suffix)?;
            self.families
                .get(base)
                .filter(|family| kinds.contains(&family.kind))
                .map(|_| base)
        };
        part_of("_bucket", &[Kind::Histogram])
            .or_else(|| part_of("_sum", &[Kind::Histogram, Kind::Summary]))
            .or_else(|| part_of("_count", &[Kind::Histogram, Kind::Summary]))
            .unwrap_or(name)
            .to_owned()
    }

    fn enter(&mut self, name: &str) -> Result<&mut Family> {
        check_name(name, true)?;
        if self.current.as_deref() != Some(name) {
            ensure!(
                !self.families.contains_key(name),
                "the lines of {name} do not stand together"
            );
            self.current = Some(name.to_owned());
        }
        Ok(self
            .families
            .entry(name.to_owned())
            .or_insert_with(|| Family {
                kind: Kind::Untyped,
                help: None,
                samples: Vec::new(),
            }))
    }
}

/// Reads labels up to the closing brace; returns what follows it.
fn read_labels<'a>(mut rest: &'a str, labels: &mut Labels) -> Result<&'a str> {
    loop {
        rest = rest.trim_start_matches([' ', '\t']);
        if let Some(after) = rest.strip_prefix('}') {
            return Ok(after);
        }
        let end = rest.find(|c| !is_name_char(c)).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        check_name(name, false)?;
        let after = after.trim_start_matches([' ', '\t']);
        let after = after
            .strip_prefix('=')
            .with_context(|| format!("no '=' after label {name}"))?;
        let after = after.trim_start_matches([' ', '\t']);
        let quoted = after
            .strip_prefix('"')
            .with_context(|| format!("label {name} is not quoted"))?;
        let end = closing_quote(quoted).with_context(|| format!("label {name} does not end"))?;
        let value = unescape(&quoted[..end], true)?;
        ensure!(
            labels.insert(name.to_owned(), value).is_none(),
            "label {name} twice"
        );
        rest = quoted[end + 1..].trim_start_matches([' ', '\t']);
        match rest.strip_prefix(',') {
            Some(after) => rest = after,
            None => ensure!(rest.starts_with('}'), "no ',' or '}}' after label {name}"),
        }
    }
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().find_map(|(at, c)| match c {
        _ if escaped => {
            escaped = false;
            None
        }
        '\\' => {
            escaped = true;
            None
        }
        '"' => Some(at),
        _ => None,
    })
}

fn unescape(text: &str, quotes: bool) -> Result<String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('\\') => out.push('\\'),
            Some('n') => out.push('\n'),
            Some('"') if quotes => out.push('"'),
            other => bail!(
                "unknown escape \\{}",
                other.map_or_else(String::new, |c| c.to_string())
            ),
        }
    }
    Ok(out)
}

/// A value as Go's `ParseFloat` reads it, which for what exporters write is what Rust reads, too.
fn number(word: &str) -> Result<f64> {
    word.parse()
        .map_err(|_| anyhow!("{word:?} is not a number"))
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == ':'
}

fn check_name(name: &str, metric: bool) -> Result<()> {
    let starts_well = name.starts_with(|c: char| is_name_char(c) && !c.is_ascii_digit());
    let fits = name
        .chars()
        .all(|c| is_name_char(c) && (metric || c != ':'));
    ensure!(
        starts_well && fits,
        "{name:?} is not a {} name",
        if metric { "metric" } else { "label" }
    );
    Ok(())
}

fn split_blank(text: &str) -> (&str, &str) {
    match text.split_once([' ', '\t']) {
        Some((first, rest)) => (first, rest.trim_start_matches([' ', '\t'])),
        None => (text, ""),
    }
}

/// What has to hold for a family as a whole.
fn check_family(name: &str, family: &Family) -> Result<()> {
    match family.kind {
        Kind::Counter => {
            for sample in &family.samples {
                ensure!(sample.value >= 0.0, "a counter is {}", sample.value);
            }
        }
        Kind::Histogram => check_histogram(name, family)?,
        Kind::Gauge | Kind::Summary | Kind::Untyped => {}
    }
    Ok(())
}

/// Per label set: rising bounds, cumulative counts, an infinite bucket that equals the count, a sum.
fn check_histogram(name: &str, family: &Family) -> Result<()> {
    #[derive(Default)]
    struct Series {
        buckets: Vec<(f64, f64)>,
        sum: Option<f64>,
        count: Option<f64>,
    }
    let mut all: BTreeMap<Labels, Series> = BTreeMap::new();
    for sample in &family.samples {
        let mut labels = sample.labels.clone();
        let bound = labels.remove("le");
        let series = all.entry(labels).or_default();
        match (sample.name.strip_prefix(name), bound) {
            (Some("_bucket"), Some(bound)) => series.buckets.push((number(&bound)?, sample.value)),
            (Some("_bucket"), None) => bail!("a bucket without le"),
            (Some("_sum"), None) => series.sum = Some(sample.value),
            (Some("_count"), None) => series.count = Some(sample.value),
            _ => bail!("{} does not belong to a histogram", sample.name),
        }
    }
    for (labels, series) in all {
        let rising = |pair: &[(f64, f64)]| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1;
        ensure!(
            series.buckets.windows(2).all(rising),
            "buckets of {labels:?} do not rise"
        );
        let (bound, last) = series.buckets.last().copied().context("no bucket")?;
        ensure!(
            bound == f64::INFINITY,
            "the last bucket of {labels:?} ends at {bound}"
        );
        ensure!(series.sum.is_some(), "{labels:?} has no sum");
        ensure!(
            series.count == Some(last),
            "the count of {labels:?} is not that of its last bucket"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_formats_own_example_is_read() {
        // The corner cases of the format's documentation.
        let text = "# HELP http_requests_total The total number of HTTP requests.\n\
            # TYPE http_requests_total counter\n\
            http_requests_total{method=\"post\",code=\"200\"} 1027 1395066363000\n\
            http_requests_total{method=\"post\",code=\"400\"}    3 1395066363000\n\n\
            # Escaping in label values:\n\
            msdos_file_access_time_seconds{path=\"C:\\\\DIR\\\\FILE.TXT\",error=\"Cannot find file:\\n\\\"FILE.TXT\\\"\"} 1.458255915e9\n\n\
            metric_without_timestamp_and_labels 12.47\n\n\
            something_weird{problem=\"division by zero\",} +Inf -3982045\n\n\
            # TYPE rpc_duration_seconds summary\n\
            rpc_duration_seconds{quantile=\"0.5\"} 4773\nrpc_duration_seconds_sum 1.7560473e+07\n\
            rpc_duration_seconds_count 2693\nnothing NaN\n";
        let families = parse(text).unwrap();
        let names: Vec<_> = families.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "http_requests_total",
                "metric_without_timestamp_and_labels",
                "msdos_file_access_time_seconds",
                "nothing",
                "rpc_duration_seconds",
                "something_weird"
            ]
        );
        let requests = &families["http_requests_total"];
        assert_eq!(
            requests.help.as_deref(),
            Some("The total number of HTTP requests.")
        );
        assert_eq!((requests.kind, requests.samples.len()), (Kind::Counter, 2));
        assert_eq!(requests.samples[1].timestamp_ms, Some(1_395_066_363_000));
        let labels = &families["msdos_file_access_time_seconds"].samples[0].labels;
        assert_eq!(labels["path"], "C:\\DIR\\FILE.TXT");
        assert_eq!(labels["error"], "Cannot find file:\n\"FILE.TXT\"");
        let weird = &families["something_weird"].samples[0];
        assert!(weird.value.is_infinite() && weird.timestamp_ms == Some(-3_982_045));
        assert!(families["nothing"].samples[0].value.is_nan());
        assert_eq!(families["rpc_duration_seconds"].samples.len(), 3);
    }

    #[test]
    fn what_the_format_forbids_is_refused_with_the_line() {
        let cases = [
            ("a 1", "the last line does not end"),
            ("a\n", "no value"),
            ("a one\n", "\"one\" is not a number"),
            ("a 1 2 3\n", "something after the timestamp"),
            ("a 1 1.5\n", "\"1.5\" is not a timestamp"),
            ("1a 1\n", "\"1a\" is not a metric name"),
            ("a-b 1\n", "\"-b\" is not a number"),
            ("a{1b=\"\"} 1\n", "\"1b\" is not a label name"),
            ("a{b:c=\"\"} 1\n", "\"b:c\" is not a label name"),
            ("a{b} 1\n", "no '=' after label b"),
            ("a{b=c} 1\n", "label b is not quoted"),
            ("a{b=\"c} 1\n", "label b does not end"),
            ("a{b=\"\\t\"} 1\n", "unknown escape \\t"),
            ("a{b=\"1\"c=\"2\"} 1\n", "no ',' or '}' after label b"),
            ("a{b=\"1\",b=\"2\"} 1\n", "label b twice"),
            ("a{b=\"1\"} 1\na{b=\"1\"} 2\n", "the same series twice"),
            (
                "a 1\nb 1\na{x=\"y\"} 1\n",
                "the lines of a do not stand together",
            ),
            ("# TYPE a counter\n# TYPE a counter\n", "a second TYPE line"),
            ("# HELP a x\n# HELP a y\n", "a second HELP line"),
            ("# TYPE a speed\n", "unknown type \"speed\""),
            ("a 1\n# TYPE a gauge\n", "TYPE after samples"),
            ("# TYPE a counter\na -1\n", "a counter is -1"),
        ];
        for (text, expected) in cases {
            let error = format!("{:#}", parse(text).expect_err(text));
            assert!(error.ends_with(expected), "{text:?}: {error}");
        }
    }

    #[test]
    fn histograms_have_to_add_up() {
        let good = "h_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 3\nh_count 2\n";
        let of = |samples: &str| parse(&format!("# TYPE h histogram\n{samples}"));
        assert!(of(good).is_ok());
        let cases = [
            (
                good.replace("h_bucket{le=\"1\"} 1", "h_bucket{le=\"1\"} 3"),
                "do not rise",
            ),
            (good.replace("le=\"1\"", "x=\"1\""), "a bucket without le"),
            (
                good.replace("h_count 2", "h_count 3"),
                "is not that of its last bucket",
            ),
            (good.replace("h_sum 3\n", ""), "has no sum"),
            (good.replace("h_bucket{le=\"+Inf\"} 2\n", ""), "ends at 1"),
            (
                good.replace("h_sum 3", "h 3"),
                "does not belong to a histogram",
            ),
        ];
        for (text, expected) in cases {
            let error = format!("{:#}", of(&text).expect_err(&text));
            assert!(error.contains(expected), "{text:?}: {error}");
        }
    }

    #[test]
    fn each_label_set_is_a_histogram_of_its_own() {
        let text = "# TYPE h histogram\nh_bucket{s=\"a\",le=\"+Inf\"} 2\nh_sum{s=\"a\"} 3\nh_count{s=\"a\"} 2\n\
            h_bucket{s=\"b\",le=\"+Inf\"} 0\nh_sum{s=\"b\"} 0\nh_count{s=\"b\"} 0\n";
        assert_eq!(parse(text).unwrap()["h"].samples.len(), 6);
    }
}
