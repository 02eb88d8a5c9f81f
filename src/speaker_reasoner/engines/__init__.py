"""Engines, which write the assistant's turns. One small interface, batched.

`scripted.ScriptedEngine` plays turns from a list (for tests, yours too); `local.TransformersEngine`
runs a checkpoint in this process; `remote.RemoteEngine` asks a server. Heavy libraries are imported
by the modules that need them, not here.
"""

from .base import Engine, Reply, Request, Session

__all__ = ["Engine", "Reply", "Request", "Session"]
