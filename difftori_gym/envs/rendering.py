"""What draws on this machine: OpenGL for MuJoCo, Vulkan for ManiSkill, and what to do where there is none."""

from __future__ import annotations

import functools
import os
import subprocess
import sys

GL_VARIABLE = "MUJOCO_GL"

#: What to do where MuJoCo cannot draw.
GL_REMEDY = (
    "For MuJoCo: install libgl1 libegl1 libglib2.0-0 libx11-6 (for MUJOCO_GL=egl) or libosmesa6 (for "
    "MUJOCO_GL=osmesa) with the system's package manager and start again with the environment variable MUJOCO_GL "
    "unset or set to egl or osmesa."
)

#: What to do where ManiSkill finds no Vulkan device.
VULKAN_REMEDY = (
    "ManiSkill draws with Vulkan, also to simulate for state observations. Install libvulkan1 and a driver: the "
    "graphics card's own, or mesa-vulkan-drivers, 23 or newer, which draws on the CPU (Debian 12: from "
    "bookworm-backports; scripts/system_packages.sh installs both). If they are there, set the environment variable "
    "VK_DRIVER_FILES (and, for older loaders, VK_ICD_FILENAMES) to the driver's file, such as "
    "/usr/share/vulkan/icd.d/lvp_icd.x86_64.json, or unset it if it names one that is gone."
)

# What MuJoCo takes: the first line says whether to draw, the second with what.
_KNOWN = {"", *("enable", "enabled", "on", "true", "1", "disable", "disabled", "off", "false", "0")}
_KNOWN |= {"egl", "osmesa", "glfw", "glx", "cgl", "wgl"}

_GL_PROBE = "import mujoco; context = mujoco.GLContext(16, 16); context.make_current(); print('drawn')"
_VULKAN_PROBE = "import sapien; sapien.render.RenderSystem({device!r}); print('drawn')"


def _draws(program: str, environment: dict[str, str], timeout: float) -> bool:
    """
    Whether a program draws in a process of its own: a library that is there may still find no driver, a bad driver may
    take the process with it, and a failed import of MuJoCo cannot be undone in the process that tried it.
    """
    command = [sys.executable, "-c", program]
    try:
        probe = subprocess.run(command, env=environment, capture_output=True, timeout=timeout, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return b"drawn" in probe.stdout


@functools.cache
def gl_backend_works(backend: str) -> bool:
    """:return: whether MuJoCo can draw with ``egl`` or ``osmesa``"""
    environment = {**os.environ, GL_VARIABLE: backend}
    environment.pop("PYOPENGL_PLATFORM", None)
    return _draws(_GL_PROBE, environment, timeout=60)


@functools.cache
def vulkan_works(device: str = "cpu") -> bool:
    """:return: whether ManiSkill's renderer finds a Vulkan device, ``cpu`` for a software driver, or ``cuda``"""
    return _draws(_VULKAN_PROBE.format(device=device), dict(os.environ), timeout=120)


def is_vulkan_error(error: BaseException) -> bool:
    """:return: whether an error in building an environment tells of a missing or unsuitable Vulkan driver"""
    text = str(error).lower()
    return any(sign in text for sign in ("vk::", "vulkan", "rendering device", "render device"))


def select_gl_backend() -> None:
    """
    Set ``MUJOCO_GL`` where it is not set and there is no screen; call it before MuJoCo is imported.

    EGL is preferred, OSMesa is next. With neither, drawing is disabled, so that everything but films still works.
    A value chosen by the user, a screen, an imported MuJoCo and systems other than Linux are left alone.

    :raises RuntimeError: if the user chose a value that MuJoCo does not know
    """
    chosen = os.environ.get(GL_VARIABLE, "").lower().strip()
    if chosen not in _KNOWN and "mujoco" not in sys.modules:
        raise RuntimeError(
            f"Expected {GL_VARIABLE} to be one of egl, osmesa, glfw, disabled, got {chosen!r}. {GL_REMEDY}"
        )
    has_screen = bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    if os.environ.get(GL_VARIABLE) or has_screen or "mujoco" in sys.modules or not sys.platform.startswith("linux"):
        return
    for backend in ("egl", "osmesa"):
        if gl_backend_works(backend):
            os.environ[GL_VARIABLE] = backend
            return
    os.environ[GL_VARIABLE] = "disabled"
