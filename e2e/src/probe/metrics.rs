//! What `/metrics` said, and the questions scenarios ask of it.
//!
//! `prometheus-parse` reads the format. It passes over what it does not understand; here that is an
//! error, as are a series that is there twice and a histogram that does not add up. The rest of the
//! format's rules `promtool` knows (`worker/tests/program.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use prometheus_parse::Value;

/// Label names and values of a series.
type Labels = BTreeMap<String, String>;

/// One histogram series.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    /// Upper bound and number of observations up to it (cumulative), ending with infinity.
    pub buckets: Vec<(f64, u64)>,
    /// Sum of the observations.
    pub sum: f64,
    /// Number of observations.
    pub count: u64,
}

impl Histogram {
    /// Observations at or below `bound`, which must be one of the bucket bounds.
    ///
    /// # Errors
    /// When there is no such bucket.
    pub fn at_most(&self, bound: f64) -> Result<u64> {
        let mut buckets = self.buckets.iter();
        let bucket = buckets.find(|(upper, _)| (upper - bound).abs() < f64::EPSILON);
        let (_, count) = bucket.with_context(|| format!("no bucket ends at {bound}"))?;
        Ok(*count)
    }
}

/// Upper bounds and cumulative counts.
type Buckets = Vec<(f64, u64)>;

/// What `/metrics` said at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scrape {
    series: Vec<(String, Labels, f64)>,
    buckets: Vec<(String, Labels, Buckets)>,
}

impl Scrape {
    /// Reads a scrape.
    ///
    /// # Errors
    /// When a line is not understood, a series is there twice, or a histogram does not add up.
    pub fn parse(text: &str) -> Result<Self> {
        let lines = text.lines().map(|line| Ok(line.to_owned()));
        let parsed = prometheus_parse::Scrape::parse(lines).context("metrics")?;
        let mut scrape = Self::default();
        let mut understood = 0;
        for sample in parsed.samples {
            let mut labels: Labels = sample
                .labels
                .iter()
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect();
            match sample.value {
                Value::Counter(value) | Value::Gauge(value) | Value::Untyped(value) => {
                    understood += 1;
                    scrape.series.push((sample.metric, labels, value));
                }
                Value::Histogram(buckets) => {
                    understood += buckets.len();
                    labels.remove("le");
                    let counts = buckets
                        .iter()
                        .map(|it| Ok((it.less_than, whole(it.count)?)));
                    let counts = counts
                        .collect::<Result<_>>()
                        .context(sample.metric.clone())?;
                    scrape.buckets.push((sample.metric, labels, counts));
                }
                Value::Summary(quantiles) => understood += quantiles.len(),
            }
        }
        let samples = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        let there = samples.count();
        ensure!(
            understood == there,
            "{} of {there} lines are no metrics",
            there - understood
        );
        let mut names = BTreeSet::new();
        for (name, _) in scrape.series() {
            ensure!(!names.contains(&name), "{name} is there twice");
            names.insert(name);
        }
        for (name, labels, buckets) in &scrape.buckets {
            let labels: Vec<_> = pairs(labels).collect();
            let count = scrape.count(&format!("{name}_count"), &labels)?;
            let rising = buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1);
            let last = buckets.last().copied();
            ensure!(
                rising && last == Some((f64::INFINITY, count)),
                "{} does not add up to {count}: {buckets:?}",
                selector(name, labels)
            );
        }
        Ok(scrape)
    }

    /// Every series as Prometheus has it, those of histograms too, with its value.
    pub fn all(&self) -> impl Iterator<Item = (String, f64)> {
        let buckets = self.buckets.iter();
        let buckets = buckets.flat_map(|(name, labels, buckets)| {
            buckets.iter().map(move |(bound, count)| {
                let bound = match bound {
                    bound if bound.is_infinite() => "+Inf".to_owned(),
                    bound => bound.to_string(),
                };
                let labels = pairs(labels).chain([("le", bound.as_str())]);
                (selector(&format!("{name}_bucket"), labels), *count as f64)
            })
        });
        self.series().chain(buckets)
    }

    /// Whether there is a series or a histogram of this name.
    pub fn has(&self, name: &str) -> bool {
        self.series.iter().any(|it| it.0 == name) || self.is_histogram(name)
    }

    pub fn is_histogram(&self, name: &str) -> bool {
        self.buckets.iter().any(|it| it.0 == name)
    }

    /// The one series of `name` whose labels include all of `labels`.
    ///
    /// # Errors
    /// When no series or more than one matches; the message lists the candidates.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
        let found: Vec<_> = self.matching(name, labels).collect();
        let wanted = selector(name, labels.iter().copied());
        match found.as_slice() {
            [value] => Ok(*value),
            [] => bail!("no series {wanted}; there are: {}", self.known(name)),
            many => bail!(
                "{wanted} matches {} series: {}",
                many.len(),
                self.known(name)
            ),
        }
    }

    /// Like [`value`](Self::value) for a counter or a count: a whole number.
    ///
    /// # Errors
    /// When there is not exactly one such series or its value is not a whole number.
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> Result<u64> {
        let value = self.value(name, labels)?;
        whole(value).with_context(|| {
            let series = selector(name, labels.iter().copied());
            format!("{series} is {value}")
        })
    }

    /// Sum of all series of `name` whose labels include all of `labels`; 0 if there are none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).sum()
    }

    /// The one histogram series of family `name` whose labels include all of `labels`.
    ///
    /// # Errors
    /// When there is none or more than one.
    pub fn histogram(&self, name: &str, labels: &[(&str, &str)]) -> Result<Histogram> {
        let mut found = self
            .buckets
            .iter()
            .filter(|it| it.0 == name && includes(&it.1, labels));
        let (_, _, buckets) = found
            .next()
            .with_context(|| format!("no histogram {name}"))?;
        Ok(Histogram {
            buckets: buckets.clone(),
            sum: self.value(&format!("{name}_sum"), labels)?,
            count: self.count(&format!("{name}_count"), labels)?,
        })
    }

    /// Every series but buckets as `name{label="value",…}` with its value: for snapshots and reports.
    pub fn series(&self) -> impl Iterator<Item = (String, f64)> {
        let all = self.series.iter();
        all.map(|(name, labels, value)| (selector(name, pairs(labels)), *value))
    }

    fn matching(&self, name: &str, labels: &[(&str, &str)]) -> impl Iterator<Item = f64> {
        let all = self.series.iter();
        all.filter(move |it| it.0 == name && includes(&it.1, labels))
            .map(|it| it.2)
    }

    fn known(&self, name: &str) -> String {
        let all = self.series().map(|(series, _)| series);
        let known: Vec<_> = all.filter(|series| series.starts_with(name)).collect();
        match known.as_slice() {
            [] => "none of that name".to_owned(),
            known => known.join(", "),
        }
    }
}

/// What `/metrics` said when it was asked.
#[derive(Debug, Clone)]
pub struct ScrapeSample {
    /// When it was asked for.
    pub asked: Instant,
    /// When the answer was here; what it says was so at some time between the two.
    pub answered: Instant,
    /// Time since the worker was started.
    pub at: Duration,
    /// What was answered.
    pub scrape: Arc<Scrape>,
}

fn includes(labels: &Labels, wanted: &[(&str, &str)]) -> bool {
    let mut wanted = wanted.iter();
    wanted.all(|(name, value)| labels.get(*name).is_some_and(|found| found == value))
}

fn pairs(labels: &Labels) -> impl Iterator<Item = (&str, &str)> {
    labels.iter().map(|(k, v)| (k.as_str(), v.as_str()))
}

/// `name{label="value",…}` as Prometheus writes it.
fn selector<'a>(name: &str, labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let pairs = labels.into_iter();
    let pairs: Vec<_> = pairs
        .map(|(name, value)| format!("{name}={value:?}"))
        .collect();
    if pairs.is_empty() {
        return name.to_owned();
    }
    format!("{name}{{{}}}", pairs.join(","))
}

fn whole(value: f64) -> Result<u64> {
    // 2^53: beyond it, neighbouring whole numbers are not told apart.
    if value.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(&value) {
        Ok(value as u64)
    } else {
        bail!("not a whole number")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrape() -> Scrape {
        Scrape::parse(
            "# HELP f_total Fragments.\n# TYPE f_total counter\n\
             f_total{stream_id=\"t\",status=\"sent\"} 10\nf_total{stream_id=\"t\",status=\"failed\"} 0.5\n\
             # TYPE rtt histogram\nrtt_bucket{le=\"50\"} 3\nrtt_bucket{le=\"+Inf\"} 4\nrtt_sum 90.5\nrtt_count 4\n",
        )
        .unwrap()
    }

    #[test]
    fn a_series_is_found_by_some_of_its_labels() {
        let scrape = scrape();
        assert_eq!(scrape.count("f_total", &[("status", "sent")]).unwrap(), 10);
        assert!((scrape.sum("f_total", &[("stream_id", "t")]) - 10.5).abs() < 1e-9);
        let error = scrape
            .count("f_total", &[("status", "failed")])
            .unwrap_err();
        assert_eq!(
            format!("{error:#}"),
            "f_total{status=\"failed\"} is 0.5: not a whole number"
        );
    }

    #[test]
    fn none_and_many_are_errors_that_list_what_is_there() {
        let scrape = scrape();
        let none = scrape
            .value("f_total", &[("status", "lost")])
            .unwrap_err()
            .to_string();
        assert!(
            none.contains("no series f_total{status=\"lost\"}") && none.contains("\"sent\""),
            "{none}"
        );
        let many = scrape.value("f_total", &[]).unwrap_err().to_string();
        assert!(many.starts_with("f_total matches 2 series"), "{many}");
        assert!(
            scrape
                .value("g", &[])
                .unwrap_err()
                .to_string()
                .ends_with("none of that name")
        );
    }

    #[test]
    fn histograms_are_read_as_one() {
        let rtt = scrape().histogram("rtt", &[]).unwrap();
        assert_eq!(
            rtt,
            Histogram {
                buckets: vec![(50.0, 3), (f64::INFINITY, 4)],
                sum: 90.5,
                count: 4
            }
        );
        assert_eq!(rtt.at_most(50.0).unwrap(), 3);
        assert!(rtt.at_most(60.0).is_err());
        assert!(scrape().histogram("f_total", &[]).is_err());
    }

    #[test]
    fn what_is_no_metric_is_refused() {
        for (text, why) in [
            (
                "f_total 1\nthis is no metric\n",
                "1 of 2 lines are no metrics",
            ),
            ("f_total{a=\"b\"} 1\nf_total{a=\"b\"} 2\n", "is there twice"),
            (
                "# TYPE r histogram\nr_bucket{le=\"1\"} 3\nr_bucket{le=\"+Inf\"} 2\nr_sum 1\nr_count 2\n",
                "does not add up",
            ),
            (
                "# TYPE r histogram\nr_bucket{le=\"1\"} 3\nr_bucket{le=\"+Inf\"} 3\nr_sum 1\nr_count 4\n",
                "does not add up",
            ),
        ] {
            let error = format!("{:#}", Scrape::parse(text).unwrap_err());
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn series_are_written_as_prometheus_writes_them() {
        let all: Vec<_> = scrape().series().map(|(name, _)| name).collect();
        assert_eq!(all[0], "f_total{status=\"sent\",stream_id=\"t\"}");
        assert_eq!(all.last().unwrap(), "rtt_count");
    }
}
