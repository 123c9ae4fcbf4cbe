# The commands of the project. Each installs what it needs on a fresh Debian (as root), then does its work.

# Where cargo puts what it builds; CARGO_TARGET_DIR and cargo's own configuration are respected.
TARGET_DIR = $(shell cargo metadata --no-deps --format-version 1 | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')

# How long `make fuzz` stays with each target.
FUZZ_SECONDS ?= 30

# How much `make torture` logs and breaks. TORTURE_SEED, which it prints, breaks the same things again.
TORTURE_EVENTS ?= 50000
TORTURE_FAULTS ?= 200

# How many random stores are asked in `make test-kql`.
KQL_DATA_SETS ?= 500

# Where the cross toolchain is set up and looked for.
CROSS ?= $(TARGET_DIR)/cross

.PHONY: help demo test test-logins torture test-kql test-scale check bpf bench bench-exec bench-fleet fuzz deb release \
	check-reproducible test-device test-device-arm

help:
	@echo "make demo   a hub and an agent on this machine, real activity, and what an investigator sees"
	@echo "make test   build and run every test, end to end against real brokers included"
	@echo "make test-logins  of these, the logins on machines of Debian 11, 12 and 13 alone"
	@echo "make torture  break everything again and again while $(TORTURE_EVENTS) logins go on, and count them at the hub"
	@echo "make test-kql  the hub's answers beside ClickHouse's on $(KQL_DATA_SETS) random stores, and Microsoft's reading of our queries"
	@echo "make test-scale  the ClickHouse tables for a fleet, filled with a real agent's messages and asked the guide's questions"
	@echo "make test-device  the package on booted Debian 11, 12 and 13, from installation to purge; test-device-arm on boards"
	@echo "make check  formatting, lints, dependencies, documentation"
	@echo "make bpf    build the BPF objects anew, which are committed"
	@echo "make bench  measure delivery, the idle agent, listeners, the replay of a big log, and the hub's queries"
	@echo "make bench-exec  measure what it costs to know of every exec, beside others that do"
	@echo "make bench-fleet  many devices through mosquitto into the hub's store"
	@echo "make fuzz   feed hostile bytes to every parser, FUZZ_SECONDS=$(FUZZ_SECONDS) each"
	@echo "make deb    Debian packages and archives for amd64, arm64 and armhf, in out/"
	@echo "make release  the same from nothing, tried out where this machine can, with notes and SHA256SUMS"
	@echo "make check-reproducible  builds what is in out/ again elsewhere, and compares the bytes"

demo:
	scripts/setup-demo.sh
	cargo build --workspace --bins --locked
	"$(TARGET_DIR)/debug/edgewarden-hub" demo

# Binaries and tests are built in one go: built apart, cargo would compile many dependencies twice.
test:
	scripts/setup-test.sh
	cargo build --workspace --bins --tests --locked
	cargo test --workspace --locked

test-logins:
	scripts/setup-test.sh
	cargo build --workspace --bins --locked
	cargo test --locked -p edgewarden --test releases

torture:
	scripts/setup-test.sh
	cargo build --workspace --bins --tests --locked
	TORTURE_EVENTS=$(TORTURE_EVENTS) TORTURE_FAULTS=$(TORTURE_FAULTS) \
		cargo test --locked -p edgewarden --test torture -- --nocapture

# The engine compared with is large and from another registry: without it the comparison is left out, and that is said.
test-kql:
	scripts/setup-kql.sh "$(TARGET_DIR)/kql"
	cargo build --workspace --bins --locked
	scripts/test-kql.sh "$(TARGET_DIR)" $(KQL_DATA_SETS)

test-scale:
	scripts/setup-kql.sh "$(TARGET_DIR)/kql"
	cargo build --workspace --bins --locked
	scripts/test-scale.sh "$(TARGET_DIR)"

check:
	scripts/setup-check.sh
	cargo fmt --all -- --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	scripts/check-dependencies.sh
	scripts/check-packaging.sh
	scripts/build-bpf.sh --check
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

bpf:
	scripts/build-bpf.sh

bench:
	cargo build --release --locked -p edgewarden
	scripts/setup-test.sh
	cargo bench --locked -p edgewarden
	cargo bench --locked -p edgewarden-hub
	scripts/measure-idle.sh "$(TARGET_DIR)/release/edgewarden"
	scripts/measure-ports.sh "$(TARGET_DIR)/release/edgewarden"
	scripts/measure-start.py "$(TARGET_DIR)/release/edgewarden"
	scripts/measure-replay.sh "$(TARGET_DIR)/release/edgewarden"
	scripts/measure-flood.sh "$(TARGET_DIR)/release/edgewarden"
	cargo build --release --locked -p edgewarden-hub --bins --examples
	scripts/measure-queries.sh "$(TARGET_DIR)/release"

bench-fleet:
	scripts/setup-test.sh
	cargo bench --locked -p edgewarden-hub --bench fleet

# Of the agent and of others that tell of execs; installs those.
bench-exec:
	cargo build --release --locked -p edgewarden
	scripts/measure-execs.sh "$(TARGET_DIR)/release/edgewarden"

fuzz:
	scripts/setup-fuzz.sh
	scripts/fuzz.sh $(FUZZ_SECONDS)

deb:
	scripts/setup-cross.sh "$(CROSS)"
	scripts/build-deb.sh "$(CROSS)" out
	lintian --fail-on error,warning out/*.deb

release:
	rm -rf out
	$(MAKE) deb
	scripts/test-tarball.sh out/edgewarden-*-amd64.tar.gz
	awk -v version="$$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)" \
		'/^## /{ if (seen++) exit; $$0 = "## Edgewarden " version } seen' CHANGELOG.md >out/RELEASE-NOTES.md
	cd out && sha256sum -- *.deb *.tar.gz *.cdx.json RELEASE-NOTES.md >SHA256SUMS

# Debian 11, 12 and 13 in containers, in minutes; and Debian 12 on emulated boards with Debian's own kernels. What
# comes out goes into docs/field-matrix.md.
test-device: MACHINES = bullseye bookworm trixie
test-device: ARCHITECTURES = amd64
test-device-arm: MACHINES = arm64 armhf
test-device-arm: ARCHITECTURES = arm64 armhf
test-device test-device-arm:
	scripts/setup-test.sh
	scripts/setup-cross.sh "$(CROSS)" $(ARCHITECTURES)
	rm -rf "$(TARGET_DIR)/device/packages"
	PACKAGES=edgewarden scripts/build-deb.sh "$(CROSS)" "$(TARGET_DIR)/device/packages" $(ARCHITECTURES)
	for board in $(filter arm%,$(MACHINES)); do \
		scripts/make-board.sh "$$board" "$(TARGET_DIR)/device/$$board" || exit 1; \
	done
	DEVICE_MACHINES="$(MACHINES)" DEVICE_PACKAGES="$(TARGET_DIR)/device/packages" DEVICE_BOARDS="$(TARGET_DIR)/device" \
		cargo test --locked -p edgewarden --test device -- --nocapture

check-reproducible: deb
	scripts/check-reproducible.sh "$(CROSS)" out
