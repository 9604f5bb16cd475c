//! How good the predictions are, as documentation.

use std::collections::BTreeSet;

use signpost::core::verification::{Agreement, Level};

use super::Compared;

const HEAD: &str = "\
# How good the predictions are

Written by `make reference`: `signpost verify` is run on every situation of
[tests/ground_truth](../tests/ground_truth/README.md), each of which somebody has met, and compared with the answer that
Microsoft Entra really gave. `make test` fails if fewer than 85 % of the first answers or 95 % of all named ones are right,
if a token is predicted to be accepted that was refused, or one to be refused that was accepted by more than hearsay.

*first*: the likely first error is the answer, or both accept; *listed*: the answer is among the other predicted ones;
*warned*: acceptance is predicted, with a warning that names the answer; *open*: no verdict, and the answer is not named;
*missed*: other errors are predicted; *false red*: an error is predicted, and Entra accepted; *false green*: acceptance is
predicted, and Entra refused. *Hidden* situations are decided by something that no evidence shows: a policy of the tenant,
whether a secret is right.

";

const BEFORE: &str = "
## Measured blind

The table above is no measurement of situations that are new: predictions were corrected by these. Two were.

The first 263 situations were written before the predictions were looked at. The version before them, given what it
could be given, was first in 86 of the 227 that are not hidden, named 16 more, predicted acceptance of 59 that Entra
refused, and refusal of 15 that it accepted.

61 more were written after the predictions were corrected by the first, from other reports, and without a look at the
predictions. Of the 53 that are not hidden, 35 were first, 9 more named, 5 missed; acceptance was predicted of 2 that
Entra refused, and refusal of 2 that it accepted. Most of the others had one cause: credentials were compared although a
secret was sent. One of the 61 was left out, because Entra has changed since, and one was a repetition.
";

fn count(all: &[&Compared], of: Agreement) -> usize {
    all.iter().filter(|it| it.agreement == of).count()
}

fn row(name: &str, all: &[&Compared]) -> String {
    let counts: Vec<_> = Agreement::ALL.iter().map(|of| count(all, *of).to_string()).collect();
    format!("| {name} | {} | {} |\n", all.len(), counts.join(" | "))
}

/// The numbers, by folder.
pub(super) fn table(all: &[Compared]) -> String {
    let folder = |it: &Compared| it.case.name.split('/').next().unwrap_or_default().to_owned();
    let folders: BTreeSet<_> = all.iter().map(folder).collect();
    let (hidden, shown): (Vec<_>, Vec<_>) = all.iter().partition(|it| it.case.situation.hidden.is_some());
    let mut text =
        "| about | situations | first | listed | warned | open | missed | false red | false green |\n\
                    |---|---|---|---|---|---|---|---|---|\n"
            .to_owned();
    for name in folders {
        let of_folder: Vec<_> = shown.iter().copied().filter(|it| folder(it) == name).collect();
        text += &row(&name, &of_folder);
    }
    text += &row("**all that can be shown**", &shown);
    text + &row("hidden", &hidden)
}

/// A situation whose prediction is not the answer, in one line.
pub(super) fn line(it: &Compared) -> String {
    let answer =
        it.case.situation.answer.code().map_or("accepted".to_owned(), |code| format!("AADSTS{code}"));
    let findings = it.report.findings.iter().filter(|finding| finding.level != Level::Note);
    let predicted: Vec<_> = findings
        .filter_map(|finding| Some(format!("`{}` AADSTS{}", finding.id, finding.predicted_codes.first()?)))
        .collect();
    let hidden = it.case.situation.hidden.map_or("", |_| ", hidden");
    format!(
        "| {} | {answer} ({}{hidden}) | {}: {} |",
        it.case.situation.situation,
        format!("{:?}", it.case.situation.certainty).to_lowercase(),
        it.report.outcome.name(),
        predicted.join(", ")
    )
}

/// The whole page.
pub(super) fn page(all: &[Compared]) -> String {
    let mut others: Vec<_> = all.iter().filter(|it| it.agreement != Agreement::First).collect();
    others.sort_by_key(|it| (it.case.situation.hidden.is_some(), it.agreement));
    let lines: Vec<_> = others.iter().map(|it| line(it)).collect();
    format!(
        "{HEAD}{}{BEFORE}\n## Where the first prediction is not the answer\n\n| situation | Entra | predicted |\n|---|---|---|\n{}\n",
        table(all),
        lines.join("\n")
    )
}
