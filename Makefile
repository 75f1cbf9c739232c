# SPDX-License-Identifier: GPL-2.0
#
# make help lists the targets. What is downloaded or built once is cached under
# ${XDG_CACHE_HOME:-$HOME/.cache}/rdax; what is built here goes to build/.

SHELL := /bin/bash
.DELETE_ON_ERROR:
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

ifdef KDIR
# Only the module, against the prepared kernel tree KDIR, with the compilers in
# PATH. It lands in build/RELEASE/rdax.ko; with a seeded bug, MUTATE=NAME (one of
# scripts/mutations), in build/mutants/NAME/rdax.ko; with SHADOW=1, which finds
# stores that were not written back, in build/shadow/ instead of build/.
override KDIR := $(abspath $(KDIR))
RELEASE := $(shell cat "$(KDIR)/include/config/kernel.release" 2>/dev/null)
KBUILD = @args=$$(scripts/check-tree "$(KDIR)") && \
	$(MAKE) -C "$(KDIR)" M="$(CURDIR)" $$args $(if $(V),V=$(V),-s)

.PHONY: module clippy
module:
	@scripts/mutations $(MUTATE) >/dev/null
	$(KBUILD) MO="$(CURDIR)/build/$(if $(SHADOW),shadow/)$(if $(MUTATE),mutants/$(MUTATE),$(RELEASE))" modules
clippy:
	$(KBUILD) MO="$(CURDIR)/build/clippy-$(RELEASE)" CLIPPY=1 KRUSTFLAGS=-Dwarnings modules
else

.PHONY: all module tools run shell test host-test vm-test crash torture bench
.PHONY: mutants debug-kernel debug-module test-debug xfstests pjdfstest lint doc
.PHONY: rust-analyzer completions clean help
all: module tools

# Without a KDIR the module is built for the stock kernel, in the toolchain root.
module:
	@kernel=$$(scripts/kernel) && \
	scripts/in-root make -j"$$(nproc)" module KDIR="$$kernel/tree" V="$(V)" SHADOW="$(SHADOW)" \
		MUTATE="$(MUTATE)"

tools:
	@scripts/in-root scripts/build-tools

STRESS_SECONDS ?= 20
STRESS_SEED ?= 1
# Not all programs: the first result on a new machine comes sooner.
run: module
	@scripts/in-root scripts/build-tools mkfs.rdax rdax-stress
	@qemu/vm --pmem 2G -- \
		rdax-stress --dir /mnt/pmem --seconds $(STRESS_SECONDS) --seed $(STRESS_SEED)

shell: module
	@scripts/in-root scripts/build-tools mkfs.rdax fsck.rdax rdax-dump rdax-stress
	@qemu/vm

test: all
	@scripts/test all
host-test:
	@scripts/test host
vm-test: all
	@scripts/test vm

# Crashes of the running kernel: Documentation/crash-exploration.rst. With MUTATE= the
# modules are built one by one, on the way.
BUDGET ?= 10m
SEED ?= 1
CRASH_FS ?= rdax
crash: tools $(if $(MUTATE),,module)
	@build/bin/rdax-crash $(if $(MUTATE),mutate $(MUTATE),run) --budget $(BUDGET) \
		--fs $(CRASH_FS) --seed $(SEED) $(foreach name,$(WORKLOAD),--workload '$(name)')

# Damage, failures, kills, races and hostile users: Documentation/torture.rst.
torture: BUDGET = 60m
torture: all
	@tests/torture/run --budget $(BUDGET) --seed $(SEED) $(if $(PART),--part "$(PART)")

# Mutations of a copy of the code: Documentation/mutations.rst.
LAYERS ?= host
MUTANTS = build/bin/rdax-mutants
CHOICE = $(foreach part,$(PART),--part $(part)) $(if $(SAMPLE),--sample $(SAMPLE)) --seed $(SEED)
mutants: tools
	@$(MUTANTS) make $(if $(filter vm,$(LAYERS)),,--no-kernel)
	@$(foreach layer,$(LAYERS),$(MUTANTS) run --layer $(layer) $(CHOICE) --budget $(BUDGET) && ) \
		$(MUTANTS) table $(CHOICE)

# The same tests on a kernel with KASAN, lockdep and so on; its first build takes
# a while.
debug-kernel:
	@scripts/debug-kernel >/dev/null
debug-module: debug-kernel
	@kernel=$$(scripts/debug-kernel --find) && \
	scripts/in-root make -j"$$(nproc)" module KDIR="$$kernel/tree" V="$(V)" SHADOW="$(SHADOW)" \
		MUTATE="$(MUTATE)"
test-debug: tools debug-module
	@tests/run --kernel debug $(if $(RESUME),--resume)

# Test suites of other projects: Documentation/xfstests.rst.
FS ?= rdax
xfstests: all
	@tests/xfstests/run --fs "$(FS)" "$(XFSTESTS)" $(TESTS)
pjdfstest: all
	@tests/pjdfstest/run --fs "$(FS)"

# Instructions, counted: what else runs on this machine does not matter.
BENCH_FS ?= rdax ext4 xfs tmpfs
bench: all
	@build/bin/rdax-bench-report --fs "$(BENCH_FS)" \
		$(if $(SURVEY),--survey "$(SURVEY)" --seed "$(or $(SEED),1)")

# With the module, whose documentation is made as it was compiled.
lint: module
	@scripts/lint

doc: module
	@scripts/doc

# Of bash, zsh and fish, for mkfs.rdax, fsck.rdax and rdax-dump.
completions:
	@scripts/in-root scripts/build-tools rdax-completions
	@build/bin/rdax-completions build/completions

# For editors: CONTRIBUTING.md.
rust-analyzer: module
	@scripts/rust-analyzer

clean:
	rm -rf build

help:
	@echo 'make run           get and build all that is needed, run the stress tests in the VM'
	@echo '                   (STRESS_SECONDS=20, STRESS_SEED=1)'
	@echo 'make shell         the same VM with a prompt, rdax mounted'
	@echo 'make test          all tests (host-test, vm-test: one half)'
	@echo 'make crash         what crashes may leave of the media, under a model of the CPU cache'
	@echo '                   (BUDGET=10m, SEED=1, WORKLOAD="mmap:fsync ace1:*", MUTATE=all: are'
	@echo '                   mistakes found; CRASH_FS=ext4 or xfs: some states, mounted by the'
	@echo '                   kernel); a page, build/crash/crash.html'
	@echo 'make mutants       mistakes made mechanically in a copy of the code: which tests find them,'
	@echo '                   and what none finds (LAYERS="host vm", PART=src/volume,'
	@echo '                   SAMPLE=300, SEED=1, BUDGET=10m for each layer)'
	@echo 'make torture       damaged volumes, allocations that fail, races, kills, hostile users'
	@echo '                   (BUDGET=60m, SEED=1, PART="damage images failures lifecycle kills users")'
	@echo 'make test-debug    the VM tests on a kernel with KASAN and lockdep (make debug-kernel builds it;'
	@echo '                   RESUME=1: but for those that have passed with this build)'
	@echo 'make xfstests XFSTESTS=DIR'
	@echo '                   an xfstests tree that you have built, in the VM (TESTS="-g quick",'
	@echo '                   FS=rdax: or ext4, xfs)'
	@echo 'make pjdfstest     the POSIX test suite pjdfstest (FS=rdax)'
	@echo 'make bench         what operations cost on rdax, ext4-DAX, XFS-DAX and tmpfs, in'
	@echo '                   instructions: a table, build/bench/bench.{json,svg}'
	@echo '                   (BENCH_FS="rdax xfs": only these; SURVEY=100 SEED=1: so many workloads'
	@echo '                   drawn at random, in which rdax is dearer than ext4 and XFS)'
	@echo 'make module tools  the module for the stock kernel, and the programs, to build/'
	@echo '                   (module MUTATE=NAME: with a mistake; scripts/mutations lists them)'
	@echo 'make KDIR=TREE     only the module, against the prepared kernel tree TREE'
	@echo 'make lint          rustfmt, clippy, shellcheck, rustdoc'
	@echo 'make doc           the documentation of the code, module and tools'
	@echo 'make completions   shell completions of the programs (bash, zsh, fish), to build/completions/'
	@echo 'make rust-analyzer rust-project.json, for an editor'
	@echo 'make clean         remove build/ (not the cache, ~/.cache/rdax)'
	@echo 'qemu/vm --help     run a program of your own in the VM'
endif
