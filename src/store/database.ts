/**
 * Images, the names that lead to them and their layers, in SQLite (node:sqlite). A rollback journal, not
 * a write-ahead log: every command opens the database once and reads a row or two, which then costs
 * 0.06 ms instead of 0.3 and makes no files beside it; writes are rare and short (docs/store.md).
 *
 * The version of the schema is `user_version`. A new database is made, and an old one brought up to date,
 * in one transaction at the first opening for writing; a newer one is refused.
 */
import { closeSync, existsSync, openSync } from 'node:fs';
import { DatabaseSync } from 'node:sqlite';
import { systemError, TspodError } from '../errors.ts';
import { type Digest, parseDigest } from '../image/digest.ts';
import { isObject } from '../image/json.ts';
import { lastUse, readImageRecord, recordedIds, type StoredImage } from './image-record.ts';
import type { Layout } from './layout.ts';
import type { Download, ImageRecord, Verdict } from './types.ts';
import { isVerdict } from './verdict.ts';

/** "tspd": tells file(1) and us whose database this is. */
const APPLICATION_ID = 0x74737064;
const SCHEMA_VERSION = 4;
const BUSY_TIMEOUT_MS = 30_000;

const SCHEMA_1 = `
  CREATE TABLE images (
    id TEXT PRIMARY KEY,
    manifest_digest TEXT NOT NULL,
    admitted INTEGER NOT NULL,
    verdict_by TEXT NOT NULL,
    imported_at INTEGER NOT NULL,
    size INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE names (
    name TEXT PRIMARY KEY,
    image TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    since INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX names_by_image ON names (image, since DESC);
  CREATE TABLE layers (
    image TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    diff_id TEXT NOT NULL,
    media_type TEXT NOT NULL,
    blob_digest TEXT NOT NULL,
    blob_size INTEGER NOT NULL,
    PRIMARY KEY (image, position)
  ) STRICT, WITHOUT ROWID;
`;

/** Images that came as ACIs. */
const SCHEMA_2 = `
  ALTER TABLE images ADD COLUMN appc_id TEXT;
  ALTER TABLE images ADD COLUMN appc_manifest TEXT;
`;

/** What a server said of the file that a name (a URL) led to. */
const SCHEMA_3 = `
  CREATE TABLE downloads (
    name TEXT PRIMARY KEY REFERENCES names (name) ON DELETE CASCADE,
    etag TEXT,
    fresh_until INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
`;

/** The rule and the signers of a verdict, as JSON; null where there are none. */
const SCHEMA_4 = 'ALTER TABLE images ADD COLUMN verdict TEXT;';

type Row = Record<string, unknown>;

export class Database {
  readonly #layout: Layout;
  readonly #readOnly: boolean;
  #db: DatabaseSync | undefined;

  constructor(layout: Layout, readOnly: boolean) {
    this.#layout = layout;
    this.#readOnly = readOnly;
  }

  /** Newest import last, as rkt lists them. */
  all(): ImageRecord[] {
    return this.#read(db =>
      db
        .prepare('SELECT * FROM images ORDER BY imported_at, id')
        .all()
        .map(row => this.#record(db, row)),
    );
  }

  byId(id: Digest): ImageRecord | undefined {
    return this.#read(db => this.#byId(db, id));
  }

  byName(name: string): ImageRecord | undefined {
    return this.#read(db => {
      const row = db
        .prepare('SELECT images.* FROM names JOIN images ON images.id = names.image WHERE name = ?')
        .get(name);
      return row && this.#record(db, row);
    });
  }

  /** At most two: the caller only has to know whether it is one. */
  byDigestPrefix(column: 'id' | 'manifest_digest' | 'appc_id', prefix: string): ImageRecord[] {
    return this.#read(db =>
      db
        // Digits and a-f sort before g, so these are the bounds of a prefix.
        .prepare(`SELECT * FROM images WHERE ${column} >= ? AND ${column} < ? ORDER BY id LIMIT 2`)
        .all(prefix, `${prefix}g`)
        .map(row => this.#record(db, row)),
    );
  }

  /**
   * Writes an image, replacing what is known of it, with `name` now leading to it. `beforeCommit` is given
   * each image as it will be: this one, then the one that lost the name, if any. When it throws, nothing
   * was changed.
   */
  add(
    image: Omit<StoredImage, 'names'>,
    name: string | undefined,
    now: number,
    beforeCommit: (image: StoredImage) => void,
  ): ImageRecord {
    return this.#write(db => {
      const changed = new Set([image.id]);
      insertImage(db, image);
      if (name !== undefined) {
        const loser = db.prepare('SELECT image FROM names WHERE name = ?').get(name);
        if (loser !== undefined) changed.add(parseDigest(loser.image, 'store.db: names.image'));
        insertName(db, name, image.id, now);
      }
      for (const id of changed) beforeCommit(this.#stored(db, id));
      return this.#known(db, image.id);
    });
  }

  download(name: string): Download | undefined {
    return this.#read(db => {
      const row = db.prepare('SELECT * FROM downloads WHERE name = ?').get(name);
      if (row === undefined) return undefined;
      const etag = row.etag === null ? undefined : text(row, 'etag');
      return { etag, freshUntil: integer(row, 'fresh_until') };
    });
  }

  /** Nothing is kept for a name that leads to no image. */
  setDownload(name: string, { etag, freshUntil }: Download): void {
    this.#write(db => {
      db.prepare(
        `INSERT OR REPLACE INTO downloads (name, etag, fresh_until)
         SELECT name, ?, ? FROM names WHERE name = ?`,
      ).run(etag ?? null, freshUntil, name);
    });
  }

  /** @returns those that were there */
  remove(ids: readonly Digest[]): Digest[] {
    if (ids.length === 0 || !existsSync(this.#layout.database)) return [];
    return this.#write(db => {
      const statement = db.prepare('DELETE FROM images WHERE id = ?');
      return ids.filter(id => statement.run(id).changes > 0);
    });
  }

  close(): void {
    this.#db?.close();
    this.#db = undefined;
  }

  #stored(db: DatabaseSync, id: Digest): StoredImage {
    const { lastUsedAt: _, ...record } = this.#known(db, id);
    const names = db
      .prepare('SELECT name, since FROM names WHERE image = ? ORDER BY since DESC, name')
      .all(id)
      .map(row => ({ name: text(row, 'name'), since: integer(row, 'since') }));
    return { ...record, names };
  }

  #known(db: DatabaseSync, id: Digest): ImageRecord {
    const record = this.#byId(db, id);
    if (record === undefined) throw new Error('the image is not there after INSERT');
    return record;
  }

  #byId(db: DatabaseSync, id: Digest): ImageRecord | undefined {
    const row = db.prepare('SELECT * FROM images WHERE id = ?').get(id);
    return row && this.#record(db, row);
  }

  #record(db: DatabaseSync, row: Row): ImageRecord {
    const id = parseDigest(row.id, 'store.db: images.id');
    const importedAt = integer(row, 'imported_at');
    return {
      id,
      manifestDigest: parseDigest(row.manifest_digest, 'store.db: images.manifest_digest'),
      names: db
        .prepare('SELECT name FROM names WHERE image = ? ORDER BY since DESC, name')
        .all(id)
        .map(name => text(name, 'name')),
      layers: db
        .prepare('SELECT * FROM layers WHERE image = ? ORDER BY position')
        .all(id)
        .map(layer => ({
          diffId: parseDigest(layer.diff_id, 'store.db: layers.diff_id'),
          blob: {
            mediaType: text(layer, 'media_type'),
            digest: parseDigest(layer.blob_digest, 'store.db: layers.blob_digest'),
            size: integer(layer, 'blob_size'),
          },
        })),
      verdict: readVerdict(row),
      importedAt,
      lastUsedAt: lastUse(this.#layout, id) ?? importedAt,
      size: integer(row, 'size'),
      ...(row.appc_id === null || row.appc_manifest === null
        ? {}
        : {
            appc: {
              id: parseDigest(row.appc_id, 'store.db: images.appc_id'),
              manifest: parseDigest(row.appc_manifest, 'store.db: images.appc_manifest'),
            },
          }),
    };
  }

  /** One consistent view for several statements. Nothing is made where there is no store yet. */
  #read<T>(action: (db: DatabaseSync) => T): T {
    return this.#guard(() => {
      const db = this.#open(false);
      return transaction(db, 'DEFERRED', () => action(db));
    });
  }

  #write<T>(action: (db: DatabaseSync) => T): T {
    if (this.#readOnly) throw new Error('the store was opened for reading');
    return this.#guard(() => {
      const db = this.#open(true);
      return transaction(db, 'IMMEDIATE', () => action(db));
    });
  }

  #open(forWriting: boolean): DatabaseSync {
    if (this.#db !== undefined) return this.#db;
    const path = this.#layout.database;
    const missing = !existsSync(path);
    if (missing && !forWriting && recordedIds(this.#layout).length === 0) return emptyDatabase();
    if (missing && this.#readOnly) throw this.#lost();
    if (missing) {
      this.#layout.make();
      closeSync(openSync(path, 'a', 0o600));
    }
    const db = new DatabaseSync(path, { readOnly: this.#readOnly, timeout: BUSY_TIMEOUT_MS });
    try {
      // Made by somebody whom a full disk kept from writing to it.
      const unwritten = !forWriting && schemaVersion(db) === 0;
      if (unwritten && recordedIds(this.#layout).length === 0) {
        db.close();
        return emptyDatabase();
      }
      this.#bringUpToDate(db);
    } catch (error) {
      db.close();
      throw error;
    }
    this.#db = db;
    return db;
  }

  #bringUpToDate(db: DatabaseSync): void {
    const version = schemaVersion(db);
    if (version === SCHEMA_VERSION) return;
    if (version > SCHEMA_VERSION) {
      throw new TspodError(
        'store',
        `the store in ${this.#layout.dir} has schema ${version}, and this tspod knows up to ${SCHEMA_VERSION}`,
        { hint: 'use the newer tspod that wrote it, or another data folder with --dir' },
      );
    }
    if (this.#readOnly) throw this.#lost();
    transaction(db, 'IMMEDIATE', () => {
      // Another process may have done it while this one waited.
      const now = schemaVersion(db);
      if (now === 0) db.exec(SCHEMA_1);
      if (now < 2) db.exec(SCHEMA_2);
      if (now < 3) db.exec(SCHEMA_3);
      if (now < 4) db.exec(SCHEMA_4);
      if (now === 0) this.#rebuild(db);
      db.exec(`PRAGMA application_id = ${APPLICATION_ID}; PRAGMA user_version = ${SCHEMA_VERSION}`);
    });
  }

  /** Takes in the images whose records are there: none in a new store, all where the database was lost. */
  #rebuild(db: DatabaseSync): void {
    const images = recordedIds(this.#layout)
      .map(id => readImageRecord(this.#layout, id))
      .filter(image => image !== undefined)
      .filter(image => existsSync(this.#layout.blob(image.manifestDigest)));
    for (const image of images) insertImage(db, image);
    const names = images.flatMap(image => image.names.map(name => ({ ...name, id: image.id })));
    names.sort((a, b) => a.since - b.since);
    for (const { name, id, since } of names) insertName(db, name, id, since);
  }

  #lost(): TspodError {
    return new TspodError(
      'store',
      `the store's database ${this.#layout.database} is missing or unfinished`,
      {
        hint: 'run "image list" as the owner of the store: it is rebuilt from the image records',
      },
    );
  }

  /** SQLite's errors in the one grammar. */
  #guard<T>(action: () => T): T {
    try {
      return action();
    } catch (error) {
      throw this.#explain(error);
    }
  }

  #explain(error: unknown): unknown {
    const path = this.#layout.database;
    switch (sqliteCode(error)) {
      case undefined:
        return error;
      case 5: // SQLITE_BUSY
        return new TspodError('busy', `the store's database ${path} is in use by another process`, {
          hint: 'try again',
          cause: error,
        });
      case 11: // SQLITE_CORRUPT
      case 26: // SQLITE_NOTADB
      case 1: // SQLITE_ERROR: a table or column that should be there is not
        return new TspodError('store', `the store's database ${path} is damaged`, {
          hint: `remove it with "rm ${path}*"; the next command rebuilds it from the image records`,
          cause: error,
        });
      case 13: // SQLITE_FULL
        return new TspodError('disk-full', `can't write ${path}: no space left on the device`, {
          hint: 'free space there or choose another data folder with --dir',
          cause: error,
        });
      default:
        return systemError(`can't use the store's database ${path}`, error);
    }
  }
}

function schemaVersion(db: DatabaseSync): number {
  const row = db.prepare('PRAGMA user_version').get();
  return row === undefined ? 0 : integer(row, 'user_version');
}

let empty: DatabaseSync | undefined;

/** What a store is that nobody has written to. */
function emptyDatabase(): DatabaseSync {
  if (empty === undefined) {
    empty = new DatabaseSync(':memory:');
    empty.exec(SCHEMA_1 + SCHEMA_2 + SCHEMA_3 + SCHEMA_4);
  }
  return empty;
}

function transaction<T>(db: DatabaseSync, kind: 'DEFERRED' | 'IMMEDIATE', action: () => T): T {
  db.exec(`BEGIN ${kind}`);
  try {
    const result = action();
    db.exec('COMMIT');
    return result;
  } catch (error) {
    // SQLite has rolled back by itself after a full disk or an I/O error.
    if (db.isTransaction) db.exec('ROLLBACK');
    throw error;
  }
}

function insertImage(db: DatabaseSync, image: Omit<StoredImage, 'names'>): void {
  db.prepare(
    `INSERT INTO images (id, manifest_digest, admitted, verdict_by, imported_at, size, appc_id, appc_manifest, verdict)
     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
     ON CONFLICT (id) DO UPDATE SET manifest_digest = excluded.manifest_digest,
       admitted = excluded.admitted, verdict_by = excluded.verdict_by, size = excluded.size,
       appc_id = excluded.appc_id, appc_manifest = excluded.appc_manifest,
       verdict = excluded.verdict`,
  ).run(
    image.id,
    image.manifestDigest,
    image.verdict.admitted ? 1 : 0,
    image.verdict.by,
    image.importedAt,
    image.size,
    image.appc?.id ?? null,
    image.appc?.manifest ?? null,
    furtherVerdict(image.verdict),
  );
  db.prepare('DELETE FROM layers WHERE image = ?').run(image.id);
  const layer = db.prepare(
    `INSERT INTO layers (image, position, diff_id, media_type, blob_digest, blob_size)
     VALUES (?, ?, ?, ?, ?, ?)`,
  );
  image.layers.forEach(({ diffId, blob }, position) => {
    layer.run(image.id, position, diffId, blob.mediaType, blob.digest, blob.size);
  });
}

function insertName(db: DatabaseSync, name: string, image: Digest, since: number): void {
  db.prepare(
    `INSERT INTO names (name, image, since) VALUES (?, ?, ?)
     ON CONFLICT (name) DO UPDATE SET image = excluded.image, since = excluded.since`,
  ).run(name, image, since);
}

/** JSON of what a verdict has beyond the columns; null for most images. */
function furtherVerdict({ rule, signers }: Verdict): string | null {
  return rule === undefined && signers === undefined ? null : JSON.stringify({ rule, signers });
}

function readVerdict(row: Row): Verdict {
  const plain = { admitted: integer(row, 'admitted') === 1, by: text(row, 'verdict_by') };
  if (row.verdict === null) return plain;
  try {
    const further: unknown = JSON.parse(text(row, 'verdict'));
    const verdict = isObject(further) ? { ...further, ...plain } : undefined;
    if (isVerdict(verdict)) return verdict;
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
  }
  throw new TspodError('store', 'store.db: column verdict has no verdict');
}

/** The primary result code (sqlite.org/rescode.html), undefined for any other error. */
function sqliteCode(error: unknown): number | undefined {
  if (!(error instanceof Error) || !('errcode' in error)) return undefined;
  return typeof error.errcode === 'number' ? error.errcode & 0xff : undefined;
}

function text(row: Row, column: string): string {
  const value = row[column];
  if (typeof value === 'string') return value;
  throw new TspodError('store', `store.db: column ${column} has no text`);
}

function integer(row: Row, column: string): number {
  const value = row[column];
  if (typeof value === 'number') return value;
  throw new TspodError('store', `store.db: column ${column} has no number`);
}
