//! The Prometheus recorder, with every series there from the start.

use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

use super::names::{self, MetricKind};

/// Installs the process-wide recorder; all series carry `stream_id`.
pub fn install(stream_id: &str) -> Result<PrometheusHandle, String> {
    let recorder = recorder(stream_id)?;
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).map_err(|error| error.to_string())?;
    create_all();
    Ok(handle)
}

/// The recorder with the buckets of every histogram.
pub(crate) fn recorder(stream_id: &str) -> Result<PrometheusRecorder, String> {
    let builder = PrometheusBuilder::new()
        .add_global_label("stream_id", stream_id)
        .set_buckets_for_metric(
            Matcher::Full(names::STS_RTT.to_owned()),
            &names::STS_RTT_BUCKETS,
        )
        .and_then(|b| {
            b.set_buckets_for_metric(
                Matcher::Full(names::AV_SYNC_ABS_DELTA.to_owned()),
                &names::AV_SYNC_BUCKETS,
            )
        })
        .and_then(|b| {
            b.set_buckets_for_metric(
                Matcher::Full(names::DUB_SPEED.to_owned()),
                &names::DUB_SPEED_BUCKETS,
            )
        })
        .map_err(|error| error.to_string())?;
    Ok(builder.build_recorder())
}

/// Touches every series, so that the first scrape is complete and rates start at zero.
pub(crate) fn create_all() {
    for metric in names::all() {
        let name = metric.name;
        match metric.kind {
            MetricKind::Counter => metrics::describe_counter!(name, metric.help),
            MetricKind::Gauge => metrics::describe_gauge!(name, metric.help),
            MetricKind::Histogram => metrics::describe_histogram!(name, metric.help),
        }
        let Some((label, values)) = metric.label else {
            create(metric.kind, name, Vec::new());
            continue;
        };
        for value in values {
            create(metric.kind, name, vec![metrics::Label::new(label, value)]);
        }
    }
}

fn create(kind: MetricKind, name: &'static str, labels: Vec<metrics::Label>) {
    match kind {
        MetricKind::Counter => metrics::counter!(name, labels).increment(0),
        MetricKind::Gauge => metrics::gauge!(name, labels).set(0.0),
        // A handle alone makes the series; an observation would falsify it.
        MetricKind::Histogram => drop(metrics::histogram!(name, labels)),
    }
}

/// What was counted meanwhile.
#[cfg(test)]
pub(crate) struct Counted(String);

#[cfg(test)]
impl Counted {
    pub(crate) fn during(run: impl FnOnce()) -> Self {
        let recorder = recorder("test").unwrap();
        metrics::with_local_recorder(&recorder, run);
        Self(recorder.handle().render())
    }

    /// By the series with this value of its label.
    pub(crate) fn of(&self, name: &str, label: &str) -> u64 {
        let label = format!("\"{label}\"");
        let mut series = self.0.lines().filter_map(|line| line.split_once('{'));
        let found = series.find(|(found, rest)| *found == name && rest.contains(&label));
        let value = found.and_then(|(_, rest)| rest.rsplit_once(' '));
        value.map_or(0, |(_, value)| value.parse().unwrap())
    }
}
