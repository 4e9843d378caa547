//! Series and their values: bounded, whatever labels clients cause.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, exemplar::CounterWithExemplar, gauge::ConstGauge},
    registry::Registry,
};

use super::{
    definitions::{ALL, Definition, Kind, OVERFLOW},
    label::{Labels, Value},
};

/// Which connection a sample is an example of.
#[derive(Clone, Debug)]
struct Exemplar {
    values: Vec<Value>,
    time: SystemTime,
}

/// What names an exemplar; all its text is at most 128 characters.
pub const EXEMPLAR: &[&str] = &["pod", "client"];

#[derive(Clone, Debug, Default)]
struct Sample {
    value: f64,
    exemplar: Option<Exemplar>,
}

type Series = BTreeMap<Vec<Value>, Sample>;

/// All metrics.
#[derive(Debug)]
pub struct Store {
    known: Mutex<SeriesTable>,
}

#[derive(Debug)]
struct SeriesTable {
    metrics: HashMap<&'static str, Series>,
    series: usize,
    most: usize,
    overflow: f64,
}

impl Store {
    /// With at most so many series; what comes later is counted under `other`.
    pub fn new(most: usize) -> Self {
        Self {
            known: Mutex::new(SeriesTable {
                metrics: HashMap::new(),
                series: 0,
                most,
                overflow: 0.0,
            }),
        }
    }

    fn known(&self) -> MutexGuard<'_, SeriesTable> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the bound; what there is stays.
    pub fn bound(&self, most: usize) {
        self.known().most = most;
    }

    /// Adds to a counter.
    pub fn add(&self, metric: &'static Definition, labels: &[Value], value: u64) {
        self.known().sample(metric, labels.to_vec()).value += value as f64;
    }

    /// The same, with an example: the values of [`EXEMPLAR`].
    pub fn add_with(&self, metric: &'static Definition, labels: &[Value], value: u64, exemplar: [Value; 2]) {
        let mut known = self.known();
        let sample = known.sample(metric, labels.to_vec());
        sample.value += value as f64;
        sample.exemplar = Some(Exemplar {
            values: exemplar.into(),
            time: SystemTime::now(),
        });
    }

    /// Sets a value; of a counter, one that is counted elsewhere.
    pub fn set(&self, metric: &'static Definition, labels: &[Value], value: f64) {
        self.known().sample(metric, labels.to_vec()).value = value;
    }

    /// Sets all values of a metric: series that are not there any more go.
    pub fn replace(&self, metric: &'static Definition, samples: impl IntoIterator<Item = (Vec<Value>, f64)>) {
        let mut known = self.known();
        let gone = known.metrics.remove(metric.name).map_or(0, |series| series.len());
        known.series -= gone;
        for (labels, value) in samples {
            // Several may end as `other`.
            known.sample(metric, labels).value += value;
        }
    }

    /// All of it, as OpenMetrics.
    pub fn encode(&self) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Snapshot(self.known().samples())));
        let mut text = String::new();
        // Writing to memory does not fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
        text
    }
}

impl SeriesTable {
    fn sample(&mut self, metric: &'static Definition, mut labels: Vec<Value>) -> &mut Sample {
        let series = self.metrics.entry(metric.name).or_default();
        if !series.contains_key(&labels) {
            if self.series >= self.most && metric.labels.len() > metric.fixed {
                self.overflow += 1.0;
                for label in labels.iter_mut().skip(metric.fixed) {
                    *label = Value::new("other");
                }
            }
            self.series += usize::from(!series.contains_key(&labels));
        }
        series.entry(labels).or_default()
    }

    fn samples(&self) -> Vec<(&'static Definition, Series)> {
        ALL.iter()
            .filter_map(|metric| {
                if **metric == OVERFLOW {
                    let sample = Sample {
                        value: self.overflow,
                        exemplar: None,
                    };
                    return Some((*metric, Series::from([(Vec::new(), sample)])));
                }
                Some((*metric, self.metrics.get(metric.name)?.clone()))
            })
            .collect()
    }
}

/// A copy at one moment, so that no writer waits while it is printed.
struct Snapshot(Vec<(&'static Definition, Series)>);

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Snapshot")
    }
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        for (metric, series) in &self.0 {
            let kind = match metric.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
            };
            let mut encoder = encoder.encode_descriptor(metric.name, metric.what, None, kind)?;
            for (values, sample) in series {
                let labels = Labels(metric.labels, values);
                if values.is_empty() {
                    match metric.kind {
                        Kind::Gauge => ConstGauge::new(sample.value).encode(encoder)?,
                        Kind::Counter => ConstCounter::new(sample.value).encode(encoder)?,
                    }
                    break;
                }
                let encoder = encoder.encode_family(&labels)?;
                match (metric.kind, &sample.exemplar) {
                    (Kind::Gauge, _) => ConstGauge::new(sample.value).encode(encoder)?,
                    (Kind::Counter, None) => ConstCounter::new(sample.value).encode(encoder)?,
                    (Kind::Counter, Some(exemplar)) => {
                        let counter = CounterWithExemplar::<Labels<'_>, f64>::default();
                        let example = Labels(EXEMPLAR, &exemplar.values);
                        counter.inc_by(sample.value, Some(example), Some(exemplar.time));
                        counter.encode(encoder)?;
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::definitions::{CONNECTIONS, FINDINGS, UNTRACKED, VXLAN_PEER_UP},
        *,
    };

    fn values<const N: usize>(texts: [&str; N]) -> Vec<Value> {
        texts.map(Value::from).to_vec()
    }

    fn lines(store: &Store) -> Vec<String> {
        let text = store.encode();
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn nothing_gets_out_of_its_quotes() {
        let store = Store::new(100);
        let rule = "a\"b\\c\nd\u{202e}e\u{7f}f} 1\n# EOF";
        store.add(&UNTRACKED, &values(["no", rule]), 3);
        assert_eq!(
            lines(&store)[0],
            r#"probe_untracked_packets_total{intended="no",rule="a\"b\\c\\nd\\u{202e}e\\x7ff} 1\\n# EOF"} 3.0"#
        );
        assert_eq!(store.encode().matches("# EOF\n").count(), 1);
        let long = "x".repeat(10_000);
        store.add(&UNTRACKED, &values(["no", &long]), 1);
        assert!(lines(&store).iter().all(|line| line.len() < 400));
    }

    #[test]
    fn series_are_bounded_and_what_is_known_goes_on() {
        let store = Store::new(10);
        for port in 0..100 {
            let port = port.to_string();
            let labels = ["half-open", "client", "space", "workload", &port];
            store.add(&CONNECTIONS, &values(labels), 1);
            store.add(
                &CONNECTIONS,
                &values(["half-open", "client", "space", "workload", "0"]),
                1,
            );
        }
        let text = store.encode();
        assert!(text.contains(
            r#"{outcome="half-open",role="client",namespace="other",workload="other",port="other"} 90.0"#
        ));
        assert!(text.contains(r#"port="0"} 101.0"#));
        assert!(text.contains("probe_series_overflow_total 90.0"), "{text}");
        // Those whose labels are all known beforehand are no danger.
        store.set(&FINDINGS, &values(["vxlan", "mtu"]), 1.0);
        assert!(
            store
                .encode()
                .contains(r#"probe_findings{feature="vxlan",kind="mtu"} 1.0"#)
        );
    }

    #[test]
    fn what_is_replaced_makes_room() {
        let store = Store::new(3);
        let peers = |range: std::ops::Range<u8>| {
            range.map(|peer| (values(["flannel.1", &format!("10.0.0.{peer}")]), 1.0))
        };
        store.replace(&VXLAN_PEER_UP, peers(0..3));
        store.replace(&VXLAN_PEER_UP, peers(3..6));
        let lines = lines(&store);
        let of_peers: Vec<_> = lines
            .iter()
            .filter(|line| line.starts_with("probe_vxlan_peer_up"))
            .collect();
        assert_eq!(of_peers.len(), 3);
        assert!(of_peers[0].contains("10.0.0.3"), "{lines:?}");
    }

    #[test]
    fn an_example_is_told() {
        let store = Store::new(10);
        let labels = values(["half-open", "client", "space", "workload", "2379"]);
        let example = ["monitoring/sdp-monitor", "10.244.2.2:41234"].map(Value::from);
        store.add_with(&CONNECTIONS, &labels, 2, example);
        let line = &lines(&store)[0];
        let expected = r#"} 2.0 # {pod="monitoring/sdp-monitor",client="10.244.2.2:41234"} 2.0 "#;
        assert!(line.contains(expected), "{line}");
    }
}
