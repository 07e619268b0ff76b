//! Making and opening the file.

use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::store::error::Error;
use crate::store::limits::BUSY_WAIT;

/// `user_version` of the file; bump it when a table changes.
const FORMAT: i64 = 1;
/// `application_id` of the file: "form".
const APPLICATION: i64 = 0x666f_726d;

// A deleted key stays as a row without value, so that a watch can tell it; keys are few and reused.
const TABLES: &str = "
CREATE TABLE IF NOT EXISTS kv(
    key TEXT PRIMARY KEY NOT NULL, value BLOB, mod_revision INTEGER NOT NULL, lease INTEGER) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS kv_by_revision ON kv(mod_revision);
CREATE INDEX IF NOT EXISTS kv_by_lease ON kv(lease) WHERE lease IS NOT NULL;
CREATE TABLE IF NOT EXISTS revision(one INTEGER PRIMARY KEY CHECK (one = 1), value INTEGER NOT NULL);
INSERT OR IGNORE INTO revision VALUES (1, 0);
CREATE TABLE IF NOT EXISTS lease(
    id INTEGER PRIMARY KEY AUTOINCREMENT, boot_id TEXT NOT NULL, ttl_ms INTEGER NOT NULL, expires_ms INTEGER NOT NULL);
";

pub(super) fn open(path: &Path) -> Result<Connection, Error> {
    let failed = |source| Error::Open { path: path.to_owned(), source };
    let directory = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(|e| failed(e.into()))?;
    if let Some(filesystem) = network_filesystem(directory).map_err(|e| failed(e.into()))? {
        return Err(Error::NetworkFilesystem { path: path.to_owned(), filesystem });
    }
    // SQLite gives its -wal and -shm files the mode of the main file.
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|e| failed(e.into()))?;
    file.set_permissions(Permissions::from_mode(0o600)).map_err(|e| failed(e.into()))?;
    drop(file);

    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(|e| failed(e.into()))?;
    prepare(&connection).map_err(|e| failed(e.into()))?;
    let found: i64 = pragma(&connection, "user_version").map_err(|e| failed(e.into()))?;
    let application: i64 = pragma(&connection, "application_id").map_err(|e| failed(e.into()))?;
    if found != FORMAT || application != APPLICATION {
        let why =
            format!("it is of format {found} of application {application:#x}; this version reads format {FORMAT}");
        return Err(failed(why.into()));
    }
    Ok(connection)
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_WAIT)?;
    connection.set_prepared_statement_cache_capacity(64);
    use_wal(connection)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if tables == 0 {
        connection.execute_batch(TABLES)?;
        connection.pragma_update(None, "user_version", FORMAT)?;
        connection.pragma_update(None, "application_id", APPLICATION)?;
    }
    connection.execute_batch("COMMIT")
}

/// The one change that SQLite does not wait for: another process may be making it on the same new file.
fn use_wal(connection: &Connection) -> rusqlite::Result<()> {
    let until = Instant::now() + BUSY_WAIT;
    loop {
        match connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0)) {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(5));
            }
            done => return done.map(drop),
        }
    }
}

fn pragma(connection: &Connection, name: &str) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, name, |row| row.get(0))
}

/// The name of the network filesystem that a directory is on, if it is on one.
fn network_filesystem(directory: &Path) -> std::io::Result<Option<&'static str>> {
    let kind = rustix::fs::statfs(directory)?.f_type;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "statfs magics are 32 bits, whatever the field's type"
    )]
    Ok(network_magic(kind as u32))
}

/// Magics of linux/magic.h and statfs(2) whose locks or shared mappings don't hold between machines.
fn network_magic(magic: u32) -> Option<&'static str> {
    Some(match magic {
        0x6969 => "NFS",
        0x517b => "SMB",
        0xff53_4d42 => "CIFS",
        0xfe53_4d42 => "SMB2",
        0x5346_414f | 0x6b41_4653 => "AFS",
        0x7375_7245 => "Coda",
        0x0102_1997 => "9P",
        0x00c3_6400 => "Ceph",
        0x0bd0_0bd0 => "Lustre",
        0x0116_1970 => "GFS2",
        0x7461_636f => "OCFS2",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_filesystems_are_known_by_their_magic() {
        assert_eq!(network_magic(0x6969), Some("NFS"));
        assert_eq!(network_magic(0xff53_4d42), Some("CIFS"));
        assert_eq!(network_magic(0xef53), None, "ext4");
        assert_eq!(network_magic(0x0102_1994), None, "tmpfs");
    }

    #[test]
    fn a_foreign_database_is_refused() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("other.db");
        let other = Connection::open(&path).expect("open");
        other.execute_batch("CREATE TABLE mine(x)").expect("create");
        drop(other);
        let error = open(&path).expect_err("not ours");
        assert!(matches!(error, Error::Open { .. }), "{error:?}");
    }

    #[test]
    fn processes_that_meet_at_a_new_file_all_open_it() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("state.db");
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let path = path.clone();
                std::thread::spawn(move || open(&path).map(drop))
            })
            .collect();
        for thread in threads {
            thread.join().expect("thread").expect("open");
        }
    }

    #[test]
    fn only_the_owner_may_read_it() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("state/state.db");
        let connection = open(&path).expect("open");
        connection.execute_batch("UPDATE revision SET value = value").expect("write");
        let mode = |p: &Path| std::fs::metadata(p).expect("stat").permissions().mode() & 0o777;
        assert_eq!(mode(&dir.path().join("state")), 0o700);
        for name in ["state/state.db", "state/state.db-wal", "state/state.db-shm"] {
            assert_eq!(mode(&dir.path().join(name)), 0o600, "{name}");
        }
        assert_eq!(pragma(&connection, "synchronous").expect("pragma"), 2, "FULL");
    }
}
