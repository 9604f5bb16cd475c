//! Arguments, run, exit code.

use signpost::cli::{self, report::ExitStatus};

fn main() -> ExitStatus {
    cli::run()
}
