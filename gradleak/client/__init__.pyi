from . import checks
from .client import Client
from .view import ServerView

__all__ = [
    "Client",
    "ServerView",
    "checks",
]
