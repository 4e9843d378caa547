//! From the bytes of a file to text: what it is compressed with and its encoding, by its first bytes.

use std::io::{self, Cursor, Error, ErrorKind, Read};

use flate2::read::MultiGzDecoder;
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder, errors};

/// Bytes by which a format is known.
const HEAD: usize = 4096;
/// A zstd file that needs more memory is not decompressed: 8 MiB is what every decoder supports.
const WINDOW: u64 = 64 << 20;

/// Compressions that are not read, and the tool that does.
const OTHERS: [(&[u8], &str, &str); 4] = [
    (b"\xfd7zXZ\0", "xz", "xz -dc"),
    (b"BZh", "bzip2", "bzip2 -dc"),
    (b"\x04\x22\x4d\x18", "lz4", "lz4 -dc"),
    (b"PK\x03\x04", "zip", "unzip -p"),
];
const GZIP: &[u8] = b"\x1f\x8b";
const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd";
const JOURNAL: &[u8] = b"LPKSHHRH";

/// Text of a log, decompressed and as UTF-8, and what had to be done for that.
///
/// # Errors
/// When it can't be read, or is no text that is known how to read.
pub fn decoded(input: impl Read + 'static) -> io::Result<(Box<dyn Read>, Option<&'static str>)> {
    let (head, input) = peek(input)?;
    if head.starts_with(GZIP) {
        let unpacked = Checked(MultiGzDecoder::new(input));
        return Ok((text(unpacked)?, Some("gzip")));
    }
    if head.starts_with(ZSTD) {
        return Ok((text(Checked(Zstd::new(input)))?, Some("zstd")));
    }
    if let Some((_, name, tool)) = OTHERS.iter().find(|(magic, ..)| head.starts_with(magic)) {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!("it is compressed with {name}: {tool} FILE | probe etcd-log"),
        ));
    }
    Ok((text(input)?, None))
}

/// The first bytes, and all of them again.
fn peek(mut input: impl Read) -> io::Result<(Vec<u8>, impl Read)> {
    let mut head = Vec::new();
    // A pipe gives little at a time, and its writer may not have more yet: the longest of these names has eight bytes.
    let mut part = [0; HEAD];
    while head.len() < JOURNAL.len() {
        match input.read(&mut part)? {
            0 => break,
            read => head.extend_from_slice(&part[..read]),
        }
    }
    Ok((head.clone(), Cursor::new(head).chain(input)))
}

/// UTF-8, from that or UTF-16.
fn text(input: impl Read + 'static) -> io::Result<Box<dyn Read>> {
    let (head, input) = peek(input)?;
    if head.starts_with(JOURNAL) {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "it is a file of the journal: journalctl --file FILE -o json | probe etcd-log",
        ));
    }
    let zeros = |odd: usize| {
        head.iter()
            .skip(odd)
            .step_by(2)
            .filter(|byte| **byte == 0)
            .count()
    };
    let (even, odd) = (zeros(0), zeros(1));
    let (most, few) = (head.len() / 2 * 4 / 5, head.len() / 20);
    let big_endian = match head.as_slice() {
        [0xff, 0xfe, ..] => Some(false),
        [0xfe, 0xff, ..] => Some(true),
        // Text has no zero in the other half.
        _ if head.len() >= 4 && odd > most && even <= few => Some(false),
        _ if head.len() >= 4 && even > most && odd <= few => Some(true),
        _ => None,
    };
    match big_endian {
        Some(big_endian) => Ok(Box::new(Utf16::new(input, big_endian))),
        // journalctl -o export has a few.
        None if even + odd > head.len() / 10 => Err(Error::new(ErrorKind::InvalidData, "it is not text")),
        None => Ok(Box::new(input)),
    }
}

/// A decompression whose errors say what is wrong with the file.
struct Checked<R>(R);

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => {
                Error::new(ErrorKind::UnexpectedEof, "the compressed file is cut off")
            }
            ErrorKind::InvalidData | ErrorKind::InvalidInput | ErrorKind::Other => {
                Error::new(ErrorKind::InvalidData, "the compressed file is damaged")
            }
            _ => error,
        })
    }
}

/// Frames of zstd, one after the other.
struct Zstd<R> {
    input: R,
    decoder: FrameDecoder,
    in_frame: bool,
}

impl<R: Read> Zstd<R> {
    fn new(input: R) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(WINDOW);
        Self {
            input,
            decoder,
            in_frame: false,
        }
    }

    /// Whether there is another frame.
    fn next_frame(&mut self) -> io::Result<bool> {
        loop {
            let mut first = [0];
            if self.input.read(&mut first)? == 0 {
                return Ok(false);
            }
            let whole = Cursor::new(first).chain(&mut self.input);
            match self.decoder.reset(whole) {
                Ok(()) => {
                    self.in_frame = true;
                    return Ok(true);
                }
                Err(errors::FrameDecoderError::ReadFrameHeaderError(
                    errors::ReadFrameHeaderError::SkipFrame { length, .. },
                )) => {
                    let skipped = io::copy(&mut (&mut self.input).take(length.into()), &mut io::sink())?;
                    if skipped < u64::from(length) {
                        return Err(ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(of_frame(&error)),
            }
        }
    }
}

/// An error of a frame: the input ended, or it is no zstd.
fn of_frame(error: &errors::FrameDecoderError) -> Error {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        let input = error.downcast_ref::<Error>();
        if input.is_some_and(|error| error.kind() == ErrorKind::UnexpectedEof) {
            return ErrorKind::UnexpectedEof.into();
        }
        source = error.source();
    }
    ErrorKind::InvalidData.into()
}

impl<R: Read> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.decoder.can_collect() > 0 {
                return self.decoder.read(buffer);
            }
            if !self.in_frame {
                if !self.next_frame()? {
                    return Ok(0);
                }
            } else if self.decoder.is_finished() {
                let (stored, computed) = (
                    self.decoder.get_checksum_from_data(),
                    self.decoder.get_calculated_checksum(),
                );
                if stored.is_some() && stored != computed {
                    return Err(ErrorKind::InvalidData.into());
                }
                self.in_frame = false;
            } else {
                self.decoder
                    .decode_blocks(&mut self.input, BlockDecodingStrategy::UptoBlocks(1))
                    .map_err(|error| of_frame(&error))?;
            }
        }
    }
}

/// UTF-8 out of UTF-16.
struct Utf16<R> {
    input: R,
    big_endian: bool,
    /// A byte without its other half.
    half: Option<u8>,
    /// The first half of a pair.
    high: Option<u16>,
    text: Vec<u8>,
    given: usize,
}

impl<R: Read> Utf16<R> {
    const fn new(input: R, big_endian: bool) -> Self {
        Self {
            input,
            big_endian,
            half: None,
            high: None,
            text: Vec::new(),
            given: 0,
        }
    }

    fn push(&mut self, unit: u16) {
        let high = self.high.take();
        if (0xd800..0xdc00).contains(&unit) {
            // Of two first halves the first is alone.
            self.text.extend(high.iter().flat_map(|high| character(&[*high])));
            self.high = Some(unit);
            return;
        }
        match high {
            Some(high) => self.text.extend(character(&[high, unit])),
            None => self.text.extend(character(&[unit])),
        }
    }
}

fn character(units: &[u16]) -> Vec<u8> {
    String::from_utf16_lossy(units).into_bytes()
}

impl<R: Read> Read for Utf16<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.given == self.text.len() {
            self.text.clear();
            self.given = 0;
            let mut bytes = [0; HEAD];
            let read = self.input.read(&mut bytes)?;
            if read == 0 {
                return Ok(0);
            }
            for byte in &bytes[..read] {
                let Some(first) = self.half.take() else {
                    self.half = Some(*byte);
                    continue;
                };
                let pair = [first, *byte];
                self.push(if self.big_endian {
                    u16::from_be_bytes(pair)
                } else {
                    u16::from_le_bytes(pair)
                });
            }
        }
        let length = buffer.len().min(self.text.len() - self.given);
        buffer[..length].copy_from_slice(&self.text[self.given..self.given + length]);
        self.given += length;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const TEXT: &str = "first line\nsecond é 😀 line\n";

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(text).unwrap();
        packed.finish().unwrap()
    }

    fn zstd(text: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(text, ruzstd::encoding::CompressionLevel::Fastest)
    }

    fn utf16(text: &str, big_endian: bool) -> Vec<u8> {
        let bytes = |unit: u16| {
            if big_endian {
                unit.to_be_bytes()
            } else {
                unit.to_le_bytes()
            }
        };
        text.encode_utf16().flat_map(bytes).collect()
    }

    /// One byte at a time, as the slowest pipe gives them.
    struct Slow(Cursor<Vec<u8>>);

    impl Read for Slow {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let one = buffer.len().min(1);
            self.0.read(&mut buffer[..one])
        }
    }

    fn read(bytes: Vec<u8>) -> Result<String, String> {
        let mut text = String::new();
        let (mut input, _) = decoded(Slow(Cursor::new(bytes))).map_err(|error| error.to_string())?;
        input
            .read_to_string(&mut text)
            .map_err(|error| error.to_string())?;
        Ok(text)
    }

    #[test]
    fn every_encoding() {
        for bytes in [
            TEXT.as_bytes().to_vec(),
            gzip(TEXT.as_bytes()),
            // Of two members, as `cat a.gz b.gz` gives.
            [gzip(&TEXT.as_bytes()[..9]), gzip(&TEXT.as_bytes()[9..])].concat(),
            zstd(TEXT.as_bytes()),
            [zstd(&TEXT.as_bytes()[..9]), zstd(&TEXT.as_bytes()[9..])].concat(),
            // A frame that is skipped.
            [
                zstd(&TEXT.as_bytes()[..9]),
                b"\x50\x2a\x4d\x18\x03\0\0\0abc".to_vec(),
                zstd(&TEXT.as_bytes()[9..]),
            ]
            .concat(),
            utf16(TEXT, false),
            utf16(TEXT, true),
            gzip(&utf16(TEXT, false)),
        ] {
            assert_eq!(read(bytes.clone()).as_deref(), Ok(TEXT), "{bytes:?}");
        }
        let marked = format!("\u{feff}{TEXT}");
        for big_endian in [false, true] {
            assert_eq!(read(utf16(&marked, big_endian)), Ok(marked.clone()));
        }
        assert_eq!(read(Vec::new()).as_deref(), Ok(""));
        assert_eq!(read(b"x".to_vec()).as_deref(), Ok("x"));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let long = TEXT.repeat(1000);
        let damaged = |mut bytes: Vec<u8>| {
            let at = bytes.len() - 6;
            bytes[at] ^= 0xff;
            bytes
        };
        let cut = |bytes: Vec<u8>| bytes[..bytes.len() - 9].to_vec();
        for (bytes, expected) in [
            (cut(gzip(long.as_bytes())), "cut off"),
            (cut(zstd(long.as_bytes())), "cut off"),
            (damaged(gzip(long.as_bytes())), "damaged"),
            (
                [gzip(long.as_bytes()), b"what is no member of gzip".to_vec()].concat(),
                "damaged",
            ),
            (
                [zstd(long.as_bytes()), b"no zstd frame".to_vec()].concat(),
                "damaged",
            ),
            (b"\xfd7zXZ\0...".to_vec(), "xz -dc"),
            (b"BZh9....".to_vec(), "bzip2 -dc"),
            (b"LPKSHHRH....".to_vec(), "journalctl"),
            (vec![0; 100], "not text"),
        ] {
            let error = read(bytes).unwrap_err();
            assert!(error.contains(expected), "{expected}: {error}");
        }
    }
}
