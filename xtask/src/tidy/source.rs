//! Rust source seen just well enough: code without comments and strings, and the strings apart.

/// A string literal: the line it starts on, where it starts in the text, and what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Literal {
    pub(super) line: usize,
    pub(super) offset: usize,
    pub(super) value: String,
}

/// One file, taken apart.
#[derive(Debug)]
pub(super) struct Source {
    /// The text with comments and the insides of literals blanked: offsets and lines stay the same.
    pub(super) code: String,
    pub(super) literals: Vec<Literal>,
}

/// An identifier in code, with its line and its byte offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Word<'a> {
    pub(super) text: &'a str,
    pub(super) line: usize,
    pub(super) offset: usize,
}

impl Source {
    pub(super) fn parse(text: &str) -> Self {
        Scanner {
            bytes: text.as_bytes(),
            at: 0,
            line: 1,
            code: Vec::new(),
            literals: Vec::new(),
        }
        .run()
    }

    /// All identifiers of the code, in order.
    pub(super) fn words(&self) -> Vec<Word<'_>> {
        let mut words = Vec::new();
        let bytes = self.code.as_bytes();
        let (mut at, mut line) = (0, 1);
        while at < bytes.len() {
            if is_word(bytes[at]) {
                let start = at;
                while at < bytes.len() && is_word(bytes[at]) {
                    at += 1;
                }
                words.push(Word {
                    text: &self.code[start..at],
                    line,
                    offset: start,
                });
            } else {
                line += usize::from(bytes[at] == b'\n');
                at += 1;
            }
        }
        words
    }

    /// The code after a word, without leading white space.
    pub(super) fn after(&self, word: Word<'_>) -> &str {
        self.code[word.offset + word.text.len()..].trim_start()
    }

    /// The code before an offset, without trailing white space.
    pub(super) fn before(&self, offset: usize) -> &str {
        self.code[..offset].trim_end()
    }
}

pub(super) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    line: usize,
    code: Vec<u8>,
    literals: Vec<Literal>,
}

impl Scanner<'_> {
    fn run(mut self) -> Source {
        while let Some(byte) = self.peek(0) {
            match byte {
                b'/' if self.peek(1) == Some(b'/') => self.line_comment(),
                b'/' if self.peek(1) == Some(b'*') => self.block_comment(),
                b'"' => self.string(),
                b'r' | b'b' | b'c' if !self.in_word() => self.prefixed(),
                b'\'' => self.quote(),
                _ => self.copy(1),
            }
        }
        Source {
            code: String::from_utf8(self.code).expect("only whole characters are blanked"),
            literals: self.literals,
        }
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.bytes.get(self.at + ahead).copied()
    }

    fn in_word(&self) -> bool {
        self.at > 0 && is_word(self.bytes[self.at - 1])
    }

    fn copy(&mut self, count: usize) {
        for _ in 0..count.min(self.bytes.len() - self.at) {
            let byte = self.bytes[self.at];
            self.line += usize::from(byte == b'\n');
            self.code.push(byte);
            self.at += 1;
        }
    }

    fn blank(&mut self, count: usize) {
        for _ in 0..count.min(self.bytes.len() - self.at) {
            let newline = self.bytes[self.at] == b'\n';
            self.line += usize::from(newline);
            self.code.push(if newline { b'\n' } else { b' ' });
            self.at += 1;
        }
    }

    fn line_comment(&mut self) {
        while self.peek(0).is_some_and(|byte| byte != b'\n') {
            self.blank(1);
        }
    }

    fn block_comment(&mut self) {
        let mut depth = 0;
        while self.at < self.bytes.len() {
            match (self.peek(0), self.peek(1)) {
                (Some(b'/'), Some(b'*')) => depth += 1,
                (Some(b'*'), Some(b'/')) => depth -= 1,
                _ => {
                    self.blank(1);
                    continue;
                }
            }
            self.blank(2);
            if depth == 0 {
                return;
            }
        }
    }

    /// `r"…"`, `r#"…"#`, `b"…"`, `br#"…"#`, `c"…"`, or a plain word that starts with such a letter.
    fn prefixed(&mut self) {
        let letters = (0..2)
            .take_while(|&n| matches!(self.peek(n), Some(b'r' | b'b' | b'c')))
            .count();
        let raw = (0..letters).any(|n| self.peek(n) == Some(b'r'));
        let rest = &self.bytes[self.at + letters..];
        let hashes = rest.iter().take_while(|&&byte| byte == b'#').count();
        if self.peek(letters + hashes) == Some(b'"') && (raw || hashes == 0) {
            self.copy(letters + hashes);
            if raw {
                self.raw_string(hashes);
            } else {
                self.string();
            }
        } else {
            self.copy(letters);
        }
    }

    fn raw_string(&mut self, hashes: usize) {
        let (line, offset) = (self.line, self.at);
        self.copy(1);
        let start = self.at;
        let end = [b"\"".as_slice(), &b"#".repeat(hashes)].concat();
        while self.at < self.bytes.len() && !self.bytes[self.at..].starts_with(&end) {
            self.blank(1);
        }
        let value = String::from_utf8_lossy(&self.bytes[start..self.at]).into_owned();
        self.copy(end.len());
        self.literals.push(Literal {
            line,
            offset,
            value,
        });
    }

    fn string(&mut self) {
        let (line, offset) = (self.line, self.at);
        self.copy(1);
        let start = self.at;
        while let Some(byte) = self.peek(0) {
            match byte {
                b'"' => break,
                b'\\' => self.blank(2),
                _ => self.blank(1),
            }
        }
        let value = unescape(&String::from_utf8_lossy(&self.bytes[start..self.at]));
        self.copy(1);
        self.literals.push(Literal {
            line,
            offset,
            value,
        });
    }

    /// A character literal, or the start of a lifetime.
    fn quote(&mut self) {
        if self.peek(1) == Some(b'\\') {
            self.copy(1);
            self.blank(2);
            while self.peek(0).is_some_and(|byte| byte != b'\'') {
                self.blank(1);
            }
            self.copy(1);
            return;
        }
        // 'x' closes after one character (of up to four bytes); a lifetime never does.
        let closing = (2..=5).find(|&n| self.peek(n) == Some(b'\''));
        match closing {
            Some(n) if n == 2 || self.peek(1).is_some_and(|byte| byte >= 0x80) => {
                self.copy(1);
                self.blank(n - 1);
                self.copy(1);
            }
            _ => self.copy(1),
        }
    }
}

/// The escapes that occur in names and launch lines: a line joined with a backslash, and quotes.
fn unescape(text: &str) -> String {
    let mut value = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '\\' {
            value.push(c);
            continue;
        }
        match chars.next() {
            Some('\n') => while chars.next_if(|next| next.is_whitespace()).is_some() {},
            Some('n') => value.push('\n'),
            Some('t') => value.push('\t'),
            Some(other) => value.push(other),
            None => {}
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        Source::parse(text)
            .words()
            .iter()
            .map(|word| word.text.to_owned())
            .collect()
    }

    #[test]
    fn comments_are_not_code() {
        assert_eq!(
            words("a // gst::init()\nb /* c /* d */ e */ f"),
            ["a", "b", "f"]
        );
    }

    #[test]
    fn strings_are_not_code_but_are_kept() {
        let source = Source::parse("let x = \"gst \\\"q\\\"\";\nlet y = r#\"raw \"in\" it\"#; z");
        assert_eq!(words("let x = \"gst\"; z"), ["let", "x", "z"]);
        let values: Vec<_> = source
            .literals
            .iter()
            .map(|l| (l.line, l.value.as_str()))
            .collect();
        assert_eq!(values, [(1, "gst \"q\""), (2, "raw \"in\" it")]);
    }

    #[test]
    fn lines_survive_strings_over_several_lines() {
        let source = Source::parse("let a = \"one \\\n   two\";\nlet b = 1;");
        assert_eq!(source.literals[0].value, "one two");
        assert_eq!(
            source
                .words()
                .iter()
                .find(|w| w.text == "b")
                .map(|w| w.line),
            Some(3)
        );
    }

    #[test]
    fn lifetimes_and_characters_are_told_apart() {
        assert_eq!(
            words("fn f<'a>(x: &'a str) { '\"'; '\\''; 'é'; g }"),
            ["fn", "f", "a", "x", "a", "str", "g"]
        );
        assert_eq!(
            words("match b { b'\"' => x, b'\\\\' => y }"),
            ["match", "b", "b", "x", "b", "y"]
        );
    }

    #[test]
    fn names_that_begin_like_a_prefix_are_names() {
        assert_eq!(
            words("r.branch(crate_name, br, c) r#type"),
            ["r", "branch", "crate_name", "br", "c", "r", "type"]
        );
    }

    #[test]
    fn nothing_makes_it_panic() {
        for text in ["\"", "'", "r#\"", "/*", "\\", "b'", "\"\\", "é'é", "'\\"] {
            let source = Source::parse(text);
            assert_eq!(source.code.len(), text.len(), "{text}");
        }
    }
}
