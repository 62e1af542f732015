//! The closing table.

use std::{fmt::Write as _, path::Path};

use super::outcome::Ended;
use crate::{
    report::{Run, Verdict},
    services::media_server::Kind,
};

/// The table with its head, ready to print.
pub(super) fn render<'a>(rows: impl Iterator<Item = &'a Ended>, media_server: Kind) -> String {
    let head = ["scenario", "result", "time", "media server", "page"].map(str::to_owned);
    let mut lines = vec![head];
    let mut reasons = String::new();
    for row in rows {
        let result = match row.verdict {
            Verdict::Passed => "passed",
            Verdict::Skipped => "SKIPPED",
            Verdict::Failed | Verdict::Unknown => "FAILED",
        };
        if let Some(reason) = &row.skipped {
            let _ = writeln!(reasons, "{} was skipped: {reason}", row.name);
        }
        let failed = |run: &&Run| run.part.verdict == Verdict::Failed;
        let page = row.runs.iter().find(failed).or(row.runs.first());
        lines.push([
            row.name.to_owned(),
            result.to_owned(),
            format!("{:.1} s", row.took.as_secs_f64()),
            media_server.to_string(),
            page.map(|run| run.page.clone()).unwrap_or_default(),
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
    for [name, result, time, server, page] in &lines {
        let [w0, w1, w2, w3] = widths;
        let line = format!("{name:w0$}  {result:w1$}  {time:>w2$}  {server:w3$}  {page}");
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
    use std::time::Duration;

    use super::*;

    #[test]
    fn columns_are_aligned_and_what_did_not_pass_stands_out() {
        let row = |name: &'static str, verdict, ms, skipped: Option<&str>| Ended {
            name,
            verdict,
            skipped: skipped.map(str::to_owned),
            took: Duration::from_millis(ms),
            runs: vec![Run {
                page: format!("{name}/report.html"),
                ..Run::default()
            }],
            ..Ended::default()
        };
        let rows = [
            row("full_pipeline", Verdict::Passed, 68_440, None),
            row("av_sync", Verdict::Failed, 9_000, None),
            row("python_sts", Verdict::Skipped, 0, Some("no python")),
        ];
        assert_eq!(
            render(rows.iter(), Kind::Default),
            "\n\
             scenario       result     time  media server  page\n\
             full_pipeline  passed   68.4 s  default       full_pipeline/report.html\n\
             av_sync        FAILED    9.0 s  default       av_sync/report.html\n\
             python_sts     SKIPPED   0.0 s  default       python_sts/report.html\n\
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
