//! The program: words in, exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    compline::allocator::settle();
    compline::cli::run(std::env::args_os())
}
