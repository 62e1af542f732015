//! The words of an answer as captions: one cue per sentence, spread over the segment.
//!
//! The text comes from outside and goes to players: control characters are taken out, it is bounded,
//! and markup is escaped where it is written as WebVTT.

use std::fmt::Write as _;
use std::time::Duration;

/// Characters of one answer that are shown; speech of a minute has a thousand.
const MOST_TEXT: usize = 2_000;
/// Cues one answer becomes; what is left of the text joins the last.
const MOST_CUES: usize = 24;
/// The start of every WebVTT file.
pub const VTT_HEADER: &str = "WEBVTT\n\n";

/// Something to be read while it is said.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Cue {
    /// Which segment.
    pub batch: u64,
    /// When it appears, from the start of the output.
    pub start: Duration,
    /// When it goes.
    pub end: Duration,
    /// One sentence of the dub.
    pub text: String,
    /// What was said in the segment, in the language of the input; may be empty.
    pub transcript: String,
}

/// The cues of a dubbed segment that is heard from `start` to `end`. Where there is no translation the
/// transcript is shown; where there is neither, nothing.
pub fn cues(
    batch: u64,
    start: Duration,
    end: Duration,
    translated: &str,
    transcript: &str,
) -> Vec<Cue> {
    let transcript = clean(transcript);
    let translated = clean(translated);
    let shown = if translated.is_empty() {
        &transcript
    } else {
        &translated
    };
    let sentences = sentences(shown);
    let total: usize = sentences.iter().map(|s| s.chars().count()).sum();
    let length = end.saturating_sub(start);
    // Whole milliseconds, so that one cue ends where the next begins also in writing.
    let place = |said: usize| {
        let ms = length.as_millis() * said as u128 / total.max(1) as u128;
        Duration::from_millis((start.as_millis() + ms) as u64)
    };
    let mut said = 0;
    sentences
        .into_iter()
        .map(|text| {
            let from = place(said);
            said += text.chars().count();
            Cue {
                batch,
                start: from,
                end: place(said),
                text: text.to_owned(),
                transcript: transcript.clone(),
            }
        })
        .filter(|cue| cue.end > cue.start)
        .collect()
}

/// A cue as WebVTT, with the empty line behind it.
pub fn vtt(cue: &Cue) -> String {
    let mut out = format!("{} --> {}\n", Time(cue.start), Time(cue.end));
    for c in cue.text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            c => out.push(c),
        }
    }
    out.push_str("\n\n");
    out
}

struct Time(Duration);

impl std::fmt::Display for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = self.0.as_millis();
        let (hours, minutes) = (ms / 3_600_000, ms / 60_000 % 60);
        write!(f, "{hours:02}:{minutes:02}:")?;
        write!(f, "{:02}.{:03}", ms / 1_000 % 60, ms % 1_000)
    }
}

/// One line without control characters, marks that turn the writing around, or more than
/// [`MOST_TEXT`] characters.
fn clean(text: &str) -> String {
    let mut out = String::new();
    let mut space = false;
    let turns = |c| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
    let mut length = 0;
    for c in text.chars() {
        if c.is_whitespace() || c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') {
            space = length > 0;
        } else if !turns(c) {
            if length + usize::from(space) >= MOST_TEXT {
                let _ = out.write_char('…');
                break;
            }
            if std::mem::take(&mut space) {
                out.push(' ');
                length += 1;
            }
            out.push(c);
            length += 1;
        }
    }
    out
}

/// Splits after what ends a sentence: a stop that a space follows, or a full-width one.
fn sentences(text: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let mut from = 0;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let next = chars.peek().map(|(_, next)| *next);
        let ends = match c {
            '.' | '!' | '?' | '…' => next == Some(' '),
            '。' | '！' | '？' => !matches!(next, Some('」' | '』' | '”')),
            _ => false,
        };
        if ends && out.len() + 1 < MOST_CUES {
            out.push(text[from..at + c.len_utf8()].trim());
            from = at + c.len_utf8();
        }
    }
    out.push(text[from..].trim());
    out.retain(|sentence| !sentence.is_empty());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(translated: &str, transcript: &str) -> Vec<String> {
        cues(
            3,
            Duration::from_secs(6),
            Duration::from_secs(12),
            translated,
            transcript,
        )
        .iter()
        .map(|cue| {
            assert_eq!(cue.batch, 3);
            let (start, end) = (cue.start.as_millis(), cue.end.as_millis());
            format!("{start}..{end} {}", cue.text)
        })
        .collect()
    }

    #[test]
    fn one_cue_per_sentence_spread_over_the_segment() {
        assert_eq!(
            told("Hola. ¿Qué? 3.5 a 2", "Hello."),
            [
                "6000..7764 Hola.",
                "7764..9529 ¿Qué?",
                "9529..12000 3.5 a 2"
            ]
        );
        assert_eq!(
            told("你好。再见！", ""),
            ["6000..9000 你好。", "9000..12000 再见！"]
        );
        assert_eq!(told("", "Only this"), ["6000..12000 Only this"]);
        assert_eq!(told(" \n\t", ""), [""; 0]);
    }

    #[test]
    fn text_of_a_hostile_service_is_bounded_and_harmless() {
        let text = "a\r\n\r\n00:00.000 --> 01:00.000\n<script>&\u{202e}\u{0}";
        let cue = &cues(0, Duration::ZERO, Duration::from_secs(1), text, "")[0];
        assert_eq!(
            vtt(cue),
            "00:00:00.000 --> 00:00:01.000\na 00:00.000 --&gt; 01:00.000 &lt;script&gt;&amp;\n\n"
        );
        let long = "x. ".repeat(1_000_000);
        let cues = cues(0, Duration::ZERO, Duration::from_secs(6), &long, &long);
        assert!(cues.len() <= MOST_CUES);
        let shown: usize = cues.iter().map(|cue| cue.text.chars().count() + 1).sum();
        assert!(shown <= MOST_TEXT + 2, "{shown}");
        assert!(cues.windows(2).all(|w| w[0].end == w[1].start));
        assert_eq!(cues.last().map(|cue| cue.end), Some(Duration::from_secs(6)));
    }

    #[test]
    fn text_is_cut_after_2000_characters_with_or_without_spaces() {
        let shown =
            |text: &str| cues(0, Duration::ZERO, Duration::from_secs(6), text, "")[0].clone();
        for (text, kept) in [("x".repeat(2_000), 2_000), ("x ".repeat(1_000), 1_999)] {
            assert_eq!(shown(&text).text.len(), kept);
            let more = format!("{text}x");
            assert_eq!(shown(&more).text, format!("{}…", &text[..kept]));
        }
    }

    #[test]
    fn a_cue_that_nobody_could_see_is_none_and_spaces_around_the_text_are_none() {
        let end = Duration::from_millis(2);
        let cues = cues(0, Duration::ZERO, end, " A. B. C. D. ", " \tOne  two ");
        let told = |cue: &Cue| (cue.start.as_millis(), cue.end.as_millis(), cue.text.clone());
        let told: Vec<_> = cues.iter().map(told).collect();
        assert_eq!(told, [(0, 1, "B.".to_owned()), (1, 2, "D.".to_owned())]);
        assert!(cues.iter().all(|cue| cue.transcript == "One two"));
    }

    #[test]
    fn hours_are_counted_on() {
        let cue = Cue {
            batch: 0,
            start: Duration::from_millis(360_061_007),
            end: Duration::from_secs(360_062),
            text: "x".to_owned(),
            transcript: String::new(),
        };
        assert!(vtt(&cue).starts_with("100:01:01.007 --> 100:01:02.000\n"));
    }
}
