//! Secrets in texts that others write.

/// Shorter ones are no secrets, and hiding them would shred every message.
pub const SHORTEST_SECRET: usize = 4;

/// Puts `shown` wherever `secret` stands by itself, not as part of a longer word.
pub fn hide(text: &str, secret: &str, shown: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(secret).filter(|_| !secret.is_empty()) {
        let (before, found) = rest.split_at(at);
        let after = &found[secret.len()..];
        let joined =
            before.ends_with(char::is_alphanumeric) || after.starts_with(char::is_alphanumeric);
        result.push_str(before);
        result.push_str(if joined { secret } else { shown });
        rest = after;
    }
    result + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_words_are_hidden() {
        for (text, hidden) in [
            ("key9", "***"),
            ("(key9), key9.", "(***), ***."),
            ("key99 monkey9 key", "key99 monkey9 key"),
            ("", ""),
        ] {
            assert_eq!(hide(text, "key9", "***"), hidden, "{text}");
        }
        assert_eq!(hide("abc", "", "***"), "abc");
    }
}
