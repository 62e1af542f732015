//! AudioSpecificConfig (ISO/IEC 14496-3, 1.6.2.1), as far as RTP and the comparison need it.

use super::bytes::BitReader;
use super::clip::FormatError;

const RATES: [u32; 13] = [
    96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8000,
    7350,
];

/// Parameters of an AAC stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AacConfig {
    /// The AudioSpecificConfig as it stands in the file.
    pub config: Vec<u8>,
    /// Audio object type: 2 is LC, 5 is SBR (HE-AAC).
    pub object_type: u8,
    /// Samples per second of the core coder.
    pub rate: u32,
    /// Channels; 0 when the stream itself says so.
    pub channels: u8,
    /// Samples per frame: 1024 or 960.
    pub frame_length: u32,
}

impl AacConfig {
    /// Reads an AudioSpecificConfig.
    pub fn parse(config: &[u8]) -> Result<Self, FormatError> {
        let mut bits = BitReader::new(config);
        let mut object_type = bits.bits(5)?;
        if object_type == 31 {
            object_type = 32 + bits.bits(6)?;
        }
        let index = bits.bits(4)? as usize;
        let rate = match RATES.get(index) {
            Some(&rate) => rate,
            None if index == 15 => bits.bits(24)?,
            None => {
                return Err(FormatError(format!(
                    "its AAC sampling rate index {index} does not exist"
                )));
            }
        };
        let channels = match bits.bits(4)? {
            7 => 8,
            count => count as u8,
        };
        // Object types 1..=4, 6, 7 and 17 carry a GASpecificConfig, whose first bit is the frame length.
        let short_frames =
            matches!(object_type, 1..=4 | 6 | 7 | 17) && bits.bits(1).unwrap_or(0) == 1;
        Ok(Self {
            config: config.to_vec(),
            object_type: object_type as u8,
            rate,
            channels,
            frame_length: if short_frames { 960 } else { 1024 },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_configurations() {
        let stereo = AacConfig::parse(&[0x11, 0x90]).unwrap();
        assert_eq!(
            (
                stereo.object_type,
                stereo.rate,
                stereo.channels,
                stereo.frame_length
            ),
            (2, 48_000, 2, 1024)
        );
        let mono = AacConfig::parse(&[0x12, 0x08]).unwrap();
        assert_eq!((mono.object_type, mono.rate, mono.channels), (2, 44_100, 1));
        let short = AacConfig::parse(&[0x11, 0x94]).unwrap();
        assert_eq!(short.frame_length, 960);
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(AacConfig::parse(&[]).is_err());
        assert!(
            AacConfig::parse(&[0x16, 0x90]).is_err(),
            "rate index 13 is reserved"
        );
    }
}
