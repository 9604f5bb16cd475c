//! Confirmation of irreversible commands.

use std::io::{self, IsTerminal as _};

use clap::Args;

use super::{Failure, eprint};

#[derive(Args)]
pub(super) struct Confirm {
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

impl Confirm {
    /// For a command that needs it only at times.
    pub(super) fn new(yes: bool) -> Self {
        Self { yes }
    }

    /// Prints the warning, and asks for confirmation.
    pub(super) fn is_given(&self, warning: &str) -> Result<bool, Failure> {
        eprint(warning);
        if self.yes {
            return Ok(true);
        }
        if !io::stdin().is_terminal() {
            return Err(Failure::plain("confirmation needs a terminal", "pass `--yes` to confirm"));
        }
        eprint("Type `yes` to continue:");
        let mut answer = String::new();
        let read = io::stdin().read_line(&mut answer);
        read.map_err(|error| Failure::new(&error, Some("pass `--yes` to confirm")))?;
        let is_sure = answer.trim() == "yes";
        if !is_sure {
            eprint("nothing was changed");
        }
        Ok(is_sure)
    }
}
