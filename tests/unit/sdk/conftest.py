"""The fixtures of these tests."""

from .sdk_projects import packed, project

__all__ = ["packed", "project"]
