"""Whether there is a Vulkan device to draw with, and what to do where there is none."""

from __future__ import annotations

import functools
import os
import subprocess
import sys

#: What to do where ManiSkill finds no Vulkan device.
VULKAN_REMEDY = (
    "ManiSkill draws with Vulkan, also to simulate for state observations. Install libvulkan1 and a driver: the "
    "graphics card's own, or mesa-vulkan-drivers, 23 or newer, which draws on the CPU (Debian 12: from "
    "bookworm-backports; scripts/system_packages.sh installs both). If they are there, set the environment variable "
    "VK_DRIVER_FILES (and, for older loaders, VK_ICD_FILENAMES) to the driver's file, such as "
    "/usr/share/vulkan/icd.d/lvp_icd.x86_64.json, or unset it if it names one that is gone."
)

_PROBE = "import sapien; sapien.render.RenderSystem({device!r}); print('drawn')"


@functools.cache
def vulkan_works(device: str = "cpu") -> bool:
    """
    Open a Vulkan device in a process of its own: a bad driver may take the process with it.

    :param device: ``cpu`` for a software driver, ``cuda``
    :return: whether ManiSkill's renderer finds it
    """
    probe = [sys.executable, "-c", _PROBE.format(device=device)]
    try:
        done = subprocess.run(probe, env=dict(os.environ), capture_output=True, timeout=120, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return b"drawn" in done.stdout


def is_vulkan_error(error: BaseException) -> bool:
    """
    :param error: what building an environment raised
    :return: whether it tells of a missing or unsuitable Vulkan driver
    """
    text = str(error).lower()
    return any(sign in text for sign in ("vk::", "vulkan", "rendering device", "render device"))
