"""Speech for an event loop: each piece of sound is computed in a thread while the loop goes on.

Text may come from the loop as well, as an asynchronous iterable: the thread then waits for it, not the loop. For the
next piece of any other iterable, which may keep its caller waiting for ever (a queue, a streamer whose model has died),
a further thread waits, which nobody has to wait for.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from wandlib.systems.speech import Speech, Step, Trace
from wandlib.systems.streaming import Sound, SpeechStream

MOMENT = 0.05
"""Seconds, after which a thread that waits for text looks whether it is still wanted."""
AsyncText = str | Iterable[str] | AsyncIterable[str]


class _Stopped(Exception):  # noqa: N818  not an error: it leaves a decode that is no longer wanted
    pass


class AsyncSpeechStream(AsyncIterator[Sound]):
    """Sound as it is made: ``async for sound in stream``, shape [samples] each.

    Nothing is computed while no piece is awaited. A canceled wait, or :meth:`aclose`, ends the generation at its next
    step; a stream that was started to keep it still has what was made in :attr:`speech`.

    Parameters
    ----------
    text
        What to say.
    start
        From a text and a function to call after each step to the stream that is to run in the thread.
    on_step
        Called after each step, in the thread.
    """

    def __init__(
        self,
        text: AsyncText,
        start: Callable[[Any, Callable[[Step], None]], SpeechStream],
        on_step: Callable[[Step], None] | None,
    ) -> None:
        self._text, self._on_step = text, on_step
        self._stop = threading.Event()
        self._waiting: Future[Any] | None = None
        self._pulling: list[asyncio.Task[Any] | None] = []
        """The task that waits for text in the loop, on behalf of the thread, once there is one."""
        self._asked = queue.SimpleQueue[bool]()
        """Whether a further piece of an iterable's text is wanted; False: no more."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="wandlib-stream")
        self._stream = start(self._read(text), self._step)
        self.sample_rate = self._stream.sample_rate

    @property
    def trace(self) -> Trace:
        """What the steps and the pieces cost so far."""
        return self._stream.trace

    @property
    def speech(self) -> Speech:
        """All that has been made so far, as of :attr:`SpeechStream.speech`."""
        return self._stream.speech

    async def __anext__(self) -> Sound:
        if self._stop.is_set():
            raise StopAsyncIteration
        self._loop = asyncio.get_running_loop()
        try:
            sound = await self._loop.run_in_executor(self._thread, self._next)
        except BaseException:  # the caller's wait was canceled, or the generation failed
            self._end()
            raise
        if sound is None:
            self._end()
            raise StopAsyncIteration
        return sound

    async def aclose(self) -> None:
        """End the generation, and wait until its thread has."""
        self._end()
        await asyncio.to_thread(self._thread.shutdown)
        if waiting := [task for task in self._pulling if task is not None and not task.done()]:
            await asyncio.wait(waiting)  # a generator cannot be closed while it runs
        if isinstance(self._text, AsyncIterable) and hasattr(self._text, "aclose"):
            await self._text.aclose()

    async def __aenter__(self) -> AsyncSpeechStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _end(self) -> None:
        self._stop.set()
        self._asked.put(False)
        waiting = self._waiting
        if waiting is not None:
            waiting.cancel()
        self._thread.shutdown(wait=False)

    def _next(self) -> Sound | None:
        """Compute the next piece; None: there is none. In the thread."""
        try:
            return next(self._stream, None)
        except _Stopped:
            return None

    def _step(self, step: Step) -> None:
        if self._stop.is_set():
            raise _Stopped
        if self._on_step is not None:
            self._on_step(step)

    def _read(self, text: AsyncText) -> Any:
        """Return the text so that waiting for it can be given up."""
        if isinstance(text, AsyncIterable):
            return self._pulled(text)
        return self._waited(text) if isinstance(text, Iterable) and not isinstance(text, Sequence) else text

    def _waited(self, text: Iterable[str]) -> Iterator[str]:
        """Yield what an iterable yields, piece by piece as they are asked for. In the thread."""
        given, iterator, end = queue.SimpleQueue[tuple[Any, BaseException | None]](), iter(text), object()
        asked = self._asked  # not self: the thread would hold a stream that nobody else holds any more

        def pull() -> None:
            while asked.get():
                try:
                    given.put((next(iterator, end), None))
                except BaseException as error:  # it is the reader's
                    given.put((end, error))

        threading.Thread(target=pull, name="wandlib-text", daemon=True).start()
        try:
            yield from self._received(given, end, lambda: asked.put(True))
        finally:
            asked.put(False)

    def _received(self, given: queue.SimpleQueue[Any], end: object, ask: Callable[[], object]) -> Iterator[str]:
        """Ask for a piece and yield it, until the end or an error is given. In the thread."""
        while True:
            ask()
            piece, error = self._wait(given)
            if error is not None:
                raise error
            if piece is end:
                return
            yield piece

    def _wait(self, given: queue.SimpleQueue[Any]) -> Any:
        """Return what is given, unless the stream is stopped first."""
        while not self._stop.is_set():
            with contextlib.suppress(queue.Empty):
                return given.get(timeout=MOMENT)
        raise _Stopped

    def _pulled(self, text: AsyncIterable[str]) -> Iterator[str]:
        """Yield what the loop's iterable yields, piece by piece as they are asked for. In the thread.

        One task pulls all of it, and closes it: what a generator has entered (``asyncio.timeout``, a task group, the
        response of an HTTP client), it must leave in the same task.
        """
        given, end = queue.SimpleQueue[tuple[Any, BaseException | None]](), object()
        asked, iterator, pulling = asyncio.Queue[None](), aiter(text), self._pulling  # not self: see _waited

        async def pull() -> None:
            pulling.append(asyncio.current_task())
            try:
                piece = None
                while piece is not end:
                    await asked.get()
                    piece = await anext(iterator, end)
                    given.put((piece, None))
            except asyncio.CancelledError as error:
                canceled = RuntimeError("the text was canceled before it came to its end")
                canceled.__cause__ = error
                given.put((end, canceled))
                raise
            except BaseException as error:  # it is the reader's
                given.put((end, error))
                raise
            finally:
                if hasattr(iterator, "aclose"):
                    await iterator.aclose()

        loop = self._loop
        assert loop is not None, "text is read while a piece of sound is awaited"
        self._waiting = waiting = asyncio.run_coroutine_threadsafe(pull(), loop)
        try:
            yield from self._received(given, end, lambda: loop.call_soon_threadsafe(asked.put_nowait, None))
        finally:
            waiting.cancel()
