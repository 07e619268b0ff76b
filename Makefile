# Few commands; CI calls the same ones. `make help` lists them.

CARGO = cargo
TARGET = $(or $(CARGO_TARGET_DIR),target)
# Debian packages: what builds the program, what makes and runs the guests, and the file systems that tests make.
PACKAGES = build-essential pkg-config qemu-system-x86 busybox-static cpio e2fsprogs debootstrap iproute2 nftables util-linux xfsprogs btrfs-progs

.DEFAULT_GOAL = help
.PHONY: help demo test test-long soak chaos lint bench bench-compare bench-growth bench-pause mutants fuzz deny guest packages clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

demo: packages guest ## three nodes, three guests, two commits, all checked (KEEP=1 leaves the cluster up)
	$(CARGO) build --locked --release -p form -p form-tests
	$(TARGET)/release/form-demo

test: packages guest lint ## everything that must hold: lints, unit tests, real guests end to end
	$(CARGO) build --locked -p form
	$(CARGO) test --locked --workspace

test-long: packages guest ## every effect fails, every step is killed, the model in full (docs/reliability.md says how to take a part)
	$(CARGO) build --locked -p form
	FORM_EVERY_EFFECT=1 $(CARGO) test --locked -p form-node --test engine every_effect -- --nocapture
	FORM_EVERY_EFFECT=1 $(CARGO) test --locked -p form-tests --test killed -- --nocapture
	FORM_MODEL=full $(CARGO) test --locked --release -p form-proto --test machines model::full -- --nocapture --test-threads 1

soak: packages ## the simulated protocol with SEEDS=100000 seeds from FIRST=2000 on
	FORM_SIM_FIRST=$(or $(FIRST),2000) FORM_SIM_SEEDS=$(or $(SEEDS),100000) \
	  $(CARGO) test --locked --release -p form-proto --test machines simulation:: -- --nocapture

chaos: packages ## N commits of three real nodes while something breaks (SEED=s begins there; GUESTS=1 with real guests)
	@if [ -n "$(filter-out 0,$(GUESTS))" ]; then $(MAKE) --no-print-directory guest; fi
	$(CARGO) build --locked -p form -p form-tests
	N=$(N) SEED=$(SEED) GUESTS=$(GUESTS) $(TARGET)/debug/form-chaos

lint: packages ## formatting and clippy, without a warning
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

# Figures are printed and nothing is asserted. JSON goes to target/bench, tables and plots into docs/ (docs/performance.md).
BENCH = $(TARGET)/release/form-bench
bench: packages ## each stage beside its physical limit
	@mkdir -p target/bench && rm -f target/bench/rows.jsonl
	FORM_BENCH_JSON=$(CURDIR)/target/bench/rows.jsonl $(CARGO) bench --locked -p form-benches
	$(CARGO) build --locked --release -p form-benches && $(BENCH) report

bench-compare: PACKAGES += rsync casync borgbackup restic zstd xdelta3 qemu-utils diffutils
bench-compare: packages ## whole updates of images of a real guest, beside rsync and other peers (makes 7 GB of images once)
	benches/corpus.sh target/corpus
	@mkdir -p target/bench
	$(CARGO) build --locked --release -p form -p form-benches
	$(BENCH) compare; status=$$?; $(BENCH) report && exit $$status

bench-growth: packages ## as the image grows, as more of it changes, and with 1 to 16 targets
	@mkdir -p target/bench
	$(CARGO) build --locked --release -p form -p form-benches
	$(BENCH) growth && $(BENCH) targets && $(BENCH) report

bench-pause: packages guest ## how long real guests of 512 MiB to 4 GiB stand still, beside a compare pass
	@mkdir -p target/bench
	$(CARGO) build --locked --release -p form -p form-benches
	$(BENCH) pause && $(BENCH) report

mutants: packages ## change one line at a time and show which test catches it (M='part of a name' for some of them)
	$(CARGO) run --locked -p form-tests --bin form-mutants -- $(if $(M),"$(M)")

fuzz: packages ## a minute on each fuzz target (needs nightly and cargo-fuzz)
	@$(CARGO) +nightly fuzz --version > /dev/null 2>&1 || \
	  { echo 'install first: rustup toolchain install nightly && cargo install --locked cargo-fuzz'; exit 1; }
	cd fuzz && for target in $$($(CARGO) +nightly fuzz list); do \
	  $(CARGO) +nightly fuzz run $$target -- -max_total_time=60 || exit 1; done

deny: ## licences, advisories and sources of all dependencies (needs cargo-deny)
	@$(CARGO) deny --version > /dev/null 2>&1 || { echo 'install first: cargo install --locked cargo-deny'; exit 1; }
	$(CARGO) deny --locked --all-features check

guest: packages ## the guest that tests and the demo run, cached in target/guest
	@tests/guest/make.sh target/guest

# An equipped machine is only looked at. Debian's package lists are fetched when there are none, or when they are too old
# to know what is there.
packages:
	@missing=; for package in $(PACKAGES); do \
	  dpkg-query -W -f '$${db:Status-Status}' $$package 2> /dev/null | grep -qx installed || missing="$$missing $$package"; \
	done; \
	if [ -n "$$missing" ]; then \
	  echo "missing packages:$$missing"; \
	  if [ "$$(id -u)" != 0 ]; then echo "install them as root: apt-get install$$missing"; exit 1; fi; \
	  install="apt-get install -y --no-install-recommends$$missing"; \
	  export DEBIAN_FRONTEND=noninteractive; \
	  $$install || { apt-get update && $$install; } || exit 1; \
	fi
	@# The guest's kernel is a package too; apt must know it.
	@[ -e target/guest/stamp ] || apt-cache show linux-image-cloud-amd64 > /dev/null 2>&1 || \
	  { [ "$$(id -u)" = 0 ] && apt-get update; } || { echo 'run as root: apt-get update'; exit 1; }

clean: ## remove everything that was built, the guest too
	$(CARGO) clean
	rm -rf target/guest
