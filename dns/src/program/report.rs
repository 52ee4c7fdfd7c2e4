//! The result of a command. Takes text for standard output, and errors and warnings for standard error; prints them and
//! returns the exit code. Called by every command.

use std::io::Write;
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};

const ERROR: Style = AnsiColor::Red.on_default().bold();
const WARNING: Style = AnsiColor::Yellow.on_default().bold();

/// The result of a command.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// The text for standard output.
    pub(crate) output: String,
    /// The errors, for standard error. With any error, the exit code is 1.
    pub(crate) errors: Vec<String>,
    /// The warnings, for standard error.
    pub(crate) warnings: Vec<String>,
    /// Whether the output has the errors and warnings already, so that they aren't printed to standard error.
    pub(crate) silent: bool,
    /// Whether the command was used wrongly. Then the exit code is 2.
    pub(crate) misused: bool,
    /// Whether the command found a problem that it was asked to look for. Then the exit code is 1, without an error.
    pub(crate) is_unwell: bool,
}

impl Report {
    /// A result with nothing but output.
    pub(crate) fn fine(output: impl Into<String>) -> Self {
        Self { output: output.into(), ..Self::default() }
    }

    /// A result with nothing but one error.
    pub(crate) fn error(error: impl ToString) -> Self {
        Self::failed([error])
    }

    /// The result of wrong usage that the parser of arguments can't detect, such as arguments that exclude each other.
    pub(crate) fn misuse(error: impl ToString) -> Self {
        Self { misused: true, ..Self::error(error) }
    }

    /// A result with nothing but errors.
    pub(crate) fn failed<E: ToString>(errors: impl IntoIterator<Item = E>) -> Self {
        Self { errors: errors.into_iter().map(|error| error.to_string()).collect(), ..Self::default() }
    }

    /// Prints everything, and returns the exit code. Colours are used only on a terminal and without `NO_COLOR`.
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
            // If standard error is closed, the error can't be reported anywhere.
            let _ = lines(&mut out);
        }
        print(&self.output);
        ExitCode::from(self.code())
    }

    /// The exit code: 0 fine, 1 errors or problems found, 2 wrong usage.
    pub(crate) fn code(&self) -> u8 {
        if self.misused { 2 } else { u8::from(!self.errors.is_empty() || self.is_unwell) }
    }
}

/// Prints to standard output. A reader that has closed the pipe, such as `head`, is no error.
pub(crate) fn print(text: &str) {
    let mut out = anstream::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
