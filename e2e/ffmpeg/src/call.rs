//! A call: a program and its arguments, not started yet.

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context as _, Result, bail};

/// ffmpeg or ffprobe with all of its options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    program: &'static str,
    arguments: Vec<OsString>,
}

impl Call {
    /// ffmpeg that says nothing but errors, asks nothing and overwrites its output.
    pub(crate) fn ffmpeg() -> Self {
        Self::new("ffmpeg").with("-hide_banner -nostdin -nostats -y -v error -filter_threads 1")
    }

    /// ffmpeg that notes what passes its filters, each line with its level in front.
    pub(crate) fn telling_ffmpeg() -> Self {
        Self::new("ffmpeg")
            .with("-hide_banner -nostdin -nostats -y -v repeat+level+info -filter_threads 1")
    }

    /// ffprobe that says nothing but errors and what it is asked.
    pub(crate) fn ffprobe() -> Self {
        Self::new("ffprobe").with("-v error")
    }

    pub(crate) fn new(program: &'static str) -> Self {
        Self {
            program,
            arguments: Vec::new(),
        }
    }

    /// Adds options; none of them may hold a space.
    pub(crate) fn with(mut self, options: impl AsRef<str>) -> Self {
        let options = options.as_ref().split_whitespace();
        self.arguments.extend(options.map(OsString::from));
        self
    }

    /// Adds one argument as it is.
    pub(crate) fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds an input: a URL, or a file whose name may look like an option or a protocol. One thread decodes it:
    /// a few at low priority take as much from streams in real time as one at high priority.
    pub(crate) fn input(self, input: impl AsRef<OsStr>) -> Self {
        let input = input.as_ref();
        let input = if input.to_string_lossy().contains("://") {
            input.to_owned()
        } else {
            let mut file = OsString::from("file:");
            file.push(input);
            file
        };
        let call = if self.program == "ffmpeg" {
            self.with("-threads 1")
        } else {
            self
        };
        call.arg("-i").arg(input)
    }

    /// `ffmpeg` or `ffprobe`.
    pub fn program(&self) -> &'static str {
        self.program
    }

    /// Everything after the program's name.
    pub fn arguments(&self) -> &[OsString] {
        &self.arguments
    }

    /// The call as a command with an empty standard input and its output in pipes.
    pub fn command(&self) -> Command {
        let mut command = Command::new(self.program);
        command
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Starts it with its standard input open too.
    ///
    /// # Errors
    /// When it is not installed.
    pub fn listen(&self) -> Result<Child> {
        self.started(self.command().stdin(Stdio::piped()).spawn())
    }

    /// Runs it to its end; gives what it wrote to its standard output.
    ///
    /// # Errors
    /// When it is not installed, or fails: with what it said last.
    pub fn run(&self) -> Result<Vec<u8>> {
        self.outcome(self.started(self.command().output())?)
    }

    /// The same for what it wrote to its standard error.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn told(&self) -> Result<String> {
        let output = self.started(self.command().output())?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        self.outcome(output).map(|_| said)
    }

    /// The same with something on its standard input.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn feed(&self, input: &[u8]) -> Result<Vec<u8>> {
        let mut child = self.listen()?;
        let stdin = child.stdin.take();
        let output = std::thread::scope(|scope| {
            // A program that ends early says why by its exit status, not by the broken pipe.
            scope.spawn(|| stdin.map(|mut stdin| stdin.write_all(input)));
            child.wait_with_output()
        });
        self.outcome(output.with_context(|| format!("cannot wait for {}", self.program))?)
    }

    /// What a start gave, with the way to get the program where it is missing.
    ///
    /// # Errors
    /// When it did not start.
    pub fn started<T>(&self, result: std::io::Result<T>) -> Result<T> {
        result.with_context(|| {
            format!(
                "cannot start {} (is it installed? `cargo xtask setup`)",
                self.program
            )
        })
    }

    fn outcome(&self, output: Output) -> Result<Vec<u8>> {
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let lines = said.lines().map(str::trim);
            let last = lines.rev().find(|line| !line.is_empty());
            bail!(
                "{} fails: {}",
                self.program,
                last.unwrap_or("no reason given")
            );
        }
        Ok(output.stdout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_cannot_be_taken_for_options_or_protocols() {
        let call = Call::new("ffmpeg").input("-y").input("rtmp://h/a/b");
        let one = "-threads 1 -i file:-y -threads 1 -i rtmp://h/a/b";
        assert!(one.split(' ').eq(call.arguments()));
    }

    #[test]
    fn a_failure_says_what_the_program_said() {
        let error = Call::ffprobe().input("/nowhere/x").run().unwrap_err();
        assert!(error.to_string().contains("No such file"), "{error:#}");
        let error = Call::new("no-such-program").run().unwrap_err();
        assert!(error.to_string().contains("cargo xtask setup"), "{error:#}");
    }
}
