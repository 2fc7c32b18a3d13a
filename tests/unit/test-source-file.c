/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Dumps as sources of pages: raw files, ELF cores made by hand, and real ones of gcore and QEMU. */
#include "tests/unit/test-source-util.h"

#include <elf.h>
#include <grp.h>
#include <inttypes.h>
#include <sys/stat.h>

static char dir[64], file[128];

static int setup(void **state)
{
        (void)state;
        (void)snprintf(dir, sizeof dir, "/var/tmp/ballast-test-XXXXXX");
        if (!mkdtemp(dir))
                return -1;
        (void)snprintf(file, sizeof file, "%s/dump", dir);
        return 0;
}

static int teardown(void **state)
{
        char command[128];

        (void)state;
        (void)snprintf(command, sizeof command, "rm -rf '%s'", dir);
        return system(command);
}

static void put(const void *data, size_t size)
{
        _cleanup_close_ int fd = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

        assert_true(fd >= 0);
        assert_int_equal(write(fd, data, size), size);
}

static struct bl_source *open_file(void)
{
        struct bl_source *s = NULL;
        char *message = NULL;
        int r = bl_source_file(file, NULL, &s, &message);

        if (r < 0)
                fail_msg("%d: %s", r, message);
        assert_null(message);
        assert_true(s->still);
        assert_false(s->blind);
        return s;
}

/* It names the file, and says `part`. */
static void refused(int want, const char *part)
{
        struct bl_source *s = NULL;
        char *message = NULL;
        int r = bl_source_file(file, NULL, &s, &message);

        if (r != want || s || !message || !strstr(message, part) || !strstr(message, file))
                fail_msg("%d (not %d): \"%s\" has not \"%s\"", r, want, message ? message : "", part);
        free(message);
}

/* --- raw ---------------------------------------------------------------------- */

static void test_raw(void **state)
{
        static unsigned char data[10 * BL_PAGE_SIZE + 100], buf[10 * BL_PAGE_SIZE];
        static const uint64_t pages[] = {0, 2, 3, 4, 9};
        _cleanup_(bl_source_freep) struct bl_source *s = NULL;
        bool ok[N(pages)];

        (void)state;
        for (size_t i = 0; i < 10; i++)
                fill_page(data + i * PAGE, i);
        put(data, sizeof data);
        s = open_file();
        assert_string_equal(s->name, "dump");
        assert_null(s->warning);
        assert_int_equal(s->n_pages, 10);
        assert_int_equal(s->tail_bytes, 100);
        assert_int_equal(s->shared_bytes, 0);
        for (uint64_t i = 0; i < 10; i++)
                assert_int_equal(look_at(s, i).state, BL_PAGE_PRESENT);
        assert_int_equal(look_at(s, 10).state, BL_PAGE_ABSENT);
        assert_int_equal(s->ops->read(s, pages, N(pages), buf, ok), 0);
        for (size_t i = 0; i < N(pages); i++)
                assert_true(ok[i] && is_page(buf + i * PAGE, pages[i]));
        assert_false(read_at(s, 10, buf));
        /* it grows */
        assert_int_equal(s->ops->again(s), 0);
        assert_int_equal(truncate(file, 12 * PAGE + 1), 0);
        assert_int_equal(s->ops->again(s), 1);
        assert_int_equal(s->n_pages, 12);
        assert_int_equal(s->tail_bytes, 1);
        assert_true(read_at(s, 11, buf) && bl_page_is_zero(buf));
        /* and is cut: what the source had seen cannot be read any more */
        assert_int_equal(truncate(file, 3 * PAGE - 1), 0);
        assert_true(read_at(s, 1, buf) && is_page(buf, 1));
        assert_false(read_at(s, 2, buf));
        assert_int_equal(s->ops->again(s), 1);
        assert_int_equal(s->n_pages, 2);
        assert_int_equal(truncate(file, 0), 0);
        assert_int_equal(s->ops->again(s), -ENODATA);
}

/* Holes are pages of zeros, and are not read from the disk. */
static void test_sparse(void **state)
{
        static unsigned char buf[8192 * BL_PAGE_SIZE];
        static uint64_t pages[8192];
        static bool ok[8192];
        static const uint64_t written[] = {5, 100, 101, 8000};
        _cleanup_(bl_source_freep) struct bl_source *s = NULL;
        _cleanup_close_ int fd = open(file, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        struct stat st;

        (void)state;
        assert_int_equal(ftruncate(fd, 8192 * PAGE), 0);
        for (size_t i = 0; i < N(written); i++) {
                fill_page(buf, written[i]);
                assert_int_equal(pwrite(fd, buf, PAGE, (off_t)(written[i] * PAGE)), PAGE);
        }
        assert_int_equal(fstat(fd, &st), 0);
        if (st.st_blocks * 512 > 1 << 20)
                skip();
        s = open_file();
        assert_int_equal(s->n_pages, 8192);
        for (size_t i = 0; i < N(pages); i++) {
                pages[i] = i;
                assert_int_equal(look_at(s, i).state, BL_PAGE_PRESENT);
        }
        memset(buf, 0xff, sizeof buf);
        assert_int_equal(s->ops->read(s, pages, N(pages), buf, ok), 0);
        for (size_t i = 0, w = 0; i < N(pages); i++) {
                assert_true(ok[i]);
                if (w < N(written) && written[w] == i)
                        assert_true(is_page(buf + i * PAGE, written[w++]));
                else
                        assert_true(bl_page_is_zero(buf + i * PAGE));
        }
        /* backwards, one by one */
        for (size_t i = N(written); i-- > 0;) {
                assert_true(read_at(s, written[i] + 2, buf) && bl_page_is_zero(buf));
                assert_true(read_at(s, written[i], buf) && is_page(buf, written[i]));
        }
}

/* --- what is no dump ------------------------------------------------------------- */

static int open_as_nobody(void)
{
        struct bl_source *s = NULL;
        char *message = NULL;

        if (setgroups(0, NULL) < 0 || setresuid(65534, 65534, 65534) < 0)
                return 1;
        if (bl_source_file(file, NULL, &s, &message) != -EACCES)
                return 2;
        return message && strstr(message, file) && strstr(message, "as root") ? 0 : 3;
}

static void test_no_file(void **state)
{
        int status;
        pid_t pid;

        (void)state;
        refused(-ENOENT, "No such file");
        put("", 0);
        refused(-ENODATA, "0 bytes");
        put("x", 1);
        refused(-ENODATA, "1 byte");
        assert_int_equal(truncate(file, PAGE - 1), 0);
        refused(-ENODATA, "4095 bytes");
        if (geteuid() == 0) {
                assert_int_equal(chmod(dir, 0711), 0);
                pid = fork();
                if (pid == 0)
                        _exit(open_as_nobody());
                assert_int_equal(waitpid(pid, &status, 0), pid);
                assert_int_equal(status, 0);
        }
        assert_int_equal(unlink(file), 0);
        assert_int_equal(mkdir(file, 0700), 0);
        refused(-EISDIR, "directory");
        assert_int_equal(rmdir(file), 0);
        /* nobody writes to it: an open or a read that waits would wait for ever */
        assert_int_equal(mkfifo(file, 0600), 0);
        refused(-EBADMSG, "no regular file");
}

static void test_other_formats(void **state)
{
        static const struct {
                const char *magic;
                size_t len;
                const char *say;
        } all[] = {
                {"KDUMP   \6\0\0\0", 12, "kdump-compressed"},
                {"makedumpfile\0\0\0\0", 16, "kdump-compressed"},
                {"DISKDUMP", 8, "compressed kernel dump"},
                {"QEVM\0\0\0\3", 8, "virsh dump --memory-only"},
                {"LibvirtQemudSave\2\0\0\0", 20, "virsh save"},
                {"LibvirtQemudPart\2\0\0\0", 20, "virsh save"},
                {"\x1f\x8b\x08\0", 4, "gzip"},
                {"\xfd\x37zXZ\0", 6, "xz"},
                {"\x28\xb5\x2f\xfd", 4, "zstd"},
                {"\x89LZO\0\r\n\x1a\n", 9, "lzop"},
                {"BZh91AY&SY", 10, "bzip2"},
        };
        static unsigned char data[2 * BL_PAGE_SIZE];

        (void)state;
        for (size_t i = 0; i < N(all); i++) {
                memset(data, 0x55, sizeof data);
                memcpy(data, all[i].magic, all[i].len);
                put(data, sizeof data);
                refused(-EBADMSG, all[i].say);
                /* nearly so is memory */
                data[2] ^= 0x40;
                put(data, sizeof data);
                bl_source_free(open_file());
        }
}

/* --- cores made by hand ------------------------------------------------------------ */

#define BASE     UINT64_C(0x7f0000000000)
#define FIRST_AT (sizeof(Elf64_Ehdr) + 4 * sizeof(Elf64_Phdr)) /* where the bytes begin */
#define BODY     (9 * BL_PAGE_SIZE)

/*
 * Pages 0 to 3: a segment of four.  4 to 6: one of three, of which one and a half were dumped.  7 and 8: one that
 * begins 1,000 bytes before its first whole page, and ends 2,000 bytes behind its last.
 */
static struct core {
        Elf64_Ehdr e;
        Elf64_Phdr p[4];
        unsigned char body[BODY];
} core;

static void make_core(void)
{
        const uint64_t half = BL_PAGE_SIZE / 2;
        unsigned char *p = core.body;

        memset(&core, 0, sizeof core);
        memcpy(core.e.e_ident, ELFMAG, SELFMAG);
        core.e.e_ident[EI_CLASS] = ELFCLASS64;
        core.e.e_ident[EI_DATA] = ELFDATA2LSB;
        core.e.e_ident[EI_VERSION] = EV_CURRENT;
        core.e.e_type = ET_CORE;
        core.e.e_machine = EM_X86_64;
        core.e.e_phoff = sizeof core.e;
        core.e.e_phentsize = sizeof core.p[0];
        core.e.e_phnum = 4;
        core.p[0] = (Elf64_Phdr){.p_type = PT_NOTE, .p_offset = FIRST_AT, .p_filesz = 100};
        core.p[1] = (Elf64_Phdr){
                .p_type = PT_LOAD, .p_vaddr = BASE, .p_offset = FIRST_AT, .p_filesz = 4 * PAGE, .p_memsz = 4 * PAGE};
        core.p[2] = (Elf64_Phdr){.p_type = PT_LOAD,
                                 .p_vaddr = BASE + 16 * PAGE,
                                 .p_offset = FIRST_AT + 4 * PAGE,
                                 .p_filesz = PAGE + half,
                                 .p_memsz = 3 * PAGE};
        core.p[3] = (Elf64_Phdr){.p_type = PT_LOAD,
                                 .p_vaddr = BASE + 100 * PAGE - 1000,
                                 .p_offset = FIRST_AT + 5 * PAGE + half,
                                 .p_filesz = 1000 + 2 * PAGE + 2000,
                                 .p_memsz = 1000 + 2 * PAGE + 2000};
        for (uint64_t i = 0; i < 4; i++, p += PAGE)
                fill_page(p, i);
        fill_page(p, 4);
        fill_page(p + PAGE, 5);
        p += PAGE + half;
        memset(p, 0xee, 1000);
        fill_page(p + 1000, 7);
        fill_page(p + 1000 + PAGE, 8);
        memset(p + 1000 + 2 * PAGE, 0xee, 2000);
}

#define CORE_SIZE (FIRST_AT + 5 * PAGE + PAGE / 2 + 1000 + 2 * PAGE + 2000)
/* Where each page ends in the file; 0: it is not there at all. */
static const size_t ends[] = {FIRST_AT + PAGE,
                              FIRST_AT + 2 * PAGE,
                              FIRST_AT + 3 * PAGE,
                              FIRST_AT + 4 * PAGE,
                              FIRST_AT + 5 * PAGE,
                              FIRST_AT + 5 * PAGE + PAGE / 2,
                              0,
                              FIRST_AT + 5 * PAGE + PAGE / 2 + 1000 + PAGE,
                              FIRST_AT + 5 * PAGE + PAGE / 2 + 1000 + 2 * PAGE};

static bool is_core_page(const unsigned char *page, uint64_t i)
{
        unsigned char want[BL_PAGE_SIZE];

        fill_page(want, i);
        if (i == 5)
                memset(want + PAGE / 2, 0, PAGE / 2);
        return memcmp(page, want, PAGE) == 0;
}

static void check_core(struct bl_source *s, size_t size)
{
        static unsigned char buf[N(ends) * BL_PAGE_SIZE];
        uint64_t pages[N(ends)];
        bool ok[N(ends)], cut = false;

        assert_int_equal(s->n_pages, N(ends));
        assert_int_equal(s->tail_bytes, 3000);
        for (uint64_t i = 0; i < N(ends); i++) {
                const enum bl_page_state want = ends[i] == 0      ? BL_PAGE_ABSENT
                                                : size >= ends[i] ? BL_PAGE_PRESENT
                                                                  : BL_PAGE_UNREADABLE;

                assert_int_equal(look_at(s, i).state, want);
                cut = cut || want == BL_PAGE_UNREADABLE;
                pages[i] = i;
        }
        assert_int_equal(s->warning != NULL, cut);
        assert_int_equal(s->ops->read(s, pages, N(ends), buf, ok), 0);
        for (uint64_t i = 0; i < N(ends); i++) {
                assert_int_equal(ok[i], ends[i] != 0 && size >= ends[i]);
                assert_true(!ok[i] || is_core_page(buf + i * PAGE, i));
        }
}

static void test_core(void **state)
{
        _cleanup_(bl_source_freep) struct bl_source *s = NULL;

        (void)state;
        make_core();
        put(&core, CORE_SIZE);
        s = open_file();
        check_core(s, CORE_SIZE);
        assert_int_equal(s->ops->again(s), 0);
}

/* Cut off at each byte: what is there is right, the rest is said to be missing. */
static void test_truncated(void **state)
{
        char where[32];

        (void)state;
        make_core();
        put(&core, CORE_SIZE);
        for (size_t size = CORE_SIZE; size-- > 0;) {
                /* most bytes within a page are alike */
                if (size > FIRST_AT + 200 && size % PAGE > 100 && size % 61 != 0)
                        continue;
                assert_int_equal(truncate(file, (off_t)size), 0);
                if (size < SELFMAG) {
                        refused(-ENODATA, "less than a page");
                } else if (size < FIRST_AT) {
                        refused(-EBADMSG, size < sizeof core.e ? "within its ELF header" : "beyond its end");
                } else if (size < ends[0]) {
                        refused(-ENODATA, "cut off");
                } else {
                        _cleanup_(bl_source_freep) struct bl_source *s = open_file();

                        check_core(s, size);
                        (void)snprintf(where, sizeof where, "byte %zu", size);
                        assert_true(!s->warning || strstr(s->warning, where));
                }
        }
}

static void change(int want, const char *say)
{
        put(&core, CORE_SIZE);
        refused(want, say);
        make_core();
}

static void test_contradictions(void **state)
{
        (void)state;
        make_core();
        core.e.e_ident[EI_CLASS] = ELFCLASS32;
        change(-EBADMSG, "64-bit");
        core.e.e_ident[EI_DATA] = ELFDATA2MSB;
        change(-EBADMSG, "little-endian");
        core.e.e_type = ET_EXEC;
        change(-EBADMSG, "no core");
        core.e.e_phentsize = 32;
        change(-EBADMSG, "32 bytes each");
        core.e.e_phnum = 0;
        change(-ENODATA, "no program headers");
        core.e.e_phnum = 60000;
        change(-EBADMSG, "beyond its end");
        core.e.e_phoff = CORE_SIZE - 4 * sizeof core.p[0] + 1;
        change(-EBADMSG, "beyond its end");
        core.e.e_phoff = UINT64_MAX - 100;
        change(-EBADMSG, "beyond its end");
        core.p[1].p_type = core.p[2].p_type = core.p[3].p_type = PT_NULL;
        change(-ENODATA, "no segment");
        core.p[1].p_memsz = core.p[2].p_memsz = core.p[3].p_memsz = 0;
        core.p[1].p_filesz = core.p[2].p_filesz = core.p[3].p_filesz = 0;
        change(-ENODATA, "no segment");
        core.p[2].p_filesz = 3 * PAGE + 1;
        change(-EBADMSG, "header 2 has more bytes in the file");
        core.p[1].p_memsz = (UINT64_C(1) << 52) + 1;
        change(-EBADMSG, "larger than any memory");
        core.p[1].p_memsz = core.p[2].p_memsz = UINT64_C(3) << 50;
        change(-EBADMSG, "header 2 makes it larger");
        core.p[1].p_memsz = UINT64_MAX;
        change(-EBADMSG, "larger than any memory");
        core.p[3].p_offset = UINT64_MAX - 4;
        change(-EBADMSG, "header 3 has a range that wraps");
        core.p[3].p_offset = INT64_MAX - 4;
        change(-EBADMSG, "header 3 has a range that wraps");
        core.p[3].p_vaddr = UINT64_MAX - PAGE;
        change(-EBADMSG, "header 3 has a range that wraps");
        core.p[2].p_vaddr = BASE + 4 * PAGE - 1;
        change(-EBADMSG, "address 0x7f0000003fff");
        core.p[3].p_vaddr = core.p[1].p_vaddr;
        change(-EBADMSG, "address 0x7f0000000000");
        core.p[3].p_offset = FIRST_AT + 4 * PAGE - 1;
        change(-EBADMSG, "of the file");
        /* physical addresses, where there are no others */
        core.p[1].p_vaddr = core.p[2].p_vaddr = core.p[3].p_vaddr = 0;
        change(-EBADMSG, "address 0x0");
        /* a size that is none: nothing is a whole page */
        core.p[1].p_memsz = core.p[1].p_filesz = PAGE - 1;
        core.p[2].p_type = core.p[3].p_type = PT_NULL;
        change(-ENODATA, "no whole page");
}

/* A segment beyond the end of the file is cut off, too; one without bytes was not dumped. */
static void test_far_segments(void **state)
{
        _cleanup_(bl_source_freep) struct bl_source *s = NULL;

        (void)state;
        make_core();
        core.p[1].p_offset = INT64_MAX - 8 * PAGE;
        core.p[2].p_filesz = 0;
        core.p[2].p_memsz = UINT64_C(1) << 51;
        core.p[3].p_vaddr = BASE - 100 * PAGE;
        put(&core, CORE_SIZE);
        s = open_file();
        assert_int_equal(s->n_pages, 4 + (UINT64_C(1) << 39) + 2);
        assert_int_equal(look_at(s, 0).state, BL_PAGE_UNREADABLE);
        assert_int_equal(look_at(s, 4).state, BL_PAGE_ABSENT);
        assert_int_equal(look_at(s, UINT64_C(1) << 38).state, BL_PAGE_ABSENT);
        assert_int_equal(look_at(s, s->n_pages - 1).state, BL_PAGE_PRESENT);
        assert_non_null(strstr(s->warning, "4 of its"));
}

static void test_physical(void **state)
{
        _cleanup_(bl_source_freep) struct bl_source *s = NULL;

        (void)state;
        make_core();
        for (size_t i = 1; i < 4; i++) {
                core.p[i].p_paddr = core.p[i].p_vaddr;
                core.p[i].p_vaddr = 0;
        }
        put(&core, CORE_SIZE);
        s = open_file();
        check_core(s, CORE_SIZE);
}

/* More headers than e_phnum can count are counted in the first section header. */
static void test_many_headers(void **state)
{
        const uint64_t n = 70000;
        const size_t table = sizeof(Elf64_Ehdr) + sizeof(Elf64_Shdr), body = table + n * sizeof(Elf64_Phdr);
        _cleanup_free_ unsigned char *data = calloc(1, body + n);
        _cleanup_(bl_source_freep) struct bl_source *s = NULL;
        Elf64_Shdr *section = (Elf64_Shdr *)(void *)(data + sizeof(Elf64_Ehdr));
        Elf64_Ehdr *e = (Elf64_Ehdr *)(void *)data;
        Elf64_Phdr *p = (Elf64_Phdr *)(void *)(data + table);
        unsigned char buf[BL_PAGE_SIZE];

        (void)state;
        make_core();
        *e = core.e;
        e->e_phoff = table;
        e->e_phnum = PN_XNUM;
        e->e_shoff = sizeof *e;
        e->e_shentsize = sizeof *section;
        e->e_shnum = 1;
        section->sh_info = (uint32_t)n;
        /* a byte of each page was dumped */
        for (uint64_t i = 0; i < n; i++) {
                p[i] = (Elf64_Phdr){.p_type = PT_LOAD,
                                    .p_vaddr = BASE + (n - i) * PAGE,
                                    .p_offset = body + i,
                                    .p_filesz = 1,
                                    .p_memsz = PAGE};
                data[body + i] = (unsigned char)(i % 251 + 1);
        }
        put(data, body + n);
        s = open_file();
        assert_int_equal(s->n_pages, n);
        for (uint64_t i = 0; i < n; i += 997) {
                assert_true(read_at(s, i, buf));
                assert_int_equal(buf[0], i % 251 + 1);
                buf[0] = 0;
                assert_true(bl_page_is_zero(buf));
        }
        section->sh_info = BL_PAGE_SIZE * BL_PAGE_SIZE;
        put(data, body + n);
        refused(-EBADMSG, "program headers");
        section->sh_info = (uint32_t)n;
        e->e_shoff = 0;
        put(data, body + n);
        refused(-EBADMSG, "section header");
        e->e_shoff = body + n - 63;
        put(data, body + n);
        refused(-EBADMSG, "section header");
        e->e_shoff = UINT64_MAX - 7;
        put(data, body + n);
        refused(-EBADMSG, "section header");
}

/* --- real ones ------------------------------------------------------------------------ */

static struct child c;

static int end_child(void **state)
{
        child_end(&c);
        return teardown(state);
}

static void fill_512(struct child *x, int step)
{
        if (step > 0)
                return;
        (void)munmap(x->ram + 512 * PAGE, RAM - 512 * PAGE);
        for (size_t i = 0; i < 512; i++)
                fill_page(x->ram + i * PAGE, i);
}

/* In its order, each page of the child's once. */
static unsigned find_pages(struct bl_source *s)
{
        unsigned char buf[BL_PAGE_SIZE];
        unsigned found = 0;

        for (uint64_t i = 0; i < s->n_pages; i++)
                if (look_at(s, i).state == BL_PAGE_PRESENT && read_at(s, i, buf) && is_page(buf, found))
                        found++;
        return found;
}

static void test_gcore(void **state)
{
        _cleanup_(bl_source_freep) struct bl_source *s = NULL;
        char command[1024];

        (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
        /* a core would have the sanitizer's terabytes in it */
        skip();
#endif
        if (system("command -v gcore > /dev/null 2>&1") != 0)
                skip();
        child_start(&c, NULL, fill_512);
        /* (256 MiB at most: it is a few, if nothing is wrong) */
        (void)snprintf(command, sizeof command,
                       "ulimit -f 524288; timeout 60 gcore -o '%s' %d > '%s.log' 2>&1 && mv '%s.%d' '%s'", file,
                       (int)c.pid, file, file, (int)c.pid, file);
        /* not everywhere may a process be traced */
        if (system(command) != 0)
                skip();
        s = open_file();
        assert_null(s->warning);
        assert_int_equal(s->tail_bytes, 0);
        assert_int_equal(find_pages(s), 512);
}

/* A guest that never ran, with known bytes at 2 MiB: as QEMU's ELF dump and as its raw memory. */
static void test_qemu(void **state)
{
        static unsigned char data[512 * BL_PAGE_SIZE];
        _cleanup_(bl_source_freep) struct bl_source *elf = NULL, *raw = NULL;
        unsigned char a[BL_PAGE_SIZE], b[BL_PAGE_SIZE];
        char command[1024];

        (void)state;
        if (system("command -v qemu-system-x86_64 > /dev/null 2>&1") != 0)
                skip();
        for (size_t i = 0; i < 512; i++)
                fill_page(data + i * PAGE, i);
        put(data, sizeof data);
        (void)snprintf(command, sizeof command,
                       "cd '%s' && printf 'pmemsave 0 0x1000000 raw\\ndump-guest-memory elf\\n"
                       "dump-guest-memory -z kdump\\nquit\\n' | timeout 60 qemu-system-x86_64 -S -accel tcg -m 16 "
                       "-display none -nodefaults -device loader,file=dump,addr=0x200000,force-raw=on "
                       "-monitor stdio > log 2>&1",
                       dir);
        assert_int_equal(system(command), 0);
        (void)snprintf(file, sizeof file, "%s/raw", dir);
        raw = open_file();
        (void)snprintf(file, sizeof file, "%s/elf", dir);
        elf = open_file();
        assert_null(elf->warning);
        assert_int_equal(raw->n_pages, 4096);
        assert_true(elf->n_pages >= 4096);
        assert_int_equal(find_pages(raw), 512);
        assert_int_equal(find_pages(elf), 512);
        /* below 1 MiB there are ROMs and devices; behind it, the same pages */
        for (uint64_t i = 256; i < 4096; i++)
                assert_true(read_at(raw, i, a) && read_at(elf, i, b) && memcmp(a, b, PAGE) == 0);
        (void)snprintf(file, sizeof file, "%s/kdump", dir);
        refused(-EBADMSG, "kdump-compressed");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_raw, setup, teardown),
                cmocka_unit_test_setup_teardown(test_sparse, setup, teardown),
                cmocka_unit_test_setup_teardown(test_no_file, setup, teardown),
                cmocka_unit_test_setup_teardown(test_other_formats, setup, teardown),
                cmocka_unit_test_setup_teardown(test_core, setup, teardown),
                cmocka_unit_test_setup_teardown(test_truncated, setup, teardown),
                cmocka_unit_test_setup_teardown(test_contradictions, setup, teardown),
                cmocka_unit_test_setup_teardown(test_far_segments, setup, teardown),
                cmocka_unit_test_setup_teardown(test_physical, setup, teardown),
                cmocka_unit_test_setup_teardown(test_many_headers, setup, teardown),
                cmocka_unit_test_setup_teardown(test_gcore, setup, end_child),
                cmocka_unit_test_setup_teardown(test_qemu, setup, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
