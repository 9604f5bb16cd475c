//! The promises that hold in every state of the model, and the recovery of a state once nothing goes wrong
//! any more.

use super::{
    publisher::{Mood, PastView},
    *,
};
use crate::core::{
    ledger::AnnouncementRejection,
    signer::{Journal, VerificationKey, announcement::Announcement},
};

/// Ticks given to a state to recover: a hold, a propagation and two retentions.
const ROUNDS: usize = 16;

/// A broken promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Broken {
    /// A relying party with a copy no older than the propagation time rejects a live token.
    Unverifiable,
    /// A key was ordered although a cached copy might lack it, and that was known.
    OrderedTooEarly,
    /// A key leaves the ledger's publication before its last token has expired.
    RemovedTooEarly,
    /// A public key is gone without a record.
    Shrunk,
    /// A tombstone is public again.
    Resurrected,
    /// A key signs for external audiences without an order.
    Unordered,
    /// A key signs, or has signed, and its node does not announce it, or announces an earlier expiry of its
    /// last token.
    Unannounced,
    /// A key signs although its node knows that it is revoked.
    RevokedSigns,
    /// A node lets its API server trust a foreign key.
    Trust,
    /// A node's API server rejects a live token.
    NotVerified,
    /// There is always another step.
    NeverEnds,
    /// A rotation does not complete although nothing goes wrong any more.
    Stuck(&'static str),
    /// After a revocation no key signs for external audiences although there was time to prepare one.
    NoSpare,
}

impl World {
    fn lives(&self, key: usize) -> bool {
        self.external[key] > self.now && !has(self.revoked, key)
    }

    /// The keys that a copy replaced then may lack: they were ordered since, by the operator's command.
    fn excused(&self, replaced: i64) -> Kids {
        let later = self.unseen.iter().filter(|(_, ordered)| replaced <= **ordered);
        later.fold(0, |all, (key, _)| all | 1 << key)
    }

    pub(super) fn verification_set(&self, index: usize) -> Option<Vec<VerificationKey>> {
        let node = &self.nodes[index];
        let memory: &Journal = node.memory.as_deref()?;
        let fed = self.rules.fault.and_then(|fault| fault.feed(memory, self.stored.as_deref()));
        fed.as_ref().unwrap_or(memory).verification_set(&node.orders.revoked)
    }

    pub(super) fn check(&self) -> Result<(), Broken> {
        self.nodes.iter().enumerate().try_for_each(|(index, _)| self.check_node(index))?;
        if self.forged {
            return Ok(());
        }
        let live = (0..self.made).filter(|key| self.lives(*key)).fold(0, |all, key| all | 1 << key);
        for place in &self.places {
            let mut copies = place.copies.iter().filter(|copy| copy.is_ours);
            let current = place.view.filter(|_| place.is_ours);
            let lacks = |copy: &PastView| live & !self.excused(copy.replaced) & !copy.view != 0;
            if copies.any(lacks) || current.is_some_and(|view| live & !view != 0) {
                return Err(Broken::Unverifiable);
            }
        }
        if let Some(publisher) = &self.publisher
            && kids(publisher.known.public_keys().map(Jwk::kid)) & self.buried != 0
        {
            return Err(Broken::Resurrected);
        }
        Ok(())
    }

    fn check_node(&self, index: usize) -> Result<(), Broken> {
        let node = &self.nodes[index];
        if let Some(set) = self.verification_set(index) {
            let verified = kids(set.iter().map(|key| key.jwk.kid()));
            let shown = kids(set.iter().filter(|key| !key.exclude).map(|key| key.jwk.kid()));
            if verified & !node.own != 0 {
                return Err(Broken::Trust);
            }
            let is_refused = |key| {
                let inside = self.inside[key] > self.now && !has(self.revoked, key) && !has(verified, key);
                inside || (self.lives(key) && !has(shown, key))
            };
            if each(node.own).any(is_refused) {
                return Err(Broken::NotVerified);
            }
        }
        let Some(announced) = &node.announced else { return Ok(()) };
        let is_untold =
            |key: usize| self.lives(key) && !covers(announced, &kid_of(key), at(self.external[key]));
        if each(node.own).any(is_untold) { Err(Broken::Unannounced) } else { Ok(()) }
    }

    /// Checks a signature that a key has just made.
    pub(super) fn check_signature(&self, index: usize, key: usize, external: bool) -> Result<(), Broken> {
        let (node, kid) = (&self.nodes[index], kid_of(key));
        let is_active = |stage: Stage| matches!(stage, Stage::Active { .. });
        let is_recorded = node.journal.as_ref().is_some_and(|journal| is_active(journal.keys()[&kid].stage));
        let announced = node.announced.as_ref().and_then(|announced| announced.keys().get(&kid));
        assert!(has(node.files, key), "a key signs that is not there");
        if external && !has(self.ordered, key) {
            Err(Broken::Unordered)
        } else if !is_recorded || !announced.is_some_and(|announced| is_active(announced.stage)) {
            Err(Broken::Unannounced)
        } else if node.orders.revoked.contains(&kid) {
            Err(Broken::RevokedSigns)
        } else {
            Ok(())
        }
    }

    /// Checks the ledger `next`, derived from `before`, before the publisher stores it.
    pub(super) fn check_stored(&mut self, before: &Ledger, next: &Ledger) -> Result<(), Broken> {
        let known = Arc::clone(&self.publisher.as_ref().expect("it runs").known);
        for kid in known.public_keys().chain(before.public_keys()).map(Jwk::kid) {
            match next.entries().get(kid) {
                Some(entry) if entry.is_public() || self.forged => {}
                Some(_) if self.lives(number(kid)) => return Err(Broken::RemovedTooEarly),
                None if !self.forged => return Err(Broken::Shrunk),
                _ => {}
            }
        }
        for (node, order) in next.orders() {
            let key = number(&order.sign);
            let last = before.orders().get(node);
            if last == Some(order) {
                continue;
            }
            // No order hid a key that signed until then. The publisher's clock may be behind.
            let aborted = last.filter(|_| order.reason == OrderReason::Aborted);
            let since = aborted.map_or(0, |last| last.at.as_second() + MARGIN);
            self.ordered |= 1 << key;
            let is_unseen = order.reason == OrderReason::Unseen;
            if is_unseen && before.propagation_waived(node).is_none() && !self.forged {
                return Err(Broken::OrderedTooEarly);
            }
            if is_unseen {
                self.unseen.insert(key, self.now);
            }
            let lacks = |place: &Place| {
                let mut copies = place.copies.iter().filter(|copy| copy.is_ours || copy.is_noticed);
                copies.any(|copy| copy.replaced > since && !has(copy.view, key) && !is_unseen)
                    || (place.is_ours && place.view.is_some_and(|view| !has(view, key)))
            };
            if !self.forged && self.places.iter().any(lacks) {
                return Err(Broken::OrderedTooEarly);
            }
        }
        let tombstones = next.entries().iter().filter(|(_, entry)| !entry.is_public());
        self.buried |= kids(tombstones.map(|(kid, _)| kid));
        Ok(())
    }

    /// Checks the keys that a target is about to lose.
    pub(super) fn check_placed(&self, lost: Kids) -> Result<(), Broken> {
        let is_recorded = lost & !self.buried == 0;
        if is_recorded || self.forged { Ok(()) } else { Err(Broken::Shrunk) }
    }

    /// Checks that every rotation completes once nothing goes wrong any more, and that a revocation finds a
    /// ready key.
    pub(super) fn check_recovery(&self) -> Result<(), Broken> {
        // An attacker may have left anything in the ledger.
        if self.forged {
            return Ok(());
        }
        let mut world = self.clone();
        world.eager = true;
        world.rules.keys = FOREIGN;
        world.rules.by_age = false;
        world.wrong = 0;
        world.nodes.iter_mut().for_each(|node| node.skew = 0);
        world.publisher.iter_mut().for_each(|publisher| publisher.skew = 0);
        world.settle()?;
        world.forget_who_is_not_believed()?;
        world.rounds_until(Self::is_settled, "no order is obeyed")?;
        let is_quiet =
            |world: &Self| world.stored.as_ref().is_some_and(|ledger| ledger.rotation_request().is_none());
        world.rounds_until(is_quiet, "a rotation that was asked for is not over")?;
        // An order at this very moment would count too.
        world.round()?;
        let before = world.signing();
        world.take(Action::Operator(Word::Start))?;
        let is_rotated = |world: &Self| is_quiet(world) && world.signing() & before == 0;
        world.rounds_until(is_rotated, "a rotation that was asked for is not over")?;
        let is_removed = |world: &Self| before & !world.tombstones() == 0;
        world.rounds_until(is_removed, "a retired key is still public")?;
        for _ in 0..=PROPAGATION / TICK {
            world.round()?;
        }
        let ready = world.signing();
        let revoked = each(ready & world.nodes[0].own).next().expect("it signs");
        world.take(Action::Operator(Word::Revoke(revoked)))?;
        world.settle()?;
        if world.is_settled() { Ok(()) } else { Err(Broken::NoSpare) }
    }

    /// The operator's remedy for a node without proof of identity: the restored backup is older than all its
    /// keys.
    fn forget_who_is_not_believed(&mut self) -> Result<(), Broken> {
        let (answer, now, retention) = (self.answer(Mood::Truthful), self.publisher_time(), self.retention());
        let report = SourceReport { source: "nodes".to_owned(), answer };
        let Some(publisher) = &self.publisher else { return Ok(()) };
        for mistrust in merge(&publisher.known, [&report]).rejected {
            let (AnnouncementRejection::Unproven { node } | AnnouncementRejection::NotAdmitted { node }) =
                mistrust
            else {
                continue;
            };
            self.change(|ledger| ledger.forget(&node, &retention, now).unwrap_or_else(|_| ledger.clone()))?;
        }
        Ok(())
    }

    fn rounds_until(&mut self, is_over: impl Fn(&Self) -> bool, what: &'static str) -> Result<(), Broken> {
        for _ in 0..ROUNDS {
            self.settle()?;
            if is_over(self) {
                return Ok(());
            }
            self.take(Action::Tick)?;
        }
        Err(Broken::Stuck(what))
    }

    pub(super) fn round(&mut self) -> Result<(), Broken> {
        self.settle()?;
        self.take(Action::Tick)?;
        Ok(())
    }

    /// Every party does all that is due.
    pub(super) fn settle(&mut self) -> Result<(), Broken> {
        for _ in 0..60 {
            let mut is_quiet = true;
            for action in self.ordinary() {
                is_quiet &= !self.take(action)?;
            }
            if is_quiet {
                return Ok(());
            }
        }
        Err(Broken::NeverEnds)
    }

    /// The actions of a world without misfortunes, except for the passing of time.
    pub(super) fn ordinary(&self) -> Vec<Action> {
        let places = (0..self.rules.places)
            .flat_map(|place| [Action::Look(place), Action::Place(place), Action::Saw(place)]);
        let nodes = (0..self.rules.nodes).flat_map(|node| [Action::Listen(node), Action::Stroke(node)]);
        let refresh = self.rules.api_servers.then_some(Action::Refresh);
        nodes.chain(places).chain(refresh).chain([Action::Hear]).collect()
    }

    /// The keys that sign for external audiences.
    pub(super) fn signing(&self) -> Kids {
        let memories = self.nodes.iter().filter_map(|node| node.memory.as_deref());
        kids(
            memories
                .filter_map(|memory| memory.signing().filter(|kid| memory.keys()[*kid].external_audiences)),
        )
    }

    /// Whether every node signs for external audiences with the ordered key, and with no other.
    pub(super) fn is_settled(&self) -> bool {
        let Some(ledger) = &self.stored else { return false };
        !ledger.is_held(at(self.now))
            && self.nodes.iter().all(|node| {
                let order = ledger.orders().get(&node.name).map(|order| order.sign.clone());
                let memory = node.memory.as_deref();
                let signing = memory
                    .and_then(|memory| memory.signing().filter(|kid| memory.keys()[*kid].external_audiences));
                order.is_some() && signing == order.as_ref()
            })
    }
}

/// Whether an announcement covers a token, except for what a clock that was set back can hide; its reader
/// adds the margin.
fn covers(announced: &Announcement, kid: &Kid, exp: Timestamp) -> bool {
    match announced.keys().get(kid).map(|key| key.stage) {
        Some(Stage::Active { .. }) => true,
        Some(Stage::Retired { latest_exp, .. }) => {
            latest_exp.is_some_and(|latest| latest + lasting(MARGIN) >= exp)
        }
        Some(Stage::Standby { .. }) | None => false,
    }
}
