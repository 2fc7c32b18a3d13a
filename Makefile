# SPDX-License-Identifier: LGPL-2.1-or-later
# Ballast.  `make` builds, `make demo` shows it, `make test` proves it; HACKING.md has the rest.

VERSION := 0.2.0

# --- where things go -------------------------------------------------------
prefix ?= /usr/local
sbindir ?= $(prefix)/sbin
bindir ?= $(prefix)/bin
mandir ?= $(prefix)/share/man
sysconfdir ?= /etc
libdir_ballast ?= $(prefix)/lib/ballast
unitdir ?= $(prefix)/lib/systemd/system
dbusdir ?= $(prefix)/share/dbus-1
# dbus-daemon reads policies below /usr/share and /etc only, not below /usr/local
dbusconfdir ?= $(sysconfdir)/dbus-1/system.d
completiondir ?= $(prefix)/share/bash-completion/completions

# SANITIZE=address,undefined or thread, FAULTS=1: each variant in a build
# directory of its own, so that they never mix.
comma := ,
variant := $(if $(SANITIZE),-$(subst $(comma),-,$(SANITIZE)))$(if $(FAULTS),-faults)
BUILD ?= build$(variant)

# --- tools and flags -------------------------------------------------------
CC ?= gcc
PKG_CONFIG ?= pkg-config
PKGS_DAEMON := libvirt libvirt-qemu libsystemd inih jansson libxml-2.0 liblz4 libxxhash
PKGS_CTL := libsystemd jansson smartcols
PKGS_STORE := liblz4 libxxhash nbdkit
PKGS_TEST := cmocka libnbd

WARN := -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wformat=2 -Wvla \
        -Wno-missing-field-initializers
OPT ?= -O2 -g
BASE_CFLAGS := -std=gnu17 $(OPT) $(WARN) $(if $(WERROR),-Werror) -fstack-protector-strong \
        $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-omit-frame-pointer) \
        $(if $(findstring undefined,$(SANITIZE)),-fno-sanitize-recover=undefined)
BASE_CPPFLAGS := -D_GNU_SOURCE -Iinclude -DBALLAST_VERSION='"$(VERSION)"' -DBALLAST_SYSCONFDIR='"$(sysconfdir)"' \
        -DBALLAST_LIBDIR='"$(libdir_ballast)"' \
        $(if $(FAULTS),-DBALLAST_FAULTS)
BASE_LDFLAGS := -Wl,-z,relro,-z,now $(if $(SANITIZE),-fsanitize=$(SANITIZE))
DEPFLAGS = -MMD -MP

pkg_cflags = $(shell $(PKG_CONFIG) --cflags $(1) 2>/dev/null | sed 's/-I/-isystem /g')
pkg_libs = $(shell $(PKG_CONFIG) --libs $(1) 2>/dev/null)
DAEMON_CFLAGS = $(eval DAEMON_CFLAGS := $$(call pkg_cflags,$(PKGS_DAEMON) $(PKGS_CTL)))$(DAEMON_CFLAGS)
DAEMON_LIBS = $(eval DAEMON_LIBS := $$(call pkg_libs,$(PKGS_DAEMON)) -lm)$(DAEMON_LIBS)
CTL_LIBS = $(eval CTL_LIBS := $$(call pkg_libs,$(PKGS_CTL)))$(CTL_LIBS)
STORE_CFLAGS = $(eval STORE_CFLAGS := $$(call pkg_cflags,$(PKGS_STORE)))$(STORE_CFLAGS)
STORE_LIBS = $(eval STORE_LIBS := $$(call pkg_libs,liblz4 libxxhash))$(STORE_LIBS)
TEST_LIBS = $(eval TEST_LIBS := $$(call pkg_libs,$(PKGS_TEST)))$(TEST_LIBS)

# --- sources: a new file is picked up by being there -----------------------
policy_src := $(wildcard policy/*.c)
# the wire code is all that the agent shares with the daemon
wire_src := daemon/channel/wire.c
ctl_src := $(wildcard daemon/ctl/*.c)
# the vsock backend is a program of its own; its parts are in the library for the tests
vsock_main := daemon/vsock/main.c
vsock_src := $(filter-out $(vsock_main),$(wildcard daemon/vsock/*.c))
# so is the store: a library, an nbdkit plugin around it, and the program that holds its sockets
store_main := daemon/store/main.c
store_plugin := daemon/store/plugin.c
store_src := $(filter-out $(store_main) $(store_plugin),$(wildcard daemon/store/*.c))
daemon_src := $(filter-out daemon/main.c $(vsock_main) $(ctl_src) daemon/store/%,$(wildcard daemon/*.c daemon/*/*.c))
agent_src := $(filter-out guestagent/main.c,$(wildcard guestagent/*.c))
unit_src := $(wildcard tests/unit/test-*.c)
sim_src := $(wildcard tests/sim/sim-*.c)
simlib_src := $(filter-out $(sim_src),$(wildcard tests/sim/*.c))
bench_src := $(wildcard tests/bench/bench-*.c)
fuzz_src := $(wildcard tests/fuzz/fuzz-*.c)
man_src := $(wildcard daemon/*.scd daemon/*/*.scd guestagent/*.scd systemd/*.scd)

obj = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))
policy_obj := $(call obj,$(policy_src))
daemon_obj := $(call obj,$(daemon_src))
ctl_obj := $(call obj,$(ctl_src))
store_obj := $(patsubst %.c,$(BUILD)/pic/%.o,$(store_src))
# what is fuzzed needs nothing else
fuzzed_src = $(wire_src) daemon/pages/elfcore.c $(filter-out daemon/vsock/worker.c daemon/vsock/supervisor.c daemon/vsock/control.c,$(vsock_src))
# the agent is built on its own, with few flags in common: it is static and small
agent_obj := $(patsubst %.c,$(BUILD)/agent/%.o,$(agent_src) $(wire_src))
agent_main := $(BUILD)/agent/guestagent/main.o

unit_bin := $(patsubst tests/unit/%.c,$(BUILD)/tests/unit/%,$(unit_src))
sim_bin := $(patsubst tests/sim/%.c,$(BUILD)/tests/sim/%,$(sim_src))
bench_bin := $(patsubst tests/bench/%.c,$(BUILD)/tests/bench/%,$(bench_src))
fuzz_bin := $(patsubst tests/fuzz/%.c,$(BUILD)/tests/fuzz/%,$(fuzz_src))
fake_bin := $(BUILD)/tests/cli/fake-ballastd
man_out := $(addprefix $(BUILD)/man/,$(notdir $(man_src:.scd=)))

programs := $(BUILD)/ballastd $(BUILD)/ballastctl $(BUILD)/ballast-vsock $(BUILD)/ballast-store $(BUILD)/ballast-store-plugin.so $(if $(SANITIZE),,$(BUILD)/ballast-agent)

.DEFAULT_GOAL := all
.PHONY: all tests man check test demo lint format install uninstall clean help deps \
        bench-react bench-scale bench-channel bench-store bench-store-kill bench-share bench-share-long fuzz-long check-sanitize valgrind
.DELETE_ON_ERROR:
.SUFFIXES:
# objects of tests are kept: a second make has nothing to do
.SECONDARY:

all: deps-check $(programs) man
man: $(man_out)
tests: $(unit_bin) $(sim_bin) $(bench_bin) $(fake_bin) $(if $(SANITIZE),,$(fuzz_bin))

# what is run with fault points in it
.PHONY: faults
faults: deps-check $(BUILD)/ballastd $(addprefix $(BUILD)/tests/unit/,test-virt-conn test-ledger test-fault test-ksm test-store-step test-store-model)

# A missing library is said in one line, with the mend, not in fifty of the compiler's.
.PHONY: deps-check
deps-check:
	@$(PKG_CONFIG) --exists $(PKGS_DAEMON) $(PKGS_CTL) $(PKGS_STORE) $(PKGS_TEST) || \
	  { echo "ballast: libraries are missing; 'make deps' installs them (apt, as root)" >&2; exit 1; }

deps:
	@tests/install-deps

# --- rules -----------------------------------------------------------------
# V=1 shows whole commands
Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-5s %s\n' $(1) $@;)
$(BUILD)/obj/policy/%.o: policy/%.c | deps-check
	@mkdir -p $(@D)
	$(call say,CC)$(CC) $(BASE_CPPFLAGS) $(BASE_CFLAGS) $(CFLAGS) $(DEPFLAGS) -c -o $@ $<

$(BUILD)/obj/%.o: %.c | deps-check
	@mkdir -p $(@D)
	$(call say,CC)$(CC) $(BASE_CPPFLAGS) -I. $(BASE_CFLAGS) $(DAEMON_CFLAGS) -pthread $(CFLAGS) $(DEPFLAGS) -c -o $@ $<

# the store is linked into a shared object
$(BUILD)/pic/%.o: %.c | deps-check
	@mkdir -p $(@D)
	$(call say,CC)$(CC) $(BASE_CPPFLAGS) -I. $(BASE_CFLAGS) $(STORE_CFLAGS) -fPIC -pthread $(CFLAGS) $(DEPFLAGS) -c -o $@ $<

$(BUILD)/agent/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC)$(CC) $(BASE_CPPFLAGS) -I. -std=gnu17 -Os -g $(WARN) $(if $(WERROR),-Werror) -ffunction-sections -fdata-sections \
	  $(CFLAGS) $(DEPFLAGS) -c -o $@ $<

$(BUILD)/libpolicy.a: $(policy_obj)
$(BUILD)/libballastd.a: $(daemon_obj)
$(BUILD)/libballastctl.a: $(filter-out %/main.o,$(ctl_obj))
$(BUILD)/libagent.a: $(agent_obj)
$(BUILD)/libstore.a: $(store_obj)
$(BUILD)/libutil-pic.a: $(patsubst %.c,$(BUILD)/pic/%.o,$(wildcard daemon/util/*.c))
$(BUILD)/libsim.a: $(call obj,$(simlib_src))
%.a:
	@mkdir -p $(@D)
	@rm -f $@
	$(call say,AR)$(AR) rcs $@ $^

$(BUILD)/ballastd: $(BUILD)/obj/daemon/main.o $(BUILD)/libballastd.a $(BUILD)/libpolicy.a
	$(call say,LD)$(CC) $(BASE_LDFLAGS) $(LDFLAGS) -pthread -o $@ $^ $(DAEMON_LIBS)

$(BUILD)/ballastctl: $(BUILD)/obj/daemon/ctl/main.o $(BUILD)/libballastctl.a $(BUILD)/libballastd.a $(BUILD)/libpolicy.a
	$(call say,LD)$(CC) $(BASE_LDFLAGS) $(LDFLAGS) -Wl,--as-needed -pthread -o $@ $^ $(CTL_LIBS) $(DAEMON_LIBS)

$(BUILD)/ballast-vsock: $(BUILD)/obj/$(vsock_main:.c=.o) $(BUILD)/libballastd.a
	$(call say,LD)$(CC) $(BASE_LDFLAGS) $(LDFLAGS) -Wl,--as-needed -pthread -o $@ $^ $(DAEMON_LIBS)

$(BUILD)/ballast-store: $(BUILD)/obj/$(store_main:.c=.o) $(BUILD)/libstore.a $(BUILD)/libballastd.a $(BUILD)/libpolicy.a
	$(call say,LD)$(CC) $(BASE_LDFLAGS) $(LDFLAGS) -Wl,--as-needed -pthread -o $@ $^ $(STORE_LIBS) $(DAEMON_LIBS)

# nbdkit loads it: what it needs of daemon/util is built for that too
$(BUILD)/ballast-store-plugin.so: $(BUILD)/pic/$(store_plugin:.c=.o) $(BUILD)/libstore.a $(BUILD)/libutil-pic.a
	$(call say,LD)$(CC) -shared $(BASE_LDFLAGS) $(LDFLAGS) -Wl,--as-needed -pthread -o $@ $^ $(STORE_LIBS)

$(BUILD)/ballast-agent: $(agent_main) $(agent_obj)
	$(call say,LD)$(CC) -static -Wl,--gc-sections $(LDFLAGS) -o $@ $^

testlibs = $(BUILD)/libsim.a $(BUILD)/libballastctl.a $(BUILD)/libstore.a $(BUILD)/libballastd.a $(BUILD)/libpolicy.a
$(BUILD)/tests/unit/%: $(BUILD)/obj/tests/unit/%.o $(testlibs) $(BUILD)/libagent.a
	@mkdir -p $(@D)
	$(call say,LD)$(CC) $(BASE_LDFLAGS) $(LDFLAGS) -pthread -o $@ $^ $(TEST_LIBS) $(STORE_LIBS) $(DAEMON_LIBS) $(CTL_LIBS)

$(BUILD)/tests/sim/%: $(BUILD)/obj/tests/sim/%.o $(BUILD)/libsim.a $(BUILD)/libpolicy.a
	@mkdir -p $(@D)
	$(call say,LD)$(CC) $(BASE_LDFLAGS) $(LDFLAGS) -o $@ $^ $(TEST_LIBS) -lm

$(BUILD)/tests/bench/%: $(BUILD)/obj/tests/bench/%.o $(testlibs)
	@mkdir -p $(@D)
	$(call say,LD)$(CC) $(BASE_LDFLAGS) $(LDFLAGS) -pthread -o $@ $^ $(TEST_LIBS) $(STORE_LIBS) $(DAEMON_LIBS) $(CTL_LIBS) -lm

$(BUILD)/tests/cli/%: $(BUILD)/obj/tests/cli/%.o $(BUILD)/libballastd.a $(BUILD)/libpolicy.a
	@mkdir -p $(@D)
	$(call say,LD)$(CC) $(BASE_LDFLAGS) $(LDFLAGS) -pthread -o $@ $^ $(DAEMON_LIBS)

# libFuzzer under ASan and UBSan; sources are compiled again with its instrumentation
$(BUILD)/tests/fuzz/%: tests/fuzz/%.c $(fuzzed_src) $(wildcard include/ballast/*.h daemon/channel/*.h daemon/pages/*.h daemon/vsock/*.h)
	@mkdir -p $(@D)
	$(call say,FUZZ)clang -std=gnu17 -O1 -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined \
	  $(BASE_CPPFLAGS) -I. $(WARN) -o $@ $< $(fuzzed_src)

$(BUILD)/man/%: ; $(error no man page source for $@)
define man_rule
$(BUILD)/man/$(notdir $(1:.scd=)): $(1)
	@mkdir -p $$(@D)
	@scdoc < $$< > $$@
endef
$(foreach m,$(man_src),$(eval $(call man_rule,$(m))))

# --- checks ----------------------------------------------------------------
# `check` is the fast part: no guests.  `test` is everything and what CI runs;
# it installs what is missing first, hence the recursive make.
cli_tests := $(wildcard tests/cli/test-*.sh)

.PHONY: check-run
check:
	@tests/install-deps
	@$(MAKE) --no-print-directory check-run

# what is installed is what is built without a sanitizer: the agent is static
check_scripts = $(wildcard tests/unit/*.sh) $(if $(SANITIZE),,$(wildcard tests/build/*.sh)) $(cli_tests)
check-run: all tests
	@BUILD=$(BUILD) TSAN_OPTIONS=suppressions=$(CURDIR)/tests/tsan.supp \
	  tests/run -j 2 -t 120 $(unit_bin) $(sim_bin) $(check_scripts)

test:
	@tests/install-deps
	@$(MAKE) --no-print-directory -j2 all tests
	@$(MAKE) --no-print-directory -j2 FAULTS=1 faults
	@BUILD=$(BUILD) tests/all

check-sanitize:
	@tests/install-deps
	@$(MAKE) --no-print-directory SANITIZE=address,undefined check-run
	@$(MAKE) --no-print-directory SANITIZE=thread check-run

valgrind: all
	@BUILD=$(BUILD) tests/fault/test-valgrind.sh

c_files := $(wildcard policy/*.[ch] daemon/*.[ch] daemon/*/*.[ch] guestagent/*.[ch] include/ballast/*.h \
             tests/*/*.[ch])
sh_files := $(wildcard tests/install-deps tests/run tests/all tests/demo .ci/run tests/*/*.sh) tests/images/load/enter tests/images/load/run

.PHONY: lint-c lint-sh lint-format lint-clang lint-clang-build
lint:
	@tests/install-deps
	@$(MAKE) --no-print-directory -k lint-format lint-sh lint-c lint-clang lint-clang-build
lint-format:
	@clang-format --dry-run --Werror $(c_files)
lint-sh:
	@shellcheck -x $(sh_files)
lint-c:
	@cppcheck --quiet --std=c17 --enable=warning,performance,portability --inline-suppr --error-exitcode=1 -j2 \
	  --suppress=missingIncludeSystem --suppress=memleak --suppress=resourceLeak -Iinclude -I. -D_GNU_SOURCE policy daemon guestagent
# flags by way of a file: strings in -D do not survive a shell twice
lint-clang: | deps-check
	@mkdir -p $(BUILD)/tidy
	@printf '%s\n' -std=gnu17 $(BASE_CPPFLAGS) -I$(CURDIR) -I$(CURDIR)/include $(DAEMON_CFLAGS) $(STORE_CFLAGS) > $(BUILD)/tidy/compile_flags.txt
	@printf '%s\n' $(policy_src) $(daemon_src) $(ctl_src) daemon/main.c $(wildcard daemon/store/*.c guestagent/*.c) | \
	  xargs -P2 -n4 clang-tidy --quiet -p $(BUILD)/tidy 2>/dev/null
# clang sees other things than gcc: the whole tree must be clean under both
lint-clang-build:
	$(MAKE) CC=clang BUILD=build-clang WERROR=1 all
format:
	@clang-format -i $(c_files)

# --- demo and benchmarks ---------------------------------------------------
demo:
	@tests/install-deps demo
	@$(MAKE) --no-print-directory -j2 $(programs) $(BUILD)/tests/bench/bench-observe
	@BUILD=$(BUILD) tests/demo

bench-react: $(programs) $(BUILD)/tests/bench/bench-observe
	@BUILD=$(BUILD) tests/bench/bench-react.sh
bench-scale: $(BUILD)/tests/bench/bench-scale
	@mkdir -p $(BUILD)/bench
	$< $(BUILD)/bench/scale.json
bench-channel: $(programs) $(BUILD)/tests/bench/bench-observe $(BUILD)/tests/bench/bench-channel
	@BUILD=$(BUILD) tests/bench/bench-channel.sh
bench-store: $(programs) $(addprefix $(BUILD)/tests/bench/,bench-store bench-zram bench-nbd bench-pageset bench-store-ask)
	@BUILD=$(BUILD) tests/bench/bench-store.sh
bench-store-kill: $(programs) $(addprefix $(BUILD)/tests/bench/,bench-store-kill bench-store-ask)
	@BUILD=$(BUILD) tests/bench/bench-store-kill.sh
bench-share: $(programs) $(filter %/bench-scan %/bench-observe,$(bench_bin)) $(filter %/bench-share-%,$(bench_bin))
	@BUILD=$(BUILD) tests/bench/bench-share.sh
bench-share-long: $(programs) $(filter %/bench-scan %/bench-observe,$(bench_bin)) $(filter %/bench-share-%,$(bench_bin))
	@BUILD=$(BUILD) tests/bench/bench-share.sh --long
fuzz-long: $(fuzz_bin)
	@BUILD=$(BUILD) tests/fuzz/long.sh

# --- install ---------------------------------------------------------------
INSTALL ?= install
define subst_paths
sed -e 's|/usr/sbin/|$(sbindir)/|g' -e 's|/usr/bin/|$(bindir)/|g' $(1) > $(BUILD)/$(notdir $(1)) && \
  $(INSTALL) -D -m 644 $(BUILD)/$(notdir $(1)) $(DESTDIR)$(2)/$(notdir $(1))
endef

install: all
	$(INSTALL) -D -m 755 $(BUILD)/ballastd $(DESTDIR)$(sbindir)/ballastd
	$(INSTALL) -D -m 755 $(BUILD)/ballast-vsock $(DESTDIR)$(sbindir)/ballast-vsock
	$(INSTALL) -D -m 755 $(BUILD)/ballast-store $(DESTDIR)$(sbindir)/ballast-store
	$(INSTALL) -D -m 755 $(BUILD)/ballast-store-plugin.so $(DESTDIR)$(libdir_ballast)/ballast-store-plugin.so
	$(INSTALL) -D -m 755 $(BUILD)/ballast-agent $(DESTDIR)$(sbindir)/ballast-agent
	$(INSTALL) -D -m 755 $(BUILD)/ballastctl $(DESTDIR)$(bindir)/ballastctl
	$(INSTALL) -D -m 644 systemd/ballast.conf $(DESTDIR)$(sysconfdir)/ballast/ballast.conf.new
	if [ -e $(DESTDIR)$(sysconfdir)/ballast/ballast.conf ]; then \
	  cmp -s $(DESTDIR)$(sysconfdir)/ballast/ballast.conf.new $(DESTDIR)$(sysconfdir)/ballast/ballast.conf && \
	  rm $(DESTDIR)$(sysconfdir)/ballast/ballast.conf.new || \
	  echo "your ballast.conf was kept; the shipped one is beside it as ballast.conf.new"; \
	else mv $(DESTDIR)$(sysconfdir)/ballast/ballast.conf.new $(DESTDIR)$(sysconfdir)/ballast/ballast.conf; fi
	$(call subst_paths,systemd/ballastd.service,$(unitdir))
	$(call subst_paths,systemd/ballast-vsock.service,$(unitdir))
	$(call subst_paths,systemd/ballast-store.service,$(unitdir))
	$(call subst_paths,systemd/ballast-store.socket,$(unitdir))
	$(call subst_paths,systemd/ballast-store-control.socket,$(unitdir))
	$(call subst_paths,systemd/ballast-agent.service,$(unitdir))
	$(INSTALL) -D -m 644 systemd/org.ballast1.conf $(DESTDIR)$(dbusconfdir)/org.ballast1.conf
	$(call subst_paths,systemd/org.ballast1.service,$(dbusdir)/system-services)
	$(INSTALL) -D -m 644 systemd/ballastctl.bash-completion $(DESTDIR)$(completiondir)/ballastctl
	for m in $(man_out); do $(INSTALL) -D -m 644 $$m $(DESTDIR)$(mandir)/man$${m##*.}/$${m##*/} || exit 1; done

# the administrator's ballast.conf stays
uninstall:
	rm -f $(DESTDIR)$(sbindir)/ballastd $(DESTDIR)$(sbindir)/ballast-vsock $(DESTDIR)$(sbindir)/ballast-agent $(DESTDIR)$(bindir)/ballastctl \
	  $(DESTDIR)$(sbindir)/ballast-store $(DESTDIR)$(libdir_ballast)/ballast-store-plugin.so \
	  $(DESTDIR)$(unitdir)/ballast-store.service $(DESTDIR)$(unitdir)/ballast-store.socket \
	  $(DESTDIR)$(unitdir)/ballast-store-control.socket \
	  $(DESTDIR)$(unitdir)/ballastd.service $(DESTDIR)$(unitdir)/ballast-vsock.service $(DESTDIR)$(unitdir)/ballast-agent.service \
	  $(DESTDIR)$(dbusconfdir)/org.ballast1.conf $(DESTDIR)$(dbusdir)/system-services/org.ballast1.service \
	  $(DESTDIR)$(completiondir)/ballastctl $(DESTDIR)$(sysconfdir)/ballast/ballast.conf.new
	for m in $(notdir $(man_out)); do rm -f $(DESTDIR)$(mandir)/man$${m##*.}/$$m; done

help:
	@echo 'make             build everything into build/'
	@echo 'make demo        see memory move between real guests'
	@echo 'make test        everything that is tested, real guests included'
	@echo 'make check       the fast tests, no guests'
	@echo 'make lint        clang-tidy, cppcheck, clang-format, shellcheck'
	@echo 'make check-sanitize   the fast tests under ASan+UBSan and TSan'
	@echo 'make bench-react, bench-scale, bench-channel, bench-store, bench-store-kill, bench-share, bench-share-long   figures, as JSON in build/bench/'
	@echo 'make install DESTDIR= prefix=   and uninstall'

# (a guest image's root has such names too)
-include $(shell find $(BUILD) -path $(BUILD)/images -prune -o -type f -name '*.d' -print 2>/dev/null)

clean:
	rm -rf build build-*
