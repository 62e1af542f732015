//! Secrets in texts that others write.

/// Shorter ones are no secrets, and hiding them would shred every message.
pub const SHORTEST_SECRET: usize = 4;

/// From this length on a secret is no part of other words by chance, and is hidden wherever it stands:
/// what encloses it may be escaped (`%3Dsecret%26`, `\u0027secret\u0027`).
const LONG_SECRET: usize = 8;

/// Puts `shown` wherever `secret` stands; a short one only where it stands by itself, not as part of a
/// longer word.
pub fn hide(text: &str, secret: &str, shown: &str) -> String {
    if secret.len() >= LONG_SECRET {
        return text.replace(secret, shown);
    }
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
    fn short_secrets_are_hidden_as_whole_words_and_long_ones_anywhere() {
        for (text, hidden) in [
            ("key9", "***"),
            ("(key9), key9.", "(***), ***."),
            ("key99 monkey9 key", "key99 monkey9 key"),
            ("", ""),
        ] {
            assert_eq!(hide(text, "key9", "***"), hidden, "{text}");
        }
        assert_eq!(hide("abc", "", "***"), "abc");
        assert_eq!(hide("%3Dabcd1234%26", "abcd1234", "***"), "%3D***%26");
        assert_eq!(hide("abcd123 abcd1234", "abcd123", "***"), "*** abcd1234");
    }
}
