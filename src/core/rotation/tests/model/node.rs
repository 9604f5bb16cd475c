//! A node of the model: key files, journal, announcement, memory, each written separately.

use base64ct::{Base64UrlUnpadded, Encoding as _};

use super::*;
use crate::core::signer::{
    Claims, DesiredState, Done, Journal, SignerStep as Stroke, SigningDecision, announcement::Announcement,
};

#[derive(Clone)]
pub(super) struct SigningNode {
    pub(super) name: NodeName,
    /// The private keys on its disk, and all that it ever created.
    pub(super) files: Kids,
    pub(super) own: Kids,
    pub(super) journal: Option<Arc<Journal>>,
    pub(super) announced: Option<Arc<Announcement>>,
    /// The previous announcement.
    pub(super) before: Option<Arc<Announcement>>,
    pub(super) runs: bool,
    /// The journal in effect.
    pub(super) memory: Option<Arc<Journal>>,
    pub(super) orders: Arc<DesiredState>,
    /// Done to a key file, and not recorded yet.
    pub(super) doing: Option<Done>,
    pub(super) skew: i64,
}

impl SigningNode {
    pub(super) fn new(index: usize) -> Self {
        Self {
            name: node(["a", "b"][index]),
            files: 0,
            own: 0,
            journal: None,
            announced: None,
            before: None,
            runs: false,
            memory: None,
            orders: Arc::default(),
            doing: None,
            skew: 0,
        }
    }

    pub(super) fn die(&mut self) -> bool {
        let ran = self.runs;
        (self.runs, self.memory, self.doing) = (false, None, None);
        self.orders = Arc::default();
        ran
    }

    fn open(&mut self, now: Timestamp) {
        let journal = self.journal.as_deref().cloned();
        let journal = journal.unwrap_or_else(|| Journal::new(self.name.clone(), terms().issuer, now));
        let (journal, _) = journal.with_private_keys(each(self.files).map(rsa_key), now, lasting(LIFETIME));
        self.journal = Some(Arc::new(journal));
        self.runs = true;
    }

    fn record(&mut self, done: &Done, now: Timestamp) {
        let journal = self.journal.as_ref().expect("it runs").after(done, now).expect("in order");
        self.journal = Some(Arc::new(journal));
    }

    fn announce(&mut self, announcement: Announcement) {
        self.before = self.announced.replace(Arc::new(announcement));
    }
}

impl World {
    pub(super) fn node_time(&self, node: usize) -> Timestamp {
        at(self.now + self.nodes[node].skew)
    }

    /// A node learns its desired state.
    pub(super) fn listen(&mut self, index: usize) -> bool {
        let Some(ledger) = &self.stored else { return false };
        let node = &mut self.nodes[index];
        let mut orders = ledger.orders_for(&node.name);
        // That its last announcement was accepted does not change its steps.
        let said = node.journal.as_ref().map(|journal| journal.announcement().version().at);
        orders.announced = orders.announced.filter(|announced| said < Some(*announced));
        let is_new = node.runs && orders != *node.orders;
        if is_new {
            node.orders = Arc::new(orders);
        }
        is_new
    }

    /// One atomic step. Memory and announcement follow the disk before anything else is done.
    pub(super) fn stroke(&mut self, index: usize) -> bool {
        let (now, fault) = (self.node_time(index), self.rules.fault);
        let may_make = self.made < self.rules.keys;
        let node = &mut self.nodes[index];
        if !node.runs {
            node.open(now);
            return true;
        }
        if let Some(done) = node.doing.take() {
            node.record(&done, now);
            return true;
        }
        let journal = Arc::clone(node.journal.as_ref().expect("it runs"));
        if node.memory.as_ref() != Some(&journal) {
            let announcement = journal.announcement();
            if node.announced.as_deref() == Some(&announcement) {
                node.memory = Some(journal);
            } else {
                node.announce(announcement);
            }
            return true;
        }
        let step = journal.next_step(&node.orders, now, lasting(MARGIN));
        debug_assert_eq!(step, journal.next_step(&node.orders, now, lasting(MARGIN)));
        let Some(step) = step.filter(|step| !fault.is_some_and(|fault| fault.forbids(step, &journal))) else {
            return false;
        };
        let done = match step {
            Stroke::Generate if may_make => {
                node.doing = Some(Done::Generated(rsa_key(self.made)));
                (node.files, node.own) = (node.files | 1 << self.made, node.own | 1 << self.made);
                self.made += 1;
                return true;
            }
            Stroke::Generate => return false,
            Stroke::Destroy { ref kid } => {
                node.files &= !(1 << number(kid));
                node.doing = Some(Done::Step(step));
                return true;
            }
            step => Done::Step(step),
        };
        node.record(&done, now);
        true
    }

    /// A node signs a token with the longest allowed lifetime.
    pub(super) fn sign(&mut self, index: usize, external: bool) -> Result<bool, Broken> {
        let now = self.node_time(index);
        let node = &mut self.nodes[index];
        let Some(memory) = node.memory.clone() else { return Ok(false) };
        let Some(signing) = memory.signing() else { return Ok(false) };
        let until = now.as_second() + LIFETIME;
        let known = if external { &mut self.external } else { &mut self.inside };
        if known[number(signing)] == until {
            return Ok(false);
        }
        let claims = claims(external, until);
        let api = BTreeSet::from(["api".to_owned()]);
        let Ok(permit) = memory.decide(&node.orders, &claims, &api, now, lasting(LIFETIME)) else {
            return Ok(false);
        };
        if let Some(done) = memory.reserve_expiry(&permit) {
            let journal = node.journal.as_ref().expect("it runs").after(&done, now);
            let Ok(journal) = journal else { return Ok(false) };
            node.journal = Some(Arc::new(journal));
            node.memory = Some(Arc::new(memory.after(&done, now).expect("it is active")));
        }
        let SigningDecision { kid, exp, external } = permit;
        known[number(&kid)] = exp.as_second();
        self.check_signature(index, number(&kid), external)?;
        Ok(true)
    }

    /// The API server fetches keys, and lists those that are not excluded.
    pub(super) fn refresh(&mut self) -> bool {
        let Some(set) = self.verification_set(0).filter(|_| self.rules.api_servers) else { return false };
        let listed = kids(set.iter().filter(|key| !key.exclude).map(|key| key.jwk.kid()));
        self.ever_listed |= listed;
        std::mem::replace(&mut self.listed, listed) != listed
    }

    pub(super) fn lose_key(&mut self, key: usize) {
        if let Some(node) = self.nodes.iter_mut().find(|node| has(node.own, key)) {
            // The next process notices it at its start.
            node.die();
            node.files &= !(1 << key);
        }
        self.forget_what_is_lost();
    }

    /// Without its private key and its record a key cannot be kept.
    pub(super) fn forget_what_is_lost(&mut self) {
        for node in &self.nodes {
            let journal = node.journal.as_ref();
            let recorded = journal.map_or(0, |journal| kids(journal.keys().keys()));
            for key in each(node.own & !node.files & !recorded) {
                (self.external[key], self.inside[key]) = (0, 0);
            }
        }
    }
}

fn claims(external: bool, exp: i64) -> Claims {
    let aud = if external { "else" } else { "api" };
    let json = format!(r#"{{"aud":"{aud}","exp":{exp}}}"#);
    Claims::read(&Base64UrlUnpadded::encode_string(json.as_bytes())).expect("well-formed")
}
