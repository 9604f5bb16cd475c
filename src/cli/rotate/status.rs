//! The rotation status as text: a timeline per key, and the next steps.

use jiff::{SignedDuration, SpanRound, Timestamp, Unit};

use crate::core::{
    ledger::OrderReason,
    rotation::{KeyStatus, NodeStatus, RotationStatus},
    text::redaction::printable,
};

/// Columns of a timeline.
const WIDTH: usize = 44;
/// The character of each phase of a key.
const LEGEND: [(&str, char); 5] =
    [("published", '·'), ("standby", '·'), ("ready", '─'), ("active", '█'), ("retired", '▒')];

pub(super) fn text(report: &RotationStatus) -> String {
    let mut text = format!("issuer {} at {}\n", report.issuer, seconds(report.at));
    if report.keys.is_empty() {
        return text + "\nno key is known yet\n";
    }
    let scale = Scale::of(report);
    let now = scale.column(report.at).min(WIDTH - 1);
    text += &format!("\n{:21}{:>width$}\n", "", "now", width = now + 2);
    for key in report.keys.iter().filter(|key| is_of_interest(key)) {
        let line = scale.draw(key);
        text += &format!("  {:16}   {line}  {}\n", short(&printable(&key.kid)), standing(key, report.at));
    }
    let gone = report.keys.iter().filter(|key| !is_of_interest(key)).count();
    text += &format!("\n  {:16}   · published   ─ ready   █ active   ▒ retired\n", "");
    text += "\n";
    for key in report.keys.iter().filter(|key| is_of_interest(key)) {
        text += &format!("  {}\n", printable(&key.kid));
    }
    for (kid, targets) in &report.unmanaged_keys {
        text += &format!(
            "warning: target {} has unmanaged key {}; {UNKNOWN_KEY}\n",
            targets.join(", "),
            printable(kid)
        );
    }
    if gone > 0 {
        let (noun, verb) = if gone == 1 { ("key", "is") } else { ("keys", "are") };
        text += &format!("  {gone} more {noun} {verb} removed or revoked; see `signpost rotate history`\n");
    }
    for (name, node) in &report.nodes {
        text += &format!("\nnode {name}\n{}", next(node, report.at));
    }
    if let Some(request) = &report.rotation_request {
        text += &format!("\nrotation requested at {}\n", seconds(request.at));
        for target in &request.without {
            text += &format!("warning: the rotation does not wait for target `{target}`\n");
        }
    }
    text
}

/// Explains an unmanaged key, and the remedy.
const UNKNOWN_KEY: &str = "anyone with its private key can impersonate your workloads. If it is yours: \
    `signpost ledger adopt KID`; otherwise remove the write permission there, then `signpost rotate revoke KID`";

fn is_of_interest(key: &KeyStatus) -> bool {
    !matches!(key.state.as_str(), "removed" | "revoked")
}

/// The next step of a node, in a few lines.
fn next(node: &NodeStatus, now: Timestamp) -> String {
    let mut text = signs(node, now);
    let is_imported = |kid: &String| node.order.is_none() && node.active_keys == [kid.as_str()];
    if node.next.as_ref().is_some_and(is_imported) {
        text += "  next: the publisher orders it to keep signing with that key\n";
        return text + &waits(node);
    }
    let Some(kid) = &node.next else {
        return text + "  next: no standby key yet\n" + &waits(node);
    };
    text += &format!(
        "  next: {}{}\n",
        printable(kid),
        node.not_before.map(|at| format!(", {}", when(at, now))).unwrap_or_default()
    );
    text + &waits(node)
}

fn waits(node: &NodeStatus) -> String {
    let lines: Vec<_> = node.blocked_by.iter().map(|reason| format!("    blocked: {reason}\n")).collect();
    lines.concat()
}

/// The desired state of a node, and its own statement.
fn signs(node: &NodeStatus, now: Timestamp) -> String {
    let says: Vec<_> = node.active_keys.iter().map(|kid| printable(kid)).collect();
    let says = says.join(" and ");
    match &node.order {
        Some(order) => {
            let ordered = format!("ordered {}", past(order.at, now));
            let word =
                if order.reason == OrderReason::Unseen { ", before every cached JWKS has it" } else { "" };
            if node.active_keys == [order.sign.as_str()] {
                format!("  signs with {} for external audiences, {ordered}{word}\n", order.sign)
            } else if says.is_empty() {
                format!(
                    "  {ordered} to sign with {} for external audiences{word}; has no active key\n",
                    order.sign
                )
            } else {
                let sign = &order.sign;
                format!("  {ordered} to sign with {sign} for external audiences{word}; signs with {says}\n")
            }
        }
        None if says.is_empty() => "  has no active key\n".to_owned(),
        None => format!(
            "  signs with {says}: only for the API server until a key is ready, or for external audiences \
             too if it was imported\n"
        ),
    }
}

/// The state of a key, with its start and end.
fn standing(key: &KeyStatus, now: Timestamp) -> String {
    let mut text = format!("{:9} {}", key.state, ago(key.since, now));
    if let Some(node) = &key.node {
        text += &format!(", {node}");
    }
    if let Some(until) = key.until {
        text += &format!(", removal {}", when(until, now));
    }
    text
}

/// The impact of revoking a key; `None` for an unknown one.
pub(super) fn what_breaks(report: &RotationStatus, kid: &str, with_new_key: bool) -> Option<String> {
    let shown = printable(kid);
    if let Some(targets) = report.unmanaged_keys.get(kid) {
        let targets = targets.join(", ");
        return Some(format!(
            "Revoking {shown} (unmanaged, at target {targets}) of {}:\n  it is permanently removed from \
             there at once; if it is yours, its tokens are refused\n",
            report.issuer
        ));
    }
    let key = report.keys.iter().find(|key| key.kid == kid)?;
    let node = key.node.as_ref().and_then(|node| report.nodes.get(node));
    let mut text = format!(
        "Revoking {shown} ({}) of {}:\n  it is permanently removed from every target at once; ",
        key.state, report.issuer
    );
    let is_ordered =
        node.and_then(|node| node.order.as_ref()).is_some_and(|order| order.sign.as_str() == kid);
    text += match key.state.as_str() {
        "standby" | "ready" if is_ordered => {
            "it is ordered to sign: tokens that it has signed since are refused"
        }
        "standby" | "ready" => "it has signed no token that would be refused",
        "removed" | "revoked" => "it is not published",
        _ => {
            "its unexpired tokens are refused, by API servers of this cluster at once and by relying parties \
             when they next read the JWKS"
        }
    };
    text.push('\n');
    if key.state != "active" && key.state != "published" && key.state != "retired" {
        return Some(text);
    }
    if with_new_key {
        return Some(text + NEW_KEY);
    }
    if key.state == "active" {
        let is_ready = |next: &String| report.keys.iter().any(|key| key.kid == *next && key.state == "ready");
        text += match node.and_then(|node| node.next.as_ref()) {
            Some(next) if is_ready(next) => "  its node signs with the next key at once\n",
            _ => {
                "  no other key of its node is ready: until one is, it signs only for the API server, and \
                 refuses tokens for external audiences\n"
            }
        };
    }
    text += NEVER_LOOKS;
    if key.state == "active" && key.node.is_some() {
        text += "  instead of restarting them, use `--sign-with-new-key` to sign with a key that they cannot \
            have seen; it shows the cost first\n";
    }
    Some(text)
}

/// Which relying parties keep accepting a revoked key; see `docs/rotation.md`.
const NEVER_LOOKS: &str = "  some relying parties read the JWKS again only when a token has an unknown kid, and the next key\n  \
    is already published: other clusters whose kube-apiserver trusts this issuer, Vault, Dex, Argo CD, \
    oauth2-proxy\n  and everything else that uses go-oidc. They accept this key until they are restarted\n";
/// The cost of signing with a key that was never published.
const NEW_KEY: &str = "  its node makes a new key and signs with it as soon as every target shows it: for seconds, \
    no token is\n  signed for external audiences; readers that look up an unknown kid drop the revoked key then. \
    Relying parties\n  that keep a cached JWKS refuse the new tokens until they read it again: a kube-apiserver of \
    another cluster\n  for `jwks_max_age`, Microsoft Entra for an undocumented time\n";

/// Maps times to columns.
struct Scale {
    from: Timestamp,
    /// Milliseconds per column; at least 1.
    step: i64,
}

impl Scale {
    /// Covers everything of interest, and a little of the future.
    fn of(report: &RotationStatus) -> Self {
        let keys = || report.keys.iter().filter(|key| is_of_interest(key));
        let from = keys().map(|key| key.first_seen).min().unwrap_or(report.at).min(report.at);
        let known = keys()
            .filter_map(|key| key.until)
            .chain(report.nodes.values().filter_map(|node| node.not_before));
        let to = known.chain([report.at]).max().unwrap_or(report.at);
        let width = i64::try_from(WIDTH).expect("small");
        // Distant events must not compress the past.
        let past = report.at.duration_since(from).as_millis();
        let ahead = to.duration_since(report.at).as_millis().min(past.max(1000));
        let step = i64::try_from((past + ahead).div_euclid(i128::from(width)) + 1).unwrap_or(i64::MAX);
        Self { from, step }
    }

    fn column(&self, at: Timestamp) -> usize {
        let columns = at.duration_since(self.from).as_millis() / i128::from(self.step);
        usize::try_from(columns.max(0)).unwrap_or(WIDTH)
    }

    fn draw(&self, key: &KeyStatus) -> String {
        let mut cells = vec![' '; WIDTH];
        for phase in &key.timeline {
            let look = LEGEND.iter().find(|(name, _)| *name == phase.state).map_or(' ', |(_, look)| *look);
            let from = self.column(phase.since).min(WIDTH);
            cells[from..].fill(look);
        }
        if let Some(until) = key.until {
            cells[self.column(until).min(WIDTH)..].fill(' ');
        }
        cells.into_iter().collect()
    }
}

fn short(kid: &str) -> String {
    let mut short: String = kid.chars().take(15).collect();
    if short.len() < kid.len() {
        short.push('…');
    }
    short
}

/// A time in whole seconds.
pub(super) fn seconds(at: Timestamp) -> String {
    at.round(Unit::Second).unwrap_or(at).to_string()
}

fn ago(at: Timestamp, now: Timestamp) -> String {
    if at > now {
        format!("since {} (in the future)", seconds(at))
    } else {
        format!("for {}", rough(now.duration_since(at)))
    }
}

fn when(at: Timestamp, now: Timestamp) -> String {
    if at <= now {
        "now".to_owned()
    } else {
        format!("in {} ({})", rough(at.duration_since(now)), seconds(at))
    }
}

/// How long ago an event was; one that was recorded with a fast clock may be in the future.
fn past(at: Timestamp, now: Timestamp) -> String {
    // Orders are a second apart: the second of two is dated a moment ahead.
    if at > now && at.duration_since(now) <= SignedDuration::from_secs(2) {
        "just now".to_owned()
    } else if at > now {
        format!("at {} (in the future)", seconds(at))
    } else {
        format!("{} ago", rough(now.duration_since(at)))
    }
}

/// A duration in its two largest units.
fn rough(duration: SignedDuration) -> String {
    let duration = duration.abs();
    let smallest = match duration.as_secs() {
        0..3_600 => Unit::Second,
        3_600..86_400 => Unit::Minute,
        _ => Unit::Hour,
    };
    let span = jiff::Span::try_from(duration).and_then(|span| {
        span.round(SpanRound::new().largest(Unit::Day).smallest(smallest).days_are_24_hours())
    });
    span.map_or_else(|_| format!("{duration:#}"), |span| format!("{span:#}"))
}

#[cfg(test)]
mod tests;
