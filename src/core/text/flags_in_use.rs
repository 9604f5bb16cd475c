//! Completes the commands in hints with the flags that this process was started with.

/// The flags that select issuers, keys and targets, and whether a command that only reads the data directory
/// has them too.
const MEANING: [(&str, bool); 6] = [
    ("--config", true),
    ("--data-dir", true),
    ("--issuer", false),
    ("--source", false),
    ("--target", false),
    ("--profile", false),
];

/// The flags of this process that a suggested command needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlagsInUse {
    publishing: String,
    looking: String,
}

impl FlagsInUse {
    /// Selects them from the arguments of a process.
    #[must_use]
    pub fn of(arguments: impl IntoIterator<Item = String>) -> Self {
        let mut in_use = Self::default();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next().filter(|argument| argument != "--") {
            let (name, value) = match argument.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (argument, None),
            };
            let Some((name, looks)) = MEANING.into_iter().find(|(it, _)| *it == name) else { continue };
            let Some(value) = value.or_else(|| arguments.next()) else { break };
            let flag = format!(" {name} {}", quoted(&value));
            in_use.publishing += &flag;
            if looks {
                in_use.looking += &flag;
            }
        }
        in_use
    }

    /// Adds these flags to each signpost command in a text that accepts them.
    #[must_use]
    pub fn complete(&self, text: &str) -> String {
        let mut completed = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, command)) = rest.split_once("`signpost ") {
            let end = command.find('`').unwrap_or(command.len());
            let words = match command[..end].split(' ').next() {
                Some("sync" | "run") => Some((1, &self.publishing)),
                Some("ledger" | "rotate") => Some((2, &self.looking)),
                _ => None,
            };
            let (at, flags) = words.map_or((0, ""), |(count, flags)| {
                let word = command[..end].match_indices(' ').nth(count - 1);
                (word.map_or(end, |(at, _)| at), flags.as_str())
            });
            completed += before;
            completed += "`signpost ";
            completed += &command[..at];
            completed += flags;
            rest = &command[at..];
        }
        completed + rest
    }
}

/// Quotes a value for a shell.
fn quoted(value: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,@%+".contains(c);
    if !value.is_empty() && value.chars().all(is_plain) {
        value.to_owned()
    } else {
        format!("'{}'", value.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::FlagsInUse;

    fn of(arguments: &[&str]) -> FlagsInUse {
        FlagsInUse::of(arguments.iter().map(|argument| (*argument).to_owned()))
    }

    #[test]
    fn a_command_is_advised_with_the_flags_in_use() {
        let file = of(&["run", "--log", "debug", "--config", "/etc/signpost.yaml"]);
        assert_eq!(
            file.complete("or run `signpost sync --adopt`; see `signpost ledger adopt -- KID`"),
            "or run `signpost sync --config /etc/signpost.yaml --adopt`; see \
             `signpost ledger adopt --config /etc/signpost.yaml -- KID`"
        );
        let flags =
            of(&["sync", "--issuer=https://a.example", "--source", "a b.pub", "--target", "az://a/$web"]);
        let sync = "`signpost sync --issuer https://a.example --source 'a b.pub' --target 'az://a/$web'`";
        assert_eq!(flags.complete("run `signpost sync`"), format!("run {sync}"));
        assert_eq!(flags.complete("`signpost rotate status` says"), "`signpost rotate status` says");
    }

    #[test]
    fn what_is_no_such_command_stays_as_it_is() {
        let file = of(&["sync", "--config", "it's.yaml", "--", "--issuer", "x"]);
        for text in
            ["nothing", "`signpost", "`signpost token`", "`signpost config schema` and `az login`", ""]
        {
            assert_eq!(file.complete(text), text);
        }
        assert_eq!(file.complete("`signpost sync"), r"`signpost sync --config 'it'\''s.yaml'");
        assert_eq!(of(&["sync", "--config"]).complete("`signpost sync`"), "`signpost sync`");
    }
}
