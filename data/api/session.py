"""
Connections to a server: opened with our key in one header, tried before a run, and read from.
"""

from urllib.parse import urlsplit, urlunsplit

import requests
# what requests is made of
import urllib3
from urllib3.exceptions import HTTPError, NewConnectionError

from data.api.budget import is_loopback
from data.api.protocol import RetryableError
from data.program import UserError

# seconds: to connect; until a server that is silent is told of, and until it is given up
CONNECT, PATIENT, GREETING = 2.5, 2, 28


def open_session(url, key=None):
    """
    Open a session that keeps its connections; the key goes into its header, and nowhere else.

    UserError, without the key in it, for an address or a key that cannot be used.
    """
    if "read1" not in vars(urllib3.response.HTTPResponse):
        raise UserError(f"urllib3 {urllib3.__version__} is too old to read an answer as it comes; "
                        "2.2 or newer is needed: pip install --upgrade urllib3")
    local = is_loopback(url)
    if "@" in urlsplit(url).netloc:
        raise UserError("an address must not hold a key or password: put it in OPENAI_API_KEY")
    if not (key or "").isascii() or len((key or "").split()) > 1:
        raise UserError("the API key (OPENAI_API_KEY, or USER_API_KEY for a user at an address of "
                        "its own) holds a space or a letter beyond ASCII")
    session = requests.Session()
    # this machine is reached without the environment's proxies
    session.trust_env = not local
    # and no entry of .netrc takes the place of our key
    session.auth = lambda request: request
    for scheme in ("http://", "https://"):
        session.mount(scheme, requests.adapters.HTTPAdapter(pool_maxsize=1024))
    if key:
        session.headers["Authorization"] = f"Bearer {key.strip()}"
    try:
        session.prepare_request(requests.Request("POST", url))
    except requests.RequestException as error:
        # its name alone: its text may quote a header
        raise UserError(f"{url} cannot be used ({type(error).__name__})") from None
    return session


def join_path(url, path):
    """Put a path at the end of an address: before its query, where it has one."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=parts.path.rstrip("/") + path))


def post(session, url, body, timeout, deadline, clock):
    """
    Send one request (JSON); return (status, headers, bytes of the reply). RetryableError if the
    connection fails, or if the reply is not complete at the deadline (a time of clock).

    timeout: seconds to connect, and between two bytes.
    """
    data = b""
    try:
        with session.post(url, json=body, timeout=timeout, stream=True,
                          allow_redirects=False) as reply:
            # piece by piece, as they come: a server may send a byte now and then, for ever
            while piece := reply.raw.read1(1 << 16, decode_content=True):
                data += piece
                if clock() > deadline:
                    raise RetryableError("the answer takes too long")
            return reply.status_code, reply.headers, data
    except (requests.RequestException, HTTPError) as error:
        cause = getattr(error.args[0] if error.args else None, "reason", None)
        unsent = isinstance(error, requests.ConnectTimeout) or isinstance(
            cause, NewConnectionError)
        raise RetryableError(f"the connection failed ({type(error).__name__})",
                             unsent=unsent) from None


def check_server(client, flag):
    """
    Raise UserError unless a server answers at the client's address.

    Whether it takes our key is left to the first request: many servers list no models, or not to
    everybody. flag: the flag of the address, for the text.
    """
    address = join_path(client.url, "/models")
    for seconds in (PATIENT, GREETING):
        try:
            reply = client.session.get(address, timeout=(CONNECT, seconds), allow_redirects=False)
            break
        except requests.ReadTimeout as error:
            silent = error
            if seconds == PATIENT:
                print(f"{client.url} takes the connection and is silent; waiting", flush=True)
        except requests.RequestException as error:
            raise UserError(no_server(client.url, flag, error)) from None
    else:
        raise UserError(no_server(client.url, flag, silent))
    text = reply.text.strip()
    if reply.status_code == 200 and text and not text.startswith(("{", "[")):
        raise UserError(f"what answers at {client.url} is no API but a page: does the address end "
                        f"in /v1 (--{flag})?")


def no_server(url, flag, error):
    """Make the sentence about an address at which nobody answers."""
    return (f"no {flag} answers at {url} ({type(error).__name__}): is it running, and is that its "
            f"address (--{flag})?")
