#!/bin/sh
# Wheels for a machine without a network, on which torch with CUDA is there (docs/gpu.md).
#
# usage: scripts/gpu_wheels.sh fetch [FOLDER]     here: into parts of at most LIMIT MiB, default 55
#        scripts/gpu_wheels.sh install [FOLDER]   there, once all parts are in the folder
#   FOLDER  default build/wheels
#   PYTHON  default python3
#   FOR     Python of the other machine, default 3.12
#
# No wheel of torch, jax or numpy is fetched: those of the machine stay.
set -eu
cd "$(dirname "$0")/.."
folder=${2:-build/wheels}
python=${PYTHON:-python3}

# What is imported, in order of worth; nothing else of what these packages require.
core="gymnasium farama-notifications cloudpickle typing-extensions stable-baselines3 safetensors tqdm rich \
	markdown-it-py mdurl pygments"
suite="mujoco shimmy dm-env dm-tree wrapt attrs labmaze lxml glfw pyopengl absl-py etils protobuf pyparsing dm-control imageio scipy"
report="matplotlib contourpy cycler fonttools kiwisolver packaging pillow python-dateutil six"
playground="playground mujoco-mjx flax ml-collections msgpack pyyaml trimesh opt-einsum"

case "${1:-}" in
fetch)
	mkdir -p "$folder"
	pins=$folder/constraints.txt
	# flax follows jax, which is the machine's own.
	grep -E '==' constraints.txt | grep -Ev '^(torch|jax|jaxlib|numpy|flax)==' > "$pins"
	# shellcheck disable=SC2086
	"$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
		--python-version "${FOR:-3.12}" --implementation cp \
		--platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
		--platform manylinux_2_12_x86_64 --platform manylinux2010_x86_64 --platform manylinux_2_5_x86_64 \
		--platform manylinux1_x86_64 --platform any \
		-c "$pins" -d "$folder/all" $core $suite $report $playground
	"$python" - "$folder" "${LIMIT:-55}" <<'PYTHON'
import shutil, sys
from pathlib import Path

folder, limit = Path(sys.argv[1]), float(sys.argv[2]) * 2**20
for old in folder.glob("part-*"):
    shutil.rmtree(old)
parts = []  # sizes; the largest wheels first, each into the first part that has room
for wheel in sorted((folder / "all").glob("*.whl"), key=lambda path: -path.stat().st_size):
    size = wheel.stat().st_size
    if size > limit:
        sys.exit(f"error: {wheel.name} has {size / 2**20:.1f} MiB, more than LIMIT={limit / 2**20:g}")
    place = next((i for i, used in enumerate(parts) if used + size <= limit), len(parts))
    parts[place:place + 1] = [(parts[place] if place < len(parts) else 0) + size]
    target = folder / f"part-{place + 1}"
    target.mkdir(exist_ok=True)
    shutil.copyfile(wheel, target / wheel.name)
    print(f"{size / 2**20:6.1f} MiB  part-{place + 1}  {wheel.name}")
print(f"{sum(parts) / 2**20:6.1f} MiB in {len(parts)} parts: " + ", ".join(f"{used / 2**20:.1f}" for used in parts))
PYTHON
	;;
install)
	find "$folder" -path "$folder/all" -prune -o -name '*.whl' -print > "$folder/list.txt"
	[ -s "$folder/list.txt" ] || { echo "error: no wheels in $folder; run scripts/gpu_wheels.sh fetch where there is a network" >&2; exit 2; }
	# Not what is there already, in whatever version: torch and jax were made for it.
	"$python" - "$folder/list.txt" > "$folder/wanted.txt" <<'PYTHON'
import importlib.metadata, sys
from pathlib import Path

for line in Path(sys.argv[1]).read_text().split():
    name = Path(line).name.split("-")[0].replace("_", "-")
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        print(line)
PYTHON
	[ -s "$folder/wanted.txt" ] || { echo "everything is installed"; exit 0; }
	xargs "$python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps < "$folder/wanted.txt"
	;;
*)
	sed -n '/^# usage/,/^#   FOR/s/^# //p' "$0"
	exit 2
	;;
esac
