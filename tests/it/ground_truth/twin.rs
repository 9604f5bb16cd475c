//! The twin of Entra answers as Entra did.

use std::collections::BTreeMap;

use signpost::{
    clock,
    core::verification::situation::{Evidenced, Situation},
};

use super::{
    Case, corpus,
    scene::{Keys, Scene},
    show,
};
use crate::support::entra_twin::{self, Endpoint, EntraTwin, family};

/// Situations that only their notes explain, and what the twin cannot be told of them.
const NOTES_DECIDE: [(&str, &str); 2] = [
    ("agents/agent-user-without-consent.yaml", "the resource that lacks a grant"),
    ("agents/code-of-single-page-application-from-server.yaml", "the kind of the redirect URI"),
];

/// How the twin's answer compares with Entra's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Follows {
    /// The same.
    First,
    /// What others got in the same situation, or a code of the same text.
    Also,
    Other,
}

impl Follows {
    const ALL: [Self; 3] = [Self::First, Self::Also, Self::Other];

    fn of(situation: &Situation, twin: Option<u64>) -> Self {
        let answered = situation.answer.code().map(u64::from);
        // Older answers were more general: 70021 has become 700211 to 700213.
        let refines = |(twin, answered): (u64, u64)| twin.to_string().starts_with(&answered.to_string());
        if twin == answered || twin.zip(answered).is_some_and(refines) {
            Self::First
        } else if twin.is_some_and(|twin| situation.also.iter().any(|&it| u64::from(it) == twin))
            || (twin.is_some() && twin.map(family) == answered.map(family))
        {
            Self::Also
        } else {
            Self::Other
        }
    }
}

/// What the twin answers in this situation.
fn asked(twin: &EntraTwin, scene: &Scene) -> entra_twin::Answer {
    twin.replace(&scene.directory());
    let host = scene.authority.trim_start_matches("https://");
    let form: Vec<_> = scene.form.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let response = twin.ask(&Endpoint { host, tenant: &scene.tenant, query: "" }, &form);
    entra_twin::Answer::of(&response)
}

#[test]
fn the_twin_follows_the_corpus() {
    let (mut keys, now) = (Keys::default(), clock::now());
    let twin = EntraTwin::start_with(&serde_json::json!({"now": now.as_second(), "tenants": {}}));
    let (mut figures, mut contradictions) = (BTreeMap::new(), Vec::new());
    for Case { name, situation } in corpus() {
        let answer = asked(&twin, &Scene::of(&situation, &mut keys, now));
        let follows = Follows::of(&situation, answer.code);
        *figures.entry(follows).or_insert(0) += 1;
        let noted = NOTES_DECIDE.iter().find(|(file, _)| *file == name);
        if follows != Follows::Other {
            assert!(noted.is_none(), "{name} needs no exception");
            continue;
        }
        let families = situation.answer.code().map(|it| family(it.into())).zip(answer.code.map(family));
        let is_open = !answer.undocumented.is_empty() && families.is_some_and(|(one, other)| one == other);
        let excuse = match noted {
            Some((_, what)) => format!("only its notes tell {what}"),
            None if situation.hidden.is_some() => "what decides is hidden".to_owned(),
            None if situation.certainty == Evidenced::Weak => "it is weak".to_owned(),
            None if is_open => format!("the twin leaves open: {}", answer.undocumented),
            None => String::new(),
        };
        let line = format!("{name}: answered {:?} {:?}, {answer:?}", situation.answer, situation.also);
        if excuse.is_empty() {
            contradictions.push(line);
        }
    }
    let count = |follows| format!("{follows:?} {}", figures.get(&follows).unwrap_or(&0)).to_lowercase();
    show(&format!("\nthe twin and what Entra answered: {}\n", Follows::ALL.map(count).join(", ")));
    assert!(contradictions.is_empty(), "the twin contradicts:\n{}", contradictions.join("\n"));
}
