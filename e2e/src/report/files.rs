//! The artifacts beside the page.

use std::path::Path;

use super::text::href;

/// A link to an artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileLink {
    /// Its name.
    pub(super) name: String,
    /// Relative link to it.
    pub(super) href: String,
    /// What it is.
    pub(super) about: &'static str,
    /// Its size.
    pub(super) bytes: u64,
}

/// Files of a directory that a reader may want, the most wanted first. What cannot be read is left
/// out: the page is about the run, not about the disk.
pub(super) fn list(directory: &Path, page: &str) -> Vec<FileLink> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let meta = entry.metadata().ok()?;
            let wanted = meta.is_file() && name != page && !name.starts_with('.');
            wanted.then(|| {
                (
                    rank(&name),
                    FileLink {
                        href: href(&name),
                        about: about(&name).1,
                        bytes: meta.len(),
                        name,
                    },
                )
            })
        })
        .collect();
    files.sort_by(|a, b| (a.0, &a.1.name).cmp(&(b.0, &b.1.name)));
    files.into_iter().map(|(_, file)| file).collect()
}

fn rank(name: &str) -> usize {
    about(name).0
}

/// How wanted a file is, and what it is.
fn about(name: &str) -> (usize, &'static str) {
    let stem = name.split('.').next().unwrap_or_default();
    let extension = name.rsplit('.').next().unwrap_or_default();
    match (stem, extension) {
        ("worker", "log") => (0, "log of the worker"),
        ("journal", _) => (1, "what went over the wire to STS"),
        ("output", _) => (2, "recording of the output"),
        ("metrics", _) => (3, "last metrics of the worker"),
        ("repro", _) => (4, "how to run it again"),
        (_, "flv" | "mp4" | "ts" | "mkv") => (5, "media"),
        (_, "log") => (6, "log"),
        (_, "html") => (7, "page"),
        _ => (8, "file"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_most_comes_first_and_names_are_links() {
        let directory = tempfile::tempdir().unwrap();
        for name in [
            "zed \"1\".bin",
            "worker.log",
            "echo-sts.log",
            "output.flv",
            "report.html",
            ".hidden",
        ] {
            std::fs::write(directory.path().join(name), "12345").unwrap();
        }
        std::fs::create_dir(directory.path().join("segments")).unwrap();
        let files = list(directory.path(), "report.html");
        let names: Vec<_> = files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(
            names,
            ["worker.log", "output.flv", "echo-sts.log", "zed \"1\".bin"]
        );
        assert_eq!(
            (files[3].href.as_str(), files[3].bytes),
            ("./zed%20%221%22.bin", 5)
        );
        assert_eq!(list(Path::new("/no/such/place"), "x"), []);
    }
}
