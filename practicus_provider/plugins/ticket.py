"""The right to see one web page of one cluster, as a word in the page's URL.

The pages come from pods that run users' code, so they are served in a sandbox: the browser gives them an origin of
their own, and no cookie of Airflow's goes with what they load. The signed ticket in the path takes the cookie's place.
"""

from __future__ import annotations

import hmac
from dataclasses import astuple, dataclass

from airflow.configuration import conf
from itsdangerous import BadSignature, SignatureExpired, URLSafeTimedSerializer

LIFE = 3600
"""Seconds that a ticket is good for: so long may somebody see a page who has lost the right to."""


class Refused(Exception):
    """Not a ticket of ours."""


class Expired(Refused):
    """It was good once.

    :param ticket: what it was for.
    """

    def __init__(self, ticket: Ticket) -> None:
        super().__init__("this page was opened too long ago")
        self.ticket = ticket


@dataclass(frozen=True)
class Ticket:
    """One web page of a cluster, for one user.

    :param visitor: whose it is; see :func:`visitor`.
    :param namespace: of its pods where it is not the connection's.
    :param cluster: its name.
    :param uid: the cluster's.
    :param label: of the page, as the plan's links name it.
    :param role: that serves it.
    :param port: name of the port.
    """

    visitor: str
    dag_id: str
    conn_id: str
    namespace: str | None
    cluster: str
    uid: str
    label: str
    role: str
    port: str

    def signed(self) -> str:
        """As a part of a URL."""
        return _signer().dumps(astuple(self))

    @classmethod
    def read(cls, text: str) -> Ticket:
        """Inverse of :meth:`signed`.

        :raises Expired: after :data:`LIFE`.
        :raises Refused: it was not made by :meth:`signed`.
        """
        try:
            return cls(*_signer().loads(text, max_age=LIFE))
        except SignatureExpired as error:
            raise Expired(cls(*_signer().load_payload(error.payload or b""))) from None
        except BadSignature as error:
            raise Refused("this is no page of a cluster") from error


def visitor(user_id: str) -> str:
    """A word that is one user's alone, and does not say whose: the page can read its ticket."""
    key = conf.get_mandatory_value("api", "secret_key").encode()
    return hmac.new(key, b"practicus visitor " + user_id.encode(), "sha256").hexdigest()[:16]


def _signer() -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(conf.get_mandatory_value("api", "secret_key"), salt="practicus dashboards")
