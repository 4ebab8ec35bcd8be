/**
 * The native addon's typed face: the system calls that Node lacks. Every function is synchronous,
 * retries on EINTR, and throws an Error with `code` (errno name), `errno`, `syscall`, and `path` where
 * there is one, like Node's own. Paths may be given as bytes: names in archives need not be UTF-8.
 */
import { createRequire } from 'node:module';
import { artifact } from './artifacts.ts';

export type PathLike = string | Uint8Array;

/** A handle of the addon's. */
export interface DigestFile {
  readonly [kind]: 'digest file';
}

declare const kind: unique symbol;

export interface Native {
  // --- locks (flock(2)); false when another open file holds it and `wait` is false
  flock(fd: number, mode: 'shared' | 'exclusive' | 'unlock', wait: boolean): boolean;

  // --- exec
  /**
   * Replaces this process. Before that it undoes what Node did to the process: signal dispositions and
   * mask, RLIMIT_NOFILE, O_NONBLOCK on fds 0-2, the terminal's mode (the starter recorded them in
   * TSPOD_START, which is removed from the environment), and closes every fd above 2 but `keep`.
   * Returns only by throwing.
   */
  exec(
    path: string,
    argv: readonly string[],
    env: readonly string[],
    keep: readonly number[],
  ): never;

  // --- files; all of the l* and *at kind never follow a final symbolic link
  fsync(path: PathLike): void; // opens O_RDONLY|O_DIRECTORY or file, fsync, close
  syncfs(fd: number): void;
  /**
   * Seals a file for good (fs-verity, SHA-256 over 4096 bytes): the kernel reads all of it now, lets nobody
   * write to it again, and checks what it reads from the disk. EEXIST: it is sealed already.
   */
  enableVerity(path: PathLike): void;
  hasVerity(path: PathLike): boolean;
  mkdir(path: PathLike, mode: number): void;
  mknod(path: PathLike, mode: number, major: number, minor: number): void;
  lchown(path: PathLike, uid: number, gid: number): void;
  lsetxattr(path: PathLike, name: PathLike, value: Uint8Array): void;
  lgetxattr(path: PathLike, name: PathLike): Uint8Array;
  llistxattr(path: PathLike): Uint8Array[];
  /** seconds and nanoseconds, both integers */
  lutimes(
    path: PathLike,
    atimeSec: number,
    atimeNsec: number,
    mtimeSec: number,
    mtimeNsec: number,
  ): void;
  /** fallocate(PUNCH_HOLE|KEEP_SIZE) is not needed: sparse files are made by ftruncate and pwrite. */
  /** open(2) with exact flags and mode; returns an fd with O_CLOEXEC. */
  open(path: PathLike, flags: number, mode: number): number;
  /** openat2(2) with RESOLVE_IN_ROOT|RESOLVE_NO_MAGICLINKS below `rootFd`; O_CLOEXEC. */
  openInRoot(rootFd: number, path: PathLike, flags: number, mode: number): number;
  /**
   * One regular file in one call: open(O_CREAT|O_EXCL|O_NOFOLLOW), write, fchown, fsetxattr*, fchmod,
   * futimens, close. The unpacker's hot path.
   */
  writeFile(
    path: PathLike,
    data: Uint8Array,
    mode: number,
    uid: number,
    gid: number,
    mtimeSec: number,
    mtimeNsec: number,
  ): void;

  /**
   * Contents written by two threads behind the caller's back (native/write-queue.h). The bytes are copied.
   * A failure is told by the next drainWrites.
   */
  queueWrite(fd: number, data: Uint8Array, offset: number): void;
  /** As queueWrite at 0; then fchown, fchmod, futimens, close: the descriptor is the queue's from now on. */
  queueFile(
    fd: number,
    data: Uint8Array,
    mode: number,
    uid: number,
    gid: number,
    mtimeSec: number,
    mtimeNsec: number,
  ): void;
  /**
   * Waits until all of it is written. Throws the first failure since the last call, with `job`: which of
   * the queued ones it was, counted from 0.
   */
  drainWrites(): void;

  /**
   * What is written to `fd` from its position on, by a thread that hashes it as well (native/digest-file.h). It has a
   * duplicate of the descriptor. To be ended in any case.
   */
  digestFile(fd: number, algorithm: 'sha256' | 'sha512'): DigestFile;
  /** The bytes are not copied: nobody may change them any more. Waits while much is under way. */
  digestFileWrite(file: DigestFile, data: Uint8Array): void;
  /** Waits until all is written. @returns the digest in hexadecimal. Throws the write's failure. */
  digestFileEnd(file: DigestFile): string;

  // --- network namespaces
  /** A new one, kept by a mount on the existing file `path`; this process stays where it is. */
  pinNetNamespace(path: string): void;
  /** umount2(2), lazily; never through a link. */
  detachMount(path: string): void;

  // --- confinement of the unpacker's child
  chroot(path: string): void;
  /** no_new_privs, bounding and all other sets reduced to `capabilities` (bit mask), for all threads made later. */
  confine(capabilities: bigint): void;
  /** prctl(PR_SET_PDEATHSIG, SIGKILL); throws ESRCH when the parent is already gone. */
  dieWithParent(parentPid: number): void;

  // --- processes
  pidfdOpen(pid: number): number;
  pidfdSend(pidfd: number, signal: number): void;
  statfsType(path: string): number;
  umask(mask: number): number;
}

let loaded: Native | undefined;

/** The addon, loaded at first use. */
export function native(): Native {
  loaded ??= createRequire(import.meta.url)(artifact('native.node')) as Native;
  return loaded;
}
