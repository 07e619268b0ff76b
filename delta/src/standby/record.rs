use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
    time::UNIX_EPOCH,
};

use crate::{
    Extent, Hash, Result,
    codec::Reader,
    error::{Error, Object},
    limits::{IMAGE_BYTES_MAX, STANDBY_EXTENTS_MAX},
};

const MAGIC: [u8; 4] = *b"fmSB";
const VERSION: u16 = 1;
const CLEAN: u16 = 1;
const DIRTY: u16 = 2;
/// Magic, version, state, root; of a dirty record also the older root, the inode, its birth and the number of extents; the hash behind it all.
const LARGEST: usize = 4 + 2 + 2 + 32 + 32 + 8 + 12 + 4 + STANDBY_EXTENTS_MAX * 16 + 32;

/// What is known of a standby. Its format is in FORMAT.md.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    /// Every byte was hashed after the last write.
    Clean { root: Hash, stamp: Stamp },
    /// It was the image `from`, has been written to only within `extents`, and outside of them equals `to` as well.
    Dirty { from: Hash, to: Hash, file: Born, extents: Vec<Extent> },
}

/// Which file it is, whatever is written to it. A number alone may be another file's by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Born {
    pub(super) inode: u64,
    /// When it was made; zero where the file system does not say.
    pub(super) s: u64,
    pub(super) ns: u32,
}

impl Born {
    pub(super) fn of(file: &fs::Metadata) -> Born {
        let at = file.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        Born { inode: file.ino(), s: at.as_secs(), ns: at.subsec_nanos() }
    }
}

/// What changes whenever a file is written to, however that is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) len_bytes: u64,
    pub(super) inode: u64,
    /// Of the inode's last change, which nobody can set.
    pub(super) changed_s: i64,
    pub(super) changed_ns: u32,
}

impl Record {
    /// Whether it is of that file. One of a file that has been replaced says nothing.
    pub(super) fn is_of(&self, found: &Born) -> bool {
        match self {
            Record::Clean { stamp, .. } => stamp.inode == found.inode,
            Record::Dirty { file, .. } => file == found,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(VERSION.to_le_bytes());
        match self {
            Record::Clean { root, stamp } => {
                bytes.extend(CLEAN.to_le_bytes());
                bytes.extend(root.as_bytes());
                bytes.extend(stamp.len_bytes.to_le_bytes());
                bytes.extend(stamp.inode.to_le_bytes());
                bytes.extend(stamp.changed_s.to_le_bytes());
                bytes.extend(stamp.changed_ns.to_le_bytes());
            }
            Record::Dirty { from, to, file, extents } => {
                bytes.extend(DIRTY.to_le_bytes());
                bytes.extend(to.as_bytes());
                bytes.extend(from.as_bytes());
                bytes.extend(file.inode.to_le_bytes());
                bytes.extend(file.s.to_le_bytes());
                bytes.extend(file.ns.to_le_bytes());
                bytes.extend((extents.len() as u32).to_le_bytes());
                for extent in extents {
                    bytes.extend(extent.start.to_le_bytes());
                    bytes.extend(extent.end.to_le_bytes());
                }
            }
        }
        let hash = Hash::of(&bytes);
        bytes.extend(hash.as_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Record> {
        let object = Object::StandbyRecord;
        let cut = bytes.split_last_chunk::<32>();
        let (body, hash) = cut.ok_or_else(|| Error::damaged(object, 0, "it is too short"))?;
        let (expected, found) = (Hash::from_bytes(*hash), Hash::of(body));
        if expected != found {
            return Err(Error::WrongHash { object, offset_bytes: 0, expected, found });
        }
        let mut reader = Reader::new(object, body, 0);
        reader.opening(MAGIC, VERSION)?;
        let record = match reader.u16()? {
            CLEAN => Record::Clean {
                root: reader.hash()?,
                stamp: Stamp {
                    len_bytes: reader.u64()?,
                    inode: reader.u64()?,
                    changed_s: reader.u64()?.cast_signed(),
                    changed_ns: reader.u32()?,
                },
            },
            DIRTY => {
                let (to, from) = (reader.hash()?, reader.hash()?);
                let file = Born { inode: reader.u64()?, s: reader.u64()?, ns: reader.u32()? };
                let count = reader.u32()?;
                reader.limit("number of extents", u64::from(count), STANDBY_EXTENTS_MAX as u64)?;
                let mut extents = Vec::new();
                let mut after = 0;
                for _ in 0..count {
                    let extent = Extent::new(reader.u64()?, reader.u64()?);
                    if extent.is_empty() || extent.start < after || extent.end > IMAGE_BYTES_MAX {
                        return Err(reader.damaged("its extents are not in order"));
                    }
                    after = extent.end;
                    extents.push(extent);
                }
                Record::Dirty { from, to, file, extents }
            }
            _ => return Err(reader.damaged("there is no such state")),
        };
        match reader.remaining() {
            0 => Ok(record),
            _ => Err(reader.damaged("something follows the end")),
        }
    }

    pub(super) fn read(path: &Path) -> Result<Record> {
        let file = File::open(path).map_err(Error::io("open", Object::StandbyRecord))?;
        let mut bytes = Vec::new();
        file.take(LARGEST as u64 + 1).read_to_end(&mut bytes).map_err(Error::io("read", Object::StandbyRecord))?;
        Record::decode(&bytes)
    }

    /// Durable, but for its name.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let new = path.with_extension("record-new");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)
            .map_err(Error::io("create", Object::StandbyRecord))?;
        file.write_all(&self.encode())
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::rename(&new, path))
            .map_err(Error::io("write", Object::StandbyRecord))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMAT: &str = include_str!("../../FORMAT.md");

    fn documented(heading: &str) -> Vec<u8> {
        let (_, section) = FORMAT.split_once(heading).unwrap();
        let (_, dump) = section.split_once("```hex\n").unwrap();
        let (dump, _) = dump.split_once("```").unwrap();
        let digits = dump.lines().filter_map(|line| line.split('|').nth(1)).flat_map(str::split_whitespace);
        digits.map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
    }

    fn clean() -> Record {
        let stamp = Stamp { len_bytes: 12, inode: 77, changed_s: 1_700_000_000, changed_ns: 5 };
        Record::Clean { root: Hash::of(b"the manifest"), stamp }
    }

    fn dirty() -> Record {
        let (from, to) = (Hash::of(b"the manifest"), Hash::of(b"the next manifest"));
        Record::Dirty {
            from,
            to,
            file: Born { inode: 77, s: 1_700_000_000, ns: 7 },
            extents: vec![Extent::new(4096, 8192), Extent::new(1 << 30, (1 << 30) + 1)],
        }
    }

    #[test]
    fn an_inode_that_was_given_out_again_is_another_file() {
        let born = Born { inode: 77, s: 1_700_000_000, ns: 7 };
        assert!(dirty().is_of(&born) && clean().is_of(&born));
        assert!(!dirty().is_of(&Born { ns: 8, ..born }) && !dirty().is_of(&Born { inode: 78, ..born }));
    }

    #[test]
    fn records_are_as_documented() {
        assert_eq!(clean().encode(), documented("### Standby record: worked example, clean"));
        assert_eq!(dirty().encode(), documented("### Standby record: worked example, dirty"));
    }

    #[test]
    fn a_record_goes_both_ways_and_a_damaged_one_is_refused() {
        for record in [
            clean(),
            dirty(),
            Record::Dirty {
                from: Hash::of(b""),
                to: Hash::of(b""),
                file: Born { inode: 1, s: 0, ns: 0 },
                extents: Vec::new(),
            },
        ] {
            let bytes = record.encode();
            assert_eq!(Record::decode(&bytes).unwrap(), record);
            for cut in 0..bytes.len() {
                assert!(Record::decode(&bytes[..cut]).is_err(), "cut at {cut}");
                let mut flipped = bytes.clone();
                flipped[cut] ^= 1;
                assert!(Record::decode(&flipped).is_err(), "flipped at {cut}");
            }
        }
    }

    /// Its own hash may be right; the fields are looked at all the same.
    #[test]
    fn nonsense_with_a_right_hash_is_refused() {
        let body = dirty().encode();
        let body = &body[..body.len() - 32];
        let with_hash = |body: &[u8]| [body, Hash::of(body).as_bytes()].concat();
        assert_eq!(Record::decode(&with_hash(body)).unwrap(), dirty());
        let changes: [(usize, u8); 6] = [(0, b'x'), (4, 2), (6, 3), (92, 3), (95, 0xff), (105, 0)];
        for (at, value) in changes {
            let mut body = body.to_vec();
            body[at] = value;
            assert!(Record::decode(&with_hash(&body)).is_err(), "{value} at {at}");
        }
        assert!(Record::decode(&with_hash(&[body, &[0]].concat())).is_err());
    }
}
