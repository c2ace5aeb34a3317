#!/bin/sh
# Feeds one target, or each of them, for so many seconds (60): fuzz/run.sh [seconds] [target].
set -eu
cd "$(dirname "$0")"
seconds=${1:-60}
targets=${2:-$(ls fuzz_targets | sed -n 's/\.rs$//p' | grep -v '^shapes$')}
for target in $targets; do
    mkdir -p "corpus/$target"
    cargo +nightly fuzz run -s none "$target" "corpus/$target" "seeds/$target" -- \
        -max_total_time="$seconds" -max_len=16384 -timeout=10 -rss_limit_mb=512
done
