//! The status as Prometheus metrics.
//!
//! Rendered from scratch for every scrape, straight into the text: so no gauge outlives its subject, and
//! thousands of issuers cost no second copy of their labels.

use std::{collections::BTreeMap, fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet, text::encode},
    metrics::MetricType,
    registry::Registry,
};

use super::{
    issuer_status::{
        ConfigurationStatus, IssuerStatus, Issuers, SourceStatus, TargetStatus, TlsStatus, Traffic,
    },
    signer_metrics::{Durations, SignerMetrics},
};
use crate::core::{
    entra::ExchangeAnswer, events::aggregator::Totals, rotation::NodeStatus, verification::Level,
};

pub(super) fn render(page: Page) -> String {
    let mut registry = Registry::with_prefix("signpost");
    registry.register_collector(Box::new(page));
    let mut text = String::new();
    encode(&mut text, &registry).expect("writing to a string does not fail");
    text
}

/// The values of one scrape.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) configuration: ConfigurationStatus,
    pub(super) log_lines_dropped: u64,
    pub(super) tls: Option<TlsStatus>,
    pub(super) issuers: Issuers,
    /// Nodes that sign in this process, by issuer.
    pub(super) signers: BTreeMap<String, Arc<SignerMetrics>>,
    /// Metrics of the public listener, if there is one.
    pub(super) traffic: Option<Traffic>,
    /// Metrics of Kubernetes Events, if they are sent.
    pub(super) events: Option<Totals>,
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let out = &mut Out(&mut encoder);
        out.gauge("build_info", "Always 1; the label is the version", |put| {
            put(&[("version", env!("CARGO_PKG_VERSION"))], 1.0)
        })?;
        self.configuration(out)?;
        out.counter("log_lines_dropped", "Log lines dropped because standard error was not read", |put| {
            put(&[], self.log_lines_dropped)
        })?;
        self.of_issuers(out)?;
        self.of_ledgers(out)?;
        self.of_nodes(out)?;
        self.of_sources(out)?;
        self.of_targets(out)?;
        self.of_verifications(out)?;
        self.of_exchanges(out)?;
        self.of_signers(out)?;
        self.traffic.as_ref().map_or(Ok(()), |traffic| self::traffic(traffic, out))?;
        self.tls.as_ref().map_or(Ok(()), |status| tls(status, out))?;
        self.events.map_or(Ok(()), |totals| events(totals, out))
    }
}

impl Page {
    fn configuration(&self, out: &mut Out<'_, '_>) -> fmt::Result {
        let ConfigurationStatus { read, refused, .. } = self.configuration;
        out.gauge(
            "config_reload_successful",
            "Whether the last configuration reload was successful",
            |put| put(&[], flag(refused.is_none())),
        )?;
        out.gauge(
            "config_reload_timestamp_seconds",
            "When the configuration was last read, successfully or not",
            |put| refused.or(read).map_or(Ok(()), |at| put(&[], seconds(at))),
        )
    }

    fn of_issuers(&self, out: &mut Out<'_, '_>) -> fmt::Result {
        let mut gauge = |name, help, value: fn(&IssuerStatus) -> f64| {
            out.gauge(name, help, |put| {
                self.issuers
                    .each()
                    .try_for_each(|(issuer, status)| put(&[("issuer", issuer)], value(&status)))
            })
        };
        gauge("ready", "Whether there is a publication to serve", |status| flag(status.ready))?;
        gauge("published_keys", "Keys in the current publication", |status| count(status.published_keys()))?;
        gauge("unmanaged_keys", "Unmanaged keys at targets", |status| count(status.unmanaged_keys()))?;
        gauge("alarms", "Active alarms of the ledger, sources and rotation, see /status.json", |status| {
            count(status.alarms.len())
        })?;
        gauge("unlisted_keys", "Published keys that no source lists", |status| count(status.unlisted_keys()))
    }

    fn of_nodes(&self, out: &mut Out<'_, '_>) -> fmt::Result {
        let mut gauge = |name, help, value: fn(&NodeStatus) -> Option<f64>| {
            out.gauge(name, help, |put| {
                self.issuers.each().try_for_each(|(issuer, status)| {
                    status.nodes.iter().try_for_each(|(node, report)| {
                        let labels = &[("issuer", issuer), ("node", node.as_str())];
                        value(report).map_or(Ok(()), |value| put(labels, value))
                    })
                })
            })
        };
        gauge(
            "node_ordered_timestamp_seconds",
            "When a node was ordered to sign with its current key",
            |node| node.order.as_ref().map(|order| seconds(order.at)),
        )?;
        gauge("rotation_due_timestamp_seconds", "When the next rotation of a node is due", |node| {
            node.due.map(seconds)
        })?;
        gauge(
            "rotation_blocked_reasons",
            "Reasons that block the next rotation of a node, see /status.json",
            |node| Some(count(node.blocked_by.len())),
        )
    }

    fn of_ledgers(&self, out: &mut Out<'_, '_>) -> fmt::Result {
        out.gauge("ledger_up", "Whether the last read and write of the ledger succeeded", |put| {
            self.each_issuer(put, |status| Some(flag(status.ledger.up)))
        })?;
        out.counter("ledger_failures", "Failed reads and writes of the ledger", |put| {
            self.each_issuer(put, |status| Some(status.ledger.failures))
        })?;
        out.gauge(
            "ledger_hold_until_timestamp_seconds",
            "No key is removed before this time, after a repair of the ledger",
            |put| self.each_issuer(put, |status| status.hold_until().map(seconds)),
        )?;
        out.gauge("previous_issuer", "Always 1; a previous issuer whose documents are published too", |put| {
            self.issuers.each().try_for_each(|(issuer, status)| {
                let previous = status.previous_issuers.iter();
                previous
                    .into_iter()
                    .try_for_each(|previous| put(&[("issuer", issuer), ("previous_issuer", previous)], 1.0))
            })
        })
    }

    fn of_sources(&self, out: &mut Out<'_, '_>) -> fmt::Result {
        out.gauge("source_up", "Whether the last poll of the source succeeded", |put| {
            self.each_source(put, |source| Some(flag(source.up)))
        })?;
        out.gauge("source_last_success_timestamp_seconds", "When a poll last succeeded", |put| {
            self.each_source(put, |source| source.last_success.map(seconds))
        })?;
        out.gauge("source_keys", "Keys in its last answer", |put| {
            self.each_source(put, |source| Some(count(source.keys)))
        })?;
        out.gauge("source_left_out", "Unusable keys and files in its last answer", |put| {
            self.each_source(put, |source| Some(count(source.left_out)))
        })?;
        out.counter("source_answers", "Successful polls", |put| {
            self.each_source(put, |source| Some(source.answers))
        })?;
        out.counter("source_failures", "Failed polls", |put| {
            self.each_source(put, |source| Some(source.failures))
        })?;
        out.gauge(
            "source_issuer_matches",
            "Whether its discovery document names the configured issuer",
            |put| self.each_source(put, |source| source.issuer_matches.map(flag)),
        )?;
        out.gauge(
            "signing_key_public",
            "Whether the signing key is published: 0 means tokens cannot be verified",
            |put| self.each_source(put, |source| source.signing_key_public.map(flag)),
        )?;
        out.gauge(
            "signing_key_ready",
            "Whether the signing key is ready: no cached JWKS can lack it",
            |put| self.each_source(put, |source| source.signing_key_ready.map(flag)),
        )
    }

    fn of_targets(&self, out: &mut Out<'_, '_>) -> fmt::Result {
        out.gauge("target_up", "Whether it was in sync when last checked", |put| {
            self.each_target(put, |target| Some(flag(target.up)))
        })?;
        out.gauge("target_last_in_sync_timestamp_seconds", "When it was last in sync", |put| {
            self.each_target(put, |target| target.last_in_sync.map(seconds))
        })?;
        out.counter("target_checks", "Checks of the target's content", |put| {
            self.each_target(put, |target| Some(target.checks))
        })?;
        out.counter("target_failures", "Failed checks and writes", |put| {
            self.each_target(put, |target| Some(target.failures))
        })?;
        out.counter("target_writes", "Documents written", |put| {
            self.each_target(put, |target| Some(target.writes))
        })
    }

    fn of_verifications(&self, out: &mut Out<'_, '_>) -> fmt::Result {
        out.gauge("verify_success", "Whether a relying party would accept a token", |put| {
            self.each_issuer(put, |status| Some(flag(status.judgement()?.is_accepted())))
        })?;
        out.gauge("verify_timestamp_seconds", "When a token was last verified", |put| {
            self.each_issuer(put, |status| status.verification.as_ref()?.at.map(seconds))
        })?;
        out.gauge("verify_findings", "Findings of the last verification, by level", |put| {
            self.issuers.each().try_for_each(|(issuer, status)| {
                status.judgement().map_or(Ok(()), |judgement| {
                    Level::ALL.iter().try_for_each(|level| {
                        let labels = &[("issuer", issuer), ("level", level.name())];
                        put(labels, count(judgement.count(*level)))
                    })
                })
            })
        })?;
        out.counter("verify_failures", "Verifications that failed to obtain a token", |put| {
            self.each_issuer(put, |status| Some(status.verification.as_ref()?.failures))
        })
    }

    fn of_exchanges(&self, out: &mut Out<'_, '_>) -> fmt::Result {
        out.gauge("exchange_success", "Whether Microsoft Entra issued a token for a token", |put| {
            self.each_issuer(put, |status| Some(flag(status.exchanged()?.is_accepted())))
        })?;
        out.gauge("exchange_timestamp_seconds", "When Microsoft Entra last answered", |put| {
            self.each_issuer(put, |status| status.exchange.as_ref()?.at.map(seconds))
        })?;
        out.gauge(
            "exchange_last_accepted_timestamp_seconds",
            "When Microsoft Entra last issued a token",
            |put| self.each_issuer(put, |status| status.exchange.as_ref()?.last_accepted.map(seconds)),
        )?;
        out.gauge("exchange_refused", "Always 1; the code with which Microsoft Entra refuses", |put| {
            self.issuers.each().try_for_each(|(issuer, status)| {
                let code = status.exchanged().and_then(ExchangeAnswer::known_code);
                code.map_or(Ok(()), |code| put(&[("issuer", issuer), ("code", &code)], 1.0))
            })
        })?;
        out.counter("exchange_failures", "Exchanges without an answer of Microsoft Entra", |put| {
            self.each_issuer(put, |status| Some(status.exchange.as_ref()?.failures))
        })
    }

    fn of_signers(&self, out: &mut Out<'_, '_>) -> fmt::Result {
        out.gauge("signer_up", "Whether the last reconciliation of the signer succeeded", |put| {
            self.each_signer(put, |signer| Some(flag(signer.is_well())))
        })?;
        out.counter("signer_answers", "Signing requests of API servers", |put| {
            self.signers.iter().try_for_each(|(issuer, signer)| {
                signer.answers().try_for_each(|(outcome, count)| {
                    let node = signer.node().as_str();
                    put(&[("issuer", issuer), ("node", node), ("result", outcome.name())], count)
                })
            })
        })?;
        out.histogram("signer_signature_duration_seconds", "Duration of signatures", |put| {
            self.each_signer(put, |signer| Some(signer.durations()))
        })?;
        out.counter("signer_key_fetches", "Key fetches of API servers", |put| {
            self.each_signer(put, |signer| Some(signer.fetches()))
        })?;
        out.counter("signer_refused_connections", "Unauthorized connections", |put| {
            self.each_signer(put, |signer| Some(signer.unauthorized()))
        })?;
        out.gauge("signer_keys", "Keys of the node, by stage", |put| {
            self.signers.iter().try_for_each(|(issuer, signer)| {
                signer.standing().keys.iter().try_for_each(|(stage, keys)| {
                    let labels =
                        [("issuer", issuer.as_str()), ("node", signer.node().as_str()), ("stage", stage)];
                    put(&labels, count(*keys))
                })
            })
        })?;
        out.gauge(
            "signer_keys_changed_timestamp_seconds",
            "When the verification keys of API servers last changed",
            |put| self.each_signer(put, |signer| Some(seconds(signer.standing().changed))),
        )?;
        out.gauge(
            "signer_observed_order_timestamp_seconds",
            "Time of the latest order that the node observed",
            |put| self.each_signer(put, |signer| signer.standing().observed_order.map(seconds)),
        )?;
        out.gauge("signer_announced_timestamp_seconds", "When the node last announced its keys", |put| {
            self.each_signer(put, |signer| Some(seconds(signer.standing().announced)))
        })
    }

    fn each_signer<V>(&self, put: &mut Put<'_, V>, value: fn(&SignerMetrics) -> Option<V>) -> fmt::Result {
        self.signers.iter().try_for_each(|(issuer, signer)| {
            let labels = &[("issuer", issuer.as_str()), ("node", signer.node().as_str())];
            value(signer).map_or(Ok(()), |value| put(labels, value))
        })
    }

    fn each_issuer<V>(&self, put: &mut Put<'_, V>, value: fn(&IssuerStatus) -> Option<V>) -> fmt::Result {
        self.issuers.each().try_for_each(|(issuer, status)| {
            value(&status).map_or(Ok(()), |value| put(&[("issuer", issuer)], value))
        })
    }

    fn each_source<V>(&self, put: &mut Put<'_, V>, value: fn(&SourceStatus) -> Option<V>) -> fmt::Result {
        self.issuers.each().try_for_each(|(issuer, status)| {
            status.sources.iter().try_for_each(|(name, source)| {
                value(source).map_or(Ok(()), |value| put(&[("issuer", issuer), ("source", name)], value))
            })
        })
    }

    fn each_target<V>(&self, put: &mut Put<'_, V>, value: fn(&TargetStatus) -> Option<V>) -> fmt::Result {
        self.issuers.each().try_for_each(|(issuer, status)| {
            status.targets.iter().try_for_each(|(name, target)| {
                value(target).map_or(Ok(()), |value| put(&[("issuer", issuer), ("target", name)], value))
            })
        })
    }
}

fn traffic(traffic: &Traffic, out: &mut Out<'_, '_>) -> fmt::Result {
    out.counter("http_requests", "Requests to the public listener", |put| {
        traffic.requests.iter().try_for_each(|(document, code, count)| {
            put(&[("document", *document), ("code", &code.to_string())], *count)
        })
    })?;
    out.gauge("http_connections", "Open connections to the public listener", |put| {
        put(&[], count(traffic.connections))
    })
}

fn tls(status: &TlsStatus, out: &mut Out<'_, '_>) -> fmt::Result {
    out.gauge("tls_up", "Whether the certificate files are usable", |put| {
        put(&[], flag(status.error.is_none()))
    })?;
    out.gauge("tls_certificate_not_after_timestamp_seconds", "When the served certificate expires", |put| {
        status.not_after.map_or(Ok(()), |at| put(&[], seconds(at)))
    })?;
    out.counter("tls_reload_failures", "Failed reloads of the certificate files", |put| {
        put(&[], status.failures)
    })
}

fn events(totals: Totals, out: &mut Out<'_, '_>) -> fmt::Result {
    out.counter("events_sent", "Kubernetes Events created or updated", |put| put(&[], totals.sent))?;
    out.counter("events_failed", "Failed requests for Kubernetes Events", |put| put(&[], totals.failed))?;
    out.counter("events_dropped", "Events that were dropped before they were sent", |put| {
        put(&[], totals.dropped)
    })
}

/// Writes one sample: its labels and its value.
type Put<'a, V> = dyn FnMut(&[(&str, &str)], V) -> fmt::Result + 'a;

struct Out<'a, 'e>(&'a mut DescriptorEncoder<'e>);

impl Out<'_, '_> {
    fn gauge(
        &mut self,
        name: &str,
        help: &str,
        samples: impl FnOnce(&mut Put<'_, f64>) -> fmt::Result,
    ) -> fmt::Result {
        let help = format!("{help}.");
        let mut metric = self.0.encode_descriptor(name, &help, None, MetricType::Gauge)?;
        samples(&mut |labels, value| match labels {
            [] => metric.encode_gauge(&value),
            labels => metric.encode_family(&labels)?.encode_gauge(&value),
        })
    }

    fn counter(
        &mut self,
        name: &str,
        help: &str,
        samples: impl FnOnce(&mut Put<'_, u64>) -> fmt::Result,
    ) -> fmt::Result {
        let help = format!("{help}.");
        let mut metric = self.0.encode_descriptor(name, &help, None, MetricType::Counter)?;
        samples(&mut |labels, value| match labels {
            [] => metric.encode_counter::<NoLabelSet, u64, u64>(&value, None),
            labels => metric.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, u64>(&value, None),
        })
    }

    fn histogram(
        &mut self,
        name: &str,
        help: &str,
        samples: impl FnOnce(&mut Put<'_, Durations>) -> fmt::Result,
    ) -> fmt::Result {
        let help = format!("{help}.");
        let mut metric = self.0.encode_descriptor(name, &help, None, MetricType::Histogram)?;
        samples(&mut |labels, Durations { seconds, count, buckets }| {
            metric.encode_family(&labels)?.encode_histogram::<NoLabelSet>(seconds, count, &buckets, None)
        })
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
