# Lockstep. `make` alone lists what there is to make.
#
# Knobs, given as variables:
#   SEED=42        of the random tests (default: drawn, and printed)
#   FUZZTIME=30s   for each fuzz target
#   ROUNDS=50      of the tests that kill daemons
#   CUTS=8         power cuts of a guest, on each file system
#   P8=10m         for how long outages come, one a minute
#   STATES=120000  crash states that the crash tests check
#   RUN=Regexp     only the tests whose name matches
#   SECS=5 RUNS=3  length in seconds, and number, of benchmark runs
#
# The tools that are not programs of the system (staticcheck, govulncheck,
# benchstat) are pinned by the tool lines of go.mod and run by `go tool`.

GO       ?= go
VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
FUZZTIME ?= 30s
ROUNDS   ?= 50
CUTS     ?= 8
POINTS   ?= 200
P8       ?= 10m
RUN      ?= .
STATES   ?= 120000
SECS     ?= 5
RUNS     ?= 3
export FUZZTIME SECS RUNS
ifdef SEED
export LOCKSTEP_SEED := $(SEED)
endif

# The binary is static. Only the race detector needs cgo and a C compiler.
export CGO_ENABLED := 0
race: export CGO_ENABLED := 1

.PHONY: help build test lint unit race plain adapters crash kill p3 nemesis model model-long sim sim-long fuzz integration p8 lab demo bench bench-storage bench-replication bench-lab cover vuln clean tools
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## the static binary, bin/lockstep
	$(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/lockstep ./cmd/lockstep

test: ## everything that CI runs (about 25 minutes on 2 cores); FUZZTIME=2s
	@$(if $(filter file,$(origin FUZZTIME)),FUZZTIME=2s) scripts/test tools build lint race plain adapters crash fuzz integration lab

tools: ## install what the tests call and is missing (as root on Debian)
	@scripts/install-tools test lab

lint: ## gofmt, go vet, staticcheck
	@files=$$(gofmt -l .); [ -z "$$files" ] || { echo "gofmt would change:"; echo "$$files"; exit 1; }
	$(GO) vet ./...
	GOOS=wasip1 GOARCH=wasm $(GO) build -o /dev/null ./mirror ./disk/fakedisk ./integration/sim/guest # what the simulator runs
	$(GO) tool staticcheck ./...

unit: ## the fast tests: no daemon is started
	$(GO) test -short -run '$(RUN)' ./...

race: ## all Go tests under the race detector, a few crash rounds included
	$(GO) test -race -timeout 1500s -run '$(RUN)' ./mirror ./... # the longest first, and the others beside it

plain: ## what the race detector hides (allocations) or only slows (tables)
	$(GO) test -count=1 -run 'Alloc|CoreWalk|HistoryTellsAll|SuperblockDamage|EraseJournalAcrossCrashes|ResolveSplitBrain|P4PowerLoss' ./...

# Without the race detector, which finds gotgt's own.
adapters: ## the adapters to other servers, a module of their own
	$(GO) -C adapters vet ./...
	$(GO) -C adapters test -count=1 ./...

crash: ## crash states of journal, bitmaps, snapshots, superblock, volume; STATES=120000, SEED=
	@scripts/crash $(STATES)

kill: ## kill -9 of real daemons under load, a pair and one alone; ROUNDS=50, SEED=
	LOCKSTEP_ROUNDS=$(ROUNDS) $(GO) test -count=1 -timeout 0 -v -run Killed ./integration/crash

p3: ## the source of catch-ups and resyncs killed at 200 random points; POINTS=200, SEED=
	LOCKSTEP_ROUNDS=$$((8 * $(POINTS))) $(GO) test -count=1 -timeout 0 -v -run TestP3 ./integration/crash

nemesis: ## three daemons, clients, and faults that are drawn; TIME=10m SEED=
	LOCKSTEP_REQUIRE_TOOLS=1 LOCKSTEP_NEMESIS=$(if $(TIME),$(TIME),10m) $(GO) test -count=1 -timeout 0 -v -run TestNemesis ./integration/nemesis

model: ## the model of the replication core, small bounds, with spin (2 minutes)
	@scripts/install-tools model
	docs/model/run short

model-long: ## all of it, the larger bounds too (15 minutes, up to 9 GB of memory)
	@scripts/install-tools model
	docs/model/run

sim: ## package mirror in a simulated world; RUNS=100 TIME=1m SEED= GUEST= (as a failure prints)
	$(GO) run ./integration/sim $(if $(SEED),-seed $(SEED)) -runs $(if $(filter file,$(origin RUNS)),$(if $(TIME),0,100),$(RUNS)) $(if $(TIME),-time $(TIME)) -guest '$(GUEST)'

sim-long: ## the same for hours, and on past failures; TIME=8h
	$(GO) run ./integration/sim $(if $(SEED),-seed $(SEED)) -stop 0 -time $(if $(TIME),$(TIME),8h)

fuzz: ## every fuzz target; FUZZTIME=30s each, RUN=Regexp for some
	@scripts/fuzz '$(RUN)'

integration: ## real processes and clients: crashes, network cuts, failing disks; ROUNDS=50, SEED=
	LOCKSTEP_REQUIRE_TOOLS=1 LOCKSTEP_ROUNDS=$(ROUNDS) $(GO) test -count=1 -p 1 -timeout 900s -v -run '$(RUN)' ./integration/... ./benchmarks/...

p8: ## 10 minutes of outages between two nodes, 10 s in each, and a slow node; P8=10m SEED=
	LOCKSTEP_REQUIRE_TOOLS=1 LOCKSTEP_P8=$(P8) $(GO) test -count=1 -timeout 0 -v -run P8 ./integration/cut

lab: ## in a guest: the kernel's own NBD client, power cuts (downloads 110 MB once); CUTS=8
	LOCKSTEP_REQUIRE_TOOLS=1 LOCKSTEP_LAB=1 LOCKSTEP_CUTS=$(CUTS) $(GO) test -count=1 -p 1 -timeout 1200s -v -run '$(RUN)' ./integration/kernel ./integration/powercut

demo: build ## kill a node in mid-write and see that nothing was lost (30 s)
	@scripts/install-tools demo || true
	@$(GO) run ./integration/demo

bench: build ## fio on Lockstep, nbdkit and qemu-nbd, side by side; SECS=5 RUNS=3
	@scripts/install-tools bench
	$(GO) run ./benchmarks -secs $(SECS) -runs $(RUNS) -json bench.json

bench-storage: build ## journal and volume beside plain files, on a real disk; SECS=2 RUNS=3
	$(GO) run ./benchmarks/storage -secs $(if $(filter file,$(origin SECS)),2,$(SECS)) -runs $(RUNS) -json bench-storage.json

bench-replication: build ## mirrored writes beside qemu's mirror, resyncs beside nbdcopy; SECS=2 RUNS=3
	@scripts/install-tools bench
	$(GO) run ./benchmarks/replication -secs $(if $(filter file,$(origin SECS)),2,$(SECS)) -runs $(RUNS) -json bench-replication.json

bench-lab: build ## mirrored writes beside DRBD and md, in guests; SECS=3 RUNS=3
	@scripts/install-tools lab
	$(GO) run ./benchmarks/lab -secs $(if $(filter file,$(origin SECS)),3,$(SECS)) -runs $(RUNS) -json bench-lab.json

cover: ## test coverage by package, cover.out for `go tool cover`
	$(GO) test -short -coverpkg ./... -coverprofile cover.out ./...
	@$(GO) tool cover -func cover.out | tail -n 1

vuln: ## known vulnerabilities; needs the network for its database, which CI has not
	$(GO) tool govulncheck ./...

clean: ## remove what was built here
	rm -rf bin cover.out bench.json bench-storage.json bench-replication.json bench-lab.json
