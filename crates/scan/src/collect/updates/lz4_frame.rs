//! The LZ4 frame format, decoded piece by piece as a file comes in.
//!
//! apt keeps its lists in this form where `Acquire::GzipIndexes` is set, as in container images.
//! Memory: one block and the 64 KiB before it. Checksums of the format are skipped: the caller
//! compares the length with what the signed Release file promises. Format:
//! <https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md>

const MAGIC: [u8; 4] = 0x184D_2204_u32.to_le_bytes();

/// How far back a match may reach.
const WINDOW_BYTES: usize = 64 << 10;

const VERSION: u8 = 0b1100_0000;
const VERSION_1: u8 = 0b0100_0000;
const INDEPENDENT: u8 = 0b0010_0000;
const BLOCK_CHECKSUM: u8 = 0b0001_0000;
const CONTENT_SIZE: u8 = 0b0000_1000;
const CONTENT_CHECKSUM: u8 = 0b0000_0100;
const DICTIONARY: u8 = 0b0000_0001;

/// Set in the size of a block that is stored as it is.
const STORED: u32 = 1 << 31;

/// What the bytes that come next are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    Magic,
    Descriptor,
    /// The rest of the descriptor, whose length its flags give.
    Header,
    BlockSize,
    Block {
        size: usize,
        stored: bool,
    },
    BlockChecksum,
    ContentChecksum,
}

#[derive(Debug)]
pub(super) struct Decoder {
    expect: Expect,
    flags: u8,
    block_bytes_max: usize,
    /// Bytes of the part that is expected, until it is whole.
    pending: Vec<u8>,
    /// The end of what came out.
    window: Vec<u8>,
    output: Vec<u8>,
    frames: usize,
}

impl Decoder {
    pub(super) fn new() -> Self {
        Self {
            expect: Expect::Magic,
            flags: 0,
            block_bytes_max: 0,
            pending: Vec::new(),
            window: Vec::new(),
            output: Vec::new(),
            frames: 0,
        }
    }

    /// Takes the next piece of the file and hands what it decodes to `sink`.
    ///
    /// # Errors
    /// The bytes are no LZ4 frame of version 1.
    pub(super) fn take(
        &mut self,
        mut piece: &[u8],
        sink: &mut dyn FnMut(&[u8]),
    ) -> Result<(), &'static str> {
        while !piece.is_empty() {
            let wanted = self.wanted() - self.pending.len();
            let (now, rest) = piece.split_at(wanted.min(piece.len()));
            self.pending.extend_from_slice(now);
            piece = rest;
            if self.pending.len() == self.wanted() {
                let part = std::mem::take(&mut self.pending);
                self.step(&part, sink)?;
                // The allocation is the next part's.
                self.pending = part;
                self.pending.clear();
            }
        }
        Ok(())
    }

    /// # Errors
    /// The file ended inside a frame, or held none.
    pub(super) fn finish(&self) -> Result<(), &'static str> {
        if self.expect != Expect::Magic || !self.pending.is_empty() {
            return Err("ends inside an LZ4 frame");
        }
        if self.frames == 0 {
            return Err("holds no LZ4 frame");
        }
        Ok(())
    }

    fn wanted(&self) -> usize {
        match self.expect {
            Expect::Magic | Expect::BlockSize | Expect::BlockChecksum | Expect::ContentChecksum => {
                4
            }
            Expect::Descriptor => 2,
            // The content size, and one byte of checksum.
            Expect::Header => 1 + if self.flags & CONTENT_SIZE == 0 { 0 } else { 8 },
            Expect::Block { size, .. } => size,
        }
    }

    fn step(&mut self, part: &[u8], sink: &mut dyn FnMut(&[u8])) -> Result<(), &'static str> {
        self.expect = match self.expect {
            Expect::Magic if part == MAGIC => Expect::Descriptor,
            Expect::Magic => return Err("is no LZ4 frame"),
            Expect::Descriptor => self.descriptor(part)?,
            Expect::Header => {
                self.frames += 1;
                self.window.clear();
                Expect::BlockSize
            }
            Expect::BlockSize => self.block_size(part)?,
            Expect::Block { stored, .. } => {
                self.block(part, stored, sink)?;
                match self.flags & BLOCK_CHECKSUM {
                    0 => Expect::BlockSize,
                    _ => Expect::BlockChecksum,
                }
            }
            Expect::BlockChecksum => Expect::BlockSize,
            Expect::ContentChecksum => Expect::Magic,
        };
        Ok(())
    }

    fn descriptor(&mut self, part: &[u8]) -> Result<Expect, &'static str> {
        let [flags, block] = part else {
            return Err("is no LZ4 frame");
        };
        if flags & VERSION != VERSION_1 || flags & DICTIONARY != 0 {
            return Err("is an LZ4 frame of another version, or with a dictionary");
        }
        self.flags = *flags;
        self.block_bytes_max = match (block >> 4) & 0b111 {
            4 => 64 << 10,
            5 => 256 << 10,
            6 => 1 << 20,
            7 => 4 << 20,
            _ => return Err("has LZ4 blocks of an unknown size"),
        };
        Ok(Expect::Header)
    }

    fn block_size(&mut self, part: &[u8]) -> Result<Expect, &'static str> {
        let bytes: [u8; 4] = part.try_into().map_err(|_| "is no LZ4 frame")?;
        let word = u32::from_le_bytes(bytes);
        if word == 0 {
            return Ok(match self.flags & CONTENT_CHECKSUM {
                0 => Expect::Magic,
                _ => Expect::ContentChecksum,
            });
        }
        let size = usize::try_from(word & !STORED).map_err(|_| "has a block beyond memory")?;
        if size > self.block_bytes_max || size == 0 {
            return Err("has an LZ4 block larger than it says");
        }
        let stored = word & STORED != 0;
        Ok(Expect::Block { size, stored })
    }

    fn block(
        &mut self,
        part: &[u8],
        stored: bool,
        sink: &mut dyn FnMut(&[u8]),
    ) -> Result<(), &'static str> {
        let decoded = if stored {
            part
        } else {
            self.output.resize(self.block_bytes_max, 0);
            let length =
                lz4_flex::block::decompress_into_with_dict(part, &mut self.output, &self.window)
                    .map_err(|_| "has a damaged LZ4 block")?;
            &self.output[..length]
        };
        sink(decoded);
        if self.flags & INDEPENDENT == 0 {
            let tail = &decoded[decoded.len().saturating_sub(WINDOW_BYTES)..];
            let excess = (self.window.len() + tail.len()).saturating_sub(WINDOW_BYTES);
            self.window.drain(..excess.min(self.window.len()));
            self.window.extend_from_slice(tail);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `lz4 -B4 -BD --no-frame-crc` of 200,000 bytes would be linked blocks; this one is built by
    /// hand from the block format, so that the test needs no compressor.
    fn frame(flags: u8, blocks: &[(bool, &[u8])]) -> Vec<u8> {
        let mut frame = MAGIC.to_vec();
        frame.extend([VERSION_1 | flags, 0x40]);
        if flags & CONTENT_SIZE != 0 {
            frame.extend([0; 8]);
        }
        frame.push(0);
        for (stored, block) in blocks {
            let size = u32::try_from(block.len()).unwrap() | if *stored { STORED } else { 0 };
            frame.extend(size.to_le_bytes());
            frame.extend(*block);
            if flags & BLOCK_CHECKSUM != 0 {
                frame.extend([0; 4]);
            }
        }
        frame.extend([0; 4]);
        if flags & CONTENT_CHECKSUM != 0 {
            frame.extend([0; 4]);
        }
        frame
    }

    fn decode(file: &[u8], piece: usize) -> Result<Vec<u8>, &'static str> {
        let mut decoder = Decoder::new();
        let mut out = Vec::new();
        for piece in file.chunks(piece) {
            decoder.take(piece, &mut |bytes| out.extend_from_slice(bytes))?;
        }
        decoder.finish().map(|()| out)
    }

    /// "Package", then a match of 7 bytes 7 bytes back, then the five literals that must end a block.
    const SELF: &[u8] = b"\x73Package\x07\x00\x50abcde";
    /// A match of 12 bytes that begins in the block before, then five literals.
    const LINKED: &[u8] = b"\x08\x0c\x00\x50vwxyz";

    #[test]
    fn blocks_stored_linked_and_checksummed_are_decoded_in_pieces_of_any_size() {
        let blocks: &[(bool, &[u8])] = &[(true, b"stored, "), (false, SELF), (false, LINKED)];
        let expected = b"stored, PackagePackageabcdePackageabcdevwxyz";
        for flags in [0, CONTENT_SIZE, BLOCK_CHECKSUM | CONTENT_CHECKSUM] {
            let file = frame(flags, blocks);
            for piece in [1, 3, 7, 1000] {
                let decoded = decode(&file, piece);
                assert_eq!(
                    decoded.as_deref(),
                    Ok(&expected[..]),
                    "flags {flags} pieces {piece}"
                );
            }
            let twice = [file.clone(), file].concat();
            assert_eq!(decode(&twice, 5), Ok([&expected[..], expected].concat()));
        }
    }

    #[test]
    fn a_cut_damaged_or_foreign_file_is_an_error() {
        let good = frame(0, &[(false, SELF)]);
        for cut in 1..good.len() {
            assert!(decode(&good[..cut], 4).is_err(), "cut at {cut}");
        }
        let independent = frame(INDEPENDENT, &[(true, b"stored, "), (false, LINKED)]);
        let oversize = frame(0, &[(true, &[0; 70_000])]);
        for file in [
            &b""[..],
            b"Package: a\n",
            &independent,
            &oversize,
            b"\x04\x22\x4d\x18\xff\xff\xff",
        ] {
            assert!(decode(file, 9).is_err(), "{file:.20?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_break_the_decoder(place in 0_usize..60, byte in 0_u8..=255) {
            let mut file = frame(0, &[(true, b"stored, "), (false, SELF), (false, LINKED)]);
            let place = place % file.len();
            file[place] = byte;
            decode(&file, 8).ok();
        }
    }
}
