#!/bin/sh
# mypy on the package as it is installed: wrappers/ and baselines/ are mapped into difftori_gym at
# installation, which mypy cannot see in an editable install, so it is shown a tree of links.
#
# usage: scripts/typecheck.sh PYTHON [mypy arguments]
set -eu
cd "$(dirname "$0")/.."
root=$(pwd)
python=$1
shift
case $python in /*) ;; */*) python=$root/$python ;; esac

tree=$root/build/typecheck
rm -rf "$tree"
mkdir -p "$tree/difftori_gym"
ln -s "$root"/difftori_gym/* "$root/wrappers" "$root/baselines" "$tree/difftori_gym/"
cd "$tree"
exec "$python" -m mypy --config-file "$root/pyproject.toml" --cache-dir "$root/.mypy_cache" "$@" -p difftori_gym
