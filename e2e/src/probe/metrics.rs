//! Prometheus text, parsed for real, and the questions scenarios ask of a scrape.
//!
//! The whole text format 0.0.4 is read and what it forbids is refused: a worker whose metrics only
//! look right would fool a lenient reader here and break an operator's Prometheus.

mod parser;

use std::{collections::BTreeMap, fmt};

use anyhow::{Context as _, Result, bail};

/// Label names and values of a series.
pub type Labels = BTreeMap<String, String>;

/// What a family measures, from its `# TYPE` line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows (until the process restarts).
    Counter,
    /// Any value at any time.
    Gauge,
    /// `_bucket`, `_sum` and `_count` series.
    Histogram,
    /// Quantiles, `_sum` and `_count`.
    Summary,
    /// No `# TYPE` line, or `untyped`.
    Untyped,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Summary => "summary",
            Self::Untyped => "untyped",
        })
    }
}

/// One sample line.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Name of the series: the family's, with `_bucket`, `_sum` or `_count` where that applies.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
    /// Its value.
    pub value: f64,
    /// Its time in Unix ms, if the line has one.
    pub timestamp_ms: Option<i64>,
}

/// All series of one metric.
#[derive(Debug, Clone, PartialEq)]
pub struct Family {
    /// What it measures.
    pub kind: Kind,
    /// Its `# HELP` text.
    pub help: Option<String>,
    /// Its samples in the order they came.
    pub samples: Vec<Sample>,
}

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
        let bucket = self
            .buckets
            .iter()
            .find(|(upper, _)| (upper - bound).abs() < f64::EPSILON);
        bucket
            .map(|(_, count)| *count)
            .with_context(|| format!("no bucket ends at {bound}"))
    }
}

/// What `/metrics` said at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scrape {
    families: BTreeMap<String, Family>,
}

impl Scrape {
    /// Parses a scrape.
    ///
    /// # Errors
    /// When the text breaks a rule of the format; the message has the line.
    pub fn parse(text: &str) -> Result<Self> {
        Ok(Self {
            families: parser::parse(text)?,
        })
    }

    /// Families by name.
    pub fn families(&self) -> &BTreeMap<String, Family> {
        &self.families
    }

    /// The one series of `name` whose labels include all of `labels`.
    ///
    /// # Errors
    /// When no series or more than one matches; the message lists the candidates.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
        let found: Vec<_> = self.matching(name, labels).collect();
        match found.as_slice() {
            [sample] => Ok(sample.value),
            [] => bail!(
                "no series {}; there are: {}",
                selector(name, labels),
                self.known(name)
            ),
            many => bail!(
                "{} matches {} series: {}",
                selector(name, labels),
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
        whole(value).with_context(|| format!("{} is {value}", selector(name, labels)))
    }

    /// Sum of all series of `name` whose labels include all of `labels`; 0 if there are none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).map(|sample| sample.value).sum()
    }

    /// The one histogram series of family `name` whose labels include all of `labels`.
    ///
    /// # Errors
    /// When there is none or more than one.
    pub fn histogram(&self, name: &str, labels: &[(&str, &str)]) -> Result<Histogram> {
        let family = self
            .families
            .get(name)
            .with_context(|| format!("no metric {name}"))?;
        if family.kind != Kind::Histogram {
            bail!("{name} is a {}, not a histogram", family.kind);
        }
        let count = self.count(&format!("{name}_count"), labels)?;
        let sum = self.value(&format!("{name}_sum"), labels)?;
        let mut buckets = Vec::new();
        for sample in self.matching(&format!("{name}_bucket"), labels) {
            let bound = sample.labels["le"]
                .parse()
                .context("checked by the parser")?;
            buckets.push((bound, whole(sample.value)?));
        }
        Ok(Histogram {
            buckets,
            sum,
            count,
        })
    }

    /// Every series as `name{label="value",…}` with its value: for snapshots and reports.
    pub fn series(&self) -> impl Iterator<Item = (String, f64)> {
        self.families
            .values()
            .flat_map(|family| &family.samples)
            .map(|sample| {
                let labels: Vec<_> = sample
                    .labels
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.as_str()))
                    .collect();
                (selector(&sample.name, &labels), sample.value)
            })
    }

    fn matching(&self, name: &str, labels: &[(&str, &str)]) -> impl Iterator<Item = &Sample> {
        self.families
            .values()
            .flat_map(|family| &family.samples)
            .filter(move |sample| {
                sample.name == name
                    && labels.iter().all(|(label, value)| {
                        sample
                            .labels
                            .get(*label)
                            .is_some_and(|found| found == value)
                    })
            })
    }

    fn known(&self, name: &str) -> String {
        let known: Vec<_> = self
            .series()
            .filter(|(series, _)| series.starts_with(name))
            .map(|(series, _)| series)
            .collect();
        if known.is_empty() {
            "none of that name".into()
        } else {
            known.join(", ")
        }
    }
}

/// `name{label="value",…}` as Prometheus writes it.
fn selector(name: &str, labels: &[(&str, &str)]) -> String {
    if labels.is_empty() {
        return name.to_owned();
    }
    let pairs: Vec<_> = labels
        .iter()
        .map(|(name, value)| format!("{name}={value:?}"))
        .collect();
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
    fn series_are_written_as_prometheus_writes_them() {
        let all: Vec<_> = scrape().series().map(|(name, _)| name).collect();
        assert_eq!(all[0], "f_total{status=\"sent\",stream_id=\"t\"}");
        assert_eq!(all.last().unwrap(), "rtt_count");
    }
}
