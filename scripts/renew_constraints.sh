#!/bin/sh
# Resolves pyproject.toml anew into constraints.txt, keeping the pins that still fit. What torch
# pins for itself (the CUDA libraries) and the local part of versions ("+cpu") are left out.
#
# usage: scripts/renew_constraints.sh UV PYTHON
set -eu
head=$(grep '^#' constraints.txt)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp constraints.txt "$work/pins.txt"
echo "uv
wheel" >"$work/tools.in"
"$1" pip compile --quiet --universal --python-version 3.10 --python "$2" --all-extras --no-header --no-annotate \
    pyproject.toml "$work/tools.in" -o "$work/pins.txt"
{
    echo "$head"
    grep -v -E "^(nvidia|cuda|triton|colorama)|'never'" "$work/pins.txt" | sed 's/+[a-z0-9]*//'
} >constraints.txt
