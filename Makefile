# Keywright: everything that is built, run and checked. `make help` lists it.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-builtin-rules
.DEFAULT_GOAL := build

# A CI runner may start us with next to nothing.
export PATH := $(or $(PATH),/usr/bin:/bin):/usr/local/go/bin:/usr/local/sbin:/usr/sbin:/sbin
# The same flags everywhere, so that all share one build cache; see test/env.sh.
export GOFLAGS := $(strip $(filter-out -trimpath -buildvcs=false,$(GOFLAGS)) -trimpath -buildvcs=false)

VERSION ?= $(or $(shell git describe --tags --always --dirty 2>/dev/null),unknown)
stamp := -X main.version=$(VERSION)

.PHONY: build
build: build-static ## bin/keywright, bin/keywright-pkcs11 and bin/keywright-unlock
	CGO_ENABLED=1 go build -ldflags '$(stamp)' -o bin/keywright-pkcs11 ./cmd/keywright

.PHONY: build-static
build-static: ## the two of them that need no C compiler
	CGO_ENABLED=0 go build -ldflags '$(stamp)' -o bin/keywright ./cmd/keywright
	CGO_ENABLED=0 go build -ldflags '-s -w $(stamp)' -o bin/keywright-unlock ./cmd/keywright-unlock

.PHONY: packages
packages: ## dist/*.deb, for amd64 and arm64
	VERSION='$(VERSION)' cmd/packages/build

.PHONY: test
test: ## every check and test, tier by tier; installs what they need
	@test/run

.PHONY: test-full
test-full: ## the same, with the tests that take long
	@test/run full

.PHONY: lint
lint: ## golangci-lint, at the version pinned in test/tools
	@test/setup lint
	test/tools/tool golangci-lint run

.PHONY: bench
bench: ## the benchmarks; their output is kept in the cache folder
	@test/setup bench
	@test/run bench

.PHONY: demo
demo: ## a virtual machine unlocks its own disk, told as a story
	@test/setup demo
	@$(MAKE) --no-print-directory build-static
	@CGO_ENABLED=0 go run ./test/demo

.PHONY: generate
generate: ## sqlc, where its inputs changed, and the generators of this repository
	@test/generate

.PHONY: fmt
fmt: ## format all Go code
	test/tools/tool golangci-lint fmt

.PHONY: clean
clean: ## remove what build made; downloads stay in the cache folder
	rm -rf bin dist

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
