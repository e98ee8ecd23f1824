#!/usr/bin/env bash
# test/fuzz.sh runs every fuzz target of the module for FUZZTIME (5s).
set -eu
cd "$(dirname "$0")/.."

targets=$(grep -rEo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' cmd internal | sed 's/:func / /' | sort)
[ -n "$targets" ] || { echo "no fuzz target found" >&2; exit 1; }
failed=0
while read -r file target; do
	echo "--- $target ($(dirname "$file"))"
	go test -run '^$' -fuzz "^$target\$" -fuzztime "${FUZZTIME:-5s}" "./$(dirname "$file")" || failed=1
done <<<"$targets"
exit $failed
