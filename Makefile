# pharos: `make demo` shows it, `make test` proves it.
SHELL := /bin/bash
.DEFAULT_GOAL := build
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)
# A count, not a time: the same work on a busy machine.
FUZZTIME ?= 5000x
GO ?= go

ifeq (,$(shell command -v $(GO) 2>/dev/null))
$(error there is no "$(GO)" here: install Go 1.26 or newer from https://go.dev/dl and put it on PATH)
endif

# What `make bench-peers` measures, each a command under bench/.
BENCH ?= dns l4 l7

# How many seeds `make sim` plays.
SEEDS ?= 100000

.PHONY: build demo test race lint fuzz-short bench budgets bench-peers bench-reload sim scale upgrade soak browser generate generate-check tidy clean

build: ## bin/pharos
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/pharos ./cmd/pharos

demo: build ## three sites on loopback; Ctrl-C ends it
	@bin/pharos demo

test: race ## every test, under the race detector

race:
	@.ci/install
	$(GO) tool gotestsum --format pkgname --format-hide-empty-pkg -- -race -timeout 10m ./...

lint: ## formatting, vet, staticcheck
	@out="$$($(GO) tool gofumpt -l .)"; [ -z "$$out" ] || { echo "not formatted (run: go tool gofumpt -w .):"; echo "$$out"; exit 1; }
	$(GO) vet ./...
	$(GO) vet -tags browser ./forward/l7
	$(GO) tool staticcheck ./...

fuzz-short: ## every fuzz target for FUZZTIME (a count like 5000x, or a time) each
	@set -euo pipefail; log="$$(mktemp)"; trap 'rm -f "$$log"' EXIT; pkgs="$$($(GO) list ./...)"; \
	for pkg in $$pkgs; do \
	  $(GO) test -list '^Fuzz' $$pkg >"$$log" || { cat "$$log"; exit 1; }; \
	  targets="$$(sed -n '/^Fuzz/p' "$$log")"; \
	  for f in $$targets; do \
	    echo "fuzz $$pkg $$f"; \
	    $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) -parallel 2 $$pkg >"$$log" 2>&1 || { cat "$$log"; exit 1; }; \
	  done; \
	done

bench: ## the micro-benchmarks
	$(GO) test -run '^$$' -bench . -benchmem ./...

generate: ## everything that is generated (the geo data, which is last, needs npm)
	@schema="$$($(GO) run ./cmd/pharos schema)" && printf '%s\n' "$$schema" >docs/pharos.schema.json
	$(GO) generate ./...

generate-check: ## the generated files are current
	@$(GO) run ./cmd/pharos schema | diff -u docs/pharos.schema.json - || { echo "docs/pharos.schema.json is stale: run make generate"; exit 1; }

budgets: ## the parts of a DNS query that have a budget of processor time, and how long a verdict takes to the answer
	$(GO) test -short -run '^$$' -bench 'Parse|Lookup|Assemble|Geo|Flip' -benchtime 0.2s ./dnslb

bench-peers: build ## pharos next to other servers, from Debian, on two cores; KEEP=1 writes docs/benchmarks.md
	@bench/install
	$(GO) run ./bench/dns -fetch
	@set -e; for bench in $(BENCH); do $(GO) run ./bench/$$bench -pharos bin/pharos $(if $(KEEP),-keep docs/benchmarks.md); done

bench-reload: build ## what queries wait while a zone of 1,000,000 records is read again, next to other servers; KEEP=1 as above
	@bench/install
	$(GO) run ./bench/dns -pharos bin/pharos -reload 1000000 -rounds 3 $(if $(KEEP),-keep docs/benchmarks.md)

scale: ## what is too large for the race detector: 2,000 seeds of the simulation, 100 nodes of gossip, 100,000 TCP connections
	GOGC=1600 $(GO) test -timeout 20m ./internal/sim -run '^TestSeeds$$'
	$(GO) test -timeout 20m ./cluster -run 'Fleet'
	$(GO) test ./forward/l4 -run '^TestManyConnections$$' -v -conns 100000

upgrade: ## five upgrades and a reload every 100 ms for a minute, under load: nothing may fail
	PHAROS_UPGRADE=full $(GO) test ./cmd/pharos -run '^TestUpgradeLosesNothing$$' -v -timeout 10m

soak: ## a million HTTP requests of every protocol, with aborts on both sides: nothing may be left behind
	$(GO) test ./forward/l7 -run '^TestSoak$$' -v -timeout 3h -soak 1000000

browser: ## Chromium (Debian: chromium) over HTTP/1.1, HTTP/2, HTTP/3 and WebSocket, and what it shows of errors
	$(GO) test -tags browser ./forward/l7 -run '^TestBrowser' -v -timeout 10m

sim: ## SEEDS seeds of bad weather, every invariant checked after every step (the nightly run)
	GOGC=1600 $(GO) test ./internal/sim -run '^TestSeeds$$' -v -timeout 24h -seeds $(SEEDS)

tidy: ## the house rules
	$(GO) mod tidy -diff
	$(GO) test ./internal/tidy

clean:
	rm -rf bin
