//! What people see while a run works: a bar on a terminal, problems on standard error, nothing else.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::arguments::Global;
use crate::observer::{Counter, Ledger, Observer, Problem};

/// Tells people, and counts into a ledger.
pub(super) struct Terminal {
    ledger: Arc<Ledger>,
    bar: ProgressBar,
    verbose: bool,
}

impl Terminal {
    pub(super) fn new(global: &Global, ledger: Arc<Ledger>) -> Self {
        let wanted = !global.quiet && !global.no_progress && !global.json && std::io::stderr().is_terminal();
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        if wanted {
            bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(8));
            bar.set_style(spinner());
            bar.enable_steady_tick(Duration::from_millis(250));
        }
        Self { ledger, bar, verbose: global.verbose }
    }

    /// Removes the bar.
    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }

    fn line(&self, text: &str) {
        self.bar.suspend(|| {
            let _nowhere_to_tell = writeln!(std::io::stderr(), "{text}");
        });
    }
}

fn spinner() -> ProgressStyle {
    style("{spinner} {msg}  {bytes}  {bytes_per_sec}  {elapsed}")
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl Observer for Terminal {
    fn count(&self, counter: Counter, n: u64) {
        self.ledger.count(counter, n);
        if matches!(counter, Counter::BytesRead | Counter::BytesRestored | Counter::BytesChecked) {
            self.bar.inc(n);
        }
    }

    fn stage(&self, what: &str) {
        self.bar.set_style(spinner());
        self.bar.set_position(0);
        self.bar.set_message(what.to_owned());
    }

    fn expect(&self, bytes: u64, _files: u64) {
        self.bar.set_length(bytes);
        self.bar.set_style(style("{msg}  {bar:30}  {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left"));
    }

    fn problem(&self, problem: Problem) {
        self.line(&format!("problem: {}: {}", problem.subject, problem.message));
        self.ledger.problem(problem);
    }

    fn notice(&self, line: &str) {
        self.line(line);
    }

    fn detail(&self, line: &str) {
        if self.verbose {
            self.line(line);
        }
    }
}
