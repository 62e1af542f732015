//! Headers of WAV files.

use super::audio::RATES;

/// Puts a WAV header before raw little-endian 16-bit samples.
pub(crate) fn with_header(data: &[u8], rate: u32, channels: u32) -> Vec<u8> {
    let rate = if RATES.contains(&rate) { rate } else { 48_000 };
    let channels = channels.clamp(1, 2);
    let mut out = Vec::with_capacity(44 + data.len());
    out.extend(b"RIFF");
    out.extend((36 + data.len() as u32).to_le_bytes());
    out.extend(b"WAVEfmt ");
    out.extend(16_u32.to_le_bytes());
    out.extend(1_u16.to_le_bytes());
    out.extend((channels as u16).to_le_bytes());
    out.extend(rate.to_le_bytes());
    out.extend((rate * channels * 2).to_le_bytes());
    out.extend(((channels * 2) as u16).to_le_bytes());
    out.extend(16_u16.to_le_bytes());
    out.extend(b"data");
    out.extend((data.len() as u32).to_le_bytes());
    out.extend(data);
    out
}

/// Makes a WAV's header say what follows from the rest of it. Who streams does not know the length of
/// the data, and writes 0 or the largest number there is; who fills in a template forgets the numbers
/// that follow from rate, channels and bits, and `wavparse` refuses the file.
pub(crate) fn mend(data: &mut [u8]) {
    let mut at = 12;
    while let Some(&[a, b, c, d]) = data.get(at + 4..).and_then(|rest| rest.first_chunk()) {
        let stated = u32::from_le_bytes([a, b, c, d]) as usize;
        let rest = data.len() - at - 8;
        if data[at..].starts_with(b"fmt ")
            && let Some(format) = data[at + 8..].first_chunk_mut()
        {
            mend_sizes(format);
        }
        if data[at..].starts_with(b"data") {
            if stated == 0 || stated > rest {
                data[at + 4..at + 8].copy_from_slice(&(rest as u32).to_le_bytes());
            }
            return;
        }
        let Some(next) = at.checked_add(8 + stated + stated % 2) else {
            return;
        };
        at = next;
    }
}

/// Makes bytes a second and bytes a frame what they are for plain samples.
fn mend_sizes(format: &mut [u8; 16]) {
    const PLAIN: [u16; 3] = [1, 3, 0xfffe];
    let word = |at: usize| u16::from_le_bytes([format[at], format[at + 1]]);
    let (tag, channels, stated, bits) = (word(0), word(2), word(12), word(14));
    let rate = u32::from_le_bytes([format[4], format[5], format[6], format[7]]);
    if !PLAIN.contains(&tag) || channels == 0 || bits == 0 {
        return;
    }
    // 24 bits may lie in four bytes.
    let roomy = channels.checked_mul(4).filter(|_| (17..32).contains(&bits));
    let frame = match channels.checked_mul(bits.div_ceil(8)) {
        _ if roomy == Some(stated) => stated,
        Some(frame) => frame,
        None => return,
    };
    let second = rate.saturating_mul(frame.into());
    format[8..12].copy_from_slice(&second.to_le_bytes());
    format[12..14].copy_from_slice(&frame.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wav_of_unknown_length_ends_where_it_ends() {
        for stated in [0, 0x7fff_ffff, u32::MAX, 9, 8] {
            let mut file = with_header(&[0; 8], 8_000, 1);
            file[40..44].copy_from_slice(&stated.to_le_bytes());
            mend(&mut file);
            assert_eq!(file[40..44], 8_u32.to_le_bytes(), "{stated}");
        }
        // Behind chunks that nobody knows, and with less than a chunk.
        let mut file = b"RIFF\0\0\0\0WAVEjunk\x03\0\0\0abc\0data\xff\xff\xff\xff12".to_vec();
        mend(&mut file);
        assert!(file.ends_with(b"data\x02\0\0\x0012"));
        for len in 0..20 {
            mend(&mut file[..len].to_vec());
        }
    }

    /// What follows from rate, channels and bits is computed; what they are is believed.
    #[test]
    fn a_wav_from_a_template_is_what_its_samples_are() {
        let good = with_header(&[0; 8], 24_000, 1);
        for (second, frame) in [
            (0, 0),
            (u32::MAX, 2),
            (176_400, 4),
            (48_000, 1),
            (48_000, 3),
        ] {
            let mut file = good.clone();
            file[28..32].copy_from_slice(&u32::to_le_bytes(second));
            file[32..34].copy_from_slice(&u16::to_le_bytes(frame));
            mend(&mut file);
            assert_eq!(file, good, "{second} {frame}");
        }
        for (tag, bits, frame, mended) in [
            (1, 24_u16, 4_u16, 4),
            (1, 24, 0, 3),
            (3, 32, 0, 4),
            (0xfffe, 16, 0, 2),
            // ADPCM: whole blocks, nothing to compute.
            (2, 4, 256, 256),
            (1, 0, 7, 7),
        ] {
            let mut file = good.clone();
            file[20..22].copy_from_slice(&u16::to_le_bytes(tag));
            file[32..34].copy_from_slice(&frame.to_le_bytes());
            file[34..36].copy_from_slice(&bits.to_le_bytes());
            mend(&mut file);
            assert_eq!(file[32..34], u16::to_le_bytes(mended), "{tag} {bits}");
        }
        for odd in [[0; 16], [0xff; 16]] {
            mend_sizes(&mut odd.clone());
        }
    }
}
