//! Finds the invocations of Signpost in documentation, as a shell would.

use super::markdown::Page;

/// Invocations in code blocks, which readers paste.
pub(super) fn pasted(page: &Page) -> Vec<Vec<String>> {
    let shell = page.blocks.iter().filter(|block| matches!(block.language.as_str(), "sh" | "console"));
    shell
        .flat_map(|block| {
            let code = block.text.replace("\\\n", " ");
            code.lines().flat_map(calls).collect::<Vec<_>>()
        })
        .collect()
}

/// Invocations in running text, which may show only a part of a command line.
pub(super) fn mentioned(page: &Page) -> Vec<Vec<String>> {
    page.inline_code.iter().flat_map(|code| calls(code)).collect()
}

/// The invocations of Signpost in one line: a line may have several, between pipes.
fn calls(line: &str) -> Vec<Vec<String>> {
    let words = words(line.trim().trim_start_matches("$ "));
    let commands = words.split(|word| matches!(word.as_str(), "|" | "&&" | ";" | "&"));
    commands
        .map(|command| {
            let is_set = |word: &&String| word.split_once('=').is_some_and(|(name, _)| is_variable(name));
            let command = command.iter().skip_while(is_set);
            command.take_while(|word| !word.starts_with('>') && !word.starts_with('<')).cloned().collect()
        })
        .filter(|command: &Vec<String>| command.first().is_some_and(|program| program == "signpost"))
        .collect()
}

fn is_variable(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
}

/// Splits at white space outside quotes and removes the quotes; a comment ends the line.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in line.chars() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, _) if c.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[test]
fn calls_are_found_between_pipes_and_behind_variables() {
    let found =
        calls("$ A=1 signpost token --audience 'a b' | signpost verify --token - > out # signpost no");
    assert_eq!(
        found,
        [vec!["signpost", "token", "--audience", "a b"], vec!["signpost", "verify", "--token", "-"]]
    );
}
