//! Text on the page: what came from outside becomes harmless, numbers become readable.

use std::fmt::{self, Display, Write as _};

/// Text that is shown longer than this is cut; the artifacts have all of it.
const LONGEST: usize = 2_000;

/// Shows text that may hold anything: markup is escaped, what cannot be seen is made visible, and
/// what is endless is cut. Fit for element content and for quoted attributes, in HTML and SVG.
pub(super) struct Text<'a>(pub(super) &'a str);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars().take(LONGEST) {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                '\n' | '\t' => f.write_char(c)?,
                c if is_deceptive(c) => write!(f, "\\u{{{:x}}}", c as u32)?,
                c => f.write_char(c)?,
            }
        }
        match self.0.chars().skip(LONGEST).count() {
            0 => Ok(()),
            more => write!(f, "… ({more} more characters)"),
        }
    }
}

/// Control characters, and those that reorder or hide the text around them.
fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{fffe}' | '\u{ffff}' | '\u{e0000}'..='\u{e007f}')
}

/// The first characters of a text, with an ellipsis if it goes on.
pub(super) fn shorten(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some(_) => text
            .chars()
            .take(most.saturating_sub(1))
            .chain(['…'])
            .collect(),
    }
}

/// A relative link to a file beside the page.
pub(super) fn href(name: &str) -> String {
    let mut link = String::from("./");
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                link.push(byte as char);
            }
            _ => {
                let _ = write!(link, "%{byte:02X}");
            }
        }
    }
    link
}

/// Seconds on the axis with milliseconds: `12.345`.
pub(super) fn seconds(value: f64) -> String {
    signed(value, 3)
}

/// A number of milliseconds with one decimal where that says more: `4`, `0.3`, `1203`.
pub(super) fn millis(value: f64) -> String {
    let decimals = usize::from(value.abs() < 10.0 && (value - value.round()).abs() > 0.05);
    signed(value, decimals)
}

/// A duration given in ms, in the unit that a person would use: `4 ms`, `1.25 s`, `2 min 5 s`.
pub(super) fn span(ms: f64) -> String {
    let seconds = ms / 1e3;
    if ms.abs() < 1_000.0 {
        format!("{} ms", millis(ms))
    } else if seconds.abs() < 120.0 {
        format!(
            "{} s",
            signed(seconds, if seconds.abs() < 10.0 { 2 } else { 1 })
        )
    } else {
        format!(
            "{:.0} min {:.0} s",
            (seconds / 60.0).floor(),
            seconds % 60.0
        )
    }
}

/// A size in bytes: `512 B`, `15 kB`, `4.9 MB`.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.0} kB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

/// `1 stall`, `2 stalls`.
pub(super) fn plural(count: u64, one: &str) -> String {
    format!("{count} {one}{}", if count == 1 { "" } else { "s" })
}

/// A fixed number of decimals, a real minus sign, and no negative zero.
fn signed(value: f64, decimals: usize) -> String {
    let text = format!("{:.decimals$}", value.abs());
    let zero = text.bytes().all(|byte| matches!(byte, b'0' | b'.'));
    if value < 0.0 && !zero {
        format!("−{text}")
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_becomes_text() {
        let hostile = "</script><script>alert('1')</script> \"&amp;\" onload=x";
        assert_eq!(
            Text(hostile).to_string(),
            "&lt;/script&gt;&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt; &quot;&amp;amp;&quot; onload=x"
        );
    }

    #[test]
    fn what_cannot_be_seen_is_shown() {
        assert_eq!(
            Text("a\0b\u{202e}c\r\x1b[31m").to_string(),
            "a\\u{0}b\\u{202e}c\\u{d}\\u{1b}[31m"
        );
        assert_eq!(Text("grüße, 日本\n\tλ").to_string(), "grüße, 日本\n\tλ");
    }

    #[test]
    fn endless_text_is_cut() {
        let shown = Text(&"é".repeat(5_000)).to_string();
        assert_eq!(shown.chars().filter(|c| *c == 'é').count(), LONGEST);
        assert!(shown.ends_with("… (3000 more characters)"));
        assert_eq!(shorten("abcdef", 4), "abc…");
        assert_eq!(shorten("abcd", 4), "abcd");
    }

    #[test]
    fn links_cannot_leave_their_attribute_or_directory_scheme() {
        assert_eq!(href("worker.log"), "./worker.log");
        assert_eq!(
            href("javascript:alert(1)\" x"),
            "./javascript%3Aalert%281%29%22%20x"
        );
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!(seconds(-0.0004), "0.000");
        assert_eq!(seconds(-1.5), "−1.500");
        assert_eq!(
            (millis(0.31), millis(4.0), millis(1203.4)),
            ("0.3".into(), "4".into(), "1203".into())
        );
        assert_eq!(
            (span(4.0), span(8_000.0), span(61_234.0)),
            ("4 ms".into(), "8.00 s".into(), "61.2 s".into())
        );
        assert_eq!(span(125_000.0), "2 min 5 s");
        assert_eq!(
            (size(512), size(15_640), size(5_089_413)),
            ("512 B".into(), "16 kB".into(), "5.1 MB".into())
        );
        assert_eq!(
            (plural(1, "stall"), plural(0, "stall")),
            ("1 stall".into(), "0 stalls".into())
        );
    }
}
