//! The audio format of a stream, as far as the worker cares.

/// Samples per channel in one AAC-LC frame.
pub const FRAME_SAMPLES: u32 = 1024;

/// Sampling rates that the STS protocol knows; other input is converted on the way in.
pub const RATES: [u32; 4] = [16_000, 22_050, 44_100, 48_000];

/// AAC-LC as it runs through the worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AacFormat {
    /// Samples per second, one of [`RATES`].
    pub rate: u32,
    /// 1 or 2.
    pub channels: u32,
    /// AudioSpecificConfig (ISO 14496-3, 1.6.2.1).
    pub config: Vec<u8>,
}

impl AacFormat {
    /// AAC-LC with a minimal AudioSpecificConfig.
    pub fn lc(rate: u32, channels: u32) -> Self {
        let index = SAMPLING_FREQUENCIES
            .iter()
            .position(|f| *f == rate)
            .unwrap_or(3) as u32;
        let bits = (2 << 11) | (index << 7) | (channels << 3);
        Self {
            rate,
            channels,
            config: vec![(bits >> 8) as u8, bits as u8],
        }
    }

    /// Reads an AudioSpecificConfig; `None` if this is not AAC-LC with 1024-sample frames
    /// at a rate and channel count the STS protocol knows.
    pub fn from_config(config: &[u8]) -> Option<Self> {
        // Longer ones exist only for formats that are not copied anyway.
        if config.len() > 16 {
            return None;
        }
        let bits = u32::from_be_bytes([*config.first()?, *config.get(1)?, 0, 0]);
        let object_type = bits >> 27;
        let index = (bits >> 23) & 0xf;
        let channels = (bits >> 19) & 0xf;
        let frame_length_flag = (bits >> 18) & 1;
        let rate = *SAMPLING_FREQUENCIES.get(index as usize)?;
        let known = object_type == 2
            && frame_length_flag == 0
            && RATES.contains(&rate)
            && (1..=2).contains(&channels);
        // Longer configurations announce SBR or PS: the frames are not plain AAC-LC.
        let plain = config.len() == 2
            || !config[2..].starts_with(&[0x56, 0xe5])
            || config.get(4).is_none_or(|b| b & 0x80 == 0);
        (known && plain).then(|| Self {
            rate,
            channels,
            config: config.to_vec(),
        })
    }

    /// Nanoseconds that `samples` last.
    pub fn nanos(&self, samples: u64) -> i64 {
        (i128::from(samples) * 1_000_000_000 / i128::from(self.rate)) as i64
    }

    /// Samples per channel that fit into `nanos`, to the nearest.
    pub fn samples(&self, nanos: i64) -> i64 {
        let product = i128::from(nanos) * i128::from(self.rate);
        ((product + product.signum() * 500_000_000) / 1_000_000_000) as i64
    }
}

/// Those that the encoder has too: all but 7,350 Hz, which is converted.
pub(crate) const SAMPLING_FREQUENCIES: [u32; 12] = [
    96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_round_trip() {
        for rate in RATES {
            for channels in [1, 2] {
                let format = AacFormat::lc(rate, channels);
                assert_eq!(AacFormat::from_config(&format.config), Some(format));
            }
        }
        assert_eq!(AacFormat::lc(48_000, 2).config, [0x11, 0x90]);
    }

    #[test]
    fn what_the_protocol_cannot_carry_is_not_copied() {
        for (config, why) in [
            (&[0x2b, 0x92, 0x08, 0x00][..], "HE-AAC"),
            (&[0x11, 0xb0], "5.1"),
            (&[0x12, 0x90 | 0x80], "32 kHz"),
            (&[0x11, 0x94], "960-sample frames"),
            (&[0x11, 0x90, 0x56, 0xe5, 0x80], "signalled SBR"),
            (&[0x11], "truncated"),
        ] {
            assert_eq!(AacFormat::from_config(config), None, "{why}");
        }
    }

    #[test]
    fn ffmpeg_style_configuration_without_sbr_is_plain() {
        assert!(AacFormat::from_config(&[0x11, 0x90, 0x56, 0xe5, 0x00]).is_some());
    }
}
