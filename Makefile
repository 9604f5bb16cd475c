# `make` alone lists what there is to do. Everything runs from a fresh clone; nothing needs root.

CARGO ?= cargo
CONTAINER ?= docker
IMAGE ?= signpost:dev
# Arguments of `signpost` for `make run`, and a filter of test names for `make test`.
ARGS ?= run
TEST ?=
# What the tests are built with; what is released has none of it.
FEATURES = --features pkcs11

# The same folder as that of tests/components/install: all that is fetched lies there.
CACHE ?= $(or $(SIGNPOST_TEST_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/signpost-tests)
CARGO_DENY_VERSION = 0.20.2
CARGO_DENY = $(CACHE)/cargo-deny-$(CARGO_DENY_VERSION)/bin/cargo-deny

.DEFAULT_GOAL := help
.PHONY: help run test slow soak fuzz components bench check fmt format lint rustdoc deny reference generated build image

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Build Signpost and start it: an issuer of its own, no cluster, no cloud (ARGS=… for another verb)
	$(CARGO) run --locked -- $(ARGS)

# Minutes each: they run before a merge, not before each commit.
SLOW = soak:: entra_agreement::

test: components ## Run the tests against the real components (TEST=… for some of them)
	$(CARGO) test --locked $(FEATURES) -- $(or $(TEST),$(addprefix --skip ,$(SLOW)))

slow: components ## Run the tests that take minutes: changes of keys under load, every pair of faults as Entra sees it
	$(CARGO) test --locked $(FEATURES) --test it -- $(SLOW)

# Twenty minutes are sixty rotations and more.
SOAK_SECONDS ?= 1200
soak: components ## Change keys under load for long, while everything fails in turn (SOAK_SECONDS=…)
	SIGNPOST_SOAK_SECONDS=$(SOAK_SECONDS) $(CARGO) test --locked $(FEATURES) --test it -- --nocapture soak::

# Names of tests/fuzz/corpus/, and how long each is fuzzed.
FUZZ ?= $(notdir $(wildcard tests/fuzz/corpus/*))
FUZZ_SECONDS ?= 600
fuzz: ## Fuzz what others write, guided by coverage, with nightly Rust (FUZZ=… for some, FUZZ_SECONDS=…)
	tests/fuzz/run $(FUZZ_SECONDS) $(FUZZ)

components: ## Fetch or build what the tests run against, and print each version
	@$(CARGO) --version
	@pkg-config --modversion openssl | sed 's/^/openssl /'
	tests/components/install

# Names of tests/bench/. On a machine that does nothing else, with two cores at least.
BENCH ?= serving start issuers signing verify
bench: build ## Measure the release: serving beside nginx, its start, many issuers, signing, verifying (BENCH=… for one; docs/performance.md)
	@tests/components/install --bench >/dev/null
	@for bench in $(BENCH); do tests/bench/$$bench $${CARGO_TARGET_DIR:-target}/release/signpost || exit; done

check: format deny lint rustdoc ## Everything that is checked without running a test

format: ## Check the format
	$(CARGO) fmt --check
	rustfmt --edition 2024 --check tests/fuzz/fuzz.rs

fmt: ## Format the code
	$(CARGO) fmt
	rustfmt --edition 2024 tests/fuzz/fuzz.rs

lint: ## Clippy, with and without features, with warnings as errors
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) clippy --locked --all-targets $(FEATURES) -- -D warnings

rustdoc: ## Build the documentation of the code, with warnings as errors
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked $(FEATURES) --no-deps --document-private-items

# Advisories are fetched from a server and change by the day: `make deny DENY=advisories`.
DENY ?= bans licenses sources
deny: $(CARGO_DENY) ## Check bans, licences and sources of the dependencies (deny.toml)
	$(CARGO_DENY) --locked check --hide-inclusion-graph $(DENY)

# Without optimisation it builds in a third of the time and takes a second for its work.
$(CARGO_DENY):
	env -u CARGO_TARGET_DIR CARGO_PROFILE_DEV_DEBUG=0 CARGO_PROFILE_DEV_STRIP=true \
		$(CARGO) install cargo-deny --debug --locked --version $(CARGO_DENY_VERSION) --root $(CACHE)/cargo-deny-$(CARGO_DENY_VERSION)

reference: ## Write docs/configuration.md and docs/checks.md anew from the code
	SIGNPOST_WRITE_REFERENCE=1 $(CARGO) test --locked $(FEATURES) --test it -- docs::the_reference

generated: ## Write src/signer/v1.rs anew from proto/
	SIGNPOST_WRITE_GENERATED=1 $(CARGO) test --locked $(FEATURES) --test it -- generated

build: ## Build the binary that is released
	$(CARGO) build --locked --release

image: ## Build the container image
	$(CONTAINER) build --tag $(IMAGE) .
