//! One format from the first packet of a recording to the last: viewers do not follow a change.

use std::path::Path;

use anyhow::{Result, ensure};
use e2e_ffmpeg::Track;

use super::field;
use crate::failure::{Failure, Place};

/// Fails when pictures change their size, or sound its rate or its channels, on the way.
///
/// # Errors
/// With both formats and where the second one begins.
pub fn require_one_format(recording: &Path) -> Result<()> {
    let told = |track| e2e_ffmpeg::formats(recording, track).told();
    judge(&told(Track::Pictures)?, &told(Track::Sound)?)
}

fn judge(pictures: &str, sound: &str) -> Result<()> {
    for (what, said, filter, fields) in [
        ("picture", pictures, "_showinfo_", &[" s:"][..]),
        ("sound", sound, "_ashowinfo_", &[" chlayout:", " rate:"][..]),
    ] {
        let lines = said
            .lines()
            .filter(|line| line.contains(filter) && line.contains("pts_time:"));
        let mut first = None;
        for line in lines {
            let format: Vec<_> = fields.iter().filter_map(|name| field(line, name)).collect();
            let format = format.join(" ");
            let first = first.get_or_insert_with(|| format.clone());
            if *first != format {
                let at = field(line, "pts_time:").and_then(|time| time.parse().ok());
                let failure = Failure::new(format!("the format of the {what} changed"));
                let failure = failure.expected(&*first).actual(format);
                return Err(failure.at(at.map(Place::Media)).into());
            }
        }
        ensure!(first.is_some(), "there is no {what}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testclip;

    #[test]
    fn a_clip_has_one_format() {
        require_one_format(&testclip::path(testclip::FLV)).unwrap();
    }

    #[test]
    fn a_change_is_named_with_both_formats() {
        let picture = |time: &str, size: &str| {
            format!("[Parsed_showinfo_0 @ 0x1] n:0 pts:0 pts_time:{time} s:{size} i:P")
        };
        let sound = |time: &str, rate: u32| {
            format!(
                "[Parsed_ashowinfo_0 @ 0x2] n:0 pts:0 pts_time:{time} fmt:fltp channels:2 chlayout:stereo rate:{rate}"
            )
        };
        let pictures = [picture("0", "320x180"), picture("1", "320x180")].join("\n");
        let sounds = [sound("0", 48_000), sound("1.5", 24_000)].join("\n");
        let error = judge(&pictures, &sounds).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the format of the sound changed: expected stereo 48000, found stereo 24000"
        );
        assert_eq!(Failure::of(&error).place, Some(Place::Media(1.5)));
        let pictures = [picture("0", "320x180"), picture("2", "640x360")].join("\n");
        let error = judge(&pictures, &sounds).unwrap_err();
        assert!(error.to_string().contains("of the picture changed"));
        assert!(judge("", &sounds).is_err());
    }
}
