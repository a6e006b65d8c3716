# stasis. `make help` lists what there is to make.

GO      ?= go
PREFIX  ?= /usr/local
DESTDIR ?=

.DEFAULT_GOAL := build
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules

# Directories that a checkout may not have yet are left out rather than failed on.
have = $(wildcard $(1))

##@ Use

.PHONY: build
build: stasis libcriu ## bin/stasis and the C library

.PHONY: demo
demo: stasis ## a running process frozen to files and brought back, step by step, with nothing installed
	bin/stasis demo

.PHONY: install
install: build ## copies the programs, the C library and the manual pages to $(DESTDIR)$(PREFIX)
	install -d $(DESTDIR)$(PREFIX)/bin
	install -m 0755 bin/stasis $(DESTDIR)$(PREFIX)/bin/stasis
	@for page in $(wildcard docs/man/*.[1-8]); do \
		dir=$(DESTDIR)$(PREFIX)/share/man/man$${page##*.}; \
		install -d $$dir && install -m 0644 $$page $$dir/ || exit 1; \
	done
	$(if $(call have,libcriu/Makefile),$(MAKE) -C libcriu install PREFIX=$(PREFIX) DESTDIR=$(DESTDIR))

##@ Work on it

.PHONY: test
test: tools build victims ## all tests: with the race detector, as root against a real CRIU, a short fuzz; some minutes
	$(GO) run ./tools/testrun

.PHONY: check
check: packages ## format, vet, linters, the rules of the house, other platforms; about a minute
	tools/check

.PHONY: bench
bench: tools build victims ## benchmarks, in alternation with CRIU where there is something to compare
	$(GO) run ./test/bench
	$(GO) test -run '^$$' -bench . -benchmem -timeout 60m ./...

.PHONY: soak
# The clients have process numbers to themselves: CRIU's restores fail where somebody else has taken one meanwhile.
soak: tools build victims ## sudden deaths, dumps without rest, many of a kind, many clients, and then all tests SOAK=N times (3), at low priority; half an hour
	STASIS_DEATH_ROUNDS=500 nice $(GO) test -count 1 -timeout 60m ./engine/internal/remote
	STASIS_DEATH_ROUNDS=200 nice $(GO) test -count 1 -timeout 60m -run TestRestoreIsKilled ./engine
	STASIS_CHURN=1000 STASIS_SCALE=full nice $(GO) test -count 1 -timeout 60m -run 'TestDumpOfChurn|TestMany' ./engine
	SERVER_TEST_SOAK=20 unshare --fork --kill-child --pid --mount-proc nice $(GO) test -count 1 -timeout 60m -run 'TestManyClients|TestServiceStaysAsItIs' ./server ./internal/cli
	nice $(GO) test -count $${SOAK:-3} -timeout 170m ./...

.PHONY: generate
generate: ## writes the generated files anew
	$(GO) generate ./...

.PHONY: tidy
tidy: ## brings go.mod and go.sum of all modules up to date with what is imported
	$(GO) mod tidy
	@for mod in $(wildcard test/*/go.mod); do (cd $$(dirname $$mod) && $(GO) mod tidy) || exit 1; done

.PHONY: tools
tools: packages ## installs the packages tests need (Debian, root), and a current CRIU under .tools/
	@tools/get-criu >/dev/null
	@tools/get-criu trixie >/dev/null # an older libcriu and crun: the C library has to suit both

.PHONY: victims
victims: packages ## the small programs that tests dump and restore, in bin/victims
	@$(if $(call have,test/victims/Makefile),$(MAKE) --no-print-directory -C test/victims CC=$(CC) OUT=$(CURDIR)/bin/victims,:)

.PHONY: rename
rename: ## gives the module its public name: make rename MODULE=example.org/stasis
	@test -n "$(MODULE)" || { echo "usage: make rename MODULE=example.org/stasis" >&2; exit 2; }
	tools/rename "$(MODULE)"

.PHONY: clean
clean: ## removes what was built; .tools stays
	rm -rf bin
	$(if $(call have,libcriu/Makefile),$(MAKE) -C libcriu clean)

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^##@/ { printf "\n%s\n", substr($$0, 5) } /^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# The pieces.

# Go's own cache decides what is stale, so bin/stasis is made every time.
.PHONY: stasis
stasis:
	$(if $(call have,cmd/stasis),$(GO) build -o bin/stasis ./cmd/stasis)

# The C library is on its own: libcriu/Makefile has all, check, install and clean.
.PHONY: libcriu
libcriu:
	$(if $(call have,libcriu/Makefile),$(MAKE) -C libcriu all)

.PHONY: packages
packages:
	@tools/install-packages
