# make test runs everything, and first installs what test/packages lists.
# make test-unit needs Go alone. Each target is also a part of test/run.

# The version of the checkout is not stamped into binaries that tests build: it fails where git
# does not trust the folder.
GOFLAGS ?= -buildvcs=false
export GOFLAGS
# There is no C code in freshet; the race detector alone needs a C compiler. One setting for all
# targets lets them share what is compiled.
CGO_ENABLED ?= 0
export CGO_ENABLED

FUZZTIME ?= 5s
PLATFORMS = linux/amd64 linux/arm64 windows/amd64 windows/arm64 darwin/amd64 darwin/arm64

.PHONY: build vet lint cross test test-unit test-race fuzz demo-test testbed test-long bench clean

build:
	go build -o bin/ ./cmd/freshet

vet:
	go vet ./...

lint:
	@test -z "$$(gofmt -l .)" || { echo "not formatted, run gofmt -w:"; gofmt -l .; exit 1; }
	go tool staticcheck ./...
	@for f in .ci/run test/*.sh test/run test/install; do echo "bash -n $$f"; bash -n $$f || exit 1; done

cross:
	@for p in $(PLATFORMS); do \
		echo "go build $$p"; \
		CGO_ENABLED=0 GOOS=$${p%/*} GOARCH=$${p#*/} go build ./... || exit 1; \
	done
	@for os in windows darwin; do \
		echo "go vet $$os/amd64"; \
		CGO_ENABLED=0 GOOS=$$os GOARCH=amd64 go vet ./... || exit 1; \
	done

test-unit:
	go test ./...

test-race:
	CGO_ENABLED=1 go test -race ./...

fuzz:
	FUZZTIME=$(FUZZTIME) test/fuzz.sh

demo-test:
	test/demo.sh

# Scenarios in network namespaces, as root on Linux. SCENARIO is a pattern of their names;
# TESTBED=-keep leaves logs and states behind, TESTBED=-binary=FILE runs another freshet.
SCENARIO ?= .
testbed:
	@test/install test
	go test -count=1 -v -timeout 13m -run '^Test[^/]*$$/$(SCENARIO)' ./internal/testbed -args -scenarios=$(CURDIR)/test/testbed $(TESTBED)

test:
	@test/run

# Minutes to an hour: every test several times in another order, and longer fuzzing.
test-long:
	CGO_ENABLED=1 go test -race -count=5 -shuffle=on -timeout 60m ./...
	FUZZTIME=1m test/fuzz.sh

bench:
	test/install bench
	go test -run '^$$' -bench . -benchmem -timeout 60m ./...

clean:
	rm -rf bin
