//! Secrets that every scenario carries, and the check that looks for them in everything it leaves.

use std::path::Path;

use crate::failure::Failure;

/// Who logs in by the URLs of input and output.
pub const USER: &str = "someone";
/// Password in the URLs of input and output.
pub const PASSWORD: &str = "hunter2-must-not-be-seen";
/// Stream key in the URL of the output.
pub const KEY: &str = "stream-key-must-not-be-seen";
/// Token for the STS service.
pub const TOKEN: &str = "token-must-not-be-seen";
/// A password that is refused; it may be somebody's all the same.
pub const WRONG: &str = "wrong-and-must-not-be-seen";

const ALL: [&str; 4] = [PASSWORD, KEY, TOKEN, WRONG];
/// What these write down of their own guests is not ours to hide.
const OTHERS: [&str; 2] = ["nginx", "mediamtx"];
/// Text that is left behind; the rest is media.
const TEXTS: [&str; 8] = ["log", "json", "jsonl", "txt", "html", "xml", "vtt", "yml"];

/// A URL with a user and the password.
pub fn with_login(url: &str) -> String {
    url.replacen("://", &format!("://{USER}:{PASSWORD}@"), 1)
}

/// A URL with the stream key behind it.
pub fn with_key(url: &str) -> String {
    format!("{url}?key={KEY}")
}

/// Text without the secrets.
pub fn hidden(text: &str) -> String {
    ALL.iter()
        .fold(text.to_owned(), |text, secret| text.replace(secret, "***"))
}

/// Every line in the files of a directory that shows a secret.
pub fn shown(directory: &Path) -> Vec<Failure> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut found = Vec::new();
    for path in entries.map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let kind = path.extension().unwrap_or_default().to_string_lossy();
        let is_text = TEXTS.iter().any(|it| kind == *it);
        if !is_text || OTHERS.iter().any(|it| name.starts_with(it)) {
            continue;
        }
        let text = std::fs::read(&path).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines = (1..).zip(text.lines());
        let first = lines
            .filter(|(_, line)| ALL.iter().any(|secret| line.contains(secret)))
            .take(1);
        found.extend(first.map(|(number, line)| {
            Failure::new(format!("line {number} of {name} shows a secret"))
                .expected("***")
                .actual(hidden(line).replace("***", "<the secret>"))
        }));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_found_wherever_the_product_writes_it() {
        let directory = tempfile::tempdir().unwrap();
        let write =
            |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
        let url = with_key(&with_login("rtmp://host/live/out"));
        write("worker.log", &format!("starting\noutput {url} refused\n"));
        write("report.html", "nothing");
        write("nginx-error.log", &url);
        write("output.flv", KEY);
        let found = shown(directory.path());
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].what, "line 2 of worker.log shows a secret");
        assert!(
            ALL.iter()
                .all(|secret| !found[0].to_string().contains(secret))
        );
        for (name, secret) in [
            ("journal.jsonl", TOKEN),
            ("metrics.txt", PASSWORD),
            ("worker.log", KEY),
            ("s1.log", WRONG),
        ] {
            let directory = tempfile::tempdir().unwrap();
            std::fs::write(directory.path().join(name), secret).unwrap();
            assert_eq!(shown(directory.path()).len(), 1, "{name}");
        }
    }
}
