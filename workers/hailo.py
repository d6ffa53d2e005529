"""The Hailo-10H encoder, by way of HailoRT. The only file that imports `hailo_platform`.

Imported lazily: its wheel comes from Hailo or with Raspberry Pi OS and is never a dependency. One VDevice
a worker, two networks on it. Facts about HailoRT 5.2.0 that decided how it is used here:

- A VDevice made with ``device_ids=[...]`` drops its other parameters, so the ids go into the parameters.
- Processes share a device when they name the same group, and the default one is not shared. All programs
  of this service, and Hailo's own, name "SHARED". ``multi_process_service`` is not for Hailo-10H.
- One VDevice is one Hailo-10H; without an id all processes would land on the first.
- Opening and releasing a VDevice and configuring a network keep every thread of the process waiting,
  perhaps for tens of seconds: no heartbeat is sent meanwhile, and a worker is given a longer grace to load.

What it asks of a batch is told in hailo_model.py.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hailo_clip.shared.errors import EncoderError
from hailo_clip.shared.manifest import Manifest
from hailo_clip.workers.clip_text import ClipText, Floats, load_clip_text
from hailo_clip.workers.encoder import Embeddings, Images, TokenIds, normalised
from hailo_clip.workers.hailo_model import Edge, Flight, Meter, Network, abandon
from hailo_clip.workers.hailo_pending import DevicePending
from hailo_clip.workers.hailo_status import GROUP_ID, DeviceAbsent, DeviceLost, SetupFault, hailo_errors

NAME = "hailo"
LOG_VARIABLE = "HAILORT_LOGGER_PATH"

log = logging.getLogger(__name__)


def import_hailort(log_dir: Path | None = None) -> Any:
    """The module `hailo_platform`.

    Args:
        log_dir: where libhailort writes hailort.log, unless $HAILORT_LOGGER_PATH says so already. It reads
            the variable when it is loaded; without one it writes to the working directory.

    Raises:
        EncoderError: fatal; it is not installed, or does not fit libhailort.
    """
    if log_dir is not None and LOG_VARIABLE not in os.environ:
        log_dir.mkdir(parents=True, exist_ok=True)
        os.environ[LOG_VARIABLE] = str(log_dir)
    try:
        return importlib.import_module("hailo_platform")
    except ModuleNotFoundError as e:
        if e.name != "hailo_platform":
            raise SetupFault(f"hailo_platform cannot be imported: {e}", None) from e
        raise SetupFault(
            "the Python package hailo_platform is not installed; type: sudo apt install python3-h10-hailort "
            "(Raspberry Pi OS) or install the wheel from Hailo, and use a venv made with "
            "--system-site-packages",
            None,
        ) from None
    except Exception as e:
        raise SetupFault(
            f"hailo_platform cannot be imported: {e}. It must be of the same version as libhailort and the "
            "driver; type: sudo apt full-upgrade",
            None,
        ) from e


def devices(log_dir: Path | None = None) -> list[str]:
    """Ids of the Hailo devices of this machine, sorted; none without a driver or a device.

    Raises:
        EncoderError: fatal; HailoRT is not installed or failed.
    """
    platform = import_hailort(log_dir)
    with hailo_errors("looking for devices", "(any)"):
        return sorted(str(d) for d in platform.Device.scan())


class HailoEncoder:
    """See `PipelinedEncoder`.

    Args:
        manifest: the model; its package has HEFs.
        device_id: one of `devices`.
        max_batch: most items of one call, and the batch size that the networks are configured with.
        log_dir: for hailort.log.
    """

    def __init__(
        self, manifest: Manifest, device_id: str, max_batch: int, log_dir: Path | None = None
    ) -> None:
        self._manifest = manifest
        self._device_id = device_id
        self._max_batch = max_batch
        self._log_dir = log_dir
        self._vdevice: Any = None
        self._image: Network | None = None
        self._text: Network | None = None
        self._clip: ClipText | None = None
        self._waiting: list[DevicePending] = []

    @property
    def name(self) -> str:
        """What runs: a Hailo device."""
        return NAME

    @property
    def device_id(self) -> str:
        """The device."""
        return self._device_id

    @property
    def max_batch(self) -> int:
        """Most items of one call."""
        return self._max_batch

    @property
    def depth(self) -> int:
        """Most batches of one kind worth handing over at a time."""
        networks = [n for n in (self._image, self._text) if n is not None]
        return min((n.depth for n in networks), default=1)

    def load(self) -> None:
        """Open the device and configure both networks. Keeps all threads of the process waiting.

        Raises:
            EncoderError: fatal; a `HailoError` says whether trying again may help.
        """
        try:
            self._load()
        except DeviceLost:
            abandon(self._vdevice)  # to let it go may wait for a device that does not answer
            self._vdevice = None
            raise

    def _load(self) -> None:
        m = self._manifest
        if NAME not in m.backends or m.text.pipeline != "clip":
            raise EncoderError(f"model {m.name} has no HEFs for a CLIP text pipeline", fatal=True)
        backend = m.backends[NAME]
        image, text = m.path(backend.image), m.path(backend.text)
        for hef in (image, text):
            if not hef.is_file():
                raise EncoderError(f"{hef} is missing; type: hailo-clip models pull {m.name}", fatal=True)
        self._clip = load_clip_text(m)
        platform = import_hailort(self._log_dir)
        self._check_present()
        self._vdevice = _open(platform, self._device_id)
        size = m.image.size
        rows = Edge(np.float32, (m.text.context_length, self._clip.width))
        pixels, out = Edge(np.uint8, (size, size, 3)), Edge(np.float32, (m.dimension,))
        where, meter = (platform, self._vdevice, self._device_id), Meter()
        self._image = Network(*where, image, self._max_batch, pixels, out, meter)
        self._text = Network(*where, text, self._max_batch, rows, rows, meter)
        log.info("device %s opened in group %s, HailoRT %s", self._device_id, GROUP_ID, platform.__version__)

    def encode_images(self, images: Images) -> Embeddings:
        """See `Encoder.encode_images`."""
        return self.submit_images(images, _nobody).result()

    def encode_tokens(self, ids: Sequence[TokenIds]) -> Embeddings:
        """See `Encoder.encode_tokens`."""
        return self.submit_tokens(ids, _nobody).result()

    def submit_images(self, images: Images, done: Callable[[], None]) -> DevicePending:
        """See `PipelinedEncoder.submit_images`."""
        network, size, dimension = self._image, self._manifest.image.size, self._manifest.dimension
        if images.dtype != np.uint8 or images.shape[1:] != (size, size, 3):
            raise EncoderError(
                f"images are {images.dtype} {list(images.shape)}, expected uint8 [n, {size}, {size}, 3]"
            )

        def fill(buffer: Any) -> None:
            buffer.reshape(images.shape)[:] = images

        def finish(raw: Floats) -> Embeddings:
            return normalised(raw.reshape(len(raw), -1), len(raw), dimension)

        return self._submit(network, len(images), fill, finish, done)

    def submit_tokens(self, ids: Sequence[TokenIds], done: Callable[[], None]) -> DevicePending:
        """See `PipelinedEncoder.submit_tokens`."""
        prompts, clip, dimension = [np.array(p) for p in ids], self._clip, self._manifest.dimension

        def fill(buffer: Any) -> None:
            assert clip is not None
            clip.rows(prompts, out=buffer.reshape(len(prompts), clip.context_length, clip.width))

        def finish(raw: Floats) -> Embeddings:
            assert clip is not None
            hidden = raw.reshape(len(raw), clip.context_length, clip.width)
            return normalised(clip.features(hidden, prompts), len(raw), dimension)

        return self._submit(self._text, len(prompts), fill, finish, done)

    def close(self) -> None:
        """Let go of the device. Safe to call twice and after a failed `load`.

        It keeps all threads waiting as `load` does. After a fault it does nothing of the kind, so that the
        fault can be told at once: the process is about to end, and the device is free when it has.
        """
        networks = [n for n in (self._image, self._text) if n is not None]
        for network in networks:
            network.close()
        self._image = self._text = self._clip = None
        self._waiting.clear()
        vdevice, self._vdevice = self._vdevice, None
        if any(network.broken for network in networks):
            abandon(vdevice)
        elif vdevice is not None:
            self._release(vdevice)

    def _release(self, vdevice: Any) -> None:
        try:
            with hailo_errors("releasing the device", self._device_id):
                vdevice.release()
        except EncoderError as e:
            log.warning("%s", e.message)

    def _submit(
        self,
        network: Network | None,
        count: int,
        fill: Callable[[Any], None],
        finish: Callable[[Floats], Embeddings],
        done: Callable[[], None],
    ) -> DevicePending:
        if network is None:
            raise EncoderError("encoder used before load", fatal=True)
        if not 1 <= count <= self._max_batch:
            raise EncoderError(f"a batch has {count} items, allowed are 1 to {self._max_batch}")
        while (slot := network.take_slot()) is None:
            self._waiting[0].settle()
        fill(slot.inputs[:count])
        flight = network.launch(slot, count, done)
        pending = DevicePending(flight.deadline, lambda: finish(self._settle(pending, network, flight)))
        self._waiting.append(pending)
        return pending

    def _settle(self, pending: DevicePending, network: Network, flight: Flight) -> Floats:
        """What came out of a batch; waits for it. Raises `EncoderError`."""
        if pending not in self._waiting:
            raise EncoderError("the encoder was closed before the batch was done", fatal=True)
        self._waiting.remove(pending)
        raw: Floats = network.land(flight)
        pending.device_s = flight.device_s
        return raw

    def _check_present(self) -> None:
        found = devices(self._log_dir)
        if self._device_id in found:
            return
        if not found:
            raise DeviceAbsent(
                "no Hailo device was found; check that /dev/hailo0 is there, that lspci lists the device "
                "and that the driver is installed (sudo apt install hailo-h10-all, and reboot)",
                None,
            )
        raise DeviceAbsent(f"there is no Hailo device {self._device_id}; there are: {', '.join(found)}", None)


def _open(platform: Any, device_id: str) -> Any:
    """A VDevice on this very device, in the group that others share it by."""
    with hailo_errors("opening the device", device_id):
        params = platform.VDevice.create_params()
        params.scheduling_algorithm = platform.HailoSchedulingAlgorithm.ROUND_ROBIN
        params.group_id = GROUP_ID
        params.device_ids = [device_id]
        vdevice = platform.VDevice(params)
        got = [str(d) for d in vdevice.get_physical_devices_ids()]
    if got != [device_id]:
        vdevice.release()
        raise SetupFault(f"asked HailoRT for the device {device_id} and was given {', '.join(got)}", None)
    return vdevice


def _nobody() -> None:
    """Told when a batch is done that somebody is waiting for anyway."""
