//! Faults during a rotation: one after the other, each until it is over.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::World;
use crate::support::eventually::eventually;
use crate::support::fault_proxy::{Action, Rule};

/// Longest wait for the moment to kill a process.
const MOMENT: Duration = Duration::from_secs(25);
/// Longest wait for the next step of a rotation.
const STROKE: Duration = Duration::from_secs(2);
/// Steps of a rotation: the next key starts to sign, the previous one stops, another is generated.
const STROKES: usize = 4;
/// Longer than the interval at which the API servers fetch the keys.
const DOWN: Duration = Duration::from_secs(3);
/// How long a clock is wrong: several polls, and several observations of every target.
const WRONG: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// The signer of a node is killed as soon as its journal, or its announcement, has changed; each time one
    /// step later in the rotation.
    KillAtJournal(usize),
    KillAtAnnouncement(usize),
    /// The publisher is killed as soon as it has written an order, or to the directory.
    KillAtOrder,
    KillAtWrite,
    SignerDown(usize),
    RestartApiServer(usize),
    /// The store refuses or delays writes for a while.
    RefuseWrites,
    SlowWrites,
    /// The clocks of all our processes are off by so many seconds, which is within the margin.
    Skew(i64),
    /// The publisher's clock is off by hours.
    WrongClock(i64),
    /// The operator requests a rotation, and another one shortly after the next keys are public.
    AskTwice,
    /// Another program writes to the `ConfigMap` of the ledger.
    OtherWriter,
}

/// In the order of injection, repeatedly.
pub(super) const FAULTS: [Fault; 18] = [
    Fault::KillAtJournal(0),
    Fault::AskTwice,
    Fault::RefuseWrites,
    Fault::KillAtOrder,
    Fault::Skew(1),
    Fault::SignerDown(1),
    Fault::WrongClock(-2),
    Fault::OtherWriter,
    Fault::KillAtAnnouncement(1),
    Fault::RestartApiServer(0),
    Fault::SlowWrites,
    Fault::Skew(-1),
    Fault::KillAtWrite,
    Fault::WrongClock(2),
    Fault::KillAtJournal(1),
    Fault::SignerDown(0),
    Fault::RestartApiServer(1),
    Fault::KillAtAnnouncement(0),
];

impl World {
    /// Injects a fault, and removes it; returns what happened, for the statistics.
    pub(super) fn suffer(&mut self, fault: Fault) -> String {
        match fault {
            Fault::KillAtJournal(node) => {
                let journal = self.nodes[node].signer.keys().join("signer.json");
                self.kill_signer_at(node, &journal, "journal")
            }
            Fault::KillAtAnnouncement(node) => {
                let name = format!("announcements/{}.json", self.nodes[node].name);
                let announcement = self.nodes[node].signer.data_dir().join(name);
                self.kill_signer_at(node, &announcement, "announcement")
            }
            Fault::KillAtOrder => {
                let orders = || self.ledger().map(|ledger| ledger["orders"].clone());
                let met = orders()
                    .is_some_and(|before| changes(MOMENT, || orders().is_none_or(|now| now == before)));
                self.restart_publisher();
                format!("publisher killed {}", if met { "after an order" } else { "at any time" })
            }
            Fault::KillAtWrite => {
                let directory = self.public_file();
                let before = fs::read(&directory).ok();
                let met = changes(MOMENT, || fs::read(&directory).ok() == before);
                self.restart_publisher();
                format!("publisher killed {}", if met { "after a write" } else { "at any time" })
            }
            Fault::SignerDown(node) => {
                self.nodes[node].signer.kill();
                thread::sleep(DOWN);
                self.nodes[node].signer.restart();
                "signer down".to_owned()
            }
            Fault::RestartApiServer(node) => {
                self.nodes[node].server.restart();
                self.ids[node] = self.nodes[node].server.id();
                "API server restarted".to_owned()
            }
            Fault::RefuseWrites => {
                let busy = Action::Answer { status: 503, headers: vec![], body: "" };
                self.proxy.script([Rule::new(busy).method("PUT").times(12)]);
                "store refuses writes".to_owned()
            }
            Fault::SlowWrites => {
                self.proxy.script([Rule::new(Action::Delay(DOWN)).method("PUT").times(6)]);
                "store is slow".to_owned()
            }
            Fault::Skew(seconds) => {
                self.publisher_clock.set(seconds);
                self.signers_clock.set(-seconds);
                "clocks apart".to_owned()
            }
            Fault::WrongClock(hours) => {
                self.publisher_clock.set(hours * 3600);
                thread::sleep(WRONG);
                self.publisher_clock.set(0);
                "publisher's clock set by hours".to_owned()
            }
            Fault::AskTwice => {
                for _ in 0..2 {
                    let signing = self.signing();
                    eventually("the one before is over", || {
                        (self.installation.finish(["rotate", "start"]).code == Some(0)).then_some(())
                    });
                    eventually("both nodes sign with other keys", || {
                        self.signing().iter().zip(&signing).all(|(now, before)| now != before).then_some(())
                    });
                }
                "rotated twice at once".to_owned()
            }
            Fault::OtherWriter => self.write_to_the_ledger(),
        }
    }

    fn signing(&self) -> [String; 2] {
        self.nodes.each_ref().map(|node| node.signer.signing())
    }

    /// Kills the signer of a node as soon as one of its files has changed, and starts it again.
    fn kill_signer_at(&mut self, node: usize, file: &Path, name: &str) -> String {
        let strokes = self.kills % STROKES;
        self.kills += 1;
        let (mut journal, mut before) = (self.nodes[node].signer.journal(), fs::read(file).ok());
        let met = changes(MOMENT, || fs::read(file).ok() == before);
        for _ in 0..strokes {
            (journal, before) = (self.nodes[node].signer.journal(), fs::read(file).ok());
            changes(STROKE, || fs::read(file).ok() == before);
        }
        self.nodes[node].signer.kill();
        let step = step_between(&journal, &self.nodes[node].signer.journal());
        self.nodes[node].signer.restart();
        if met {
            format!("signer killed at its {name}, {step}")
        } else {
            "signer killed at any time".to_owned()
        }
    }

    /// As a careless tool would: the same ledger in another format, and an additional key beside it.
    fn write_to_the_ledger(&self) -> String {
        let path = Self::map_path();
        let server = &self.nodes[0].server;
        eventually("the other writer is not overtaken", || {
            let mut object = server.admin_request("GET", &path).answer().expect_status(200).json();
            let text = object["data"]["ledger.json"].as_str().expect("a ledger");
            let ledger: Value = serde_json::from_str(text).expect("JSON");
            object["data"]["ledger.json"] = json!(serde_json::to_string_pretty(&ledger).expect("JSON"));
            object["metadata"]["annotations"]["example.com/seen"] = json!(ledger["sequence"].to_string());
            (server.admin_request("PUT", &path).json(&object).answer().status == 200).then_some(())
        });
        "another writer of the ledger".to_owned()
    }
}

/// Waits for a change; returns whether it happened in time.
fn changes(within: Duration, is_same: impl Fn() -> bool) -> bool {
    let began = Instant::now();
    while is_same() {
        if began.elapsed() > within {
            return false;
        }
        thread::sleep(Duration::from_millis(1));
    }
    true
}

/// The step of a node between two journals.
fn step_between(before: &Value, after: &Value) -> &'static str {
    let keys = |journal: &Value| -> BTreeMap<String, Value> {
        let keys = journal["keys"].as_object().expect("keys").clone();
        keys.into_iter().collect()
    };
    let (old, new) = (keys(before), keys(after));
    let turned = |member: &str| {
        new.iter().any(|(kid, key)| old.get(kid).is_some_and(|before| before[member] != key[member]))
    };
    if before["signing"] != after["signing"] {
        "a key begun"
    } else if new.keys().any(|kid| !old.contains_key(kid)) {
        "a key made"
    } else if old.keys().any(|kid| !new.contains_key(kid)) {
        "a key destroyed"
    } else if turned("excluded_from_discovery") {
        "a key withdrawn"
    } else if turned("stage") {
        "a key stopped"
    } else if before["observed_order"] != after["observed_order"] {
        "an order heard"
    } else if turned("latest_exp_bound") || turned("latest_internal_exp_bound") {
        "a horizon moved"
    } else {
        "nothing recorded"
    }
}
