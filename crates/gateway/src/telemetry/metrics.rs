//! Counters for Prometheus. Every label value comes from the configuration or a closed list, so their number
//! does not grow; a call touches its server's own atomics and no lock.

use crate::web::error::ErrorCode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::{Registry, Unit};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the duration buckets, in microseconds.
const BUCKETS: [u64; 14] = [
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    5_000_000,
    30_000_000,
    120_000_000,
];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabels {
    server: String,
    class: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServerLabel {
    server: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabels {
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TokenLabels {
    server: String,
    result: &'static str,
}

/// Everything that is counted.
pub struct Metrics {
    registry: Registry,
    requests: Family<StatusLabels, Counter>,
    durations: Family<ServerLabel, Histogram>,
    refusals: Family<RefusalLabels, Counter>,
    tokens: TokenMetrics,
    /// Open client connections.
    pub connections: Gauge,
    /// Relayed answers under way that are streams.
    pub streams: Gauge,
    /// Open sessions with servers of other transports than HTTP.
    pub bridge_sessions: Gauge,
    /// Running programs that are servers.
    pub stdio_processes: Gauge,
    /// Rows of the record of what happened that could not be kept.
    pub audit_lost: Counter,
}

/// One server's counters.
#[derive(Clone)]
pub struct ServerMetrics {
    classes: [Counter; 5],
    durations: Histogram,
}

/// Counts token requests.
#[derive(Debug, Clone, Default)]
pub struct TokenMetrics(Family<TokenLabels, Counter>);

impl Metrics {
    /// All counters at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("vestibule");
        let requests = Family::<StatusLabels, Counter>::default();
        registry.register(
            "requests",
            "Requests on MCP routes, by server and class of status",
            requests.clone(),
        );
        let durations = Family::<ServerLabel, Histogram>::default();
        registry.register_with_unit(
            "request_duration",
            "From the end of a request's headers to the first byte of its answer",
            Unit::Seconds,
            durations.clone(),
        );
        let refusals = Family::<RefusalLabels, Counter>::default();
        registry.register("refusals", "Refusals, by error code", refusals.clone());
        let tokens = TokenMetrics::default();
        registry.register(
            "token_requests",
            "Token requests, by server and result",
            tokens.0.clone(),
        );
        let connections = Gauge::default();
        registry.register("connections", "Open client connections", connections.clone());
        let streams = Gauge::default();
        registry.register("streams", "Relayed event streams under way", streams.clone());
        let bridge_sessions = Gauge::default();
        registry.register(
            "bridge_sessions",
            "Open sessions with servers of transport sse and stdio",
            bridge_sessions.clone(),
        );
        let stdio_processes = Gauge::default();
        registry.register(
            "stdio_processes",
            "Running programs of servers of transport stdio",
            stdio_processes.clone(),
        );
        let audit_lost = Counter::default();
        registry.register(
            "audit_entries_lost",
            "Rows of the record of calls and sign-ins that could not be kept",
            audit_lost.clone(),
        );
        Self {
            registry,
            requests,
            durations,
            refusals,
            tokens,
            connections,
            streams,
            bridge_sessions,
            stdio_processes,
            audit_lost,
        }
    }

    /// The counters of one server.
    pub fn server(&self, name: &str) -> ServerMetrics {
        let counter = |class| {
            self.requests.get_or_create_owned(&StatusLabels {
                server: name.to_owned(),
                class,
            })
        };
        ServerMetrics {
            classes: ["1xx", "2xx", "3xx", "4xx", "5xx"].map(counter),
            durations: self.durations.get_or_create_owned(&ServerLabel {
                server: name.to_owned(),
            }),
        }
    }

    /// Counts of token requests.
    pub fn tokens(&self) -> TokenMetrics {
        self.tokens.clone()
    }

    /// Counts a refusal.
    pub fn refused(&self, code: ErrorCode) {
        self.refusals
            .get_or_create(&RefusalLabels { code: code.name() })
            .inc();
    }

    /// The text that Prometheus reads (OpenMetrics 1.0).
    pub fn text(&self) -> String {
        let mut page = String::new();
        match text::encode(&mut page, &self.registry) {
            Ok(()) => page,
            Err(fmt::Error) => String::new(),
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl ServerMetrics {
    /// Counts an answer.
    pub fn answered(&self, status: http::StatusCode, took: Duration) {
        let class = usize::from(status.as_u16() / 100).clamp(1, 5) - 1;
        self.classes[class].inc();
        self.durations.observe(took);
    }
}

impl TokenMetrics {
    /// Counts a token request.
    pub fn fetched(&self, server: &str, result: &'static str) {
        self.0
            .get_or_create(&TokenLabels {
                server: server.to_owned(),
                result,
            })
            .inc();
    }
}

/// A histogram of durations without a lock.
#[derive(Debug, Clone, Default)]
struct Histogram(Arc<Cells>);

#[derive(Debug, Default)]
struct Cells {
    buckets: [AtomicU64; BUCKETS.len() + 1],
    sum_micros: AtomicU64,
}

impl Histogram {
    fn observe(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let index = BUCKETS.partition_point(|bound| *bound < micros);
        self.0.buckets[index].fetch_add(1, Ordering::Relaxed);
        self.0.sum_micros.fetch_add(micros, Ordering::Relaxed);
    }
}

impl TypedMetric for Histogram {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Histogram {
    #[expect(clippy::cast_precision_loss, reason = "microseconds as seconds")]
    fn encode(&self, mut encoder: MetricEncoder) -> fmt::Result {
        let bounds = BUCKETS
            .iter()
            .map(|micros| *micros as f64 / 1e6)
            .chain([f64::INFINITY]);
        let counts = self.0.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed));
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        let total = buckets.iter().map(|(_, count)| count).sum();
        let sum = self.0.sum_micros.load(Ordering::Relaxed) as f64 / 1e6;
        encoder.encode_histogram::<NoLabelSet>(sum, total, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_prometheus_reads() {
        let metrics = Metrics::new();
        let server = metrics.server("one");
        server.answered(http::StatusCode::OK, Duration::from_micros(700));
        server.answered(http::StatusCode::BAD_GATEWAY, Duration::from_secs(1000));
        metrics.refused(ErrorCode::WrongKey);
        metrics.tokens().fetched("one", "ok");
        let page = metrics.text();
        for line in [
            r#"vestibule_requests_total{server="one",class="2xx"} 1"#,
            r#"vestibule_requests_total{server="one",class="5xx"} 1"#,
            r#"vestibule_request_duration_seconds_bucket{le="0.0005",server="one"} 0"#,
            r#"vestibule_request_duration_seconds_bucket{le="0.001",server="one"} 1"#,
            r#"vestibule_request_duration_seconds_bucket{le="+Inf",server="one"} 2"#,
            r#"vestibule_refusals_total{code="wrong_key"} 1"#,
            r#"vestibule_token_requests_total{server="one",result="ok"} 1"#,
            "vestibule_connections 0",
            "# EOF",
        ] {
            assert!(page.contains(line), "{line} is not in\n{page}");
        }
    }
}
