# SPDX-License-Identifier: LGPL-2.1-or-later
# Ballast.  `make` builds, `make demo` shows it, `make test` proves it; HACKING.md has the rest.

VERSION := 0.1.0

# --- where things go -------------------------------------------------------
prefix ?= /usr/local
sbindir ?= $(prefix)/sbin
bindir ?= $(prefix)/bin
mandir ?= $(prefix)/share/man
sysconfdir ?= /etc
libdir_ballast ?= $(prefix)/lib/ballast
unitdir ?= $(prefix)/lib/systemd/system
dbusdir ?= $(prefix)/share/dbus-1
completiondir ?= $(prefix)/share/bash-completion/completions

# SANITIZE=address,undefined or thread, FAULTS=1: each variant in a build
# directory of its own, so that they never mix.
comma := ,
variant := $(if $(SANITIZE),-$(subst $(comma),-,$(SANITIZE)))$(if $(FAULTS),-faults)
BUILD ?= build$(variant)

# --- tools and flags -------------------------------------------------------
CC ?= gcc
PKG_CONFIG ?= pkg-config
PKGS_DAEMON := libvirt libvirt-qemu libsystemd inih jansson libxml-2.0
PKGS_CTL := libsystemd jansson smartcols
PKGS_TEST := cmocka

WARN := -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wformat=2 -Wvla \
        -Wno-missing-field-initializers
OPT ?= -O2 -g
BASE_CFLAGS := -std=gnu17 $(OPT) $(WARN) $(if $(WERROR),-Werror) -fstack-protector-strong \
        $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-omit-frame-pointer) \
        $(if $(findstring undefined,$(SANITIZE)),-fno-sanitize-recover=undefined)
BASE_CPPFLAGS := -D_GNU_SOURCE -Iinclude -DBALLAST_VERSION='"$(VERSION)"' -DBALLAST_SYSCONFDIR='"$(sysconfdir)"' \
        $(if $(FAULTS),-DBALLAST_FAULTS)
BASE_LDFLAGS := -Wl,-z,relro,-z,now $(if $(SANITIZE),-fsanitize=$(SANITIZE))
DEPFLAGS = -MMD -MP

pkg_cflags = $(shell $(PKG_CONFIG) --cflags $(1) 2>/dev/null | sed 's/-I/-isystem /g')
pkg_libs = $(shell $(PKG_CONFIG) --libs $(1) 2>/dev/null)
DAEMON_CFLAGS = $(eval DAEMON_CFLAGS := $$(call pkg_cflags,$(PKGS_DAEMON) $(PKGS_CTL)))$(DAEMON_CFLAGS)
DAEMON_LIBS = $(eval DAEMON_LIBS := $$(call pkg_libs,$(PKGS_DAEMON)))$(DAEMON_LIBS)
CTL_LIBS = $(eval CTL_LIBS := $$(call pkg_libs,$(PKGS_CTL)))$(CTL_LIBS)
TEST_LIBS = $(eval TEST_LIBS := $$(call pkg_libs,$(PKGS_TEST)))$(TEST_LIBS)

# --- sources: a new file is picked up by being there -----------------------
policy_src := $(wildcard policy/*.c)
# the wire code is all that the agent shares with the daemon
wire_src := daemon/channel/wire.c
ctl_src := $(wildcard daemon/ctl/*.c)
daemon_src := $(filter-out daemon/main.c $(ctl_src),$(wildcard daemon/*.c daemon/*/*.c))
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
# the agent is built on its own, with few flags in common: it is static and small
agent_obj := $(patsubst %.c,$(BUILD)/agent/%.o,$(agent_src) $(wire_src))
agent_main := $(BUILD)/agent/guestagent/main.o

unit_bin := $(patsubst tests/unit/%.c,$(BUILD)/tests/unit/%,$(unit_src))
sim_bin := $(patsubst tests/sim/%.c,$(BUILD)/tests/sim/%,$(sim_src))
bench_bin := $(patsubst tests/bench/%.c,$(BUILD)/tests/bench/%,$(bench_src))
fuzz_bin := $(patsubst tests/fuzz/%.c,$(BUILD)/tests/fuzz/%,$(fuzz_src))
man_out := $(addprefix $(BUILD)/man/,$(notdir $(man_src:.scd=)))

programs := $(BUILD)/ballastd $(BUILD)/ballastctl $(if $(SANITIZE),,$(BUILD)/ballast-agent)

.DEFAULT_GOAL := all
.PHONY: all tests man check test demo lint format install uninstall clean help deps \
        bench-react bench-scale fuzz-long check-sanitize valgrind
.DELETE_ON_ERROR:
.SUFFIXES:

all: deps-check $(programs) man
man: $(man_out)
tests: $(unit_bin) $(sim_bin) $(bench_bin) $(if $(SANITIZE),,$(fuzz_bin))

# A missing library is said in one line, with the mend, not in fifty of the compiler's.
.PHONY: deps-check
deps-check:
	@$(PKG_CONFIG) --exists $(PKGS_DAEMON) $(PKGS_CTL) $(PKGS_TEST) || \
	  { echo "ballast: libraries are missing; 'make deps' installs them (apt, as root)" >&2; exit 1; }

deps:
	@tests/install-deps

# --- rules -----------------------------------------------------------------
$(BUILD)/obj/policy/%.o: policy/%.c | deps-check
	@mkdir -p $(@D)
	$(CC) $(BASE_CPPFLAGS) $(BASE_CFLAGS) $(CFLAGS) $(DEPFLAGS) -c -o $@ $<

$(BUILD)/obj/%.o: %.c | deps-check
	@mkdir -p $(@D)
	$(CC) $(BASE_CPPFLAGS) -I. $(BASE_CFLAGS) $(DAEMON_CFLAGS) -pthread $(CFLAGS) $(DEPFLAGS) -c -o $@ $<

$(BUILD)/agent/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(BASE_CPPFLAGS) -I. -std=gnu17 -Os -g $(WARN) $(if $(WERROR),-Werror) -ffunction-sections -fdata-sections \
	  $(CFLAGS) $(DEPFLAGS) -c -o $@ $<

$(BUILD)/libpolicy.a: $(policy_obj)
$(BUILD)/libballastd.a: $(daemon_obj)
$(BUILD)/libballastctl.a: $(filter-out %/main.o,$(ctl_obj))
$(BUILD)/libagent.a: $(agent_obj)
$(BUILD)/libsim.a: $(call obj,$(simlib_src))
%.a:
	@mkdir -p $(@D)
	@rm -f $@
	$(AR) rcs $@ $^

$(BUILD)/ballastd: $(BUILD)/obj/daemon/main.o $(BUILD)/libballastd.a $(BUILD)/libpolicy.a
	$(CC) $(BASE_LDFLAGS) $(LDFLAGS) -pthread -o $@ $^ $(DAEMON_LIBS)

$(BUILD)/ballastctl: $(BUILD)/obj/daemon/ctl/main.o $(BUILD)/libballastctl.a $(BUILD)/libballastd.a $(BUILD)/libpolicy.a
	$(CC) $(BASE_LDFLAGS) $(LDFLAGS) -Wl,--as-needed -pthread -o $@ $^ $(CTL_LIBS) $(DAEMON_LIBS)

$(BUILD)/ballast-agent: $(agent_main) $(agent_obj)
	$(CC) -static -Wl,--gc-sections $(LDFLAGS) -o $@ $^

testlibs = $(BUILD)/libsim.a $(BUILD)/libballastctl.a $(BUILD)/libballastd.a $(BUILD)/libpolicy.a
$(BUILD)/tests/unit/%: $(BUILD)/obj/tests/unit/%.o $(testlibs) $(BUILD)/libagent.a
	@mkdir -p $(@D)
	$(CC) $(BASE_LDFLAGS) $(LDFLAGS) -pthread -o $@ $^ $(TEST_LIBS) $(DAEMON_LIBS) $(CTL_LIBS)

$(BUILD)/tests/sim/%: $(BUILD)/obj/tests/sim/%.o $(BUILD)/libsim.a $(BUILD)/libpolicy.a
	@mkdir -p $(@D)
	$(CC) $(BASE_LDFLAGS) $(LDFLAGS) -o $@ $^ $(TEST_LIBS) -lm

$(BUILD)/tests/bench/%: $(BUILD)/obj/tests/bench/%.o $(testlibs)
	@mkdir -p $(@D)
	$(CC) $(BASE_LDFLAGS) $(LDFLAGS) -pthread -o $@ $^ $(DAEMON_LIBS) $(CTL_LIBS) -lm

# libFuzzer under ASan and UBSan; sources are compiled again with its instrumentation
$(BUILD)/tests/fuzz/%: tests/fuzz/%.c $(wire_src) $(wildcard include/ballast/*.h daemon/channel/*.h)
	@mkdir -p $(@D)
	clang -std=gnu17 -O1 -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined \
	  $(BASE_CPPFLAGS) -I. $(WARN) -o $@ $< $(wire_src)

$(BUILD)/man/%: ; $(error no man page source for $@)
define man_rule
$(BUILD)/man/$(notdir $(1:.scd=)): $(1)
	@mkdir -p $$(@D)
	scdoc < $$< > $$@
endef
$(foreach m,$(man_src),$(eval $(call man_rule,$(m))))

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)

clean:
	rm -rf build build-*
