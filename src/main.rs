//! Arguments, run, exit code.

use signpost::cli::{self, report::Outcome};

fn main() -> Outcome {
    cli::run()
}
