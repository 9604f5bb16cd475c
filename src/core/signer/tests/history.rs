//! Random histories of a node: valid and hostile orders, a process that dies between any two steps, a clock
//! that is off, private keys and journals that are lost, disks that are full.

use proptest::prelude::*;

use super::*;

/// Clocks are off by at most half of the margin.
const SKEW: i64 = 5;
const KEYS: usize = 120;

#[derive(Clone, Debug)]
enum Event {
    /// An order for one of the created keys or for an unknown one; old, as from a backup.
    Order(Option<usize>, i64),
    Revoke(usize),
    Pass(i64),
    SetClock(i64),
    /// Does every step that is due; dies after so many atomic steps.
    Tend {
        dies_after: usize,
    },
    Sign {
        external: bool,
        lifetime: i64,
        dies: bool,
    },
    LoseJournal,
    LoseKey(usize),
    FillDisk(bool),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (proptest::option::of(0..40_usize), prop_oneof![4 => Just(0), 1 => 1..900_i64])
            .prop_map(|(index, age)| Event::Order(index, age)),
        1 => (0..40_usize).prop_map(Event::Revoke),
        4 => prop_oneof![1..20_i64, 100..900_i64].prop_map(Event::Pass),
        1 => (-SKEW..=SKEW).prop_map(Event::SetClock),
        3 => Just(Event::Tend { dies_after: usize::MAX }),
        4 => (0..20_usize).prop_map(|dies_after| Event::Tend { dies_after }),
        8 => (any::<bool>(), 1..620_i64, proptest::bool::weighted(0.1))
            .prop_map(|(external, lifetime, dies)| Event::Sign { external, lifetime, dies }),
        1 => Just(Event::LoseJournal),
        1 => (0..40_usize).prop_map(Event::LoseKey),
        1 => any::<bool>().prop_map(Event::FillDisk),
    ]
}

struct Token {
    kid: Kid,
    exp: Timestamp,
    external: bool,
}

struct Died;

/// A node as the shell around the core drives it: disk, then journal, then announcement, then memory.
struct Node {
    orders: DesiredState,
    real: i64,
    skew: i64,
    made: usize,
    disk_is_full: bool,
    private_keys: BTreeMap<Kid, Jwk>,
    journal: Option<Journal>,
    announced: Announcement,
    /// The journal in effect; `None` while no process runs.
    memory: Option<Journal>,
    ordered: BTreeSet<Kid>,
    tokens: Vec<Token>,
}

impl Node {
    fn new() -> Self {
        Self {
            orders: DesiredState::default(),
            real: 1_000,
            skew: 0,
            made: 0,
            disk_is_full: false,
            private_keys: BTreeMap::new(),
            journal: None,
            announced: empty().announcement(),
            memory: None,
            ordered: BTreeSet::new(),
            tokens: Vec::new(),
        }
    }

    fn now(&self) -> Timestamp {
        at(self.real + self.skew)
    }

    fn write(&mut self, next: &Journal) -> Result<(), Died> {
        if self.disk_is_full {
            return Err(Died);
        }
        if let Some(before) = &self.journal {
            let nobody = BTreeSet::new();
            let is_same = before.verification_set(&nobody) == next.verification_set(&nobody);
            assert_eq!(before.changed() == next.changed(), is_same, "dated exactly when it changed");
            assert!(before.changed() <= next.changed());
        }
        assert_eq!(Journal::parse(&next.to_json()).as_ref(), Ok(next));
        self.journal = Some(next.clone());
        Ok(())
    }

    fn start(&mut self) -> Result<(), Died> {
        let journal = self.journal.clone().unwrap_or_else(|| {
            Journal::new(NodeName::parse("node-1").expect("a name"), empty().issuer().clone(), self.now())
        });
        let keys = self.private_keys.values().cloned();
        let (journal, _) = journal.with_private_keys(keys, self.now(), LIFETIME);
        self.write(&journal)?;
        self.announced = journal.announcement();
        self.memory = Some(journal);
        Ok(())
    }

    fn tend(&mut self, mut strokes: usize) -> Result<(), Died> {
        let mut stroke = || {
            strokes = strokes.checked_sub(1).ok_or(Died)?;
            Ok(())
        };
        if self.memory.is_none() {
            self.start()?;
        }
        self.ordered.extend(self.orders.sign.clone());
        let mut journal = self.memory.clone().expect("it runs");
        while let Some(step) = journal.next_step(&self.orders, self.now(), MARGIN) {
            assert_eq!(Some(&step), journal.next_step(&self.orders, self.now(), MARGIN).as_ref());
            stroke()?;
            if step == SignerStep::Generate && (self.made == KEYS || self.disk_is_full) {
                return Ok(());
            }
            let done = carried_out(&step, &mut self.made);
            match &done {
                Done::Generated(jwk) => {
                    self.private_keys.insert(jwk.kid().clone(), jwk.clone());
                }
                Done::Step(SignerStep::Destroy { kid }) => {
                    let needed = self.tokens.iter().any(|token| token.kid == *kid && self.is_live(token));
                    assert!(!needed || self.orders.revoked.contains(kid), "{kid} is still needed");
                    self.private_keys.remove(kid);
                }
                _ => {}
            }
            stroke()?;
            journal = journal.after(&done, self.now()).expect("in order");
            self.write(&journal)?;
            stroke()?;
            self.announced = journal.announcement();
            stroke()?;
            self.memory = Some(journal.clone());
        }
        let active = |key: &&AnnouncedKey| matches!(key.stage, Stage::Active { .. });
        assert_eq!(self.announced.keys().values().filter(active).count(), 1, "one signs");
        let spare = |key: &&AnnouncedKey| matches!(key.stage, Stage::Standby { .. });
        let is_full = journal.keys().len() >= 32;
        assert!(is_full || self.announced.keys().values().filter(spare).count() == 1, "one is spare");
        Ok(())
    }

    fn sign(&mut self, external: bool, lifetime: i64, dies: bool) -> Result<(), Died> {
        let Some(memory) = &self.memory else { return Ok(()) };
        let exp = self.now() + Duration::from_secs(lifetime.unsigned_abs());
        let aud = if external { r#"["api","else"]"# } else { r#""api""# };
        let claims = claims(&format!(r#"{{"aud":{aud},"exp":{}}}"#, exp.as_second())).expect("readable");
        let inside = BTreeSet::from(["api".to_owned()]);
        let Ok(permit) = memory.decide(&self.orders, &claims, &inside, self.now(), LIFETIME) else {
            return Ok(());
        };
        if let Some(done) = memory.reserve_expiry(&permit) {
            let journal = self.journal.as_ref().expect("a process runs");
            let (journal, memory) = (journal.after(&done, self.now()), memory.after(&done, self.now()));
            if self.write(&journal.expect("the key is active")).is_err() {
                return Ok(());
            }
            self.memory = Some(memory.expect("the key is active"));
        }
        if dies {
            return Err(Died);
        }
        let SigningDecision { kid, exp, external } = permit;
        let is_active = |stage| matches!(stage, Stage::Active { .. });
        assert!(is_active(self.announced.keys()[&kid].stage), "it was announced");
        assert!(is_active(self.journal.as_ref().expect("there").keys()[&kid].stage), "it was recorded");
        assert!(self.private_keys.contains_key(&kid), "it is there");
        assert!(!external || self.ordered.contains(&kid), "nobody ordered that it sign for others");
        assert!(!self.orders.revoked.contains(&kid));
        self.tokens.push(Token { kid, exp, external });
        Ok(())
    }

    fn is_live(&self, token: &Token) -> bool {
        token.exp > at(self.real)
    }

    fn live(&self) -> impl Iterator<Item = &Token> {
        self.tokens.iter().filter(|token| self.is_live(token) && !self.orders.revoked.contains(&token.kid))
    }

    fn check(&self) {
        for token in self.live().filter(|token| token.external) {
            let announced =
                self.announced.keys().get(&token.kid).expect("it is announced while it is needed");
            if let Stage::Retired { latest_exp, .. } = announced.stage {
                assert!(latest_exp >= Some(token.exp), "it was said to be dead before its last token");
            }
            assert!(!matches!(announced.stage, Stage::Standby { .. }), "it is said to have signed nothing");
        }
        let Some(set) = self.memory.as_ref().and_then(|memory| memory.verification_set(&self.orders.revoked))
        else {
            return;
        };
        assert!(set.iter().any(|key| !key.exclude));
        for token in self.live() {
            let key = set.iter().find(|key| *key.jwk.kid() == token.kid).expect("it verifies live tokens");
            assert!(!token.external || !key.exclude, "relying parties need it");
        }
        let revoked = |key: &VerificationKey| self.orders.revoked.contains(key.jwk.kid());
        assert!(!set.iter().any(revoked));
    }

    /// Without its private key and its record a key cannot be kept.
    fn forget_what_is_lost(&mut self) -> Result<(), Died> {
        let recorded =
            |kid: &Kid| self.journal.as_ref().is_some_and(|journal| journal.keys().contains_key(kid));
        self.tokens.retain(|token| self.private_keys.contains_key(&token.kid) || recorded(&token.kid));
        Err(Died)
    }

    fn happen(&mut self, event: &Event) {
        let named = |index: usize| if index < self.made { kid(index) } else { kid(KEYS + index % 8) };
        let outcome = match *event {
            Event::Order(index, age) => {
                self.orders.sign = index.map(named);
                self.orders.at = at(self.real - age);
                Ok(())
            }
            Event::Revoke(index) => {
                self.orders.revoked.insert(named(index));
                Ok(())
            }
            Event::Pass(seconds) => {
                self.real += seconds;
                Ok(())
            }
            Event::SetClock(skew) => {
                self.skew = skew;
                Ok(())
            }
            Event::Tend { dies_after } => self.tend(dies_after),
            Event::Sign { external, lifetime, dies } => self.sign(external, lifetime, dies),
            // A loss while a process runs is noticed at the next start.
            Event::LoseJournal => {
                self.journal = None;
                self.forget_what_is_lost()
            }
            Event::LoseKey(index) => {
                let kid = named(index);
                self.private_keys.remove(&kid);
                self.forget_what_is_lost()
            }
            Event::FillDisk(is_full) => {
                self.disk_is_full = is_full;
                Ok(())
            }
        };
        if outcome.is_err() {
            self.memory = None;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_history_breaks_a_promise_of_a_node(events in proptest::collection::vec(event(), 1..80)) {
        let mut node = Node::new();
        for event in &events {
            node.happen(event);
            node.check();
        }
        node.disk_is_full = false;
        let settled = node.tend(usize::MAX);
        prop_assert!(settled.is_ok(), "it always comes to an end");
        node.check();
    }
}
