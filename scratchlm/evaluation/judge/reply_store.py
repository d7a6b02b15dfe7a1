"""Store every reply of a judge in the result file, from which a killed run resumes, and in a shared cache."""

import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

from scratchlm.core.errors import DataError
from scratchlm.core.files import make_parent, read_json, write_text
from scratchlm.core.protocols import Judge
from scratchlm.evaluation.judge.result_file import Journal


class ReplyCache:
    """A folder with the replies of all runs, one file each; useful since replies repeat at temperature 0."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, key: str) -> str | None:
        """Look up a reply by key, or None. A damaged file counts as missing and is replaced later."""
        try:
            value = read_json(self._path(key), max_bytes=None)
        except DataError:
            return None
        reply = value.get("reply") if isinstance(value, dict) and value.get("key") == key else None
        return reply if isinstance(reply, str) else None

    def add(self, key: str, reply: str) -> None:
        """Store a reply."""
        path = self._path(key)
        make_parent(path)
        write_text(path, json.dumps({"key": key, "reply": reply}) + "\n")

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.json"


class ReplyStore:
    """Gets each reply once: from this run's file, from the cache, or from the judge.

    May be used by several threads; a thread whose question is already pending in another waits for that reply.
    """

    def __init__(
        self,
        judge: Judge,
        *,
        known: Mapping[str, str] | None = None,
        journal: Journal | None = None,
        cache: ReplyCache | None = None,
    ) -> None:
        self._judge = judge
        self._journal = journal
        self._cache = cache
        self._lock = threading.Lock()
        self._replies: dict[str, Future[str]] = {}
        self.n_asked = 0  # number of requests to the judge by this process
        for key, reply in (known or {}).items():
            self._replies[key] = Future()
            self._replies[key].set_result(reply)

    def key(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Hex sha256 of the judge's identity and the whole conversation, which includes prompt and answer."""
        conversation = [[message["role"], message["content"]] for message in messages]
        return hashlib.sha256(json.dumps([self._judge.identity, conversation]).encode()).hexdigest()

    def ask(self, messages: Sequence[Mapping[str, str]]) -> tuple[str, str]:
        """Return the reply's key and the reply.

        Raises: ServiceError when the judge does not reply; a later call with the same question tries again.
        """
        key = self.key(messages)
        with self._lock:
            future = self._replies.get(key)
            is_mine = future is None
            if future is None:
                future = self._replies[key] = Future()
        if not is_mine:
            return key, future.result()
        try:
            reply = self._fetched(key, messages)
        except BaseException as error:
            with self._lock:
                del self._replies[key]
            future.set_exception(error)
            raise
        future.set_result(reply)
        return key, reply

    def _fetched(self, key: str, messages: Sequence[Mapping[str, str]]) -> str:
        reply = self._cache.get(key) if self._cache is not None else None
        is_new = reply is None
        if reply is None:
            with self._lock:
                self.n_asked += 1
            reply = self._judge.ask(messages)
        if self._journal is not None:
            self._journal.add(key, reply)
        if is_new and self._cache is not None:
            self._cache.add(key, reply)
        return reply
