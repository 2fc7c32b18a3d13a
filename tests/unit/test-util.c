/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>

#include <ballast/cleanup.h>

#include "daemon/util/clock.h"
#include "daemon/util/fields.h"
#include "daemon/util/suggest.h"
#include "tests/unit/test-host-util.h"

static void test_reads_are_bounded(void **state)
{
        char buf[8], big[64];

        (void)state;
        test_write("/seven", "1234567");
        test_write("/eight", "12345678");
        test_write("/empty", "");

        assert_int_equal(bl_fs_read(test_root, "/seven", buf, sizeof buf), 7);
        assert_string_equal(buf, "1234567");
        assert_int_equal(bl_fs_read(test_root, "/eight", buf, sizeof buf), -EFBIG);
        assert_string_equal(buf, "1234567");
        assert_int_equal(bl_fs_read(test_root, "/empty", buf, sizeof buf), 0);
        assert_string_equal(buf, "");
        assert_int_equal(bl_fs_read(test_root, "/nothing", buf, sizeof buf), -ENOENT);
        assert_int_equal(bl_fs_read(test_root, "/", big, sizeof big), -EISDIR);
}

static void test_a_fifo_does_not_block(void **state)
{
        char buf[8];

        (void)state;
        assert_int_equal(mkfifo(test_path("/fifo"), 0600), 0);
        assert_int_equal(bl_fs_read(test_root, "/fifo", buf, sizeof buf), -ESPIPE);
}

static void test_read_alloc(void **state)
{
        _cleanup_free_ char *text = NULL;
        size_t len = 7;

        (void)state;
        test_write("/file", "hello\n");
        assert_int_equal(bl_fs_read_alloc(test_path("/file"), 5, &text, &len), -EFBIG);
        assert_null(text);
        assert_int_equal(len, 7);
        assert_int_equal(bl_fs_read_alloc(test_root, 5, &text, &len), -EISDIR);
        assert_int_equal(bl_fs_read_alloc(test_path("/file"), 6, &text, &len), 0);
        assert_string_equal(text, "hello\n");
        assert_int_equal(len, 6);
        free(text);
        text = NULL;
        /* a file that does not say how long it is */
        assert_int_equal(bl_fs_read_alloc("/dev/null", 6, &text, NULL), 0);
        assert_string_equal(text, "");
}

static void test_join(void **state)
{
        char buf[16];

        (void)state;
        assert_int_equal(bl_path_join(buf, sizeof buf, NULL, "/proc"), 0);
        assert_string_equal(buf, "/proc");
        assert_int_equal(bl_path_join(buf, sizeof buf, "/", "/proc"), 0);
        assert_string_equal(buf, "/proc");
        assert_int_equal(bl_path_join(buf, sizeof buf, "/root/", "/proc"), 0);
        assert_string_equal(buf, "/root/proc");
        assert_int_equal(bl_path_join(buf, sizeof buf, "/root", "/0123456789"), -ENAMETOOLONG);
        assert_int_equal(bl_path_join(buf, sizeof buf, "/0123456789012345", ""), -ENAMETOOLONG);
}

static size_t entries(const char *dir)
{
        char command[PATH_MAX + 32], line[16] = "";
        FILE *f;

        (void)snprintf(command, sizeof command, "ls -A %s | wc -l", dir);
        f = popen(command, "r");
        assert_non_null(f);
        assert_non_null(fgets(line, sizeof line, f));
        assert_int_equal(pclose(f), 0);
        return strtoul(line, NULL, 10);
}

static void test_atomic_write(void **state)
{
        char buf[64];
        struct stat st;

        (void)state;
        assert_int_equal(bl_fs_mkdir_p(test_path("/a/b/c"), 0755), 0);
        assert_int_equal(bl_fs_mkdir_p(test_path("/a/b/c/"), 0755), 0);
        test_write("/a/file", "x");
        assert_int_equal(bl_fs_mkdir_p(test_path("/a/file"), 0755), -ENOTDIR);
        assert_int_equal(bl_fs_mkdir_p(test_path("/a/file/d"), 0755), -ENOTDIR);

        assert_int_equal(bl_fs_write_atomic(test_path("/a/b/c/f"), "one", 3, 0640, true), 0);
        assert_int_equal(bl_fs_write_atomic(test_path("/a/b/c/f"), "two!", 4, 0640, false), 0);
        assert_int_equal(bl_fs_read(test_root, "/a/b/c/f", buf, sizeof buf), 4);
        assert_string_equal(buf, "two!");
        assert_int_equal(stat(test_path("/a/b/c/f"), &st), 0);
        assert_int_equal(st.st_mode & 07777, 0640);
        assert_int_equal(entries(test_path("/a/b/c")), 1);

        /* the rename fails: nothing is left behind */
        assert_int_equal(bl_fs_mkdir_p(test_path("/a/b/c/dir/full"), 0755), 0);
        assert_int_equal(bl_fs_write_atomic(test_path("/a/b/c/dir"), "x", 1, 0600, false), -EISDIR);
        assert_int_equal(entries(test_path("/a/b/c")), 2);
        assert_int_equal(bl_fs_write_atomic(test_path("/none/f"), "x", 1, 0600, false), -ENOENT);
}

static void test_reader_sees_changes(void **state)
{
        struct bl_reader r = BL_READER_INIT;
        char buf[8];

        (void)state;
        assert_int_equal(bl_reader_read(&r, buf, sizeof buf), -EBADF);
        assert_int_equal(bl_reader_read_once(&r, buf, sizeof buf), -EBADF);
        assert_int_equal(bl_reader_open(&r, test_root, "/changing"), -ENOENT);
        assert_int_equal(r.fd, -1);

        test_write("/changing", "one");
        assert_int_equal(bl_reader_open(&r, test_root, "/changing"), 0);
        assert_int_equal(bl_reader_read(&r, buf, sizeof buf), 3);
        test_write("/changing", "three");
        assert_int_equal(bl_reader_read(&r, buf, sizeof buf), 5);
        assert_int_equal(bl_reader_read_once(&r, buf, sizeof buf), 5);
        assert_string_equal(buf, "three");
        test_write("/changing", "seventy");
        assert_int_equal(bl_reader_read(&r, buf, sizeof buf), 7);
        assert_int_equal(bl_reader_read_once(&r, buf, sizeof buf), -EFBIG); /* it cannot know */
        bl_reader_close(&r);
        bl_reader_close(&r);
}

struct triple {
        uint64_t a, b, c;
};

static const struct bl_field triple_fields[] = {
        BL_FIELD(struct triple, a, "Alpha"),
        BL_FIELD(struct triple, b, "beta"),
        BL_FIELD_SUM(struct triple, c, "gamma_"),
};

static int parse_triple(const char *text, struct triple *t)
{
        return bl_fields_parse(text, triple_fields, 3, t);
}

static void test_fields(void **state)
{
        struct triple t;

        (void)state;
        assert_int_equal(parse_triple("Alpha:    12 kB\nbeta 7\ngamma_x 1\ngamma_y 2\n", &t), 3);
        assert_int_equal(t.a, 12 * 1024);
        assert_int_equal(t.b, 7);
        assert_int_equal(t.c, 3);

        /* another order, names that only begin alike, twice the same */
        assert_int_equal(parse_triple("gamma_ 5\nAlphabet: 1\nbeta:\t9\nbeta 3\n\nbet 2\n", &t), 2);
        assert_int_equal(t.a, BL_UNSET);
        assert_int_equal(t.b, 9);
        assert_int_equal(t.c, 5);

        assert_int_equal(parse_triple("", &t), 0);
        assert_int_equal(t.a, BL_UNSET);
        assert_int_equal(parse_triple("no\nnumbers: at all\n", &t), 0);

        assert_int_equal(parse_triple("Alpha: x\n", &t), -EBADMSG);
        assert_int_equal(parse_triple("Alpha: -1\n", &t), -EBADMSG);
        assert_int_equal(parse_triple("Alpha:\n", &t), -EBADMSG);
        assert_int_equal(parse_triple("Alpha: 12 kBx\n", &t), -EBADMSG);
        assert_int_equal(parse_triple("Alpha: 12 MB\n", &t), -EBADMSG);
        assert_int_equal(parse_triple("Alpha: 12", &t), -EBADMSG); /* cut off: the rest may have been 345 kB */
        assert_int_equal(parse_triple("Alpha", &t), -EBADMSG);
        assert_int_equal(parse_triple("Alpha: 18446744073709551616\n", &t), -ERANGE);
        assert_int_equal(parse_triple("Alpha: 18446744073709551615\n", &t), -EBADMSG);
        assert_int_equal(parse_triple("Alpha: 18014398509481984 kB\n", &t), -ERANGE);
}

static void test_did_you_mean(void **state)
{
        static const char *const words[] = {"idle_tax", "settle", "stuck_after"};

        (void)state;
        assert_int_equal(bl_word_distance("abc", "abc"), 0);
        assert_int_equal(bl_word_distance("abc", "acb"), 1);
        assert_int_equal(bl_word_distance("", "abc"), 3);
        assert_int_equal(bl_word_distance("Idle-Tax", "idle_tax"), 0);
        assert_int_equal(bl_word_distance("kitten", "sitting"), 3);

        assert_string_equal(bl_suggest("idletax", words, 3), "idle_tax");
        assert_string_equal(bl_suggest("IdleTax", words, 3), "idle_tax");
        assert_string_equal(bl_suggest("settel", words, 3), "settle");
        assert_null(bl_suggest("colour", words, 3));
        assert_null(bl_suggest("a", words, 0));
        assert_null(bl_suggest("0123456789012345678901234567890123456789012345678901234567890123456789", words, 3));
}

static void test_clocks(void **state)
{
        const usec_t mono = bl_now(), wall = bl_now_wall();

        (void)state;
        assert_true(bl_now() >= mono);
        assert_true(wall > UINT64_C(1600000000) * BL_SEC);
        assert_true(bl_mono_to_wall(mono) <= bl_now_wall() + BL_SEC);
        assert_true(bl_mono_to_wall(mono) + BL_SEC >= wall);
        assert_true(bl_mono_to_wall(mono + 10 * BL_SEC) > wall + 9 * BL_SEC);
        assert_int_equal(bl_mono_to_wall(0), 0);
        assert_int_equal(bl_mono_to_wall(BL_UNSET), BL_UNSET);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_reads_are_bounded, test_root_make, test_root_remove),
                cmocka_unit_test_setup_teardown(test_a_fifo_does_not_block, test_root_make, test_root_remove),
                cmocka_unit_test_setup_teardown(test_read_alloc, test_root_make, test_root_remove),
                cmocka_unit_test(test_join),
                cmocka_unit_test_setup_teardown(test_atomic_write, test_root_make, test_root_remove),
                cmocka_unit_test_setup_teardown(test_reader_sees_changes, test_root_make, test_root_remove),
                cmocka_unit_test(test_fields),
                cmocka_unit_test(test_did_you_mean),
                cmocka_unit_test(test_clocks),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
