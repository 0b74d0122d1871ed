#!/bin/sh
# Test the CUDA back end on a card, then time it: within four minutes, without a network and without installing anything.
# Needs a Python with torch, triton, numpy, pytest and hypothesis; PYTHON says which, OUT where results go. TUNE=1 first tries
# how to launch the kernel. The last lines say how the tests went.
cd "$(dirname "$0")/.." || exit 2
PYTHON=${PYTHON:-python3}
OUT=${OUT:-.}
export PYTHONPATH="$PWD/src" PYTHONDONTWRITEBYTECODE=1 CUBLAS_WORKSPACE_CONFIG=:4096:8
"$PYTHON" -c 'import actograph.sketch._observe' 2>/dev/null ||
    "$PYTHON" setup.py build_ext --inplace >"$OUT/build.log" 2>&1
"$PYTHON" -c 'import actograph.sketch._observe' 2>/dev/null ||
    echo "the C back end was not built: the CPU is measured by the reference"

# Side by side: most of the time goes into compiling kernels, and a machine with a card has cores for that
run_tests() {
    name=$1
    shift
    timeout 150 "$PYTHON" -m pytest "$@" -q -p no:cacheprovider --override-ini addopts= \
        --override-ini filterwarnings=default --durations 3 >"$OUT/tests-$name.txt" 2>&1
    echo $? >"$OUT/exit-$name"
}
began=$(date +%s)
kernels=tests/sketch/test_triton_kernel.py
run_tests rows $kernels -k "rows_equal" &
run_tests layouts $kernels -k "strides or any_number" &
run_tests others $kernels -k "not rows_equal and not strides and not any_number" &
run_tests recording tests/recording/test_cuda.py &
wait
for name in rows layouts others recording; do
    [ "$(cat "$OUT/exit-$name")" = 0 ] || tail -n 70 "$OUT/tests-$name.txt"
done
echo "tests took $(($(date +%s) - began)) s"

began=$(date +%s)
timeout "${BENCH_S:-150}" "$PYTHON" benchmarks/bench_gpu.py --out "$OUT/results-gpu.md" ${TUNE:+--tune} 2>"$OUT/bench.err"
bench=$?
[ $bench -eq 0 ] || tail -n 30 "$OUT/bench.err"
echo "benchmark took $(($(date +%s) - began)) s, exit $bench"

failed=$bench
for name in rows layouts others recording; do
    echo "== tests of $name: exit $(cat "$OUT/exit-$name"), $(tail -n 1 "$OUT/tests-$name.txt")"
    grep -E '^(FAILED|ERROR)' "$OUT/tests-$name.txt" | cut -c1-200
    [ "$(cat "$OUT/exit-$name")" = 0 ] || failed=1
done
exit $failed
