//! What comes out of a standby is the image that it is taken for, wherever the work on it was cut short.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up must fail")]

use std::{
    fs::{self, File},
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use form_delta::{Error, ErrorKind, Extent, Hash, Manifest, Standby, generate::noise, scan};
use tempfile::TempDir;

const MIB: usize = 1 << 20;

/// An image in a file, and its manifest.
struct Base {
    bytes: Vec<u8>,
    file: File,
    manifest: Manifest,
}

impl Base {
    fn new(bytes: Vec<u8>) -> Base {
        let file = form_delta::generate::memory_file(&bytes).unwrap();
        let manifest = scan(&form_delta::generate::image(&bytes).unwrap());
        Base { bytes, file, manifest }
    }

    fn root(&self) -> Hash {
        self.manifest.root()
    }
}

/// Three images, each with some changes to the one before: data, a hole where data was, another length.
fn bases() -> [Base; 3] {
    let mut first = noise(1, 3 * MIB);
    first.resize(6 * MIB, 0);
    let mut second = first.clone();
    second[MIB + 5] ^= 1;
    second[2 * MIB..2 * MIB + 600_000].fill(0);
    second[5 * MIB..5 * MIB + 9000].copy_from_slice(&noise(2, 9000));
    let mut third = second.clone();
    third[100] ^= 1;
    third.truncate(5 * MIB + 4097);
    [first, second, third].map(Base::new)
}

struct Place {
    _dir: TempDir,
    path: PathBuf,
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        Place { path: dir.path().join("memory.img"), _dir: dir }
    }

    fn record(&self) -> PathBuf {
        self.path.with_extension("img.record")
    }

    fn open(&self) -> Standby {
        Standby::open(&self.path).unwrap()
    }

    fn at(base: &Base) -> Place {
        let place = Place::new();
        place.open().bring_to(&base.file, &base.manifest, None, &|| true).unwrap();
        place
    }

    /// Whatever it says that it is, it is.
    fn is_what_it_says(&self, bases: &[Base]) -> Option<usize> {
        let root = self.open().root()?;
        let number = bases.iter().position(|base| base.root() == root).unwrap();
        assert!(fs::read(&self.path).unwrap() == bases[number].bytes);
        Some(number)
    }
}

#[test]
fn it_follows_its_base_and_only_what_changed_is_moved() {
    let bases = bases();
    let place = Place::new();
    let mut standby = place.open();
    assert_eq!((standby.root(), standby.near()), (None, None));
    let first = standby.bring_to(&bases[0].file, &bases[0].manifest, None, &|| true).unwrap();
    assert_eq!(first.bytes_written, 3 * MIB as u64);
    assert_eq!(standby.root(), Some(bases[0].root()));
    let second = standby.bring_to(&bases[1].file, &bases[1].manifest, Some(&bases[0].manifest), &|| true).unwrap();
    // One block, three across the noise, and the one in which the zeros end; the hole costs no write.
    assert_eq!(second.bytes_written, 5 * 4096);
    assert!(second.bytes_read < 2 * MIB as u64, "{second:?}");
    assert_eq!(standby.root(), Some(bases[1].root()));
    let allocated = fs::metadata(&place.path).unwrap().blocks() * 512;
    assert!(allocated < 3 * MIB as u64 - 500_000, "freed blocks are holes: {allocated}");
    let nothing = standby.bring_to(&bases[1].file, &bases[1].manifest, None, &|| true).unwrap();
    assert_eq!((nothing.bytes_read, nothing.bytes_written), (0, 0));
    standby.bring_to(&bases[2].file, &bases[2].manifest, Some(&bases[1].manifest), &|| true).unwrap();
    drop(standby);
    assert_eq!(place.is_what_it_says(&bases), Some(2));
    assert_eq!(fs::metadata(&place.path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(place.record()).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn consumed_it_is_a_file_and_no_standby_any_more() {
    let bases = bases();
    let place = Place::at(&bases[0]);
    let to = place.path.with_file_name("live.img");
    fs::write(&to, "in the way").unwrap();
    assert!(place.open().consume(&to).is_err());
    assert!(fs::read(&to).unwrap() == b"in the way");
    // Its record was given up before: it is compared in full again.
    assert_eq!(place.open().root(), None);
    place.open().bring_to(&bases[0].file, &bases[0].manifest, None, &|| true).unwrap();
    fs::remove_file(&to).unwrap();
    let file = place.open().consume(&to).unwrap();
    file.write_all_at(b"x", 0).unwrap();
    assert!(!place.path.exists() && !place.record().exists());
    assert!(fs::read(&to).unwrap()[1..] == bases[0].bytes[1..]);

    let error = place.open().consume(&to.with_extension("other")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "an empty one is nothing: {error}");
    place.open().remove().unwrap();
    assert!(!place.path.exists());
}

#[test]
fn it_has_one_owner_at_a_time() {
    let bases = bases();
    let place = Place::at(&bases[0]);
    let standby = place.open();
    assert_eq!(Standby::open(&place.path).unwrap_err().to_string(), "cannot lock standby image");
    let to = place.path.with_extension("out");
    let file = standby.consume(&to).unwrap();
    let mapped = File::open(&to).unwrap();
    rustix::fs::flock(&mapped, rustix::fs::FlockOperation::NonBlockingLockShared).unwrap();
    drop(file);
    // Somebody has it mapped as a base: it must not be written to yet.
    assert!(Standby::adopt(&place.path, &to, None).is_err());
    assert!(to.exists());
    drop(mapped);
    assert_eq!(Standby::adopt(&place.path, &to, None).unwrap().near(), None);
}

/// Cuts the work at its `k`-th question; whether it came that far.
fn cut(standby: &mut Standby, base: &Base, older: Option<&Manifest>, k: usize) -> bool {
    let asked = AtomicUsize::new(0);
    let go_on = || asked.fetch_add(1, Ordering::Relaxed) < k;
    match standby.bring_to(&base.file, &base.manifest, older, &go_on) {
        Ok(_) => false,
        Err(Error::Cancelled) => true,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn cut_short_at_any_step_it_is_right_or_not_known() {
    let bases = bases();
    let (mut unknown, mut k) = (0, 0);
    loop {
        let place = Place::at(&bases[0]);
        let was_cut = cut(&mut place.open(), &bases[1], Some(&bases[0].manifest), k);
        let found = place.is_what_it_says(&bases);
        if !was_cut {
            assert_eq!(found, Some(1));
            break;
        }
        assert!(found.is_none_or(|number| number == 0), "cut at {k}");
        unknown += usize::from(found.is_none());
        if found.is_none() {
            assert_eq!(place.open().near(), Some(bases[1].root()));
            assert!(place.open().consume(&place.path.with_extension("never")).is_err(), "cut at {k}");
            // What was on its way to the disk when the host was lost.
            let file = File::options().write(true).open(&place.path).unwrap();
            file.write_all_at(&noise(9, 4096), MIB as u64).unwrap();
        }
        // To the same image, or to the one after it, which is another's base by now.
        let (target, older) = if k % 2 == 0 { (1, 0) } else { (2, 1) };
        place
            .open()
            .bring_to(&bases[target].file, &bases[target].manifest, Some(&bases[older].manifest), &|| true)
            .unwrap();
        assert_eq!(place.is_what_it_says(&bases), Some(target), "cut at {k}");
        k += 1;
    }
    assert!(k > 6 && unknown + 1 == k, "{unknown} of {k}");
}

#[test]
fn cut_short_on_the_way_from_nothing() {
    let bases = bases();
    for k in 0..12 {
        let place = Place::new();
        assert!(cut(&mut place.open(), &bases[0], None, k));
        assert_eq!(place.is_what_it_says(&bases), None);
        // It says at most what it is being made, which is enough to go on.
        assert_eq!(place.open().near(), (k > 0).then(|| bases[0].root()), "cut at {k}");
        let older = if k % 2 == 0 { Some(&bases[0].manifest) } else { None };
        place.open().bring_to(&bases[1].file, &bases[1].manifest, older, &|| true).unwrap();
        assert_eq!(place.is_what_it_says(&bases), Some(1));
    }
}

#[test]
fn a_torn_record_says_nothing() {
    let bases = bases();
    let clean = Place::at(&bases[0]);
    let dirty = Place::at(&bases[0]);
    assert!(cut(&mut dirty.open(), &bases[1], Some(&bases[0].manifest), 3));
    for place in [clean, dirty] {
        let record = fs::read(place.record()).unwrap();
        for at in 0..record.len() {
            fs::write(place.record(), &record[..at]).unwrap();
            assert_eq!(place.open().near(), None, "cut at {at}");
            let mut flipped = record.clone();
            flipped[at] ^= 0x80;
            fs::write(place.record(), flipped).unwrap();
            assert_eq!(place.open().near(), None, "flipped at {at}");
        }
        place.open().bring_to(&bases[1].file, &bases[1].manifest, Some(&bases[0].manifest), &|| true).unwrap();
        assert_eq!(place.is_what_it_says(&bases), Some(1));
    }
}

#[test]
fn a_file_that_was_touched_since_is_hashed_again() {
    let bases = bases();
    let touch: [fn(&Path); 4] = [
        |path| File::options().write(true).open(path).unwrap().write_all_at(&[1], 0).unwrap(),
        |path| File::options().write(true).open(path).unwrap().set_len(100).unwrap(),
        |path| fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap(),
        |path| {
            let copy = path.with_extension("copy");
            fs::copy(path, &copy).unwrap();
            fs::rename(&copy, path).unwrap();
        },
    ];
    for (number, touch) in touch.into_iter().enumerate() {
        let place = Place::at(&bases[0]);
        touch(&place.path);
        assert_eq!(place.open().near(), None, "{number}");
        place.open().bring_to(&bases[0].file, &bases[0].manifest, Some(&bases[0].manifest), &|| true).unwrap();
        assert_eq!(place.is_what_it_says(&bases), Some(0), "{number}");
    }
}

#[test]
fn an_old_base_is_taken_in_and_believed_when_it_was_hashed() {
    let bases = bases();
    for damage in [None, Some(3 * MIB as u64 - 1), Some(MIB as u64 + 5)] {
        let place = Place::new();
        let old = place.path.with_extension("old");
        fs::write(&old, &bases[0].bytes).unwrap();
        let mut standby = Standby::adopt(&place.path, &old, Some(bases[0].root())).unwrap();
        assert!(!old.exists());
        assert_eq!((standby.root(), standby.near()), (None, Some(bases[0].root())));
        if let Some(at) = damage {
            File::options().write(true).open(&place.path).unwrap().write_all_at(&[77], at).unwrap();
        }
        let brought = standby.bring_to(&bases[1].file, &bases[1].manifest, Some(&bases[0].manifest), &|| true);
        match damage {
            Some(at) if at > 2 * MIB as u64 => {
                assert_eq!(brought.unwrap_err().kind(), ErrorKind::Corrupt);
                assert_eq!((standby.root(), standby.near()), (None, None));
                standby.bring_to(&bases[1].file, &bases[1].manifest, Some(&bases[0].manifest), &|| true).unwrap();
            }
            // Nothing, or where it was to be written anyway.
            _ => assert_eq!(brought.unwrap().bytes_written, 5 * 4096),
        }
        drop(standby);
        assert_eq!(place.is_what_it_says(&bases), Some(1));
    }
}

#[test]
fn a_base_that_is_not_its_manifest_makes_no_standby() {
    let bases = bases();
    let place = Place::at(&bases[0]);
    bases[1].file.write_all_at(&[1, 2, 3], MIB as u64).unwrap();
    let mut standby = place.open();
    let error = standby.bring_to(&bases[1].file, &bases[1].manifest, Some(&bases[0].manifest), &|| true).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!((standby.root(), standby.near()), (None, None));
    drop(standby);
    assert_eq!(place.open().near(), None);
}

/// A standby of `from` that was to become `to`, and was written to here and there in between.
fn half_changed(place: &Place, from: &Base, to: &Base) {
    let changed = to.manifest.changed_since(&from.manifest);
    let mut standby = place.open();
    standby.begin_changing(&from.manifest, &to.manifest, &changed).unwrap();
    assert_eq!((standby.root(), standby.near()), (None, Some(to.root())));
    standby.file().set_len(to.bytes.len() as u64).unwrap();
    for extent in changed {
        let half = extent.len_bytes() as usize / 2;
        standby.file().write_all_at(&noise(extent.start, half), extent.start).unwrap();
    }
}

#[test]
fn a_change_that_was_cut_short_is_undone_where_it_was_to_write_and_nowhere_else() {
    let bases = bases();
    // To the same length, to a shorter one, to a longer one.
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        let equals = |place: &Place, base: &Base| {
            let image = form_delta::generate::image(&base.bytes).unwrap();
            place.open().equals(&image, &base.file, &base.manifest).unwrap()
        };
        let place = Place::at(&bases[from]);
        assert!(equals(&place, &bases[from]) && !equals(&place, &bases[to]));
        half_changed(&place, &bases[from], &bases[to]);
        assert!(fs::read(&place.path).unwrap() != bases[from].bytes);
        // Of another base it says nothing.
        let before = fs::read(&place.path).unwrap();
        assert!(!equals(&place, &bases[3 - from - to]) && fs::read(&place.path).unwrap() == before);
        assert!(equals(&place, &bases[from]));
        assert!(fs::read(&place.path).unwrap() == bases[from].bytes);
        place.open().renamed().unwrap();
        assert!(!place.record().exists());

        // Somebody else has written to it meanwhile, elsewhere.
        let place = Place::at(&bases[from]);
        half_changed(&place, &bases[from], &bases[to]);
        File::options().write(true).open(&place.path).unwrap().write_all_at(b"x", 4 * MIB as u64).unwrap();
        let before = fs::read(&place.path).unwrap();
        assert!(!equals(&place, &bases[from]), "{from} to {to}");
        assert!(fs::read(&place.path).unwrap() == before, "what is another file is not touched");
    }
}

#[test]
fn what_is_known_of_a_file_is_over_when_it_is_written_to() {
    let bases = bases();
    let place = Place::new();
    assert!(Standby::open_existing(&place.path).is_err() && !place.path.exists());
    fs::write(&place.path, &bases[0].bytes).unwrap();
    let mut standby = Standby::open_existing(&place.path).unwrap();
    assert_eq!(standby.root(), None);
    standby.know(bases[0].root()).unwrap();
    assert_eq!(standby.root(), Some(bases[0].root()));
    // A change that changes nothing leaves it clean.
    standby.begin_changing(&bases[0].manifest, &bases[0].manifest, &[]).unwrap();
    assert_eq!(standby.root(), Some(bases[0].root()));
    standby.file().write_all_at(b"x", 5).unwrap();
    assert_eq!((standby.root(), standby.near()), (None, None));
}

#[test]
fn chunks_that_are_the_same_at_the_same_place_have_not_changed() {
    let bases = bases();
    for (older, newer) in [(0, 1), (1, 2), (2, 0)] {
        let changed = bases[newer].manifest.changed_since(&bases[older].manifest);
        let (old, new) = (&bases[older].bytes, &bases[newer].bytes);
        let mut kept = new.clone();
        for extent in &changed {
            kept[extent.start as usize..extent.end as usize].fill(0xee);
        }
        let same = kept.iter().zip(old).filter(|(byte, _)| **byte != 0xee).all(|(kept, old)| kept == old);
        assert!(same, "{older} to {newer}");
        assert!(changed.iter().map(Extent::len_bytes).sum::<u64>() < 4 * MIB as u64);
    }
    assert_eq!(bases[0].manifest.changed_since(&bases[0].manifest), []);
}
