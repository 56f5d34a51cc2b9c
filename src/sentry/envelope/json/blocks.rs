//! JSON in blocks of 64 bytes, of each of which is known where its quotes and brackets are and what of it is in strings. A mask has
//! the bit of its first byte lowest.
//!
//! After Langdale and Lemire, "Parsing Gigabytes of JSON per Second", 3.1.

use wide::u8x32;

/// In bytes: as many as a mask has bits.
pub(super) const SIZE: usize = 64;

/// What stands where in a block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    quotes: u64,
    backslashes: u64,
    opening: u64,
    closing: u64,
}

impl Block {
    /// Of the first bytes; what there is no more of is white space.
    pub(super) fn first(bytes: &[u8]) -> Self {
        if let Some(block) = bytes.first_chunk() {
            return Self::of(block);
        }
        let mut block = [b' '; SIZE];
        block.iter_mut().zip(bytes).for_each(|(place, byte)| *place = *byte);
        Self::of(&block)
    }

    fn of(block: &[u8; SIZE]) -> Self {
        let (halves, _) = block.as_chunks();
        let mut new = Self { quotes: 0, backslashes: 0, opening: 0, closing: 0 };
        for (place, half) in halves.iter().enumerate() {
            let half = u8x32::from(*half);
            let mask = |found: u8x32| u64::from(found.to_bitmask()) << (32 * place);
            new.quotes |= mask(half.simd_eq(u8x32::splat(b'"')));
            new.backslashes |= mask(half.simd_eq(u8x32::splat(b'\\')));
            // The bit by which `[` and `{`, and `]` and `}`, differ.
            let either = half | u8x32::splat(b'[' ^ b'{');
            new.opening |= mask(either.simd_eq(u8x32::splat(b'{')));
            new.closing |= mask(either.simd_eq(u8x32::splat(b'}')));
        }
        new
    }
}

/// The brackets of a block that are in no string.
#[derive(Debug)]
pub(super) struct Brackets {
    opening: u64,
    all: u64,
}

impl Iterator for Brackets {
    /// The place, and whether something opens there.
    type Item = (usize, bool);

    fn next(&mut self) -> Option<Self::Item> {
        let place = self.all.trailing_zeros();
        let is_opening = self.opening.checked_shr(place)? & 1 == 1;
        // The lowest bit goes.
        self.all &= self.all - 1;
        Some((place as usize, is_opening))
    }
}

/// How far what a block begins with has come before it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Strings {
    /// All bits, if it is within a string.
    is_inside: u64,
    /// The lowest bit, if the first byte is escaped.
    is_escaped: u64,
}

impl Strings {
    /// Of the next block.
    pub(super) fn brackets(&mut self, block: Block) -> Brackets {
        let escaped = self.escaped(block.backslashes);
        let inside = self.inside(block.quotes & !escaped);
        Brackets { opening: block.opening & !inside, all: (block.opening | block.closing) & !inside }
    }

    /// From each quote up to the next, which is not of it.
    fn inside(&mut self, quotes: u64) -> u64 {
        let mut inside = quotes;
        for distance in [1, 2, 4, 8, 16, 32] {
            inside ^= inside << distance;
        }
        inside ^= self.is_inside;
        self.is_inside = if inside >> 63 == 1 { u64::MAX } else { 0 };
        inside
    }

    /// What has an odd number of backslashes before it.
    fn escaped(&mut self, backslashes: u64) -> u64 {
        const EVEN: u64 = 0x5555_5555_5555_5555;
        if backslashes == 0 {
            return std::mem::take(&mut self.is_escaped);
        }
        let backslashes = backslashes & !self.is_escaped;
        let behind = backslashes << 1 | self.is_escaped;
        // A run that begins at an odd place carries to the even one behind it if it is of odd length, …
        let odd = backslashes & !EVEN & !behind;
        let (carried, is_over) = odd.overflowing_add(backslashes);
        self.is_escaped = is_over.into();
        // … one that begins at an even place does so to an odd one.
        (EVEN ^ (carried << 1)) & behind
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Byte by byte.
    fn brackets(bytes: &[u8]) -> Vec<(usize, bool)> {
        let (mut found, mut is_inside, mut is_escaped) = (Vec::new(), false, false);
        for (place, byte) in bytes.iter().enumerate() {
            // Of what is escaped only a quote matters.
            let is_plain = !std::mem::take(&mut is_escaped);
            match byte {
                b'\\' => is_escaped = is_plain,
                b'"' => is_inside ^= is_plain,
                b'{' | b'[' if !is_inside => found.push((place, true)),
                b'}' | b']' if !is_inside => found.push((place, false)),
                _ => {}
            }
        }
        found
    }

    proptest! {
        #[test]
        fn brackets_are_found_as_byte_by_byte(text in r#"["\\\[\]{}a;é\[]{0,300}"#) {
            let mut strings = Strings::default();
            let blocks = text.as_bytes().chunks(SIZE).enumerate();
            let found: Vec<_> = blocks
                .flat_map(|(block, bytes)| {
                    strings.brackets(Block::first(bytes)).map(move |(place, opens)| (block * SIZE + place, opens))
                })
                .collect();
            prop_assert_eq!(found, brackets(text.as_bytes()));
        }
    }
}
