#!/usr/bin/env bash
# All checks and measurements on a GPU, without a network, in at most seven minutes:
#
#     benchmarks/gpu/run.sh OUT [--vectors PHOTOS.npy WORDS.npy] [--device cpu --tiny] [--only PART ...]
#
# OUT gets results.jsonl, written as results come, a table and a log of each part. What this Python
# lacks is taken from the folder that PACKAGES names: wheels, and faiss-gpu.tar.xz with unpack.sh
# (docs/gpu.md). PYTHON names the Python.
set -euo pipefail
out=$(realpath -m "${1:?benchmarks/gpu/run.sh OUT: name a folder for the results}")
shift
packages=${PACKAGES:+$(realpath "$PACKAGES")}
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
mkdir -p "$out"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
if [ -n "$packages" ]; then
    site="$out/site"
    if compgen -G "$packages/*.whl" >/dev/null; then
        "$python" -m pip install --quiet --no-index --no-deps --target "$site" "$packages"/*.whl ||
            echo "some wheels of $packages could not be installed" >&2
        export PYTHONPATH="$site:$PYTHONPATH"
    fi
    if [ -f "$packages/faiss-gpu.tar.xz" ]; then
        set +eu
        # shellcheck disable=SC1091  # it travels with the archive
        source "$packages/unpack.sh" "$packages/faiss-gpu.tar.xz" "$site" ||
            echo "FAISS of $packages could not be put in place" >&2
        set -eu
    fi
fi
exec "$python" -m benchmarks.gpu.run "$out" "$@"
