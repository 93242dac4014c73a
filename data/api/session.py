"""
Connections to a server: opened with our key in one header, and tried before a run.
"""

from urllib.parse import urlsplit

import requests

from data.api.budget import is_loopback
from data.program import UserError


def open_session(url, key=None):
    """
    Open a session that keeps its connections; the key goes into its header, and nowhere else.

    UserError, without the key in it, for an address or a key that cannot be used.
    """
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


def check_server(client, flag, variable="OPENAI_API_KEY"):
    """
    Raise UserError unless a server answers at the client's address and takes our key.

    flag, variable: the flag of the address and the environment variable of the key, for the text.
    """
    try:
        reply = client.session.get(f"{client.url}/models", timeout=(5, 30), allow_redirects=False)
    except requests.RequestException as error:
        raise UserError(f"no {flag} answers at {client.url} ({type(error).__name__}): is it "
                        f"running, and is that its address (--{flag})?") from None
    if reply.status_code in (401, 403):
        raise UserError(f"{client.url} wants another key (HTTP {reply.status_code}); it is read "
                        f"from {variable}")
