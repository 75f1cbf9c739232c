# SPDX-License-Identifier: GPL-2.0
#
# make help lists the targets. What is downloaded or built once is cached under
# ${XDG_CACHE_HOME:-$HOME/.cache}/rdax; what is built here goes to build/.

SHELL := /bin/bash
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

ifdef KDIR
# Only the module, against the prepared kernel tree KDIR, with the compilers in
# PATH. It lands in build/RELEASE/rdax.ko.
override KDIR := $(realpath $(KDIR))
RELEASE := $(shell cat $(KDIR)/include/config/kernel.release 2>/dev/null)
KBUILD = args=$$(scripts/check-tree "$(KDIR)") && \
	$(MAKE) -C "$(KDIR)" M="$(CURDIR)" $$args $(if $(V),,-s)

.PHONY: module clippy
module:
	@$(KBUILD) MO="$(CURDIR)/build/$(RELEASE)" modules
clippy:
	@$(KBUILD) MO="$(CURDIR)/build/clippy-$(RELEASE)" CLIPPY=1 KRUSTFLAGS=-Dwarnings modules
else

.PHONY: module
module:
	@scripts/in-root make module KDIR="$$(scripts/kernel)/tree" V="$(V)"
endif
