"""Choose how MuJoCo draws on a machine without a screen."""

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

# What MuJoCo takes: the first line says whether to draw, the second with what.
_KNOWN = {"", *("enable", "enabled", "on", "true", "1", "disable", "disabled", "off", "false", "0")}
_KNOWN |= {"egl", "osmesa", "glfw", "glx", "cgl", "wgl"}

_PROBE = "import mujoco; context = mujoco.GLContext(16, 16); context.make_current(); print('drawn')"


@functools.cache
def gl_backend_works(backend: str) -> bool:
    """
    Open a drawing context in a process of its own.

    A library that is there may still find no driver, and a failed import of MuJoCo cannot be undone in the process
    that tried it.

    :param backend: ``egl`` or ``osmesa``
    :return: whether MuJoCo can draw with it
    """
    environment = {**os.environ, GL_VARIABLE: backend}
    environment.pop("PYOPENGL_PLATFORM", None)
    try:
        probe = subprocess.run(
            [sys.executable, "-c", _PROBE], env=environment, capture_output=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return b"drawn" in probe.stdout


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
