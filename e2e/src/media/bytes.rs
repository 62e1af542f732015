//! Big-endian reading with bounds: a short file gives an error, never a panic.

/// The data ended before the structure in it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Short;

/// A cursor over bytes, big-endian.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0 }
    }

    pub(crate) fn position(&self) -> usize {
        self.at
    }

    pub(crate) fn left(&self) -> usize {
        self.data.len() - self.at
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], Short> {
        let end = self.at.checked_add(count).ok_or(Short)?;
        let taken = self.data.get(self.at..end).ok_or(Short)?;
        self.at = end;
        Ok(taken)
    }

    pub(crate) fn skip(&mut self, count: usize) -> Result<(), Short> {
        self.take(count).map(|_| ())
    }

    fn big_endian(&mut self, bytes: usize) -> Result<u64, Short> {
        Ok(self
            .take(bytes)?
            .iter()
            .fold(0, |value, &byte| (value << 8) | u64::from(byte)))
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Short> {
        self.big_endian(1).map(|value| value as u8)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Short> {
        self.big_endian(2).map(|value| value as u16)
    }

    pub(crate) fn u24(&mut self) -> Result<u32, Short> {
        self.big_endian(3).map(|value| value as u32)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Short> {
        self.big_endian(4).map(|value| value as u32)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Short> {
        self.big_endian(8)
    }

    pub(crate) fn i32(&mut self) -> Result<i32, Short> {
        self.u32().map(|value| value as i32)
    }
}

/// Reads bits from the most significant one on.
#[derive(Debug)]
pub(crate) struct BitReader<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> BitReader<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0 }
    }

    /// At most 32 bits.
    pub(crate) fn bits(&mut self, count: usize) -> Result<u32, Short> {
        (0..count).try_fold(0, |value, _| {
            let byte = *self.data.get(self.at / 8).ok_or(Short)?;
            let bit = (byte >> (7 - self.at % 8)) & 1;
            self.at += 1;
            Ok((value << 1) | u32::from(bit))
        })
    }
}
