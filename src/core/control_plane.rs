//! Which API servers of a control plane are asked, and whether they are all there are.
//!
//! The cluster lists its own API servers. The list can be late, refused, or of addresses that cannot be
//! reached from here. Why these rules: `docs/decisions/0004`.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;

/// How long a change that takes API servers away is not believed. An API server that is restarted leaves
/// the list and comes back; a path to its address may open only after this process has started.
pub const HOLD: Duration = Duration::from_mins(1);

/// One that is asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Member {
    /// Whoever answers at the one URL that is configured.
    Fallback,
    /// The API server at this URL.
    Instance(String),
}

/// What is known of the API servers of one cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ControlPlane {
    listing: Listing,
    /// What stood in the list, and since when it does not.
    left: Vec<(String, Timestamp)>,
    /// Whether any that was listed has ever answered.
    reached: bool,
    /// Since when the URL answers and none that is listed does, though none ever did.
    out_of_reach: Option<Timestamp>,
    /// Those whose last answer was none.
    silent: BTreeSet<Member>,
    /// Since when all that are listed are silent.
    all_silent: Option<Timestamp>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Listing {
    /// `None` before anything was said about it.
    urls: Option<BTreeSet<String>>,
    /// Whether it is the list of now.
    current: bool,
}

impl ControlPlane {
    /// The cluster lists these; none where it must not be read.
    pub fn listed(&mut self, urls: BTreeSet<String>, now: Timestamp) {
        self.listing.current = true;
        let before = self.listing.urls.get_or_insert_default();
        if *before == urls {
            return;
        }
        self.left.retain(|(url, since)| !urls.contains(url) && now < *since + HOLD);
        self.left.extend(before.difference(&urls).map(|url| (url.clone(), now)));
        // Whoever joins has not been silent yet, whatever it was before.
        self.silent.retain(|member| match member {
            Member::Instance(url) => before.contains(url) && urls.contains(url),
            Member::Fallback => true,
        });
        *before = urls;
        self.out_of_reach = None;
        self.look_for_silence(now);
    }

    /// The list cannot be had for now.
    pub fn listing_lost(&mut self) {
        self.listing.urls.get_or_insert_default();
        self.listing.current = false;
    }

    /// One that is asked has answered, or not.
    pub fn heard(&mut self, member: &Member, answered: bool, now: Timestamp) {
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
        self.look_for_silence(now);
    }

    /// All that are listed were tried, and none answered; only then is the URL asked.
    pub fn tried_in_vain(&mut self, now: Timestamp) {
        let listed: Vec<_> = self.urls().cloned().map(Member::Instance).collect();
        self.silent.extend(listed);
        self.look_for_silence(now);
    }

    fn look_for_silence(&mut self, now: Timestamp) {
        let all = self.urls().all(|url| self.silent.contains(&Member::Instance(url.clone())));
        self.all_silent = (all && self.urls().next().is_some()).then(|| self.all_silent.unwrap_or(now));
        if self.reached || self.silent.contains(&Member::Fallback) {
            self.out_of_reach = None;
        }
    }

    fn urls(&self) -> impl Iterator<Item = &String> {
        self.listing.urls.iter().flatten()
    }

    /// Those whose answers count.
    #[must_use]
    pub fn members(&self, now: Timestamp) -> BTreeSet<Member> {
        if self.listing.urls.is_none() {
            return BTreeSet::new();
        }
        let mut members = BTreeSet::new();
        if self.reached {
            let held = self.left.iter().filter(|(_, since)| now < *since + HOLD).map(|(url, _)| url);
            members.extend(self.urls().chain(held).cloned().map(Member::Instance));
        }
        let nobody_listed = self.urls().next().is_none();
        let patience = if self.reached { HOLD } else { Duration::ZERO };
        if nobody_listed || self.all_silent.is_some_and(|since| now >= since + patience) {
            members.insert(Member::Fallback);
        }
        members
    }

    /// Those that are only tried: it is not known whether they can be reached from here.
    #[must_use]
    pub fn tries(&self) -> BTreeSet<String> {
        if self.reached { BTreeSet::new() } else { self.urls().cloned().collect() }
    }

    /// Whether the members are all that there are: only then can a key be missing.
    #[must_use]
    pub fn is_settled(&self, now: Timestamp) -> bool {
        let at_the_url = self.urls().next().is_none() || self.is_out_of_reach(now);
        self.listing.current && (self.reached || at_the_url)
    }

    /// Whether the URL answers in place of API servers that are listed and were never reached.
    #[must_use]
    pub fn is_out_of_reach(&self, now: Timestamp) -> bool {
        self.out_of_reach.is_some_and(|since| now >= since + HOLD) && self.urls().next().is_some()
    }

    /// When the answers of [`ControlPlane::members`] and [`ControlPlane::is_settled`] may change by
    /// themselves.
    #[must_use]
    pub fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        let left = self.left.iter().map(|(_, since)| *since);
        left.chain(self.all_silent)
            .chain(self.out_of_reach)
            .map(|since| since + HOLD)
            .filter(|at| *at > now)
            .min()
    }
}

#[cfg(test)]
mod tests;
