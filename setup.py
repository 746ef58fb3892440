"""Builds the one compiled module, which the library can do without.

``SNAKEPIT_MP_BUILD_EXTENSION`` decides: ``yes`` (a failure to compile fails the build),
``no`` (pure Python), unset (try; a compiler that fails is only a warning).
"""

import os
import platform
from pathlib import Path

from setuptools import setup

SOURCES = Path("_speedups")


def extension_switch() -> str:
    """``"yes"``, ``"no"`` or ``""``; anything but CPython counts as ``no``."""
    switch = os.environ.get("SNAKEPIT_MP_BUILD_EXTENSION", "")
    if switch not in ("yes", "no", ""):
        raise SystemExit(f"SNAKEPIT_MP_BUILD_EXTENSION must be 'yes' or 'no', not {switch!r}")
    return switch if platform.python_implementation() == "CPython" else "no"


def extension_arguments(switch: str) -> dict:
    """What ``setup`` needs to build ``snakepit_mp._speedups``."""
    # Imported here, so that a pure build needs no Cython.
    from Cython.Build import build_ext
    from Cython.Distutils.extension import Extension

    # Not through cythonize(): it loses `optional`, and a failing compiler would fail the build.
    extension = Extension(
        "snakepit_mp._speedups",
        [str(SOURCES / "_speedups.pyx")],
        depends=sorted(str(path) for path in SOURCES.glob("*.[hp]*")),
        include_dirs=[str(SOURCES)],
        optional=switch != "yes",
        cython_c_in_temp=True,
        cython_directives={"language_level": 3, "binding": False},
    )
    return {"ext_modules": [extension], "cmdclass": {"build_ext": build_ext}}


switch = extension_switch()
setup(**(extension_arguments(switch) if switch != "no" else {}))
