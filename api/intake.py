"""Images and prompts to model inputs, off the event loop and within bounds."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from time import perf_counter
from typing import Any, TypeVar

from hailo_clip.api.decodememory import DecodeMemory
from hailo_clip.api.fields import Picture
from hailo_clip.api.image import decode_base64_image, decode_image
from hailo_clip.api.turns import Job, Turns
from hailo_clip.shared.errors import ClientError, DeadlineExceeded, QueueFull
from hailo_clip.shared.manifest import Manifest
from hailo_clip.shared.messages import Buffer
from hailo_clip.shared.tokenizer import Tokenizer

T = TypeVar("T")

BACKLOG = 16
"""Jobs that may wait for a thread; who has the most of them gets a 429 for one more."""

INLINE_CHARACTERS = 2048
"""Prompts up to this many characters in all are tokenised at once, which takes less than changing threads."""

LATE = "the request's images were not decoded before its deadline"

CACHED_PROMPTS = 4096
CACHED_CHARACTERS = 512
"""Token ids kept by prompt, and the longest prompt for which they are."""


@dataclass(frozen=True, slots=True)
class Asker:
    """Whose request it is: its tenant and that one's share, and the seconds left until its deadline."""

    tenant: str
    weight: float
    left_s: float


@dataclass(frozen=True, slots=True)
class _Task:
    """Work for a thread, and who waits for what it gives."""

    job: Job
    work: Callable[[], Any]
    result: asyncio.Future[Any]


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
        self._threads, self._backlog = threads, backlog
        self._turns = Turns(threads, backlog)
        self._memory = DecodeMemory()
        self._waiting: dict[Job, _Task] = {}
        self._ids: OrderedDict[str, bytes] = OrderedDict()
        self._work: SimpleQueue[_Task | None] = SimpleQueue()
        self._workers: list[threading.Thread] = []

    def start(self) -> None:
        """Start the threads, in the process and event loop that use them."""
        loop = asyncio.get_running_loop()
        for i in range(self._threads):
            worker = threading.Thread(target=self._serve, args=(loop,), name=f"intake-{i}", daemon=True)
            worker.start()
            self._workers.append(worker)

    def close(self) -> None:
        """Stop the threads when they have done what they were given; what waits ends at its deadline."""
        for _ in self._workers:
            self._work.put(None)
        while self._workers:
            self._workers.pop().join()

    async def images(self, pictures: Sequence[Picture], asker: Asker) -> list[Buffer | ClientError]:
        """The model's input of each image, uint8 ``[size, size, 3]`` in C order, or what is wrong with it.

        As many of one request are decoded at a time as there are threads.

        Raises:
            QueueFull: too many images are being decoded.
            DeadlineExceeded: they were not all decoded in time; what is left of them is not.
        """
        inputs: list[Buffer | ClientError] = []
        try:
            async with asyncio.timeout(asker.left_s):
                for i in range(0, len(pictures), self._threads):
                    inputs += await self._together(pictures[i : i + self._threads], asker)
        except TimeoutError:
            raise DeadlineExceeded(LATE) from None
        return inputs

    async def _together(self, pictures: Sequence[Picture], asker: Asker) -> list[Buffer | ClientError]:
        if len(pictures) == 1:  # as most often: no task is needed
            return [await self._image(pictures[0], asker)]
        tasks = [asyncio.ensure_future(self._image(picture, asker)) for picture in pictures]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:  # where one was refused, nobody waits for the others
                task.cancel()

    async def _image(self, picture: Picture, asker: Asker) -> Buffer | ClientError:
        try:
            return await self._in_thread(lambda: self._decode(picture), asker)
        except ClientError as fault:
            return fault

    async def prompts(self, texts: Sequence[str], asker: Asker) -> list[bytes]:
        """Token ids of each text: int32, little-endian, start and end token included.

        Raises:
            QueueFull: too many jobs wait.
            DeadlineExceeded: the turn of these did not come in time.
        """
        if not texts:
            return []
        ids = {text: self._ids.get(text) for text in texts}
        missing = [text for text, known in ids.items() if known is None]
        if sum(map(len, missing)) <= INLINE_CHARACTERS:
            fresh = self._tokenise(missing)
        else:
            try:
                async with asyncio.timeout(asker.left_s):
                    fresh = await self._in_thread(lambda: self._tokenise(missing), asker)
            except TimeoutError:
                raise DeadlineExceeded(LATE) from None
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
        pixels = decode_image(data, self._size, picture.field, memory=self._memory)
        return pixels.reshape(-1).data

    def _tokenise(self, texts: Sequence[str]) -> dict[str, bytes]:
        return {text: self._tokenizer.encode(text).astype("<i4", copy=False).tobytes() for text in texts}

    async def _in_thread(self, work: Callable[[], T], asker: Asker) -> T:
        """What `work` gives, when its turn came."""
        if not self._workers:
            raise RuntimeError("Intake.start was not called")
        job = Job(asker.tenant, asker.weight)
        result: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        refused = self._turns.enter(job)
        if refused is not job:
            self._waiting[job] = _Task(job, work, result)
        if refused is not None:
            full = QueueFull(f"{self._backlog} images wait to be decoded, no more may", retry_after_s=1.0)
            if refused is job:
                raise full
            self._settle(self._waiting.pop(refused).result, full)
        self._start_jobs()
        try:
            return await result
        finally:
            if self._waiting.pop(job, None) is not None:
                self._turns.leave(job)

    def _start_jobs(self) -> None:
        """Give free threads to the jobs whose turn it is."""
        while self._workers and (job := self._turns.next()) is not None:
            # A cancelled request's job runs on; its place is free when the thread is done with it.
            self._work.put(self._waiting.pop(job))

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        """In a thread: do the work that comes, until told to stop."""
        while (task := self._work.get()) is not None:
            self._run(loop, task)
            task = None  # it may hold a whole image

    def _run(self, loop: asyncio.AbstractEventLoop, task: _Task) -> None:
        """Do the work, and tell the event loop what it gave or raised.

        An executor's thread would go on for a while after that, with the interpreter's lock, for which the
        event loop waits.
        """
        begun = perf_counter()
        value: Any
        try:
            value = task.work()
        except Exception as e:  # noqa: BLE001  (whoever waits for it raises it)
            value = e
        loop.call_soon_threadsafe(self._done, task, value, perf_counter() - begun)

    def _done(self, task: _Task, value: Any, seconds: float) -> None:
        self._turns.finished(task.job, seconds)
        self._settle(task.result, value)
        self._start_jobs()

    @staticmethod
    def _settle(result: asyncio.Future[Any], value: Any) -> None:
        if result.done():
            return
        if isinstance(value, Exception):
            result.set_exception(value)
        else:
            result.set_result(value)


def decode_threads() -> int:
    """Threads that decode images in each frontend: one a core, at most 4.

    Together the frontends have more than there are cores, because the kernel does not spread connections
    evenly over them: often one has most of the work.
    """
    return min(4, os.cpu_count() or 1)
