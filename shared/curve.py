"""CURVE keys for tcp:// endpoints: who may connect, who the broker is, and nobody else can read along.

A directory of key files (`broker.curve_keys`), as `zmq.auth` writes them:

==================  =======================  =============================================================
file                on the machines of       what for
==================  =======================  =============================================================
broker.key_secret   the broker               proves that it is the broker
broker.key          frontends, workers       whom they believe to be the broker
client.key_secret   frontends, workers       proves that they may connect
client.key          the broker               lets them connect; so does any other ``NAME.key`` beside it
==================  =======================  =============================================================
"""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Iterator
from pathlib import Path

import zmq
import zmq.auth
from zmq.auth.thread import ThreadAuthenticator

from hailo_clip.shared.config import Config
from hailo_clip.shared.errors import ConfigError, SetupError

_BROKER, _CLIENT = "broker", "client"
_DOMAIN = "hailo-clip"
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def make_keys(directory: Path) -> list[Path]:
    """Make both key pairs in `directory`, readable by its owner alone; the files.

    Raises:
        SetupError: there are keys already; they are left as they are.
        OSError: it can't be written.
    """
    files = [directory / f"{name}.{end}" for name in (_BROKER, _CLIENT) for end in ("key", "key_secret")]
    there = [file for file in files if file.exists()]
    if there:
        raise SetupError(f"{there[0]} exists; keys are not overwritten, as others may use them")
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in (_BROKER, _CLIENT):
        zmq.auth.create_certificates(directory, name)
        (directory / f"{name}.key_secret").chmod(stat.S_IRUSR | stat.S_IWUSR)
    return files


@contextlib.contextmanager
def clients_alone(context: zmq.Context[zmq.Socket[bytes]], config: Config) -> Iterator[None]:
    """While this lasts, sockets that `secure_broker` prepared accept those whose key is in the directory.

    They accept nobody without it. Where no keys are configured it does nothing.

    Raises:
        ConfigError: the broker's machine has no public key of a client.
    """
    if config.broker.curve_keys is None:
        yield
        return
    directory = Path(config.broker.curve_keys)
    _public(directory / f"{_CLIENT}.key")
    authenticator = ThreadAuthenticator(context)
    authenticator.start()
    try:
        authenticator.configure_curve(domain=_DOMAIN, location=directory)
        yield
    finally:
        authenticator.stop()


def secure_broker(socket: zmq.Socket[bytes], directory: Path) -> None:
    """Make `socket`, not yet bound, the broker's side. Raises `ConfigError`."""
    socket.curve_publickey, socket.curve_secretkey = _keypair(directory / f"{_BROKER}.key_secret")
    socket.curve_server = True
    socket.zap_domain = _DOMAIN.encode()
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)  # without `clients_alone` nobody is let in, instead of all


def secure_client(socket: zmq.Socket[bytes], directory: Path) -> None:
    """Make `socket`, not yet connected, a client's side. Raises `ConfigError`."""
    socket.curve_publickey, socket.curve_secretkey = _keypair(directory / f"{_CLIENT}.key_secret")
    socket.curve_serverkey = _public(directory / f"{_BROKER}.key")


def _keypair(path: Path) -> tuple[bytes, bytes]:
    public, secret = _load(path)
    if secret is None:
        raise ConfigError(f"broker.curve_keys: {path} holds no secret key")
    if path.stat().st_mode & _OTHERS:
        raise ConfigError(
            f"broker.curve_keys: {path} is open to others than its owner; type: chmod 600 {path}"
        )
    return public, secret


def _public(path: Path) -> bytes:
    return _load(path)[0]


def _load(path: Path) -> tuple[bytes, bytes | None]:
    try:
        return zmq.auth.load_certificate(path)
    except (OSError, ValueError) as e:
        raise ConfigError(f"broker.curve_keys: {path}: {e}") from e
