#!/usr/bin/env bash
# test/demo.sh runs the demo on a tree with files of every kind, and looks at what it says and
# at what it leaves: every device's copy must be the source, byte for byte.
set -euo pipefail
cd "$(dirname "$0")/.."

devices=8 sites=2
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
fail() {
	echo "demo: $*" >&2
	exit 1
}

# make_tree FOLDER fills it: about 48 MiB, so that the WAN link is busy for some seconds.
make_tree() {
	local i deep
	mkdir -p "$1/large" "$1/small"
	: >"$1/empty"
	printf x >"$1/one-byte"
	deep=$1/$(printf 'deep/%.0s' {1..40})
	mkdir -p "$deep"
	echo "forty folders down" >"$deep/file"
	for i in {1..600}; do
		head -c $((i * 7)) /dev/urandom >"$1/small/$i"
	done
	head -c $((32 << 20)) /dev/urandom >"$1/large/whole-pieces"
	head -c $(((16 << 20) + 12345)) /dev/urandom >"$1/large/and a bit"
	head -c $((1 << 20)) /dev/zero >"$1/large/one-piece"
	printf '#!/bin/sh\necho hello\n' >"$1/program"
	chmod 755 "$1/program"
}

# describe FOLDER prints the hash, name and executable bit of each file in it.
describe() {
	(cd "$1" && find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum &&
		find . -type f -perm -u+x | LC_ALL=C sort)
}

# check CONDITION: a jq expression over the demo's report that must be true.
check() {
	jq -e "$1" "$dir/report.json" >/dev/null || fail "the report does not fit: $1: $(jq -c . "$dir/report.json")"
}

make_tree "$dir/tree"
size=$(find "$dir/tree" -type f -printf '%s\n' | awk '{n += $1} END {print n}')
go build -o "$dir/freshet" ./cmd/freshet
"$dir/freshet" demo "$dir/tree" --devices $devices --sites $sites --wan 100Mbit \
	--keep "$dir/kept" --json </dev/null >"$dir/out.json"
jq -se last "$dir/out.json" >"$dir/report.json" || fail "no JSON object in the output"
jq -c . "$dir/report.json"

count='def count: if type == "array" then length else . end;'
check '.verified == true'
check ".contentBytes == $size"
check "$count (.devices | count) == $devices"
check "$count (.sites | count) == $sites"
check "(.wanCopiesPerSite | length) == $sites"
check '.wanCopiesPerSite | all(. >= 0.99 and . <= 1.01)'
check '.bytesFromOtherSites == 0' # the devices' mode is 1: peers of their own site
check '.wanBytes > 0 and .seconds > 0 and .boundSeconds > 0'

describe "$dir/tree" >"$dir/want"
for n in $(seq $devices); do
	[ -d "$dir/kept/device-$n" ] || fail "device $n left no copy in $dir/kept: $(ls "$dir/kept")"
	describe "$dir/kept/device-$n" >"$dir/got"
	diff "$dir/want" "$dir/got" >&2 || fail "device $n has other files than the source"
done
echo "$devices devices hold the same $(wc -l <"$dir/want") lines of hashes as the source"
