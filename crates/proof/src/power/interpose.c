/* Sees every system call of one process that can change a file below one directory, and writes down
 * what it did, in one global order, with the bytes. Compiled and preloaded by `cargo proof power`.
 *
 * Not the libc functions are replaced, because the table library renames by raw system calls: a
 * seccomp filter traps the calls themselves, whoever makes them, and the handler of SIGSYS makes
 * them again through one gate that the filter lets pass. Each call and its line in the log are one
 * step under one lock, so a prefix of the log is a state the directory really had.
 *
 * Syncs are not made, only written down when they begin and when they return: nothing here loses
 * power in truth, and what a loss leaves is worked out from the log. Calls that the log has no
 * words for end the process with a message: a run that was not seen whole proves nothing.
 *
 * In: POWER_ROOT, an absolute real path; POWER_LOG, where to write; optional POWER_SYNC_MICROS, how
 * long a sync takes at most; optional POWER_FAULT, `NTH ERRNO STICKY`: the nth call fails with ERRNO,
 * or for ERRNO 0 writes half; with STICKY 1 every later call that needs space fails too.
 *
 * Nothing here calls libc once the filter is on: the handler runs in the middle of anything. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#ifndef __x86_64__
#error "registers and call numbers are those of x86-64"
#endif

#define PATH_LEN_MAX 1024
#define LOG_FD_MIN 900
#define RECORD_MAGIC 0x52575048u /* HPWR */

enum kind {
    CREATE = 1, WRITE = 2, SET_LEN = 3, SYNC = 4, SYNC_DIR = 5, SYNCED = 6, RENAME = 7, UNLINK = 8,
    RMDIR = 9, MKDIR = 10, STDOUT = 11, OPEN = 12
};

/* power/log.rs reads this. */
struct record {
    uint32_t magic;
    uint8_t kind;
    uint8_t data_only; /* of SYNC: it was fdatasync */
    uint8_t injected;  /* the call was made to fail, or to write less */
    uint8_t failed;    /* and it failed: nothing was changed */
    uint16_t path_len;
    uint16_t to_len;
    uint32_t zero;
    uint64_t number; /* of SYNCED: which SYNC or SYNC_DIR */
    uint64_t inode;
    uint64_t offset; /* of SET_LEN: the length */
    uint64_t len;    /* bytes after the paths */
};

extern long power_gate(long n, long a, long b, long c, long d, long e, long f)
    __attribute__((visibility("hidden")));
extern char power_gate_end[] __attribute__((visibility("hidden")));

__asm__(".text\n"
        ".hidden power_gate\n.globl power_gate\n.type power_gate,@function\n"
        "power_gate:\n"
        "  mov %rdi, %rax\n  mov %rsi, %rdi\n  mov %rdx, %rsi\n  mov %rcx, %rdx\n"
        "  mov %r8, %r10\n  mov %r9, %r8\n  mov 8(%rsp), %r9\n  syscall\n"
        ".hidden power_gate_end\n.globl power_gate_end\n"
        "power_gate_end:\n  ret\n");

#define CALL(n, a, b, c, d, e, f) \
    power_gate((n), (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))
#define CALL4(n, a, b, c, d) CALL(n, a, b, c, d, 0, 0)

static char root[PATH_LEN_MAX];
static size_t root_len;
static uint64_t root_device;
static int log_fd = -1;
static uint64_t numbered;
static uint64_t counted;
static uint64_t fault_at;
static long fault_errno;
static int fault_sticky;
static uint64_t sync_micros;
static uint64_t dice = 88172645463325252ull;
static int lock_word;

static size_t length(const char *text) {
    size_t len = 0;
    while (text[len]) len++;
    return len;
}

static void copy(char *to, const char *from, size_t len) {
    for (size_t i = 0; i < len; i++) to[i] = from[i];
}

static __attribute__((noreturn)) void give_up(const char *why, const char *on) {
    static const char says[] = "power: cannot see ";
    CALL4(SYS_write, 2, says, sizeof says - 1, 0);
    CALL4(SYS_write, 2, why, length(why), 0);
    CALL4(SYS_write, 2, " ", 1, 0);
    CALL4(SYS_write, 2, on, length(on), 0);
    CALL4(SYS_write, 2, "\n", 1, 0);
    for (;;) CALL4(SYS_exit_group, 99, 0, 0, 0);
}

static void lock(void) {
    while (__atomic_exchange_n(&lock_word, 1, __ATOMIC_ACQUIRE)) CALL4(SYS_sched_yield, 0, 0, 0, 0);
}

static void unlock(void) { __atomic_store_n(&lock_word, 0, __ATOMIC_RELEASE); }

/* Whether a path is the root or lies below it. */
static int is_below(const char *path) {
    for (size_t i = 0; i < root_len; i++)
        if (path[i] != root[i]) return 0;
    return path[root_len] == '/' || path[root_len] == 0;
}

static void path_of_fd(long fd, char *out) {
    char link[40] = "/proc/self/fd/";
    char digits[20];
    size_t at = length(link), count = 0;
    for (unsigned long rest = (unsigned long)fd; count == 0 || rest; rest /= 10)
        digits[count++] = (char)('0' + rest % 10);
    while (count) link[at++] = digits[--count];
    link[at] = 0;
    long len = CALL4(SYS_readlink, link, out, PATH_LEN_MAX - 1, 0);
    out[len < 0 ? 0 : len] = 0;
}

/* The absolute path that `path` means to the call; false for what cannot be below the root. */
static int resolve(long dir, const char *path, char *out) {
    size_t at = 0;
    out[0] = 0;
    if (!path) return 0;
    if (path[0] != '/') {
        if ((int)dir == AT_FDCWD) CALL4(SYS_getcwd, out, PATH_LEN_MAX, 0, 0);
        else path_of_fd((int)dir, out);
        at = length(out);
        if (at + 1 < PATH_LEN_MAX) out[at++] = '/';
    }
    size_t len = length(path);
    if (at + len >= PATH_LEN_MAX) {
        if (is_below(out) || is_below(path)) give_up("a path as long as", path);
        return 0;
    }
    copy(out + at, path, len + 1);
    return is_below(out);
}

/* Whether a descriptor is of a file or directory below the root. */
static int seen(long fd, struct stat *found, char *path) {
    if (CALL4(SYS_fstat, (int)fd, found, 0, 0) < 0) return 0;
    if (!S_ISREG(found->st_mode) && !S_ISDIR(found->st_mode)) return 0;
    if (found->st_dev != root_device) return 0;
    path_of_fd((int)fd, path);
    return is_below(path);
}

static void put(struct record *it, const char *path, const char *to, const struct iovec *bytes, int count) {
    it->magic = RECORD_MAGIC;
    it->path_len = (uint16_t)(path ? length(path) : 0);
    it->to_len = (uint16_t)(to ? length(to) : 0);
    struct iovec parts[16];
    int used = 0;
    uint64_t total = sizeof *it + it->path_len + it->to_len, left = it->len;
    parts[used++] = (struct iovec){it, sizeof *it};
    if (it->path_len) parts[used++] = (struct iovec){(void *)path, it->path_len};
    if (it->to_len) parts[used++] = (struct iovec){(void *)to, it->to_len};
    for (int i = 0; i < count && left; i++) {
        if (used == 16) give_up("so many parts of a write to", path ? path : "");
        size_t len = bytes[i].iov_len < left ? bytes[i].iov_len : left;
        parts[used++] = (struct iovec){bytes[i].iov_base, len};
        left -= len;
    }
    if (left) give_up("all bytes of a write to", path ? path : "");
    total += it->len;
    long wrote = CALL4(SYS_writev, log_fd, parts, used, 0);
    if (wrote < 0 || (uint64_t)wrote != total) give_up("how to write its log after", path ? path : "");
}

/* Whether this call is the one to fail: gives its error, -1 for half a write, 0 for none. Where half
 * a write is wanted, only writes count. */
static long due(int needs_space, int is_write) {
    if (!fault_at || (!fault_errno && !is_write)) return 0;
    counted++;
    if (counted == fault_at) return fault_errno ? fault_errno : -1;
    return fault_sticky && needs_space && counted > fault_at ? fault_errno : 0;
}

static long fail(struct record *it, const char *path, const char *to, long error) {
    it->injected = 1;
    it->failed = 1;
    it->len = 0;
    put(it, path, to, 0, 0);
    return -error;
}

static long do_open(long n, const long *a) {
    char path[PATH_LEN_MAX];
    int at = n == SYS_openat;
    if (n == SYS_openat2) give_up("openat2", "at all");
    const char *given = (const char *)a[at];
    long flags = n == SYS_creat ? O_CREAT | O_TRUNC | O_WRONLY : a[at + 1];
    long mode = n == SYS_creat ? a[1] : a[at + 2];
    long dir = at ? a[0] : AT_FDCWD;
    if (!resolve(dir, given, path)) return CALL(n, a[0], a[1], a[2], a[3], a[4], a[5]);
    if ((flags & O_TMPFILE) == O_TMPFILE) return -EOPNOTSUPP;
    lock();
    struct stat found;
    int was = CALL4(SYS_newfstatat, AT_FDCWD, path, &found, AT_SYMLINK_NOFOLLOW) == 0;
    struct record it = {.kind = !was && (flags & O_CREAT) ? CREATE : OPEN};
    long result = due(it.kind == CREATE, 0);
    if (result > 0) {
        result = fail(&it, path, 0, result);
    } else {
        result = CALL4(SYS_openat, AT_FDCWD, path, flags, mode);
        if (result >= 0) {
            if (CALL4(SYS_fstat, result, &found, 0, 0) < 0) give_up("the new file", path);
            it.inode = found.st_ino;
            if (it.kind == CREATE) put(&it, path, 0, 0, 0);
            if (was && (flags & O_TRUNC) && S_ISREG(found.st_mode)) {
                it.kind = SET_LEN;
                put(&it, path, 0, 0, 0);
            }
        }
    }
    unlock();
    return result;
}

/* Takes the first `len` bytes of `from`. */
static int cut_short(const struct iovec *from, long count, uint64_t len, struct iovec *to) {
    int used = 0;
    for (long i = 0; i < count && len; i++, used++) {
        to[used] = from[i];
        if (to[used].iov_len > len) to[used].iov_len = len;
        len -= to[used].iov_len;
    }
    return used;
}

static long do_write(long n, const long *a) {
    struct stat found;
    char path[PATH_LEN_MAX];
    int positioned = n == SYS_pwrite64 || n == SYS_pwritev || n == SYS_pwritev2;
    if (!seen(a[0], &found, path)) {
        if (a[0] != STDOUT_FILENO || positioned) return CALL(n, a[0], a[1], a[2], a[3], a[4], a[5]);
        path[0] = 0;
    }
    if (n == SYS_pwritev2) give_up("pwritev2 to", path);
    struct iovec one = {(void *)a[1], (size_t)a[2]}, half[8];
    int vector = n == SYS_writev || n == SYS_pwritev;
    const struct iovec *parts = vector ? (const struct iovec *)a[1] : &one;
    long count = vector ? a[2] : 1;
    long flags = CALL4(SYS_fcntl, a[0], F_GETFL, 0, 0);
    if (path[0] && positioned && (flags & O_APPEND)) give_up("a positioned write to the end of", path);
    lock();
    struct record it = {.kind = path[0] ? WRITE : STDOUT, .inode = found.st_ino};
    long result = path[0] ? due(1, 1) : 0;
    if (result > 0) {
        result = fail(&it, path, 0, result);
        unlock();
        return result;
    }
    if (result < 0) {
        uint64_t total = 0;
        for (long i = 0; i < count; i++) total += parts[i].iov_len;
        if (count > 8) give_up("so many parts of a short write to", path);
        it.injected = 1;
        if (total > 1) {
            count = cut_short(parts, count, total / 2, half);
            parts = half;
        }
    }
    if (positioned) result = CALL(SYS_pwritev, a[0], parts, count, a[3], 0, 0);
    else result = CALL4(SYS_writev, a[0], parts, count, 0);
    if (result > 0) {
        it.len = (uint64_t)result;
        if (positioned) it.offset = (uint64_t)a[3];
        else if (path[0]) it.offset = (uint64_t)(CALL4(SYS_lseek, a[0], 0, SEEK_CUR, 0) - result);
        put(&it, path, 0, parts, (int)count);
        if (path[0] && (flags & O_DSYNC)) {
            struct record sync = {.kind = SYNC, .data_only = 1, .inode = it.inode, .number = ++numbered};
            put(&sync, path, 0, 0, 0);
            sync.kind = SYNCED;
            put(&sync, 0, 0, 0, 0);
        }
    }
    unlock();
    return result;
}

static long do_set_len(long n, const long *a) {
    struct stat found;
    char path[PATH_LEN_MAX];
    if (n == SYS_truncate) {
        if (resolve(AT_FDCWD, (const char *)a[0], path)) give_up("truncate of", path);
        return CALL4(n, a[0], a[1], 0, 0);
    }
    if (!seen(a[0], &found, path)) return CALL(n, a[0], a[1], a[2], a[3], a[4], a[5]);
    lock();
    CALL4(SYS_fstat, a[0], &found, 0, 0);
    struct record it = {.kind = SET_LEN, .inode = found.st_ino};
    it.offset = (uint64_t)a[1];
    if (n == SYS_fallocate) {
        if (a[1] & ~FALLOC_FL_KEEP_SIZE) give_up("this kind of fallocate of", path);
        it.offset = (uint64_t)(a[2] + a[3]);
        if (a[1] || it.offset < (uint64_t)found.st_size) it.offset = (uint64_t)found.st_size;
    }
    long result = due(it.offset > (uint64_t)found.st_size || n == SYS_fallocate, 0);
    if (result > 0) {
        result = fail(&it, path, 0, result);
    } else {
        result = CALL(n, a[0], a[1], a[2], a[3], a[4], a[5]);
        if (result >= 0) put(&it, path, 0, 0, 0);
    }
    unlock();
    return result;
}

static long do_sync(long n, const long *a) {
    struct stat found;
    char path[PATH_LEN_MAX];
    if (n == SYS_sync || n == SYS_syncfs) give_up("a sync of everything", "");
    if (n == SYS_sync_file_range) return 0; /* promises nothing */
    if (!seen(a[0], &found, path)) return CALL4(n, a[0], a[1], a[2], a[3]);
    lock();
    struct record it = {.kind = S_ISDIR(found.st_mode) ? SYNC_DIR : SYNC, .inode = found.st_ino};
    it.data_only = n == SYS_fdatasync;
    it.number = ++numbered;
    long result = due(0, 0);
    if (result > 0) {
        result = fail(&it, path, 0, result);
        unlock();
        return result;
    }
    put(&it, path, 0, 0, 0);
    dice ^= dice << 13;
    dice ^= dice >> 7;
    dice ^= dice << 17;
    uint64_t nanos = sync_micros ? dice % (sync_micros * 1000) : 0;
    unlock();
    /* Others go on meanwhile: what they do is not covered, and they may wait for this one. */
    struct timespec pause = {(time_t)(nanos / 1000000000), (long)(nanos % 1000000000)};
    if (nanos) CALL4(SYS_nanosleep, &pause, 0, 0, 0);
    struct record end = {.kind = SYNCED, .inode = it.inode, .number = it.number};
    lock();
    put(&end, 0, 0, 0, 0);
    unlock();
    return 0;
}

/* One name changes: mkdir, rmdir, unlink. */
static long do_name(long n, const long *a) {
    char path[PATH_LEN_MAX];
    int at = n == SYS_mkdirat || n == SYS_unlinkat;
    if (!resolve(at ? a[0] : AT_FDCWD, (const char *)a[at], path))
        return CALL4(n, a[0], a[1], a[2], a[3]);
    struct record it = {.kind = UNLINK};
    if (n == SYS_mkdir || n == SYS_mkdirat) it.kind = MKDIR;
    if (n == SYS_rmdir || (n == SYS_unlinkat && (a[2] & AT_REMOVEDIR))) it.kind = RMDIR;
    lock();
    struct stat found = {0};
    CALL4(SYS_newfstatat, AT_FDCWD, path, &found, AT_SYMLINK_NOFOLLOW);
    long result = due(it.kind == MKDIR, 0);
    if (result > 0) {
        result = fail(&it, path, 0, result);
    } else {
        result = CALL4(n, a[0], a[1], a[2], a[3]);
        /* A socket has no bytes to lose: its name is not followed. */
        if (result >= 0 && !S_ISSOCK(found.st_mode)) put(&it, path, 0, 0, 0);
    }
    unlock();
    return result;
}

static long do_rename(long n, const long *a) {
    char from[PATH_LEN_MAX], to[PATH_LEN_MAX];
    int at = n != SYS_rename;
    int below = resolve(at ? a[0] : AT_FDCWD, (const char *)a[at], from);
    below += resolve(at ? a[2] : AT_FDCWD, (const char *)a[at ? 3 : 1], to);
    if (!below) return CALL(n, a[0], a[1], a[2], a[3], a[4], 0);
    if (below == 1) give_up("a rename across the border to", to);
    if (n == SYS_renameat2 && (a[4] & ~1l)) give_up("this kind of rename to", to);
    struct record it = {.kind = RENAME};
    lock();
    long result = due(0, 0);
    if (result > 0) {
        result = fail(&it, from, to, result);
    } else {
        result = CALL(n, a[0], a[1], a[2], a[3], a[4], 0);
        if (result >= 0) put(&it, from, to, 0, 0);
    }
    unlock();
    return result;
}

/* Links and nodes: the model of the disk has none. */
static long do_link(long n, const long *a) {
    char path[PATH_LEN_MAX];
    int below;
    switch (n) {
    case SYS_link: below = resolve(AT_FDCWD, (const char *)a[1], path); break;
    case SYS_linkat: below = resolve(a[2], (const char *)a[3], path); break;
    case SYS_symlink: below = resolve(AT_FDCWD, (const char *)a[1], path); break;
    case SYS_symlinkat: below = resolve(a[1], (const char *)a[2], path); break;
    case SYS_mknod: below = resolve(AT_FDCWD, (const char *)a[0], path); break;
    default: below = resolve(a[0], (const char *)a[1], path); break;
    }
    if (below) give_up("a link or node", path);
    return CALL(n, a[0], a[1], a[2], a[3], a[4], a[5]);
}

static long do_map(const long *a) {
    struct stat found;
    char path[PATH_LEN_MAX];
    if (seen(a[4], &found, path)) give_up("a shared writable mapping of", path);
    return CALL(SYS_mmap, a[0], a[1], a[2], a[3], a[4], a[5]);
}

static long step(long n, const long *a) {
    switch (n) {
    case SYS_open: case SYS_creat: case SYS_openat: case SYS_openat2: return do_open(n, a);
    case SYS_write: case SYS_writev: case SYS_pwrite64: case SYS_pwritev: case SYS_pwritev2:
        return do_write(n, a);
    case SYS_ftruncate: case SYS_truncate: case SYS_fallocate: return do_set_len(n, a);
    case SYS_fsync: case SYS_fdatasync: case SYS_sync: case SYS_syncfs: case SYS_sync_file_range:
        return do_sync(n, a);
    case SYS_mkdir: case SYS_mkdirat: case SYS_rmdir: case SYS_unlink: case SYS_unlinkat:
        return do_name(n, a);
    case SYS_rename: case SYS_renameat: case SYS_renameat2: return do_rename(n, a);
    case SYS_link: case SYS_linkat: case SYS_symlink: case SYS_symlinkat: case SYS_mknod: case SYS_mknodat:
        return do_link(n, a);
    case SYS_mmap: return do_map(a);
    /* Everybody who copies in the kernel can also copy by hand, and then the bytes are seen. */
    case SYS_copy_file_range: case SYS_sendfile: case SYS_splice: case SYS_io_uring_setup: return -ENOSYS;
    default: give_up("a system call", "that is trapped and has no words here");
    }
}

static void on_trap(int signal, siginfo_t *trapped, void *context) {
    (void)signal;
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    long a[6] = {registers[REG_RDI], registers[REG_RSI], registers[REG_RDX],
                 registers[REG_R10], registers[REG_R8],  registers[REG_R9]};
    registers[REG_RAX] = step(trapped->si_syscall, a);
}

static const int trapped[] = {
    SYS_open, SYS_creat, SYS_openat, SYS_openat2, SYS_write, SYS_writev, SYS_pwrite64, SYS_pwritev,
    SYS_pwritev2, SYS_ftruncate, SYS_truncate, SYS_fallocate, SYS_fsync, SYS_fdatasync, SYS_sync,
    SYS_syncfs, SYS_sync_file_range, SYS_mkdir, SYS_mkdirat, SYS_rmdir, SYS_unlink, SYS_unlinkat,
    SYS_rename, SYS_renameat, SYS_renameat2, SYS_link, SYS_linkat, SYS_symlink, SYS_symlinkat,
    SYS_mknod, SYS_mknodat, SYS_copy_file_range, SYS_sendfile, SYS_splice, SYS_io_uring_setup,
    /* A child would be under the filter and without the handler. */
    SYS_execve, SYS_execveat,
};

#define WORD(field) (offsetof(struct seccomp_data, field))
#define TAKE(offset) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (offset))
#define GIVE(what) BPF_STMT(BPF_RET | BPF_K, (what))

static void filter(void) {
    uint64_t passes = (uint64_t)power_gate_end;
    struct sock_filter program[96];
    int at = 0;
    program[at++] = (struct sock_filter)TAKE(WORD(arch));
    program[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0);
    program[at++] = (struct sock_filter)GIVE(SECCOMP_RET_KILL_PROCESS);
    program[at++] = (struct sock_filter)TAKE(WORD(instruction_pointer));
    program[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)passes, 0, 3);
    program[at++] = (struct sock_filter)TAKE(WORD(instruction_pointer) + 4);
    program[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(passes >> 32), 0, 1);
    program[at++] = (struct sock_filter)GIVE(SECCOMP_RET_ALLOW);
    program[at++] = (struct sock_filter)TAKE(WORD(nr));
    for (size_t i = 0; i < sizeof trapped / sizeof *trapped; i++) {
        program[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)trapped[i], 0, 1);
        program[at++] = (struct sock_filter)GIVE(SECCOMP_RET_TRAP);
    }
    program[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mmap, 0, 5);
    program[at++] = (struct sock_filter)TAKE(WORD(args[2]));
    program[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, PROT_WRITE, 0, 3);
    program[at++] = (struct sock_filter)TAKE(WORD(args[3]));
    program[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, MAP_SHARED, 0, 1);
    program[at++] = (struct sock_filter)GIVE(SECCOMP_RET_TRAP);
    program[at++] = (struct sock_filter)GIVE(SECCOMP_RET_ALLOW);
    struct sock_fprog whole = {(unsigned short)at, program};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) give_up("system calls: prctl is refused", "");
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &whole)) give_up("system calls: seccomp is refused", "");
}

__attribute__((constructor)) static void begin(void) {
    const char *dir = getenv("POWER_ROOT"), *log = getenv("POWER_LOG");
    if (!dir || !log) return;
    root_len = strlen(dir);
    if (root_len >= sizeof root) give_up("a root as long as", dir);
    memcpy(root, dir, root_len + 1);
    struct stat found;
    if (stat(dir, &found)) give_up("its root", dir);
    root_device = found.st_dev;
    /* High up, so that the program's own descriptors have the numbers they would have. */
    int fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0 || (log_fd = fcntl(fd, F_DUPFD_CLOEXEC, LOG_FD_MIN)) < 0) give_up("its log", log);
    close(fd);
    const char *micros = getenv("POWER_SYNC_MICROS"), *fault = getenv("POWER_FAULT");
    if (micros) {
        sync_micros = strtoull(micros, 0, 10);
        dice ^= sync_micros * 0x9e3779b97f4a7c15ull;
    }
    if (fault) {
        char *rest;
        fault_at = strtoull(fault, &rest, 10);
        fault_errno = strtol(rest, &rest, 10);
        fault_sticky = (int)strtol(rest, &rest, 10);
    }
    struct sigaction action = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO | SA_RESTART};
    /* No other handler may run while the lock is held: it could make a trapped call itself. */
    sigfillset(&action.sa_mask);
    if (sigaction(SIGSYS, &action, 0)) give_up("system calls: no handler", "");
    filter();
}
