//! The house rules as code. Each rule looks at the tree as text and tells what is wrong, where,
//! and what to do; nothing here compiles or runs anything, so it takes a fraction of a second.

mod boundaries;
mod coverage;
mod documents;
mod files;
mod flake;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use regex::Regex;

/// A breach of a house rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Violation {
    file: String,
    /// 1-based; 0 when the whole file is meant.
    line: usize,
    /// What is wrong and what to do.
    message: String,
}

impl Violation {
    fn new(file: impl Into<String>, line: usize, message: impl Into<String>) -> Self {
        Self {
            file: file.into(),
            line,
            message: message.into(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.message),
            line => write!(f, "{}:{line}: {}", self.file, self.message),
        }
    }
}

/// The text files of the checkout, by path from its root.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    files: BTreeMap<String, String>,
    /// Everything that exists, text or not, for links.
    paths: std::collections::BTreeSet<String>,
}

/// What rules read; the rest (clips, archives) only counts as existing.
const TEXT: &[&str] = &[
    "rs", "md", "toml", "nix", "snap", "yml", "yaml", "lock", "json", "html",
];
/// Never part of the project.
const SKIPPED: &[&str] = &["target", ".git", "result", "node_modules", ".direnv"];

impl Tree {
    fn load(root: &Path) -> anyhow::Result<Self> {
        let mut tree = Self::default();
        tree.load_directory(root, "")?;
        Ok(tree)
    }

    fn load_directory(&mut self, directory: &Path, prefix: &str) -> anyhow::Result<()> {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = if prefix.is_empty() {
                name.clone()
            } else {
                format!("{prefix}/{name}")
            };
            let kind = entry.file_type()?;
            if kind.is_dir() {
                if !SKIPPED.contains(&name.as_str()) {
                    self.paths.insert(path.clone());
                    self.load_directory(&entry.path(), &path)?;
                }
            } else if kind.is_file() {
                let extension = name.rsplit_once('.').map_or("", |(_, e)| e);
                if TEXT.contains(&extension) {
                    let text = String::from_utf8_lossy(&fs::read(entry.path())?).into_owned();
                    self.files.insert(path.clone(), text);
                }
                self.paths.insert(path);
            }
        }
        Ok(())
    }

    fn get(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    /// Files whose path ends in `.extension`.
    fn with_extension(&self, extension: &str) -> impl Iterator<Item = (&str, &str)> {
        self.files
            .iter()
            .filter(move |(path, _)| path.rsplit_once('.').is_some_and(|(_, e)| e == extension))
            .map(|(path, text)| (path.as_str(), text.as_str()))
    }

    #[cfg(test)]
    fn planted<const N: usize>(files: [(&str, &str); N]) -> Self {
        let mut tree = Self::default();
        for (path, text) in files {
            tree.paths.insert(path.to_owned());
            let mut directory = path;
            while let Some((parent, _)) = directory.rsplit_once('/') {
                tree.paths.insert(parent.to_owned());
                directory = parent;
            }
            tree.files.insert(path.to_owned(), text.to_owned());
        }
        tree
    }
}

/// A house rule.
type Rule = fn(&Tree) -> Vec<Violation>;

const RULES: &[Rule] = &[
    boundaries::dependencies_stay_where_they_belong,
    boundaries::ffmpeg_is_called_in_one_place,
    boundaries::programs_are_looked_for,
    flake::covers_the_list,
    documents::metrics_are_documented,
    documents::options_are_documented,
    documents::exit_codes_are_documented,
    documents::commands_exist,
    documents::links_lead_somewhere,
    coverage::proofs_exist,
    files::files_stay_readable,
    files::snapshots_have_a_source,
];

/// A pattern written here.
#[expect(
    clippy::unwrap_used,
    reason = "a literal that does not compile fails every test of its rule"
)]
fn pattern(text: &str) -> Regex {
    Regex::new(text).unwrap()
}

/// `cargo xtask tidy`.
pub(crate) fn command() -> anyhow::Result<()> {
    let tree = Tree::load(&crate::root())?;
    let violations = check(&tree);
    for violation in &violations {
        crate::say::tell!("{violation}");
    }
    anyhow::ensure!(
        violations.is_empty(),
        "{} breaches of house rules",
        violations.len()
    );
    crate::say::tell!(
        "tidy: {} rules, {} files, all kept",
        RULES.len(),
        tree.files.len()
    );
    Ok(())
}

fn check(tree: &Tree) -> Vec<Violation> {
    let mut violations: Vec<_> = RULES.iter().flat_map(|rule| rule(tree)).collect();
    violations.sort();
    violations.dedup();
    violations
}

/// Snapshot files that are not in insta's record of a whole run (one path per line).
pub(crate) fn unused_snapshots(root: &Path, used: &str) -> anyhow::Result<Vec<String>> {
    Ok(files::unused_snapshots(&Tree::load(root)?, root, used))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checkout_itself_is_loaded_without_its_build_output() {
        let tree = Tree::load(&crate::root()).expect("readable");
        assert!(tree.get("xtask/src/tidy.rs").is_some());
        assert!(tree.files.keys().all(|path| !path.starts_with("target/")));
    }

    #[test]
    fn a_violation_reads_like_a_compiler_message() {
        let violation = Violation::new("a/b.rs", 7, "say why");
        assert_eq!(violation.to_string(), "a/b.rs:7: say why");
        assert_eq!(
            Violation::new("a/b.rs", 0, "say why").to_string(),
            "a/b.rs: say why"
        );
    }
}
