#!/bin/sh
# Runs an ONNX policy in a fresh environment with numpy and onnxruntime, without torch.
#
# usage: scripts/deploy_alone.sh POLICY.onnx [options of examples/deploy.py]
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check -c "$here/constraints.txt" numpy onnxruntime
if "$work/venv/bin/python" -c 'import torch' 2>/dev/null; then
    echo "error: torch is there" >&2
    exit 1
fi
cd "$(dirname "$1")"
file=$(basename "$1")
shift
"$work/venv/bin/python" "$here/examples/deploy.py" "$file" --seconds 2 "$@"
