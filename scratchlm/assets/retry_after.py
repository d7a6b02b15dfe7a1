"""When a server wants to be asked again: which answers say "not now", and how long they ask to wait."""

from __future__ import annotations

import email.utils
import time

TRY_AGAIN_STATUS = {408, 425, 429, 500, 502, 503, 504}  # RFC 9110 and 6585: the same request may work later


def retry_after_s(value: str | None) -> float | None:
    """Seconds out of a Retry-After header, which holds seconds or a date; None for anything else.

    Source: RFC 9110, section 10.2.3.

    Example:
        >>> retry_after_s("3"), retry_after_s("soon"), retry_after_s(None)
        (3.0, None, None)
    """
    if value is None:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
