//! Decides which API servers of a control plane are polled, and whether they are all of them.
//!
//! The cluster lists its own API servers. The list can be late, forbidden, or contain addresses that are
//! unreachable from here. Why these rules: `docs/decisions/0004`.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;

/// How long API servers that leave the list still count. One that restarts leaves the list and comes back;
/// the network path to an address may open only after this process has started.
pub const MEMBERSHIP_GRACE: Duration = Duration::from_mins(1);

/// An endpoint that is polled.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Member {
    /// Whichever API server answers at the configured URL.
    Fallback,
    /// The API server at this URL.
    Instance(String),
}

/// The known API servers of one cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ControlPlane {
    listing: Listing,
    /// URLs that have left the list, and when.
    left: Vec<(String, Timestamp)>,
    /// Whether a listed API server has ever answered.
    reached: bool,
    /// Since when the URL answers but no listed API server ever has.
    out_of_reach: Option<Timestamp>,
    /// The members that did not answer the last poll.
    silent: BTreeSet<Member>,
    /// Since when all listed API servers are silent.
    all_silent: Option<Timestamp>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Listing {
    /// `None` before the first list.
    urls: Option<BTreeSet<String>>,
    current: bool,
}

impl ControlPlane {
    /// Applies the list of the cluster; empty if reading it is forbidden.
    pub fn listed(&mut self, urls: BTreeSet<String>, now: Timestamp) {
        self.listing.current = true;
        let before = self.listing.urls.get_or_insert_default();
        if *before == urls {
            return;
        }
        self.left.retain(|(url, since)| !urls.contains(url) && now < *since + MEMBERSHIP_GRACE);
        self.left.extend(before.difference(&urls).map(|url| (url.clone(), now)));
        // A new member has not been silent yet, whatever its state before.
        self.silent.retain(|member| match member {
            Member::Instance(url) => before.contains(url) && urls.contains(url),
            Member::Fallback => true,
        });
        *before = urls;
        self.out_of_reach = None;
        self.update_silence(now);
    }

    /// Records that the list is unavailable for now.
    pub fn listing_lost(&mut self) {
        self.listing.urls.get_or_insert_default();
        self.listing.current = false;
    }

    /// Records whether a member has answered.
    pub fn record_poll(&mut self, member: &Member, answered: bool, now: Timestamp) {
        if answered {
            self.silent.remove(member);
            match member {
                Member::Instance(_) => self.reached = true,
                Member::Fallback if !self.reached => self.out_of_reach = self.out_of_reach.or(Some(now)),
                Member::Fallback => {}
            }
        } else {
            self.silent.insert(member.clone());
        }
        self.update_silence(now);
    }

    /// Records that every listed API server was tried and none answered; only then is the URL polled.
    pub fn record_unreachable(&mut self, now: Timestamp) {
        let listed: Vec<_> = self.urls().cloned().map(Member::Instance).collect();
        self.silent.extend(listed);
        self.update_silence(now);
    }

    fn update_silence(&mut self, now: Timestamp) {
        let all = self.urls().all(|url| self.silent.contains(&Member::Instance(url.clone())));
        self.all_silent = (all && self.urls().next().is_some()).then(|| self.all_silent.unwrap_or(now));
        if self.reached || self.silent.contains(&Member::Fallback) {
            self.out_of_reach = None;
        }
    }

    fn urls(&self) -> impl Iterator<Item = &String> {
        self.listing.urls.iter().flatten()
    }

    /// The members whose answers count.
    #[must_use]
    pub fn members(&self, now: Timestamp) -> BTreeSet<Member> {
        if self.listing.urls.is_none() {
            return BTreeSet::new();
        }
        let mut members = BTreeSet::new();
        if self.reached {
            let held =
                self.left.iter().filter(|(_, since)| now < *since + MEMBERSHIP_GRACE).map(|(url, _)| url);
            members.extend(self.urls().chain(held).cloned().map(Member::Instance));
        }
        let nobody_listed = self.urls().next().is_none();
        let patience = if self.reached { MEMBERSHIP_GRACE } else { Duration::ZERO };
        if nobody_listed || self.all_silent.is_some_and(|since| now >= since + patience) {
            members.insert(Member::Fallback);
        }
        members
    }

    /// The listed API servers that are only tried: whether they are reachable is unknown.
    #[must_use]
    pub fn tries(&self) -> BTreeSet<String> {
        if self.reached { BTreeSet::new() } else { self.urls().cloned().collect() }
    }

    /// Whether the members are all API servers: only then can a key be missing.
    #[must_use]
    pub fn is_settled(&self, now: Timestamp) -> bool {
        let at_the_url = self.urls().next().is_none() || self.is_out_of_reach(now);
        self.listing.current && (self.reached || at_the_url)
    }

    /// Whether the URL answers in place of listed API servers that were never reached.
    #[must_use]
    pub fn is_out_of_reach(&self, now: Timestamp) -> bool {
        self.out_of_reach.is_some_and(|since| now >= since + MEMBERSHIP_GRACE) && self.urls().next().is_some()
    }

    /// When the results of [`ControlPlane::members`] and [`ControlPlane::is_settled`] may change by
    /// themselves.
    #[must_use]
    pub fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        let left = self.left.iter().map(|(_, since)| *since);
        left.chain(self.all_silent)
            .chain(self.out_of_reach)
            .map(|since| since + MEMBERSHIP_GRACE)
            .filter(|at| *at > now)
            .min()
    }
}

#[cfg(test)]
mod tests;
