//! Documents say what the code does: metric names, options, commands, links.

use std::collections::BTreeMap;

use clap::CommandFactory as _;

use super::{Tree, Violation, pattern};
use crate::flags::Cli;

const METRICS_DOC: &str = "docs/ref/metrics.md";
const METRICS_CODE: &[&str] = &["worker/src/telemetry/names.rs"];
const CONFIG_DOC: &str = "docs/ref/config.md";
const CONFIG_CODE: &[&str] = &["worker/src/cli.rs", "echo-sts/src/config.rs"];
const EXIT_DOC: &str = "docs/ref/exit-codes.md";
const EXIT_CODE: &str = "worker/src/exit.rs";

/// docs/ref/metrics.md and telemetry/names.rs name the same metrics.
pub(super) fn metrics_are_documented(tree: &Tree) -> Vec<Violation> {
    same_names(
        tree,
        METRICS_DOC,
        METRICS_CODE,
        r"worker_[a-z0-9_]+",
        "metric",
    )
}

/// docs/ref/config.md and the command line know the same environment variables.
pub(super) fn options_are_documented(tree: &Tree) -> Vec<Violation> {
    let option = r"(?:WORKER|ECHO_STS|LOG)_[A-Z0-9_]*[A-Z0-9]";
    same_names(tree, CONFIG_DOC, CONFIG_CODE, option, "option")
}

/// docs/ref/exit-codes.md and exit.rs know the same exit codes of the worker.
pub(super) fn exit_codes_are_documented(tree: &Tree) -> Vec<Violation> {
    let mut in_code = BTreeMap::new();
    for (index, line) in tree.get(EXIT_CODE).unwrap_or_default().lines().enumerate() {
        if let Some((_, rest)) = line.trim().split_once(": u8 = ")
            && let Ok(code) = rest.trim_end_matches(';').parse::<u8>()
        {
            in_code.insert(code, index + 1);
        }
    }
    if in_code.is_empty() {
        return Vec::new();
    }
    let lines = tree.get(EXIT_DOC).unwrap_or_default().lines().enumerate();
    let in_document: BTreeMap<u8, usize> = lines
        .skip_while(|(_, line)| !line.starts_with("## `worker`"))
        .skip(1)
        .take_while(|(_, line)| !line.starts_with("## "))
        .filter_map(|(index, line)| Some((line.split('|').nth(1)?.trim().parse().ok()?, index + 1)))
        .collect();
    let undocumented = in_code
        .iter()
        .filter(|(code, _)| !in_document.contains_key(code));
    let gone = in_document
        .iter()
        .filter(|(code, _)| !in_code.contains_key(code));
    undocumented
        .map(|(code, &line)| {
            let message = format!("exit code {code} is not in {EXIT_DOC}; describe it there");
            Violation::new(EXIT_CODE, line, message)
        })
        .chain(gone.map(|(code, &line)| {
            let message = format!("the worker has no exit code {code}; take it out");
            Violation::new(EXIT_DOC, line, message)
        }))
        .collect()
}

/// Compares what a document has in backticks with the string literals of the code.
fn same_names(
    tree: &Tree,
    document: &str,
    code: &[&str],
    name: &str,
    what: &str,
) -> Vec<Violation> {
    let literal = pattern(&format!("\"({name})\""));
    let mut in_code = BTreeMap::new();
    for path in code {
        for (number, line) in (1..).zip(tree.get(path).unwrap_or_default().lines()) {
            for found in literal.captures_iter(line) {
                in_code
                    .entry(found[1].to_owned())
                    .or_insert((*path, number));
            }
        }
    }
    if in_code.is_empty() {
        return Vec::new(); // The code is not there (yet); nothing to compare with.
    }
    let Some(text) = tree.get(document) else {
        return vec![Violation::new(document, 0, "is missing")];
    };
    let whole = pattern(&format!("^{name}$"));
    let mut in_document = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        for name in backticked(line).filter(|text| whole.is_match(text)) {
            in_document.entry(name.to_owned()).or_insert(index + 1);
        }
    }
    let mut violations = Vec::new();
    for (name, (path, line)) in &in_code {
        if !in_document.contains_key(name) {
            let message = format!("{what} `{name}` is not in {document}; describe it there");
            violations.push(Violation::new(*path, *line, message));
        }
    }
    for (name, line) in &in_document {
        if !in_code.contains_key(name) {
            let message = format!(
                "{what} `{name}` does not exist in {}; take it out",
                code.join(" or ")
            );
            violations.push(Violation::new(document, *line, message));
        }
    }
    violations
}

/// Every `cargo xtask …` in a document is a command that exists, with options that exist.
pub(super) fn commands_exist(tree: &Tree) -> Vec<Violation> {
    let cli = Cli::command();
    let mut violations = Vec::new();
    for (path, text) in tree.with_extension("md") {
        for (index, line) in text.lines().enumerate() {
            for usage in line.split("cargo xtask ").skip(1) {
                let usage = usage
                    .split(['`', '#', '|', ';', '&', '"', ')'])
                    .next()
                    .unwrap_or_default();
                let mut tokens = usage.split_whitespace();
                let name = tokens
                    .next()
                    .unwrap_or_default()
                    .trim_end_matches(['.', ',', ':']);
                if name.is_empty() || name.starts_with(['-', '<', '[', '…']) {
                    continue;
                }
                let Some(command) = cli.find_subcommand(name) else {
                    let message =
                        format!("there is no `cargo xtask {name}`; see `cargo xtask --help`");
                    violations.push(Violation::new(path, index + 1, message));
                    continue;
                };
                for token in tokens {
                    let token = token.trim_matches(['[', ']', ',', '.']);
                    let Some(option) = token.strip_prefix("--") else {
                        continue;
                    };
                    let option = option.split('=').next().unwrap_or_default();
                    let known = option.is_empty()
                        || option == "help"
                        || command
                            .get_arguments()
                            .any(|a| a.get_long() == Some(option));
                    if !known {
                        let message = format!("`cargo xtask {name}` has no option --{option}");
                        violations.push(Violation::new(path, index + 1, message));
                    }
                }
            }
        }
    }
    violations
}

/// Relative links in Markdown lead to files of the checkout.
pub(super) fn links_lead_somewhere(tree: &Tree) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (path, text) in tree.with_extension("md") {
        for (index, line) in text.lines().enumerate() {
            for link in line.split("](").skip(1) {
                let target = link.split([')', '#', ' ']).next().unwrap_or_default();
                if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                    continue;
                }
                if !tree.paths.contains(&resolve(path, target)) {
                    let message = format!("the link to {target} leads nowhere");
                    violations.push(Violation::new(path, index + 1, message));
                }
            }
        }
    }
    violations
}

/// A link seen from its document, as a path from the root.
fn resolve(document: &str, target: &str) -> String {
    let mut parts: Vec<&str> = match target.strip_prefix('/') {
        Some(_) => Vec::new(),
        None => document
            .split('/')
            .rev()
            .skip(1)
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
            .collect(),
    };
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    parts.join("/")
}

pub(super) fn backticked(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_that_code_and_document_disagree_on_are_told() {
        let tree = Tree::planted([
            (
                METRICS_CODE[0],
                "pub const A: &str = \"worker_a_total\";\npub const B: &str = \"worker_b\";\nconst C: &str = \"stream_id\";\n",
            ),
            (
                METRICS_DOC,
                "| `worker_a_total` | counter |\n\n| `worker_gone_ms` | gauge |\n",
            ),
        ]);
        let violations = metrics_are_documented(&tree);
        assert_eq!(violations.len(), 2);
        assert_eq!(
            (violations[0].file.as_str(), violations[0].line),
            (METRICS_CODE[0], 2)
        );
        assert_eq!(
            (violations[1].file.as_str(), violations[1].line),
            (METRICS_DOC, 3)
        );
    }

    #[test]
    fn options_that_code_and_document_disagree_on_are_told() {
        let tree = Tree::planted([
            (
                CONFIG_CODE[0],
                "#[arg(long, env = \"WORKER_NEW\")]\nx: u8,\n#[arg(env = \"LOG_LEVEL\")]\n",
            ),
            (CONFIG_DOC, "`--x`, `WORKER_OLD`\n`LOG_LEVEL`\n"),
        ]);
        let violations = options_are_documented(&tree);
        assert_eq!(violations.len(), 2);
        assert!(violations[0].message.contains("`WORKER_NEW`"));
        assert!(violations[1].message.contains("`WORKER_OLD`"));
    }

    #[test]
    fn exit_codes_that_code_and_document_disagree_on_are_told() {
        let tree = Tree::planted([
            (
                EXIT_CODE,
                "pub const OK: u8 = 0;\npub const NEW: u8 = 15;\n",
            ),
            (
                EXIT_DOC,
                "## `worker`\n| code | meaning |\n| 0 | ok |\n| 12 | gone |\n## other\n| 3 | x |\n",
            ),
        ]);
        let violations = exit_codes_are_documented(&tree);
        let told: Vec<_> = violations
            .iter()
            .map(|v| (v.file.as_str(), v.line))
            .collect();
        assert_eq!(told, [(EXIT_CODE, 2), (EXIT_DOC, 4)]);
    }

    #[test]
    fn commands_that_do_not_exist_are_told() {
        let tree = Tree::planted([(
            "README.md",
            "`cargo xtask e2e full_pipeline --bless`, `cargo xtask soak --runs 20`\n\
             run `cargo xtask deploy` now\n`cargo xtask demo --speed 2`\n`cargo xtask --help`\n",
        )]);
        let violations = commands_exist(&tree);
        let told: Vec<_> = violations
            .iter()
            .map(|v| (v.line, v.message.as_str()))
            .collect();
        assert_eq!(
            told,
            [
                (
                    2,
                    "there is no `cargo xtask deploy`; see `cargo xtask --help`"
                ),
                (3, "`cargo xtask demo` has no option --speed"),
            ]
        );
    }

    #[test]
    fn links_to_nothing_are_told() {
        let tree = Tree::planted([
            (
                "docs/ref/config.md",
                "[up](../../README.md) [out](https://example.org) [here](#x)\n",
            ),
            (
                "README.md",
                "[config](docs/ref/config.md#a)\n[gone](docs/gone.md)\n[folder](docs/ref)\n",
            ),
        ]);
        let violations = links_lead_somewhere(&tree);
        assert_eq!(violations.len(), 1);
        assert_eq!(
            (violations[0].file.as_str(), violations[0].line),
            ("README.md", 2)
        );
    }
}
