/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <unistd.h>

#include "daemon/sense/host.h"
#include "tests/unit/test-host-util.h"

static struct bl_conf *conf;
static struct bl_host_sensor *sensor;

static int setup(void **state)
{
        return test_root_make(state) < 0 || bl_conf_new(&conf) < 0 ? -1 : 0;
}

static int teardown(void **state)
{
        sensor = bl_host_sensor_free(sensor);
        conf = bl_conf_free(conf);
        return test_root_remove(state);
}

static void write_meminfo(uint64_t total_mib, uint64_t available_mib)
{
        char text[256];

        (void)snprintf(text, sizeof text,
                       "MemTotal: %llu kB\nMemFree: 1 kB\nMemAvailable: %llu kB\nSwapTotal: 100 kB\nSwapFree: 60 kB\n",
                       (unsigned long long)total_mib * 1024, (unsigned long long)available_mib * 1024);
        test_write("/proc/meminfo", text);
}

static void write_psi(uint64_t some)
{
        char text[256];

        (void)snprintf(text, sizeof text,
                       "some avg10=0.00 avg60=0.00 avg300=0.00 total=%llu\n"
                       "full avg10=0.00 avg60=0.00 avg300=0.00 total=5\n",
                       (unsigned long long)some);
        test_write("/proc/pressure/memory", text);
}

static void test_a_real_host(void **state)
{
        struct bl_host h;

        (void)state;
        assert_int_equal(bl_host_sensor_new(HOST_FIXTURE, conf, &sensor), 0);
        assert_null(bl_host_meminfo(sensor));
        assert_false(bl_host_needs_usage(sensor));
        assert_int_equal(bl_host_sense(sensor, NULL, BL_SEC, &h), 0);
        assert_true(h.budget_is_ram);
        assert_int_equal(h.budget, 24684084 * BL_KIB);
        assert_int_equal(h.used + h.free, h.budget);
        assert_int_equal(h.growth, 0);
        assert_true(h.psi_known);
        assert_false(h.psi_pressure);
        assert_null(bl_host_psi_why_not(sensor));
        assert_non_null(bl_host_meminfo(sensor));
}

static void test_no_meminfo(void **state)
{
        struct bl_host h = {.free = 7};

        (void)state;
        assert_int_equal(bl_host_sensor_new(test_root, conf, &sensor), -ENOENT);
        test_write("/proc/meminfo", "nonsense\n");
        assert_int_equal(bl_host_sensor_new(test_root, conf, &sensor), -EBADMSG);
        assert_null(sensor);
        write_meminfo(1000, 500);
        assert_int_equal(bl_host_sensor_new(test_root, conf, &sensor), 0);
        test_write("/proc/meminfo", "MemTotal: 10"); /* it goes bad later */
        assert_int_equal(bl_host_sense(sensor, NULL, BL_SEC, &h), -EBADMSG);
        assert_int_equal(h.free, 7);
}

static void test_growth_and_swap(void **state)
{
        struct bl_host h;

        (void)state;
        write_meminfo(10000, 9000);
        assert_int_equal(bl_host_sensor_new(test_root, conf, &sensor), 0);
        for (uint64_t i = 0; i < 10; i++) {
                write_meminfo(10000, 9000 - 100 * i);
                assert_int_equal(bl_host_sense(sensor, NULL, (i + 1) * 50 * BL_MSEC, &h), 0);
        }
        assert_int_equal(h.growth, 2000 * BL_MIB);
        assert_int_equal(h.swap_total, 100 * BL_KIB);
        assert_int_equal(h.swap_free, 60 * BL_KIB);
        assert_false(h.psi_known);
        assert_non_null(bl_host_psi_why_not(sensor));
        assert_int_equal(bl_host_psi_open(sensor), -ENOENT);
}

static void test_a_size_as_budget_and_a_reload(void **state)
{
        const struct bl_usage usage = {.resident = 300 * BL_MIB, .savings = 50 * BL_MIB};
        struct bl_host h;

        (void)state;
        write_meminfo(10000, 9000);
        assert_int_equal(bl_conf_set(conf, "host", "budget", "1G", "x", NULL), 0);
        assert_int_equal(bl_host_sensor_new(test_root, conf, &sensor), 0);
        assert_true(bl_host_needs_usage(sensor));
        assert_int_equal(bl_host_sense(sensor, &usage, BL_SEC, &h), 0);
        assert_false(h.budget_is_ram);
        assert_int_equal(h.used, 250 * BL_MIB);
        assert_int_equal(h.free, 774 * BL_MIB);

        /* another budget: its free memory is not what the old one has lost */
        assert_int_equal(bl_conf_set(conf, "host", "budget", "512M", "x", NULL), 0);
        bl_host_sensor_configure(sensor, conf);
        assert_int_equal(bl_host_sense(sensor, &usage, BL_SEC + 50 * BL_MSEC, &h), 0);
        assert_int_equal(h.budget, 512 * BL_MIB);
        assert_int_equal(h.growth, 0);

        assert_int_equal(bl_conf_set(conf, "host", "budget", "50%", "x", NULL), 0);
        bl_host_sensor_configure(sensor, conf);
        assert_int_equal(bl_host_sense(sensor, &usage, BL_SEC + 90 * BL_MSEC, &h), 0);
        assert_int_equal(h.budget, 5000 * BL_MIB);
        assert_int_equal(h.growth, 0);
}

static void test_pressure_without_a_trigger(void **state)
{
        struct bl_host h;
        usec_t now = BL_SEC;

        (void)state;
        write_meminfo(10000, 9000);
        write_psi(1000000);
        assert_int_equal(bl_host_sensor_new(test_root, conf, &sensor), 0);
        assert_int_equal(bl_host_sense(sensor, NULL, now, &h), 0);
        assert_true(h.psi_known);
        assert_int_equal(h.psi_some, 1000000);
        assert_int_equal(h.psi_full, 5);
        assert_false(h.psi_pressure); /* what was before us does not count */

        /* 90 ms of stall in one second: not yet; 100 ms: yes */
        for (int i = 0; i < 3; i++) {
                write_psi(1000000 + 30000 * ((uint64_t)i + 1));
                assert_int_equal(bl_host_sense(sensor, NULL, now += 100 * BL_MSEC, &h), 0);
                assert_false(h.psi_pressure);
        }
        write_psi(1100000);
        assert_int_equal(bl_host_sense(sensor, NULL, now += 100 * BL_MSEC, &h), 0);
        assert_true(h.psi_pressure);
        /* kept until it is cleared */
        assert_int_equal(bl_host_sense(sensor, NULL, now += 100 * BL_MSEC, &h), 0);
        assert_true(h.psi_pressure);
        bl_host_psi_clear(sensor);
        assert_int_equal(bl_host_sense(sensor, NULL, now += 100 * BL_MSEC, &h), 0);
        assert_false(h.psi_pressure);
        /* slow stalls do not add up over windows */
        for (uint64_t i = 0; i < 20; i++) {
                write_psi(1100000 + 40000 * i);
                assert_int_equal(bl_host_sense(sensor, NULL, now += BL_SEC, &h), 0);
                assert_false(h.psi_pressure);
        }
}

static void test_a_trigger(void **state)
{
        struct bl_host h;
        int fd;

        (void)state;
        write_meminfo(10000, 9000);
        write_psi(0);
        assert_int_equal(bl_host_sensor_new(test_root, conf, &sensor), 0);
        /* refused once, as a kernel does without privileges: it can be read still */
        assert_int_equal(rename(test_path("/proc/pressure/memory"), test_path("/proc/pressure/away")), 0);
        assert_int_equal(bl_host_psi_open(sensor), -ENOENT);
        assert_non_null(bl_host_psi_why_not(sensor));
        assert_int_equal(rename(test_path("/proc/pressure/away"), test_path("/proc/pressure/memory")), 0);
        fd = bl_host_psi_open(sensor);
        assert_true(fd >= 0);
        assert_null(bl_host_psi_why_not(sensor));
        close(fd);
        write_psi(0);
        assert_int_equal(bl_host_sense(sensor, NULL, BL_SEC, &h), 0);
        write_psi(900000);
        assert_int_equal(bl_host_sense(sensor, NULL, 2 * BL_SEC, &h), 0);
        assert_false(h.psi_pressure); /* the trigger will tell */
        bl_host_psi_fired(sensor);
        assert_int_equal(bl_host_sense(sensor, NULL, 3 * BL_SEC, &h), 0);
        assert_true(h.psi_pressure);
        bl_host_psi_clear(sensor);

        bl_host_psi_lost(sensor);
        assert_int_equal(bl_host_sense(sensor, NULL, 4 * BL_SEC, &h), 0);
        write_psi(1000000);
        assert_int_equal(bl_host_sense(sensor, NULL, 5 * BL_SEC, &h), 0);
        assert_true(h.psi_pressure);
}

static void test_psi_switched_off(void **state)
{
        struct bl_host h;

        (void)state;
        write_meminfo(10000, 9000);
        write_psi(0);
        assert_int_equal(bl_conf_set(conf, "host", "psi", "no", "x", NULL), 0);
        assert_int_equal(bl_host_sensor_new(test_root, conf, &sensor), 0);
        assert_int_equal(bl_host_psi_open(sensor), -EOPNOTSUPP);
        assert_int_equal(bl_host_sense(sensor, NULL, BL_SEC, &h), 0);
        assert_false(h.psi_known);
        assert_non_null(strstr(bl_host_psi_why_not(sensor), "psi=no"));

        assert_int_equal(bl_conf_set(conf, "host", "psi", "yes", "x", NULL), 0);
        bl_host_sensor_configure(sensor, conf);
        assert_int_equal(bl_host_sense(sensor, NULL, 2 * BL_SEC, &h), 0);
        assert_true(h.psi_known);
        assert_null(bl_host_psi_why_not(sensor));
}

#define IN_ROOT(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                IN_ROOT(test_a_real_host),
                IN_ROOT(test_no_meminfo),
                IN_ROOT(test_growth_and_swap),
                IN_ROOT(test_a_size_as_budget_and_a_reload),
                IN_ROOT(test_pressure_without_a_trigger),
                IN_ROOT(test_a_trigger),
                IN_ROOT(test_psi_switched_off),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
