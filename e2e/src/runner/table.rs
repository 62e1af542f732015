//! The closing table.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use super::verdict::Verdict;

/// One scenario.
#[derive(Debug)]
pub(super) struct Row {
    pub name: String,
    pub verdict: Verdict,
    pub took: Duration,
    pub media_server: String,
    pub artifacts: Vec<PathBuf>,
}

/// The table with its head, ready to print.
pub(super) fn render<'a>(rows: impl Iterator<Item = &'a Row>) -> String {
    let head = ["scenario", "result", "time", "media server", "logs"].map(str::to_owned);
    let mut lines = vec![head];
    let mut reasons = String::new();
    for row in rows {
        let result = match &row.verdict {
            Verdict::Passed => "passed",
            Verdict::Skipped(reason) => {
                let _ = writeln!(reasons, "{} was skipped: {reason}", row.name);
                "SKIPPED"
            }
            Verdict::Failed(_) => "FAILED",
        };
        let logs: Vec<_> = row.artifacts.iter().map(|dir| short(dir)).collect();
        lines.push([
            row.name.clone(),
            result.to_owned(),
            format!("{:.1} s", row.took.as_secs_f64()),
            row.media_server.clone(),
            logs.join(" "),
        ]);
    }
    let width = |column: usize| {
        lines
            .iter()
            .map(|line| line[column].len())
            .max()
            .unwrap_or(0)
    };
    let widths = [0, 1, 2, 3].map(width);
    let mut text = String::from("\n");
    for [name, result, time, server, logs] in &lines {
        let [w0, w1, w2, w3] = widths;
        let line = format!("{name:w0$}  {result:w1$}  {time:>w2$}  {server:w3$}  {logs}");
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text + &reasons + "\n"
}

/// A path relative to the working directory where it is inside it.
pub(super) fn short(path: &Path) -> String {
    let whole = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let here = std::env::current_dir().ok();
    // Cargo runs tests in the package's directory; a person stands in the workspace.
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map(Path::to_owned);
    let inside = [here, workspace]
        .into_iter()
        .flatten()
        .find_map(|dir| whole.strip_prefix(dir).ok().map(Path::to_owned));
    inside.unwrap_or(whole).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_what_did_not_pass_stands_out() {
        let row = |name: &str, verdict, ms, dir: &str| Row {
            name: name.into(),
            verdict,
            took: Duration::from_millis(ms),
            media_server: "default".into(),
            artifacts: vec![dir.into()],
        };
        let rows = [
            row("full_pipeline", Verdict::Passed, 68_440, "/a/full_pipeline"),
            row(
                "av_sync",
                Verdict::Failed("late".into()),
                9_000,
                "/a/av_sync",
            ),
            row("python_sts", Verdict::Skipped("no python".into()), 0, ""),
        ];
        assert_eq!(
            render(rows.iter()),
            "\n\
             scenario       result     time  media server  logs\n\
             full_pipeline  passed   68.4 s  default       /a/full_pipeline\n\
             av_sync        FAILED    9.0 s  default       /a/av_sync\n\
             python_sts     SKIPPED   0.0 s  default\n\
             python_sts was skipped: no python\n\n"
        );
    }

    #[test]
    fn paths_in_the_workspace_are_short() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert_eq!(short(&here.join("src")), "src");
        assert_eq!(short(Path::new("/no/such/dir")), "/no/such/dir");
    }
}
