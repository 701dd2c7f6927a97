//! Families of metrics, and their OpenMetrics text.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::{Registry, Unit},
};

use crate::manager::Histogram;

/// What the HTTP header says of [`Families::text`].
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Names and values, which may be anybody's words.
pub(super) type Labels = Vec<(&'static str, String)>;

/// All that one scrape tells.
#[derive(Default, Debug)]
pub(super) struct Families(Vec<Family>);

#[derive(Debug)]
struct Family {
    /// Without the suffix of its type; ends with its unit, if it has one.
    name: &'static str,
    help: &'static str,
    samples: Samples,
}

#[derive(Debug)]
enum Samples {
    Gauge(Vec<(Labels, f64)>),
    Counter(Vec<(Labels, f64)>),
    Info(Vec<Labels>),
    Histogram(Vec<(Labels, Histogram)>),
}

impl Families {
    /// Something that goes up and down.
    pub(super) fn gauge(
        &mut self,
        name: &'static str,
        help: &'static str,
        samples: impl IntoIterator<Item = (Labels, f64)>,
    ) {
        self.add(name, help, Samples::Gauge(samples.into_iter().collect()));
    }

    /// Something that goes up, or starts anew; its samples are called `name_total`.
    pub(super) fn counter(
        &mut self,
        name: &'static str,
        help: &'static str,
        samples: impl IntoIterator<Item = (Labels, f64)>,
    ) {
        self.add(name, help, Samples::Counter(samples.into_iter().collect()));
    }

    /// Words of which the metric is 1; its samples are called `name_info`.
    pub(super) fn info(
        &mut self,
        name: &'static str,
        help: &'static str,
        samples: impl IntoIterator<Item = Labels>,
    ) {
        self.add(name, help, Samples::Info(samples.into_iter().collect()));
    }

    /// Durations, whose `name` ends with `_seconds`.
    pub(super) fn histogram(
        &mut self,
        name: &'static str,
        help: &'static str,
        samples: impl IntoIterator<Item = (Labels, Histogram)>,
    ) {
        self.add(
            name,
            help,
            Samples::Histogram(samples.into_iter().collect()),
        );
    }

    fn add(&mut self, name: &'static str, help: &'static str, samples: Samples) {
        self.0.push(Family {
            name,
            help,
            samples,
        });
    }

    /// As OpenMetrics text. A family without samples is told of too, so that who looks knows its name.
    pub(super) fn text(self) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        text::encode(&mut text, &registry)?;
        Ok(text)
    }
}

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for family in &self.0 {
            let (name, unit) = unit_of(family.name);
            let kind = family.samples.kind();
            let metric = encoder.encode_descriptor(name, family.help, unit.as_ref(), kind)?;
            family.samples.encode(metric)?;
        }
        Ok(())
    }
}

/// A name's unit, and what comes before it.
fn unit_of(name: &'static str) -> (&'static str, Option<Unit>) {
    for (suffix, unit) in [("_seconds", Unit::Seconds), ("_bytes", Unit::Bytes)] {
        if let Some(stem) = name.strip_suffix(suffix) {
            return (stem, Some(unit));
        }
    }
    (name, None)
}

impl Samples {
    fn kind(&self) -> MetricType {
        match self {
            Self::Gauge(_) => MetricType::Gauge,
            Self::Counter(_) => MetricType::Counter,
            Self::Info(_) => MetricType::Info,
            Self::Histogram(_) => MetricType::Histogram,
        }
    }

    fn encode(&self, mut metric: MetricEncoder<'_>) -> fmt::Result {
        match self {
            Self::Gauge(samples) => {
                for (labels, value) in samples {
                    match labels.is_empty() {
                        true => metric.encode_gauge(value)?,
                        false => metric.encode_family(labels)?.encode_gauge(value)?,
                    }
                }
            }
            Self::Counter(samples) => {
                for (labels, value) in samples {
                    let mut one = metric.encode_family(labels)?;
                    one.encode_counter::<NoLabelSet, _, f64>(value, None)?;
                }
            }
            Self::Info(samples) => {
                for labels in samples {
                    metric.encode_info(labels)?;
                }
            }
            Self::Histogram(samples) => {
                for (labels, histogram) in samples {
                    let mut one = metric.encode_family(labels)?;
                    let (sum, count, buckets) = in_seconds(histogram);
                    one.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
                }
            }
        }
        Ok(())
    }
}

/// The sum in seconds, the count, and the buckets with the one that has no bound.
fn in_seconds(histogram: &Histogram) -> (f64, u64, Vec<(f64, u64)>) {
    let mut buckets: Vec<_> = histogram
        .buckets
        .iter()
        .map(|(bound_us, count)| (seconds(*bound_us), *count))
        .collect();
    buckets.push((f64::INFINITY, histogram.beyond));
    let count = buckets.iter().map(|(_, count)| count).sum();
    (seconds(histogram.sum_us), count, buckets)
}

/// Microseconds in seconds.
pub(super) fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_told_as_openmetrics_has_them() {
        let mut families = Families::default();
        let labels = |value: &str| vec![("name", value.to_owned())];
        families.gauge("a_used_bytes", "Use", [(labels("x\"y\\z\nw"), 7.0)]);
        families.counter("b", "Times", [(labels("x"), 3.0)]);
        families.info("c", "Words", [labels("x")]);
        families.gauge("d", "Nothing", []);
        let histogram = Histogram {
            buckets: vec![(100, 1), (2_000_000, 0)],
            beyond: 2,
            sum_us: 9_000_000,
        };
        families.histogram("e_seconds", "Durations", [(labels("x"), histogram)]);
        let expected = r#"# HELP a_used_bytes Use
# TYPE a_used_bytes gauge
# UNIT a_used_bytes bytes
a_used_bytes{name="x\"y\\z\nw"} 7.0
# HELP b Times
# TYPE b counter
b_total{name="x"} 3.0
# HELP c Words
# TYPE c info
c_info{name="x"} 1
# HELP d Nothing
# TYPE d gauge
# HELP e_seconds Durations
# TYPE e_seconds histogram
# UNIT e_seconds seconds
e_seconds_sum{name="x"} 9.0
e_seconds_count{name="x"} 3
e_seconds_bucket{le="0.0001",name="x"} 1
e_seconds_bucket{le="2.0",name="x"} 1
e_seconds_bucket{le="+Inf",name="x"} 3
# EOF
"#;
        assert_eq!(families.text().unwrap(), expected);
    }
}
