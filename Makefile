# SPDX-License-Identifier: MIT
# The front door. Everything is built by meson in build/; each target sets up what it needs by itself.

PREFIX ?= /usr/local
ONLY ?=
SECONDS_EACH ?= 60

# For the shell, which can quote them.
export PREFIX DESTDIR

# Without either of them a set-up is not complete: see scripts/configure.
set_up := build/build.ninja build/meson-info/meson-info.json

all: $(set_up)
	@ninja -C build

$(set_up):
	@scripts/deps build
	@scripts/configure build

# What `make check` needs from the distribution; every target installs what it needs itself.
deps:
	@scripts/deps all

demo: all
	@scripts/demo

check:
	@scripts/deps all
	@scripts/check

# Long tests, and those that need more to be installed.
check-full:
	@scripts/deps full
	@scripts/check --full

bench: all
	@scripts/bench $(ONLY)

install: all
	@meson configure build -Dprefix="$$(realpath -ms -- "$$PREFIX")"
	@meson install -C build --quiet $${DESTDIR:+--destdir "$$(realpath -ms -- "$$DESTDIR")"}

# Long runs of every fuzzer: SECONDS_EACH=3600 for a long hunt.
fuzz:
	@scripts/deps all
	@scripts/configure build
	@ninja -C build
	@scripts/fuzz $(SECONDS_EACH)

# An hour of everything that is done at random, with new seeds: SOAK_SECONDS.
soak:
	@scripts/deps all
	@scripts/configure build
	@ninja -C build
	@scripts/soak

deb:
	@scripts/deps package
	@scripts/package

format:
	@scripts/format --apply

clean:
	rm -rf build

.PHONY: all deps demo check check-full bench fuzz soak install deb format clean
