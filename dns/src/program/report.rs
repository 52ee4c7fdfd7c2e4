//! What a command has to say. Takes text for standard output and errors and warnings for standard error, prints them
//! and returns the exit code. Called by every command.

use std::io::Write;
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};

const ERROR: Style = AnsiColor::Red.on_default().bold();
const WARNING: Style = AnsiColor::Yellow.on_default().bold();

/// What a command has to say.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// For standard output.
    pub(crate) output: String,
    /// For standard error; any makes the exit code 1.
    pub(crate) errors: Vec<String>,
    /// For standard error.
    pub(crate) warnings: Vec<String>,
    /// Whether errors and warnings stand in the output already.
    pub(crate) silent: bool,
    /// Whether the command was used wrongly: the exit code is 2.
    pub(crate) misused: bool,
    /// Whether what was asked after isn't well: the exit code is 1, without an error of this command.
    pub(crate) is_unwell: bool,
}

impl Report {
    /// Nothing but output.
    pub(crate) fn fine(output: impl Into<String>) -> Self {
        Self { output: output.into(), ..Self::default() }
    }

    /// Nothing but one error.
    pub(crate) fn error(error: impl ToString) -> Self {
        Self::failed([error])
    }

    /// Arguments that don't go together, which the parser of arguments can't see.
    pub(crate) fn misuse(error: impl ToString) -> Self {
        Self { misused: true, ..Self::error(error) }
    }

    /// Nothing but errors.
    pub(crate) fn failed<E: ToString>(errors: impl IntoIterator<Item = E>) -> Self {
        Self { errors: errors.into_iter().map(|error| error.to_string()).collect(), ..Self::default() }
    }

    /// Prints everything and gives the exit code. Colours only on a terminal, and not with `NO_COLOR`.
    pub(crate) fn print(&self) -> ExitCode {
        if !self.silent {
            let mut out = anstream::stderr().lock();
            let lines = |errors: &mut dyn Write| -> std::io::Result<()> {
                for error in &self.errors {
                    writeln!(errors, "{ERROR}error{ERROR:#}: {error}")?;
                }
                for warning in &self.warnings {
                    writeln!(errors, "{WARNING}warning{WARNING:#}: {warning}")?;
                }
                Ok(())
            };
            // Nobody is left to be told that standard error is closed.
            let _ = lines(&mut out);
        }
        print(&self.output);
        ExitCode::from(self.code())
    }

    /// 0 fine, 1 errors found, 2 wrong usage.
    pub(crate) fn code(&self) -> u8 {
        if self.misused { 2 } else { u8::from(!self.errors.is_empty() || self.is_unwell) }
    }
}

/// Prints to standard output; a reader that went away (`| head`) is no error.
fn print(text: &str) {
    let mut out = anstream::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
