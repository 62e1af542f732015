//! What an answer says.

/// Every answer's `transcript`, but in the mode `speech`.
pub(crate) const TRANSCRIPT: &str = "[ECHO] original speech";
/// Every answer's `translated_text`, but in the mode `speech`.
pub(crate) const TRANSLATED_TEXT: &str = "[ECHO] translated speech";

/// A second belongs to the fragment it begins in; an AAC frame may reach over by half its length.
const EDGE_MS: u64 = 20;
/// No fragment says more.
const MOST_SECONDS: u64 = 60;

/// What is said in a fragment: one sentence for each second of the stream that begins in it, so that
/// captions can be held against a clip that shows its seconds. `word` is "second" in some language.
pub(crate) fn seconds(word: &str, from_ms: u64, length_ms: u64) -> String {
    let first = (from_ms.saturating_sub(EDGE_MS)).div_ceil(1_000);
    let end = (from_ms.saturating_add(length_ms).saturating_sub(EDGE_MS)).div_ceil(1_000);
    // The second that goes on, where none begins.
    let first = if first < end { first } else { from_ms / 1_000 };
    let sentences = (first..end.clamp(first + 1, first + MOST_SECONDS))
        .map(|second| format!("{word} {second}."));
    sentences.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn every_second_is_said_in_the_fragment_it_begins_in() {
        for (from, length, said) in [
            (0, 2_005, "Segundo 0. Segundo 1."),
            (2_005, 1_995, "Segundo 2. Segundo 3."),
            (3_990, 2_000, "Segundo 4. Segundo 5."),
            (5_990, 400, "Segundo 6."),
            (6_390, 500, "Segundo 6."),
            (6_890, 1_110, "Segundo 7."),
        ] {
            assert_eq!(seconds("Segundo", from, length), said, "{from} {length}");
        }
        let long = seconds("s", u64::MAX - 9, u64::MAX);
        assert!(long.len() < 2_000, "{long}");
        assert!(seconds("s", 0, u64::MAX).len() < 2_000);
    }
}
