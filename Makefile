# What can be done with this tree; `make` alone lists it. Nothing here installs anything outside the tree but `make install`
# and, for root on a Debian-like system, `make deps`.

GO      ?= go
DESTDIR ?=
PREFIX  ?= /usr/local
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
CACHE   ?= $(CURDIR)/.cache
ROOT    := $(filter 0,$(shell id -u))

# The linter is a tool of the developer's, so it is no requirement in go.mod: its own requirements would bind ours.
GOLANGCI := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.12.2

# Directories where programs of the system are that a plain user's or a build's PATH may lack.
export PATH := $(PATH):/usr/sbin:/sbin
# The linter remembers paths: two trees must not share its cache.
export GOLANGCI_LINT_CACHE ?= $(CACHE)/golangci
export GATEWAYD_TEST_CODEX ?= $(CACHE)/codex
# Servers that the tests put behind the gateway, which .ci/deps unpacked.
export GATEWAYD_TEST_SERVERS ?= $(CACHE)/servers/root
# A small Debian as a container's image has it, which .ci/deps unpacked.
export GATEWAYD_TEST_DEBIAN ?= $(CACHE)/debian
# The conformance test of HTTP/2, which .ci/deps built.
export GATEWAYD_TEST_H2SPEC ?= $(CACHE)/h2spec/h2spec
# Where tests and the demo look for a VM's kernel: what .ci/deps unpacked, else the host's.
export GATEWAYD_TEST_KERNELS ?= $(CACHE)/kernels/cloud:/
ifneq ($(ROOT),)
export GATEWAYD_TEST_PRIVILEGED ?= 1
endif

FUZZTIME ?= 10s

# Of `make bench`: how often everything is measured and for how long, which loads (rr,crr,…) over which paths
# (gatewayd,kernel,…; all when empty, but PATHS=…,flowtable must be named), gatewayd's fast_lane, table or json, and the file that the tables are written to when all loads ran.
ROUNDS   ?= 3
SECONDS  ?= 1
ONLY     ?=
PATHS    ?=
LANE     ?= redirect
OUTPUT   ?= table
DOCUMENT ?= docs/BENCHMARKS.md

.DEFAULT_GOAL := help
.PHONY: help build generate deps test test-vm test-kernels soak soak-body soak-mixed neighbours h2spec lint fuzz demo bench microbench bench-scanner clean install

help: ## list the targets
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build bin/gatewayd (needs Go alone)
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-X main.version=$(VERSION)' -o bin/gatewayd ./cmd/gatewayd

generate: ## make the BPF objects, the manifest's schema, the manual page and the scanner's tables anew (needs clang, llvm and libbpf-dev)
	$(GO) generate ./...
	$(GO) run ./cmd/gatewayd schema > docs/manifest.schema.json.new && mv docs/manifest.schema.json.new docs/manifest.schema.json
	$(GO) run ./cmd/gatewayd man > docs/gatewayd.8.new && mv docs/gatewayd.8.new docs/gatewayd.8
	$(GO) test -count=1 -run '^(TestTable|TestEvasions)$$' ./gateway/formats -write

deps: ## install the programs that the tests run (root on a Debian-like system; elsewhere names what is missing)
	@GATEWAYD_TEST_CODEX= GATEWAYD_CACHE=$(CACHE) .ci/deps

test: deps ## run every test (-count=1: the end-to-end tests run a program that the test cache does not see); as root also those with namespaces, BPF and real clients, and then none may be skipped
	$(GO) vet ./...
	$(GO) test -count=1 -timeout 30m ./...

SILENCE  ?= 1h
DURATION ?= 1h
BODY     ?= 1073741824
soak: ## hold WebSocket connections open in silence for SILENCE (1h); needs root
	GATEWAYD_TEST_SILENCE=$(SILENCE) $(GO) test -count=1 -timeout 0 -run '^TestWebSocket$$' -v ./e2e

h2spec: deps ## run h2spec's cases against a bottle and against net/http, and compare
	$(GO) test -count=1 -run '^TestH2Spec$$' -v ./gateway

soak-body: ## send one JSON string of BODY (1 GB) through the scanner, and say how long small requests take beside it
	GATEWAYD_TEST_BODY=$(BODY) $(GO) test -count=1 -timeout 0 -run '^TestOneLongString$$' -v ./gateway

soak-mixed: ## run a mixed load for DURATION (1h) and fail if memory, goroutines or descriptors grow; needs root
	GATEWAYD_TEST_MIXED=$(DURATION) $(GO) test -count=1 -timeout 0 -run '^TestMixedLoadStaysFlat$$' -v ./e2e

NEIGHBOURS ?= 20s
neighbours: deps ## measure what a bottle gets beside a greedy one, NEIGHBOURS (20s) for each way to be greedy, and write it into docs/LIMITS.md (root)
	GATEWAYD_TEST_NEIGHBOURS=$(NEIGHBOURS) GATEWAYD_TEST_DOCUMENT=$(CURDIR)/docs/LIMITS.md $(GO) test -count=1 -timeout 0 -run '^TestNeighbours$$' -v ./e2e

test-vm: deps ## run the tests that boot a VM, those of real clients in it too (root)
	$(GO) test -tags testvm -timeout 60m -count 1 -v -run '^TestVM' ./e2e

PACKAGES ?=
test-kernels: deps ## run the tests that depend on the kernel on this machine's and on Debian's 6.1 and 6.12, and write docs/KERNELS.md (root; ONLY=6.1,… and PACKAGES=programs,e2e,bench,… renew some rows)
	GATEWAYD_CACHE=$(CACHE) .ci/deps kernels
	$(GO) run ./lab/kernels -cache $(CACHE)/kernels -only '$(ONLY)' -packages '$(PACKAGES)' -document docs/KERNELS.md

lint: ## gofmt, go vet and golangci-lint
	@out=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$out" ]; then echo "gofmt these: $$out"; exit 1; fi
	$(GO) vet ./...
	@if $(GO) run $(GOLANGCI) version >/dev/null 2>&1; then $(GO) run $(GOLANGCI) run --allow-parallel-runners ./...; \
	else echo "lint: golangci-lint could not be fetched or built; gofmt and go vet ran"; fi

fuzz: ## run each fuzz target for FUZZTIME (10s)
	@set -e; $(GO) list -f '{{$$d := .Dir}}{{range .TestGoFiles}}{{$$d}}/{{.}} {{end}}{{range .XTestGoFiles}}{{$$d}}/{{.}} {{end}}' ./... \
	| tr ' ' '\n' | xargs -r grep -Ho '^func Fuzz[A-Za-z0-9_]*' | sed 's/:func / /' | while read -r file name; do \
		echo "== $$(dirname $$file | sed 's,^$(CURDIR)/,,') $$name"; \
		$(GO) test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) "$$(dirname $$file)"; \
	done

demo: build $(if $(VM),deps) ## show on one screen what the gateway does, then leave nothing behind (needs root; VM=qemu for a real VM)
	bin/gatewayd demo $(if $(VM),--vm $(VM))

bench: build ## measure gatewayd beside HAProxy, nginx, squid, mitmproxy and plain forwarding, and write docs/BENCHMARKS.md (needs root)
	$(GO) build -o bin/bench ./bench
	bin/bench -rounds $(ROUNDS) -seconds $(SECONDS) -only '$(ONLY)' -paths '$(PATHS)' -lane $(LANE) -o $(OUTPUT) -document '$(if $(ONLY)$(PATHS)$(filter-out redirect,$(LANE)),,$(DOCUMENT))' -cache $(CACHE)/bench

COUNT ?= 1
microbench: ## run the benchmarks of the packages, each COUNT (1) times for benchstat
	$(GO) test -run '^$$' -bench . -benchmem -count $(COUNT) ./...
	$(MAKE) bench-scanner

bench-scanner: ## hold the scanner against gitleaks' detector and other automata, each COUNT (1) times for benchstat
	cd bench/scanner && $(GO) test -run '^$$' -bench . -benchtime 0.3s -count $(COUNT) .

clean: ## remove what was built and cached here
	rm -rf bin .cache

install: build ## install the binary, the manual page and the systemd unit under DESTDIR and PREFIX
	install -D -m 0755 bin/gatewayd $(DESTDIR)$(PREFIX)/bin/gatewayd
	install -D -m 0644 docs/gatewayd.8 $(DESTDIR)$(PREFIX)/share/man/man8/gatewayd.8
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system
	sed 's,@PREFIX@,$(PREFIX),' dist/gatewayd.service > $(DESTDIR)$(PREFIX)/lib/systemd/system/gatewayd.service
	install -d -m 0700 $(DESTDIR)/etc/gatewayd/bottles
