//! The board in the words of Prometheus.
//!
//! Rendered from scratch for every scrape: a gauge can then never be forgotten when what it was about
//! is gone.

use std::{collections::BTreeMap, sync::atomic::AtomicU64};

use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::{board::IssuerStatus, notices::Totals};

type Labels = Vec<(&'static str, String)>;
type GaugeFamily = Family<Labels, Gauge<f64, AtomicU64>>;

/// The metrics of all issuers and of the public listener: document, status and count of requests.
pub(super) fn render(
    issuers: &BTreeMap<String, IssuerStatus>,
    requests: &[(&'static str, u16, u64)],
    events: Option<Totals>,
) -> String {
    let mut page = Page::default();
    page.gauge(
        "build_info",
        "Always 1; the label is the version",
        [(vec![("version", env!("CARGO_PKG_VERSION").to_owned())], 1.0)],
    );
    page.issuers(issuers);
    page.sources(issuers);
    page.targets(issuers);
    page.counter(
        "http_requests",
        "Requests to the public listener",
        requests.iter().map(|(document, code, count)| {
            (vec![("document", (*document).to_owned()), ("code", code.to_string())], *count)
        }),
    );
    page.events(events);
    page.text()
}

struct Page(Registry);

impl Default for Page {
    fn default() -> Self {
        Self(Registry::with_prefix("signpost"))
    }
}

impl Page {
    fn issuers(&mut self, issuers: &BTreeMap<String, IssuerStatus>) {
        let each = |value: fn(&IssuerStatus) -> f64| {
            issuers.iter().map(move |(issuer, status)| (vec![("issuer", issuer.clone())], value(status)))
        };
        self.gauge("ready", "Whether there is something true to serve", each(|status| flag(status.ready)));
        self.gauge(
            "published_keys",
            "Keys in the publication that is served",
            each(|status| count(status.keys.iter().filter(|key| key.public).count())),
        );
        self.gauge(
            "stranger_keys",
            "Keys that only a target knows",
            each(|status| count(status.strangers.len())),
        );
        self.gauge(
            "alarms",
            "Things that sources say and that are not published, see /status.json",
            each(|status| count(status.alarms.len())),
        );
        self.gauge(
            "missing_keys",
            "Published keys that no source lists any more",
            each(|status| count(status.keys.iter().filter(|key| key.state == "missing").count())),
        );
    }

    fn sources(&mut self, issuers: &BTreeMap<String, IssuerStatus>) {
        let each = || {
            issuers.iter().flat_map(|(issuer, status)| {
                status.sources.iter().map(move |(name, source)| {
                    (vec![("issuer", issuer.clone()), ("source", name.clone())], source)
                })
            })
        };
        self.gauge("source_up", "Whether the last answer was used", each().map(|(l, s)| (l, flag(s.up))));
        self.gauge(
            "source_last_success_timestamp_seconds",
            "When an answer was last used",
            each().filter_map(|(l, s)| Some((l, seconds(s.last_success?)))),
        );
        self.gauge("source_keys", "Keys that it listed last", each().map(|(l, s)| (l, count(s.keys))));
        self.counter("source_answers", "Answers that were used", each().map(|(l, s)| (l, s.answers)));
        self.counter(
            "source_failures",
            "Questions without a usable answer",
            each().map(|(l, s)| (l, s.failures)),
        );
        self.gauge(
            "source_issuer_matches",
            "Whether its own discovery document names the configured issuer",
            each().filter_map(|(l, s)| Some((l, flag(s.issuer_matches?)))),
        );
        self.gauge(
            "signing_key_public",
            "Whether the key that signs now is in the publication: 0 is the tripwire",
            each().filter_map(|(l, s)| Some((l, flag(s.signing_key_public?)))),
        );
    }

    fn targets(&mut self, issuers: &BTreeMap<String, IssuerStatus>) {
        let each = || {
            issuers.iter().flat_map(|(issuer, status)| {
                status.targets.iter().map(move |(name, target)| {
                    (vec![("issuer", issuer.clone()), ("target", name.clone())], target)
                })
            })
        };
        self.gauge(
            "target_up",
            "Whether it held the publication when last looked at",
            each().map(|(l, t)| (l, flag(t.up))),
        );
        self.gauge(
            "target_last_true_timestamp_seconds",
            "When it was last seen to hold the publication",
            each().filter_map(|(l, t)| Some((l, seconds(t.last_true?)))),
        );
        self.counter("target_checks", "Looks at what it holds", each().map(|(l, t)| (l, t.checks)));
        self.counter("target_failures", "Looks or writes that failed", each().map(|(l, t)| (l, t.failures)));
        self.counter("target_writes", "Documents written", each().map(|(l, t)| (l, t.writes)));
    }

    fn events(&mut self, totals: Option<Totals>) {
        let Some(totals) = totals else { return };
        for (name, help, total) in [
            ("events_told", "Kubernetes Events made or counted up", totals.told),
            ("events_failed", "Requests for Kubernetes Events that failed", totals.failed),
            ("events_dropped", "Notices that no Kubernetes Event tells of", totals.dropped),
        ] {
            let counter = Counter::<u64>::default();
            counter.inc_by(total);
            self.0.register(name, help, counter);
        }
    }

    fn gauge(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (Labels, f64)>) {
        let family = GaugeFamily::default();
        for (labels, value) in values {
            family.get_or_create(&labels).set(value);
        }
        self.0.register(name, help, family);
    }

    fn counter(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (Labels, u64)>) {
        let family = Family::<Labels, Counter>::default();
        for (labels, value) in values {
            family.get_or_create(&labels).inc_by(value);
        }
        self.0.register(name, help, family);
    }

    fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.0).expect("writing to a string does not fail");
        text
    }
}

fn flag(value: bool) -> f64 {
    f64::from(u8::from(value))
}

fn count(value: usize) -> f64 {
    f64::from(u32::try_from(value).unwrap_or(u32::MAX))
}

fn seconds(time: jiff::Timestamp) -> f64 {
    time.as_duration().as_secs_f64()
}

#[cfg(test)]
mod tests;
