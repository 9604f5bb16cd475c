//! Arguments, run, exit code.

use signpost::cli::{self, error_report::ExitStatus};

fn main() -> ExitStatus {
    cli::run()
}
