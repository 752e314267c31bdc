# SPDX-License-Identifier: MIT
# The front door. Everything is built by meson in build/; each target sets up what it needs by itself.

PREFIX ?= /usr/local
ONLY ?=

all: build/build.ninja
	@ninja -C build

build/build.ninja:
	@scripts/deps build
	@scripts/configure build

# What the project needs from the distribution; `make deps` installs all of it.
deps:
	@scripts/deps all

demo: all
	@scripts/demo

check:
	@scripts/deps all
	@scripts/check

bench: all
	@scripts/bench $(ONLY)

install: all
	@meson configure build -Dprefix=$(abspath $(PREFIX))
	@meson install -C build --quiet $(if $(DESTDIR),--destdir $(abspath $(DESTDIR)))

format:
	@scripts/format --apply

clean:
	rm -rf build

.PHONY: all deps demo check bench install format clean
