"""The pretend accelerator, for every test of this folder that asks for it."""

from tests.pretend_accelerator import accelerator  # noqa: F401 (a fixture)
