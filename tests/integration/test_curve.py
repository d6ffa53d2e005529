"""tcp:// endpoints: who has the keys comes in, nobody else does."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
import requests
import zmq
import zmq.auth

from hailo_clip.ops.bench.service import free_port
from hailo_clip.ops.cli import main
from hailo_clip.shared.codec import encode
from hailo_clip.shared.config import Broker, Config
from hailo_clip.shared.curve import clients_alone, make_keys
from hailo_clip.shared.errors import ConfigError
from hailo_clip.shared.messages import Ping
from hailo_clip.shared.sockets import frontend_dealer, frontend_router
from tests.doubles.frontend import jpeg
from tests.doubles.running_service import RunningService

pytestmark = pytest.mark.xdist_group("serve")

SILENCE_MS = 700


@pytest.fixture
def config(tmp_path: Path) -> Config:
    make_keys(tmp_path / "keys")
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    return Config(broker=Broker(frontend=endpoint, curve_keys=tmp_path / "keys"))


def heard(config: Config, client: Config, authenticates: bool = True) -> bool:
    """Whether the broker of `config` hears a frontend of `client`."""
    with zmq.Context() as context:
        if authenticates:
            with clients_alone(context, config):
                return _heard(context, config, client)
        return _heard(context, config, client)


def _heard(context: zmq.Context[zmq.Socket[bytes]], config: Config, client: Config) -> bool:
    with frontend_router(context, config) as router, frontend_dealer(context, client) as dealer:
        dealer.send_multipart(encode(Ping(1)))
        return bool(router.poll(SILENCE_MS))


def stranger(config: Config, directory: Path) -> Config:
    """A frontend that knows who the broker is, with a key that nobody gave it."""
    make_keys(directory)
    assert config.broker.curve_keys is not None
    known = Path(config.broker.curve_keys) / "broker.key"
    (directory / "broker.key").write_bytes(known.read_bytes())
    return Config(broker=Broker(frontend=config.broker.frontend, curve_keys=directory))


def test_who_has_the_key_comes_in(config: Config) -> None:
    assert heard(config, config)


def test_who_knows_the_broker_and_has_another_key_does_not(config: Config, tmp_path: Path) -> None:
    assert not heard(config, stranger(config, tmp_path / "strange"))


def test_a_further_client_comes_in_by_its_public_key(config: Config, tmp_path: Path) -> None:
    further = stranger(config, tmp_path / "further")
    (tmp_path / "keys" / "further.key").write_bytes((tmp_path / "further" / "client.key").read_bytes())
    assert heard(config, further)


def test_without_an_authenticator_nobody_comes_in(config: Config) -> None:
    assert not heard(config, config, authenticates=False)


@pytest.mark.parametrize("name", ["broker.key_secret", "client.key_secret"])
def test_a_secret_that_others_may_read_is_refused(config: Config, tmp_path: Path, name: str) -> None:
    (tmp_path / "keys" / name).chmod(0o640)
    with pytest.raises(ConfigError, match=f"type: chmod 600 .*{name}"):
        heard(config, config)


@pytest.mark.parametrize("name", ["broker.key_secret", "client.key_secret", "broker.key", "client.key"])
def test_a_missing_key_is_named(config: Config, tmp_path: Path, name: str) -> None:
    (tmp_path / "keys" / name).unlink()
    with pytest.raises(ConfigError, match=f"broker.curve_keys: .*{name}"):
        heard(config, config)


def test_the_command_makes_keys_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = tmp_path / "curve"
    assert main(["keys", "curve", str(directory)]) == 0
    files = sorted(directory.iterdir())
    assert sorted(capsys.readouterr().out.split()) == [str(file) for file in files]
    assert [file.stat().st_mode & 0o777 for file in files if file.suffix == ".key_secret"] == [0o600] * 2
    before = [file.read_bytes() for file in files]
    assert main(["keys", "curve", str(directory)]) == 1
    assert "exists; keys are not overwritten" in capsys.readouterr().err
    assert [file.read_bytes() for file in files] == before


def test_a_whole_service_over_tcp(tmp_path: Path) -> None:
    make_keys(tmp_path / "keys")
    service = RunningService(
        tmp_path,
        "emulated-clip-resnet-50x4",
        HAILO_CLIP__BROKER__FRONTEND=f"tcp://127.0.0.1:{free_port()}",
        HAILO_CLIP__BROKER__BACKEND=f"tcp://127.0.0.1:{free_port()}",
        HAILO_CLIP__BROKER__CURVE_KEYS=str(tmp_path / "keys"),
    )
    try:
        service.wait_ready()
        image = base64.b64encode(jpeg()).decode()
        answer = requests.post(f"{service.url}/v1/embed/image", json={"image": image}, timeout=10)
        assert answer.status_code == 200
        assert answer.json()["dimension"] == 640
    finally:
        service.end()
