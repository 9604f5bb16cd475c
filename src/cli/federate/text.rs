//! Plans, and what became of them, as text.

use super::Outcome;
use crate::{
    app::federate::{Applied, Done, IdentityName, Planned, SideBySide},
    cli::table::table,
    core::{
        entra::Credential,
        federation::{
            AccountRow, Change, Conflict, DesiredCredential, Holder, Inventory, NearMiss, OtherCredential,
            Plan, Stop, Trust,
        },
        text::{
            Hint as _,
            redaction::{printable, redact},
        },
    },
};

const INDENT: &str = "  ";

pub(super) fn outcomes(outcomes: &[Outcome]) -> String {
    let texts: Vec<_> = outcomes.iter().map(outcome).collect();
    texts.join("\n")
}

fn outcome(outcome: &Outcome) -> String {
    let planned = match &outcome.planned {
        Ok(planned) => planned,
        Err(error) => {
            let hint = error.hint().map_or_else(String::new, |hint| format!("{INDENT}hint: {hint}\n"));
            return format!(
                "{}\n{INDENT}error: {}\n{hint}",
                name(&outcome.identity),
                redact(&error.to_string())
            );
        }
    };
    let mut text = format!("{}\n", heading(&outcome.identity, &planned.holder));
    text += &plan(&planned.plan);
    // What was settled when the plan was made may be contradicted since.
    let since = outcome.applied.as_ref().and_then(|applied| applied.left.as_ref());
    for conflict in since.iter().flat_map(|left| &left.conflicts) {
        if !planned.plan.conflicts.contains(conflict) {
            text += &self::conflict(conflict);
        }
    }
    for (name, why) in &planned.kept {
        text += &format!("{INDENT}keep     {}: {why}\n", printable(name));
    }
    text + &verdict(planned, outcome.applied.as_ref())
}

fn heading(identity: &IdentityName, holder: &Holder) -> String {
    match holder {
        Holder::Application { is_blueprint: true, .. } => format!("agent blueprint {}", name(identity)),
        Holder::Application { .. } => format!("application {}", name(identity)),
        Holder::ManagedIdentity(id) => {
            let named = format!("managed identity `{}` in `{}`", id.name(), id.resource_group());
            match identity {
                IdentityName::ClientId(client_id) => format!("{named}, client id {client_id}"),
                IdentityName::ManagedIdentity(_) => named,
            }
        }
    }
}

fn name(identity: &IdentityName) -> String {
    match identity {
        IdentityName::ClientId(id) => id.clone(),
        IdentityName::ManagedIdentity(id) => id.to_string(),
    }
}

fn plan(plan: &Plan) -> String {
    let mut text = String::new();
    for change in &plan.changes {
        text += &match change {
            Change::Create(credential) => {
                format!("{INDENT}create   {}\n{}", credential.name, members(credential))
            }
            Change::SetAudience { name, was, credential } => format!(
                "{INDENT}correct  {}\n{INDENT}         audience {} instead of {}\n",
                printable(name),
                printable(&credential.audience),
                printable(&was.join(", "))
            ),
            Change::Remove(removal) => format!(
                "{INDENT}remove   {}\n{INDENT}         {} of {}\n",
                printable(&removal.name),
                printable(removal.subject.as_deref().unwrap_or("an expression")),
                printable(&redact(&removal.issuer))
            ),
        };
    }
    for name in &plan.unchanged {
        text += &format!("{INDENT}there    {}\n", printable(name));
    }
    text += &plan.conflicts.iter().map(conflict).collect::<String>();
    for other in plan.others.iter().filter(|it| !it.nearly.is_empty()) {
        text += &format!("{INDENT}nearly   {}: another one, which stays\n", printable(&other.name));
        text += &near_misses(&other.nearly);
    }
    let others = plan.others.iter().filter(|it| it.nearly.is_empty()).count();
    if others > 0 {
        text += &format!("{INDENT}others   {others}, which stay as they are\n");
    }
    text
}

fn conflict(conflict: &Conflict) -> String {
    let (what, hint) = (conflict.to_string(), conflict.hint());
    format!("{INDENT}conflict {}\n{INDENT}  hint: {}\n", printable(&what), printable(&hint))
}

fn members(credential: &DesiredCredential) -> String {
    let DesiredCredential { issuer, subject, audience, .. } = credential;
    let mut text = String::new();
    for (member, value) in [("issuer", issuer), ("subject", subject), ("audience", audience)] {
        text += &format!("{INDENT}         {member:8} {}\n", printable(value));
    }
    text
}

fn near_misses(nearly: &[NearMiss]) -> String {
    let mut text = String::new();
    for miss in nearly {
        let [seen, expected, mark] = miss.difference.lines();
        for (what, line) in [(miss.member, seen), ("wanted", expected), ("", mark)] {
            text += format!("{INDENT}         {what:8} {line}").trim_end();
            text.push('\n');
        }
    }
    text
}

fn verdict(planned: &Planned, applied: Option<&Applied>) -> String {
    let plan = &planned.plan;
    let Some(applied) = applied else {
        let count = |is: fn(&Change) -> bool| plan.changes.iter().filter(|it| is(it)).count();
        return match (plan.is_met(), plan.conflicts.is_empty()) {
            (true, _) => format!("{INDENT}everything is as it should be\n"),
            (false, false) => format!("{INDENT}nothing would be written: settle the conflicts first\n"),
            (false, true) => format!(
                "{INDENT}to create: {}, to correct: {}, to remove: {}\n",
                count(|it| matches!(it, Change::Create(_))),
                count(|it| matches!(it, Change::SetAudience { .. })),
                count(|it| matches!(it, Change::Remove(_)))
            ),
        };
    };
    let written = applied.written.len();
    let left = applied.left.as_ref().map_or(0, |left| left.changes.len());
    match &applied.stopped {
        None if written == 0 => format!("{INDENT}everything was as it should be; nothing was written\n"),
        None => format!(
            "{INDENT}done: {written} written. Entra may need some minutes until it knows everywhere\n"
        ),
        Some(Stop::Conflicts) => {
            format!("{INDENT}{written} written, the rest not: settle the conflicts first\n")
        }
        Some(Stop::Refused { message, hint }) => format!(
            "{INDENT}{written} written, {left} left: {}\n{INDENT}  hint: {}\n",
            redact(message),
            hint.as_deref().unwrap_or("mend that, and run it again: it goes on where it ended")
        ),
        Some(Stop::NoProgress { message }) => format!(
            "{INDENT}{written} written; gave up after several attempts: {}\n{INDENT}run it again later: it goes on where \
             it ended\n",
            redact(message)
        ),
    }
}

pub(super) fn delegation(whose: &str, done: &Done, is_dry_run: bool, next: &str) -> String {
    let mut text = format!("{whose}\n");
    if done.steps.is_empty() {
        text += &format!("{INDENT}everything was as it should be; nothing was written\n");
    }
    for step in &done.steps {
        text += &format!("{INDENT}{} {}\n", if is_dry_run { "would add" } else { "added" }, printable(step));
    }
    text + &format!("{INDENT}{next}\n")
}

pub(super) fn credentials(credentials: &[Credential]) -> String {
    if credentials.is_empty() {
        return "no federated credentials\n".to_owned();
    }
    let head = ["NAME", "SUBJECT", "ISSUER", "AUDIENCE"].map(str::to_owned);
    let rows = credentials.iter().map(|it| {
        let subject = it.subject.as_deref().or(it.expression()).unwrap_or("(an expression)");
        let cells = [it.name.as_str(), subject, &redact(&it.issuer), &it.audiences.join(", ")];
        cells.map(|cell| printable(cell).into_owned())
    });
    table(&[head].into_iter().chain(rows).collect::<Vec<_>>())
}

pub(super) fn side_by_side(issuer: &str, found: &SideBySide) -> String {
    let Inventory { accounts, dangling, others } = &found.inventory;
    let mut text = format!("issuer {}\n\n", printable(issuer));
    if accounts.is_empty() {
        text += "no service account or pod of this cluster uses workload identity\n";
    } else {
        let head = ["SERVICE ACCOUNT", "PODS", "CLIENT ID", "ENTRA"].map(str::to_owned);
        text += &table(&[head].into_iter().chain(accounts.iter().map(row)).collect::<Vec<_>>());
    }
    for row in accounts {
        if let Trust::Nearly { differs, .. } = &row.trust {
            text += &format!("\n{} nearly:\n{}", row.account.account, near_misses(differs));
        }
    }
    for (id, names) in dangling {
        text += &format!(
            "\n{id}: no service account for {}: whoever creates it gets the identity\n",
            quoted(names)
        );
        text += "  hint: `signpost federate apply --cluster --remove-dangling` removes them\n";
    }
    for (id, others) in others {
        text += &format!("\n{id}: others\n{}", table(&others.iter().map(other).collect::<Vec<_>>()));
    }
    for (id, error) in &found.unasked {
        text += &format!("\n{id}: not asked: {}\n", redact(&error.to_string()));
        text += &error.hint().map_or_else(String::new, |hint| format!("  hint: {hint}\n"));
    }
    text
}

fn row(row: &AccountRow) -> [String; 4] {
    let entra = match &row.trust {
        Trust::Trusted { credential } => format!("trusted: {credential}"),
        Trust::OtherAudience { credential, audiences } => {
            format!("{credential} has audience {}", audiences.join(", "))
        }
        Trust::Nearly { credential, .. } => format!("nearly: {credential}"),
        Trust::Missing => "no credential".to_owned(),
        Trust::NoClientId => "no annotation azure.workload.identity/client-id".to_owned(),
        Trust::Unknown => "unknown".to_owned(),
    };
    let account = &row.account;
    let pods = match (account.labelled_pods, account.pods) {
        (labelled, all) if labelled == all => all.to_string(),
        (labelled, all) => format!("{labelled} of {all} labelled"),
    };
    let client_id = account.client_id.clone().unwrap_or_else(|| "-".to_owned());
    [account.account.to_string(), pods, client_id, entra].map(|it| printable(&it).into_owned())
}

fn other(other: &OtherCredential) -> [String; 3] {
    let subject = other.subject.as_deref().or(other.expression.as_deref()).unwrap_or_default();
    [format!("  {}", other.name), subject.to_owned(), redact(&other.issuer).into_owned()]
        .map(|it| printable(&it).into_owned())
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("`{}`", printable(name))).collect::<Vec<_>>().join(", ")
}
