#!/bin/sh
# Installs the system libraries that MuJoCo needs to draw, a Vulkan driver for ManiSkill, and the
# venv module of the system's Python, where that is allowed (apt-get, as root or through sudo without
# a password) and only if they are missing. Otherwise names the packages in one line each. Never
# fails: without them everything but films and ManiSkill runs, and the Makefile itself says when
# Python lacks its venv module.
#
# With "browser" also installs the one that the tests open a report in.
#
# usage: scripts/system_packages.sh [browser]

[ "$(uname -s)" = Linux ] || exit 0
PATH="$PATH:/usr/sbin:/sbin"

has_library() { ldconfig -p 2>/dev/null | grep -q "$1"; }

missing=""
has_library 'libGL\.so\.1' || missing="$missing libgl1"
has_library 'libEGL\.so\.1' || missing="$missing libegl1"
has_library 'libglib-2\.0\.so\.0' || missing="$missing libglib2.0-0"
has_library 'libX11\.so\.6' || missing="$missing libx11-6"
optional=""
has_library 'libOSMesa\.so' || optional="libosmesa6"

# Vulkan: the loader, and a driver. A graphics card's own driver counts; Mesa's draws on the CPU.
has_file() { for file in "$@"; do [ -e "$file" ] && return 0; done; return 1; }
vulkan=""
if ! has_library 'libvulkan\.so\.1' ||
    ! has_file /usr/share/vulkan/icd.d/*.json /etc/vulkan/icd.d/*.json "${VK_DRIVER_FILES:-/nonexistent}"; then
    vulkan="libvulkan1 mesa-vulkan-drivers"
fi

# Debian packs ensurepip on its own; other interpreters of the right version come with it.
if python3 -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then
    python3 -c 'import ensurepip' 2>/dev/null || optional="python3-venv $optional"
fi

# Its driver brings the browser along. Where there is no such package the tests say so and skip it.
[ "$1" != browser ] || command -v chromedriver >/dev/null 2>&1 || optional="$optional chromium-driver"

name_them() {
    echo "note: films need the system packages$missing ($1); install them with your package manager, everything else runs without." >&2
}

name_vulkan() {
    echo "note: ManiSkill needs the system packages libvulkan1 and mesa-vulkan-drivers, 23 or newer ($1); install them with your package manager, everything else runs without." >&2
}

[ -n "$missing$optional$vulkan" ] || exit 0
if ! command -v apt-get >/dev/null 2>&1; then
    [ -z "$missing" ] || name_them "no apt-get here"
    [ -z "$vulkan" ] || name_vulkan "no apt-get here"
    exit 0
fi
if [ "$(id -u)" = 0 ]; then
    as_root="env"
elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
    as_root="sudo -n env"
else
    [ -z "$missing" ] || name_them "needs root: apt-get install$missing"
    [ -z "$vulkan" ] || name_vulkan "needs root; on Debian 12 take them from bookworm-backports"
    exit 0
fi

sources="" # options that name other package sources than the system's
apt() {
    # shellcheck disable=SC2086  # a list of options
    $as_root DEBIAN_FRONTEND=noninteractive apt-get -qq $sources -o Acquire::Retries=1 -o Acquire::http::Timeout=30 \
        -o Acquire::https::Timeout=30 -o DPkg::Lock::Timeout=60 "$@" >/dev/null 2>&1
}

updated=""
install() {
    apt install -y --no-install-recommends "$@" && return 0
    [ -n "$updated" ] || { updated=yes; apt update; }
    apt install -y --no-install-recommends "$@"
}

if [ -n "$missing" ]; then
    # shellcheck disable=SC2086  # a list of package names
    install $missing || name_them "apt-get could not install them"
fi
# One by one: OSMesa, which draws without EGL, is not in newer distributions.
for package in $optional; do
    install "$package" || true
done

# Debian 12's own Mesa is too old for ManiSkill's renderer. The newer one is taken from the
# backports of the mirror that the system uses, through a list of sources that is thrown away.
install_vulkan_from_backports() {
    release=$1
    work=$(mktemp -d) || return 1
    mkdir "$work/parts"
    cp /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list "$work/parts/" 2>/dev/null
    [ ! -f /etc/apt/sources.list ] || cp /etc/apt/sources.list "$work/parts/system.list"
    # shellcheck disable=SC2016  # apt-get's own placeholders
    apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' 2>/dev/null |
        awk -v release="$release" '$2 == release && $3 == "main" { print "deb " $1 " " release "-backports main"; exit }' \
            >"$work/parts/backports.list"
    chmod -R a+rX "$work"
    sources="-o Dir::Etc::SourceParts=$work/parts -o Dir::Etc::SourceList=/dev/null"
    [ -s "$work/parts/backports.list" ] && apt update &&
        apt install -y --no-install-recommends -t "$release-backports" libvulkan1 mesa-vulkan-drivers
    status=$?
    sources=""
    rm -rf "$work"
    return $status
}

if [ -n "$vulkan" ]; then
    debian=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release 2>/dev/null)
    if [ "$debian" = bookworm ]; then
        install_vulkan_from_backports bookworm || name_vulkan "apt-get could not install them from bookworm-backports"
    else
        # shellcheck disable=SC2086  # a list of package names
        install $vulkan || name_vulkan "apt-get could not install them"
    fi
fi
exit 0
