"""Images and prompts to model inputs, off the event loop and within bounds."""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from hailo_clip.api.fields import Picture
from hailo_clip.api.image import decode_base64_image, decode_image
from hailo_clip.shared.errors import ClientError, QueueFull
from hailo_clip.shared.manifest import Manifest
from hailo_clip.shared.messages import Buffer
from hailo_clip.shared.tokenizer import Tokenizer

T = TypeVar("T")

BACKLOG = 16
"""Jobs that may wait for a thread; one more is a 429."""

INLINE_CHARACTERS = 2048
"""Prompts up to this many characters in all are tokenised at once, which takes less than changing threads."""

CACHED_PROMPTS = 4096
CACHED_CHARACTERS = 512
"""Token ids kept by prompt, and the longest prompt for which they are."""


class Intake:
    """Prepares the inputs of requests.

    Args:
        manifest: the model, for its image size.
        tokenizer: the model's.
        threads: images decoded at once; each may need memory for a picture of the largest size allowed.
        backlog: jobs that may wait for a thread.
    """

    def __init__(
        self, manifest: Manifest, tokenizer: Tokenizer, threads: int, backlog: int = BACKLOG
    ) -> None:
        self._size = manifest.image.size
        self._tokenizer = tokenizer
        self._threads, self._most = threads, threads + backlog
        self._jobs = 0
        self._ids: OrderedDict[str, bytes] = OrderedDict()
        self._executor: ThreadPoolExecutor | None = None

    def start(self) -> None:
        """Make the threads' pool, in the process that uses it."""
        self._executor = ThreadPoolExecutor(self._threads, thread_name_prefix="intake")

    def close(self) -> None:
        """Stop the threads; what waits is given up."""
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)

    async def image(self, picture: Picture) -> Buffer:
        """The model's image input as bytes: uint8 ``[size, size, 3]``, C order.

        Raises:
            ClientError: it is no image this service takes.
            QueueFull: too many images are being decoded.
        """
        return await self._in_thread(lambda: self._decode(picture))

    async def images(self, pictures: Sequence[Picture]) -> list[Buffer | ClientError]:
        """The inputs of several images, or what is wrong with one; as many at a time as there are threads.

        Raises:
            QueueFull: too many images are being decoded.
        """
        inputs: list[Buffer | ClientError] = []
        for i in range(0, len(pictures), self._threads):
            inputs += await asyncio.gather(*map(self._image, pictures[i : i + self._threads]))
        return inputs

    async def _image(self, picture: Picture) -> Buffer | ClientError:
        try:
            return await self.image(picture)
        except ClientError as fault:
            return fault

    async def prompts(self, texts: Sequence[str]) -> list[bytes]:
        """Token ids of each text: int32, little-endian, start and end token included.

        Raises:
            QueueFull: too many jobs wait.
        """
        ids = {text: self._ids.get(text) for text in texts}
        missing = [text for text, known in ids.items() if known is None]
        if sum(map(len, missing)) <= INLINE_CHARACTERS:
            fresh = self._tokenise(missing)
        else:
            fresh = await self._in_thread(lambda: self._tokenise(missing))
        found = {text: known if known is not None else fresh[text] for text, known in ids.items()}
        self._remember(found)
        return [found[text] for text in texts]

    def _remember(self, found: Mapping[str, bytes]) -> None:
        for text, ids in found.items():
            if len(text) <= CACHED_CHARACTERS:
                self._ids[text] = ids
                self._ids.move_to_end(text)
        while len(self._ids) > CACHED_PROMPTS:
            self._ids.popitem(last=False)

    def _decode(self, picture: Picture) -> Buffer:
        data = picture.data
        if data is None:
            data = decode_base64_image(picture.base64 or "", picture.field)
        return decode_image(data, self._size, picture.field).tobytes()

    def _tokenise(self, texts: Sequence[str]) -> dict[str, bytes]:
        return {text: self._tokenizer.encode(text).astype("<i4", copy=False).tobytes() for text in texts}

    async def _in_thread(self, job: Callable[[], T]) -> T:
        if self._executor is None:
            raise RuntimeError("Intake.start was not called")
        if self._jobs >= self._most:
            raise QueueFull(f"{self._jobs} images are being decoded already", retry_after_s=1.0)
        loop = asyncio.get_running_loop()
        self._jobs += 1
        future = self._executor.submit(job)
        # A cancelled request's job runs on; its place is free when the thread is done with it.
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._free))
        return await asyncio.wrap_future(future)

    def _free(self) -> None:
        self._jobs -= 1


def decode_threads(processes: int) -> int:
    """Threads that decode images in each of `processes` frontends: together one a core, each at most 4."""
    return max(1, min(4, (os.cpu_count() or 1) // processes))
