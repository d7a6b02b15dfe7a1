"""Settings of the server: address, access, limits."""

import ipaddress
import re
from dataclasses import dataclass

from scratchlm.core.config import check_at_least
from scratchlm.core.errors import ConfigError

MIN_TOKEN = 16  # characters; a shorter token can be guessed
LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
_ORIGIN = re.compile(r"https?://[a-z0-9.\-]+(:\d{1,5})?|https?://\[[0-9a-f:]+\](:\d{1,5})?")
_HOST = re.compile(r"[a-z0-9]([a-z0-9.\-]*[a-z0-9])?|[0-9a-f:]+")


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """Where the server listens, who may use it, and how much one client may ask for.

    Raises: ConfigError for an address outside this machine without a token, and for an invalid value.
    """

    host: str = "127.0.0.1"  # address to listen on; another than this machine's own needs a token
    port: int = 8000  # port to listen on; 0 chooses a free one
    token: str = ""  # secret that clients send as `Authorization: Bearer TOKEN`; "" for none
    allow_hosts: tuple[str, ...] = ()  # further names of this server that a Host header may have
    allow_origins: tuple[str, ...] = ()  # origins of other web pages that may use the API (CORS)
    n_slots: int = 16  # maximum number of texts that one model generates at the same time
    cache_bytes: int = 2 << 30  # memory for keys and values of each model; less means fewer texts at a time
    max_waiting: int = 64  # maximum number of texts that wait for a slot; the server answers 503 to more
    max_body_bytes: int = 2 << 20  # longest body of a request
    body_time_s: float = 20.0  # time for a request's body to arrive
    header_time_s: float = 10.0  # time for a request's headers to arrive
    stall_time_s: float = 60.0  # a client that reads nothing for so long is disconnected
    stuck_after_s: float = 120.0  # /health fails when the worker has not completed a step for so long
    drain_s: float = 30.0  # time that running requests get to finish after SIGTERM

    def __post_init__(self) -> None:
        check_at_least(0, port=self.port, drain_s=self.drain_s)
        check_at_least(1, n_slots=self.n_slots, max_waiting=self.max_waiting)
        check_at_least(1024, max_body_bytes=self.max_body_bytes, cache_bytes=self.cache_bytes)
        for name in ("body_time_s", "header_time_s", "stall_time_s", "stuck_after_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be above 0 seconds, got {getattr(self, name)}; raise it.")
        if self.port > 65535:
            raise ConfigError(f"port must be at most 65535, got {self.port}; choose another.")
        if self.token and (len(self.token) < MIN_TOKEN or not self.token.isascii() or " " in self.token):
            raise ConfigError(
                f"the token must have at least {MIN_TOKEN} ASCII characters and no space, got {len(self.token)} "
                "characters; create one with `python -c 'import secrets; print(secrets.token_urlsafe())'`."
            )
        if not self.token and not is_loopback(self.host):
            raise ConfigError(
                f"host {self.host!r} can be reached from other machines, so the server needs a token; set "
                "SCRATCHLM_TOKEN or --token-file, or leave --host out."
            )
        for host in self.allow_hosts:
            if not _HOST.fullmatch(host.lower()):
                raise ConfigError(
                    f"allow_hosts must be names without a port, got {host!r}; write example.org."
                )
        for origin in self.allow_origins:
            if not _ORIGIN.fullmatch(origin.lower()):
                raise ConfigError(
                    f"allow_origins must be scheme, host and port, got {origin!r}; write http://example.org:3000."
                )

    @property
    def host_names(self) -> frozenset[str]:
        """The names that a Host header may have, in lower case and without a port."""
        own = () if self.host in ("0.0.0.0", "::") else (self.host,)  # noqa: S104  (compared, not bound)
        return frozenset(name.lower() for name in (*LOCAL_NAMES, *own, *self.allow_hosts))


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only; a name other than localhost counts as public.

    Example:
        >>> is_loopback("127.0.0.1"), is_loopback("0.0.0.0"), is_loopback("example.org")
        (True, False, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
