//! Random histories: what is desired and what is there, failures, throttles, crashes and another writer.

use super::*;

/// Service accounts that a history speaks of.
const ACCOUNTS: u8 = 6;
/// More steps than any history needs.
const MAX_STEPS: usize = 400;

#[derive(Clone, Debug)]
struct History {
    desired: Vec<u8>,
    /// An account, whether it has the right audience, and whether its name is ours.
    present: Vec<(u8, bool, bool)>,
    /// Credentials of others, of which some are to be removed.
    others: Vec<bool>,
    faults: Vec<Fault>,
    is_paced: bool,
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    None,
    Busy(Option<u8>),
    Conflict,
    LostBefore,
    LostAfter,
    /// The list is that of some time ago.
    Stale,
    /// Ends here, and begins anew.
    Crash,
    OtherCreates,
    OtherDeletes(u8),
    OtherMakesOurs(u8),
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        4 => Just(Fault::None),
        1 => prop::option::of(0u8..60).prop_map(Fault::Busy),
        1 => Just(Fault::Conflict),
        1 => Just(Fault::LostBefore),
        1 => Just(Fault::LostAfter),
        1 => Just(Fault::Stale),
        1 => Just(Fault::Crash),
        1 => Just(Fault::OtherCreates),
        1 => any::<u8>().prop_map(Fault::OtherDeletes),
        1 => (0..ACCOUNTS).prop_map(Fault::OtherMakesOurs),
    ]
}

fn history() -> impl Strategy<Value = History> {
    (
        prop::collection::btree_set(0..ACCOUNTS, 0..=ACCOUNTS as usize),
        prop::collection::vec((0..ACCOUNTS, any::<bool>(), any::<bool>()), 0..5),
        prop::collection::vec(any::<bool>(), 0..12),
        prop::collection::vec(fault(), 0..40),
        any::<bool>(),
    )
        .prop_map(|(desired, present, others, faults, is_paced)| History {
            desired: desired.into_iter().collect(),
            present,
            others,
            faults,
            is_paced,
        })
}

/// What Entra holds, and what it has seen.
struct Service {
    now: Timestamp,
    credentials: Vec<Credential>,
    before: Vec<Credential>,
    writes: Vec<Timestamp>,
    made_by_others: usize,
}

impl Service {
    fn begin(history: &History) -> (Self, BTreeSet<Removal>) {
        let mut credentials: Vec<Credential> = Vec::new();
        for (number, (of, is_right, is_ours)) in history.present.iter().enumerate() {
            let wanted = desired(&format!("sa{of}"));
            let name = if *is_ours { wanted.name.clone() } else { format!("hand-{number}") };
            let audience = if *is_right { AUDIENCE } else { "api://other" };
            if !credentials.iter().any(|it| wanted.is_met_by(it)) {
                credentials.push(credential(&name, ISSUER, &wanted.subject, audience));
            }
        }
        let mut removals = BTreeSet::new();
        for (number, is_to_go) in history.others.iter().enumerate() {
            let other = credential(&format!("other-{number}"), OLD, &format!("subject-{number}"), AUDIENCE);
            if *is_to_go {
                removals.insert(Removal::of(&other));
            }
            credentials.push(other);
        }
        let now = Timestamp::UNIX_EPOCH;
        let service =
            Self { now, before: credentials.clone(), credentials, writes: Vec::new(), made_by_others: 0 };
        (service, removals)
    }

    fn write(&mut self, write: &Write) -> ServiceAnswer {
        self.writes.push(self.now);
        let conflict = |message: &str| ServiceAnswer::Conflict { message: message.to_owned() };
        let before = self.credentials.clone();
        match write {
            Write::Create(wanted) => {
                if self.credentials.len() >= MAX_CREDENTIALS {
                    return ServiceAnswer::Refused { message: "full".to_owned(), hint: None };
                }
                if self.credentials.iter().any(|it| it.name == wanted.name || wanted.is_met_by(it)) {
                    return conflict("it is there");
                }
                self.credentials.push(wanted.into());
            }
            Write::Update(wanted) => match self.credentials.iter_mut().find(|it| it.name == wanted.name) {
                Some(there) => *there = wanted.into(),
                None => return conflict("it is not there"),
            },
            Write::Delete(name) => {
                if !self.credentials.iter().any(|it| it.name == *name) {
                    return conflict("it is not there");
                }
                self.credentials.retain(|it| it.name != *name);
            }
        }
        self.before = before;
        ServiceAnswer::Done
    }

    fn list(&self) -> ServiceAnswer {
        ServiceAnswer::Listed(self.credentials.clone())
    }

    /// Somebody else; what it makes stays within the limit.
    fn disturb(&mut self, fault: Fault) {
        match fault {
            Fault::OtherCreates if self.credentials.len() < 12 => {
                self.made_by_others += 1;
                let name = format!("stranger-{}", self.made_by_others);
                self.credentials.push(credential(&name, OLD, &name, AUDIENCE));
            }
            Fault::OtherDeletes(which) if !self.credentials.is_empty() => {
                let which = usize::from(which) % self.credentials.len();
                self.credentials.remove(which);
            }
            Fault::OtherMakesOurs(of) => {
                let wanted = desired(&format!("sa{of}"));
                if !self.credentials.iter().any(|it| wanted.is_met_by(it) || it.name == wanted.name) {
                    self.credentials.push(credential(
                        &format!("made-{of}"),
                        ISSUER,
                        &wanted.subject,
                        AUDIENCE,
                    ));
                }
            }
            _ => {}
        }
    }
}

/// Runs until it is done; `None` if it stopped.
fn run(
    begin: &impl Fn() -> Application,
    service: &mut Service,
    faults: &mut impl Iterator<Item = Fault>,
) -> Option<Application> {
    let mut application = begin();
    for _ in 0..MAX_STEPS {
        let work = application.next(service.now);
        match &work {
            Work::WaitUntil(at) => {
                assert!(*at > service.now, "it waits for something");
                service.now = *at;
                continue;
            }
            Work::Done => return Some(application),
            Work::Stopped(_) => return None,
            Work::List | Work::Write(_) => {}
        }
        let fault = faults.next().unwrap_or(Fault::None);
        service.disturb(fault);
        let act = |service: &mut Service| match &work {
            Work::Write(write) => service.write(write),
            _ => service.list(),
        };
        let lost = ServiceAnswer::NoAnswer { reason: "it is lost".to_owned() };
        let answer = match (fault, &work) {
            (Fault::Busy(after), _) => ServiceAnswer::Busy {
                message: "busy".to_owned(),
                retry_after: after.map(|seconds| SignedDuration::from_secs(seconds.into())),
            },
            (Fault::Conflict, Work::Write(_)) => {
                ServiceAnswer::Conflict { message: "somebody writes".to_owned() }
            }
            (Fault::LostBefore, _) => lost,
            (Fault::LostAfter, _) => {
                drop(act(service));
                lost
            }
            (Fault::Stale, Work::List) => ServiceAnswer::Listed(service.before.clone()),
            _ => act(service),
        };
        if matches!(fault, Fault::Crash) {
            application = begin();
            continue;
        }
        application.record(&work, answer, service.now);
    }
    panic!("it does not end");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn every_history_ends_at_the_plan_and_touches_nothing_else(history in history()) {
        let (mut service, removals) = Service::begin(&history);
        let wanted: Vec<_> = history.desired.iter().map(|of| desired(&format!("sa{of}"))).collect();
        let pace = if history.is_paced { Pace::EveryFourSeconds } else { Pace::Sequential };
        let begin = || Application::new(wanted.clone(), removals.clone(), pace);
        let untouchable = |it: &&Credential| {
            !wanted.iter().any(|wanted| wanted.is_met_by(it)) && !removals.contains(&Removal::of(it))
        };
        let mut faults = history.faults.iter().copied();
        // It may stop while faults go on; without them it does not.
        let _ = run(&begin, &mut service, &mut faults);
        service.now = service.now.checked_add(SignedDuration::from_mins(5)).expect("in range");
        let others: Vec<_> = service.credentials.iter().filter(untouchable).cloned().collect();
        let done = run(&begin, &mut service, &mut std::iter::empty());
        let plan = plan(&wanted, &service.credentials, &removals);
        if done.is_none() {
            prop_assert!(!plan.conflicts.is_empty(), "it stopped without a reason: {plan:?}");
            return Ok(());
        }
        prop_assert!(plan.is_met(), "{plan:?}");
        prop_assert_eq!(&service.credentials.iter().filter(untouchable).cloned().collect::<Vec<_>>(), &others);
        let writes = service.writes.len();
        let again = run(&begin, &mut service, &mut std::iter::empty()).expect("it is done");
        prop_assert_eq!(again.written().count(), 0);
        prop_assert_eq!(service.writes.len(), writes, "a second time writes nothing");
    }

    #[test]
    fn writes_keep_their_distance_and_nothing_of_others_is_lost(history in history()) {
        let (mut service, removals) = Service::begin(&history);
        let wanted: Vec<_> = history.desired.iter().map(|of| desired(&format!("sa{of}"))).collect();
        let begin = || Application::new(wanted.clone(), removals.clone(), Pace::EveryFourSeconds);
        let kept: Vec<_> = service
            .credentials
            .iter()
            .filter(|it| it.issuer == OLD && !removals.contains(&Removal::of(it)))
            .cloned()
            .collect();
        let mut faults = history
            .faults
            .iter()
            .copied()
            .filter(|it| !matches!(it, Fault::Crash | Fault::OtherDeletes(_)));
        let _ = run(&begin, &mut service, &mut faults);
        prop_assert!(kept.iter().all(|it| service.credentials.contains(it)));
        let distances = service.writes.windows(2).map(|pair| pair[1].duration_since(pair[0]));
        prop_assert!(distances.into_iter().all(|it| it >= Pace::EveryFourSeconds.between_writes()));
    }
}
