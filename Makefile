# A bare `make` lists the targets.

GO           ?= go
DURATION     ?= 15s
# RUN limits tests to names that match, as in `make test-integration RUN=Kill`.
RUN          ?=
# Of `make chaos` and `make bench`: SHORT=1 is the form for every day, SEED repeats a
# plan. UPDATE=1 writes the table of `make chaos` into docs/guarantees.md.
SHORT        ?=
SEED         ?=
UPDATE       ?=
# BOUNDS of `make model`: small, default or large.
BOUNDS       ?=
# ROUNDS of `make bench`: how often each contestant has its turn.
ROUNDS       ?= $(if $(SHORT),3,7)
FUZZTIME     ?= 10s

CACHE        := $(CURDIR)/.cache
GOLANGCI     := v2.15.0
GOVULNCHECK  := v1.9.0
LINTER       := $(CACHE)/bin/golangci-lint-$(GOLANGCI)
MODE         := $(CACHE)/test-servers
REPORT       := $(CACHE)/test-report
FIGURES      := $(CACHE)/bench

UNIT         = $$($(GO) list ./... | grep -v '/walpost/test')
TESTFLAGS    = -race $(if $(RUN),-run '$(RUN)')

# On a CI machine the tests are meant to run on containers: anything less must
# fail, not pass quietly.
ifdef CI
export WALPOST_TEST_SERVERS ?= containers
endif

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo build test test-unit test-integration model chaos bench servers lint vuln fuzz cover clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Not optimised: on a cold machine compiling is most of the wait, and this takes
# a quarter off it.
demo: ## Postgres, Kafka, an application and the relay, for DURATION (15s)
	@CGO_ENABLED=0 $(GO) build -gcflags='all=-N -l' -ldflags='-s -w' -o bin/walpost-dev ./cmd/walpost-dev
	@bin/walpost-dev demo --duration $(DURATION)

build: ## the production binary, as bin/walpost
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/walpost ./cmd/walpost

test: servers test-unit test-integration ## everything, with the race detector; says first where servers come from

test-unit: ## tests without servers
	$(GO) test $(TESTFLAGS) $(UNIT)

test-integration: servers ## tests on real Postgres and Kafka; RUN=name limits them
	@rm -f $(REPORT)
	WALPOST_TEST_SERVERS=$$(cat $(MODE)) WALPOST_TEST_REPORT=$(REPORT) \
	  $(GO) test $(TESTFLAGS) -count=1 -p 1 -timeout 15m $$($(GO) list ./test/... | grep -Ev '/test/(chaos|model)$$')
	@$(if $(RUN),true,$(GO) run ./test/harness/cmd/servers check $$(cat $(MODE)) $(REPORT))

# Without the race detector, which costs ten times as much: goroutines take turns
# there anyway.
model: ## the relay between simulated ends, in every order of failures; BOUNDS=large takes hours
	$(GO) test -count=1 -timeout $(if $(BOUNDS),24h,10m) ./test/model $(if $(RUN),-run '$(RUN)') $(if $(BOUNDS),-args -bounds=$(BOUNDS))

# Without the race detector: the relay shall be as fast as it is.
chaos: servers ## break everything under load and count; SHORT=1, SEED=n, RUN=TestChaos/scene/mode/fault, UPDATE=1
	WALPOST_TEST_SERVERS=$$(cat $(MODE)) \
	  $(GO) test -count=1 -v -timeout 90m $(if $(SHORT),-short) $(if $(RUN),-run '$(RUN)') ./test/chaos \
	  $(if $(SEED)$(UPDATE),-args $(if $(SEED),-seed $(SEED)) $(if $(UPDATE),-update))

bench: servers ## measure walpost beside what it is compared with; SHORT=1, SEED=n, RUN=Latency, ROUNDS=n
	@mkdir -p $(FIGURES)
	WALPOST_TEST_SERVERS=$$(cat $(MODE)) \
	  $(GO) test -run '^$$' -bench '$(or $(RUN),.)' -benchtime $(ROUNDS)x -timeout 60m $(if $(SHORT),-short) ./test/bench \
	  -args -json $(FIGURES) $(if $(SEED),-seed $(SEED))

servers: # one choice for the whole run, printed
	@mkdir -p $(CACHE)
	@$(GO) run ./test/harness/cmd/servers choose >$(MODE)

lint: $(LINTER) ## formatting, vet and the linters of .golangci.yml
	@unformatted=$$(gofmt -l .); test -z "$$unformatted" || { echo "gofmt: $$unformatted"; exit 1; }
	$(GO) vet ./...
	$(LINTER) run ./...

# A golangci-lint of the same version that is there already saves the compile.
$(LINTER):
	@mkdir -p $(@D)
	@present=$$(command -v golangci-lint || echo "$$($(GO) env GOPATH)/bin/golangci-lint"); \
	if "$$present" version 2>/dev/null | grep -q 'version $(GOLANGCI:v%=%) '; then \
	  ln -sf "$$present" $@; \
	else \
	  echo "installing golangci-lint $(GOLANGCI)"; \
	  GOBIN=$(@D) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI) && mv $(@D)/golangci-lint $@; \
	fi

vuln: ## known vulnerabilities in what is linked in; needs vuln.go.dev
	$(GO) run golang.org/x/vuln/cmd/govulncheck@$(GOVULNCHECK) ./...

fuzz: ## every fuzz target for FUZZTIME (10s)
	@$(GO) list ./... | while read -r package; do \
	  for target in $$($(GO) test -list '^Fuzz' "$$package" | grep '^Fuzz'); do \
	    echo "$$package $$target"; \
	    $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$package" </dev/null || exit 1; \
	  done; \
	done

cover: ## coverage of the unit tests, as .cache/cover.html
	@mkdir -p $(CACHE)
	$(GO) test -coverprofile $(CACHE)/cover.out $(UNIT)
	$(GO) tool cover -html $(CACHE)/cover.out -o $(CACHE)/cover.html
	@$(GO) tool cover -func $(CACHE)/cover.out | tail -1

clean: ## remove what these targets have made here
	rm -rf bin $(CACHE)
