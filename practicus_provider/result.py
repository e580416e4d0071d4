"""What a job has left as its result: looked at before anybody uses it, as a job may write anything there. Pure."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import NoReturn

from practicus_provider.runtime.practicus_runtime.contract import RESULT_LIMIT
from practicus_provider.runtime.practicus_runtime.results import unsafe
from practicus_provider.status import Reason, State, Verdict

ADVICE = "practicus_runtime.set_result() writes what can be taken, and says what cannot where it is called."


def taken(verdict: Verdict, text: str | None) -> tuple[Verdict, str | None]:
    """The verdict and the JSON text of the result; or that of a failure, and none, where it cannot be taken.

    :param text: what the job has written, which may be no text at all.
    """
    why = None if text is None or verdict.state is not State.SUCCEEDED else _hindrance(text)
    return (verdict, text) if why is None else (refused(verdict, why), None)


def refused(verdict: Verdict, why: str) -> Verdict:
    """Of a job that went well but for its result.

    :param why: a sentence's rest, after the name of whoever has left it.
    """
    message = f"{verdict.replica or 'the job'} ended well, but left a result that {why}"
    return replace(verdict, state=State.FAILED, reason=Reason.ERROR, message=message, advice=ADVICE)


def _hindrance(text: object) -> str | None:
    if not isinstance(text, str):
        return f"is no JSON text, but of type {type(text).__name__}"
    if len(text) > RESULT_LIMIT:
        return f"has {len(text)} characters of JSON, over the {RESULT_LIMIT} that fit"
    try:
        value = json.loads(text, parse_constant=_no_number)
        return next((f"cannot be taken: {what}" for what in unsafe(value)), None)
    except (ValueError, RecursionError) as error:
        return f"is no JSON that can be read: {error}"


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}, a number that JSON does not have")
