"""How many threads torch and numpy use while we compute; nobody else's number changes.

torch keeps its number in three places: one that a thread reads when it first uses torch, and two, OpenMP's and MKL's, that
every thread has to itself. Only the latter two are set here, for the calling thread, by functions of these libraries:
`torch.set_num_threads` would set the first one as well, and threads that start meanwhile would keep it. OpenBLAS, which
multiplies matrices for numpy, has one number for the whole process: the first thread that comes in sets it, the last one
that leaves puts it back.

One thread is also what lets a forked process answer. In the child, GNU's OpenMP waits forever for the threads that the
forking thread had in the parent; work on one thread waits for none.
"""

import ctypes
import functools
import inspect
import itertools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

import torch
from threadpoolctl import ThreadpoolController

P = ParamSpec("P")
R = TypeVar("R")

PAUSE_HARD = 2
"""``omp_pause_hard`` of OpenMP 5.0, section 3.2.44: give up every thread."""


def on_one_thread(kernel: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function so that torch and numpy use one thread in it.

    Calls may be nested, and other threads may be in such a function at the same time. Whatever the function raises, the
    former numbers come back, also after a KeyboardInterrupt at any moment.

    Parameters
    ----------
    kernel : callable
        Not a generator function, whose body would run after the call.

    Returns
    -------
    alone : callable
    """
    if inspect.isgeneratorfunction(kernel):
        raise TypeError(
            f"{kernel.__qualname__} is a generator function: its body would run outside of the context, and on as many "
            f"threads as the caller has. Decorate the function that iterates over it."
        )

    # no context manager: an interruption between its call and its first line would leave the numbers as they are
    @functools.wraps(kernel)
    def alone(*args: P.args, **kwargs: P.kwargs) -> R:
        return _within(_Limit(1), kernel, *args, **kwargs)

    return alone


def on_callers_threads(kernel: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function so that, called within one that is `on_one_thread`, torch has as many threads as outside of that.

    numpy stays at one thread. The threads of OpenMP end with the call, so that a later fork finds none. A forked process
    stays at one thread, since it cannot tell whether its parent had more.

    Parameters
    ----------
    kernel : callable

    Returns
    -------
    accompanied : callable
    """

    @functools.wraps(kernel)
    def accompanied(*args: P.args, **kwargs: P.kwargs) -> R:
        if _here.outside is None or _process.forked:
            return kernel(*args, **kwargs)
        return _within(_Limit(_here.outside), kernel, *args, **kwargs)

    return accompanied


def _within(limit: "_Limit", kernel: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call `kernel` between entering the limit and leaving it."""
    try:
        limit.enter()
        return kernel(*args, **kwargs)
    finally:
        try:
            limit.leave()
        except BaseException:  # interrupted on the way out, or before the first line of `leave`
            limit.leave()
            raise


def process_lock() -> threading.RLock:
    """A lock for something that the whole process shares.

    A fork waits until no other thread holds it, so that the child finds it free. The thread that holds it may take it
    again, and may fork.
    """
    lock = threading.RLock()

    # Windows does not fork
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)

    return lock


class _Here(threading.local):
    """torch's numbers of threads on the calling thread, both None outside of every context.

    Attributes
    ----------
    outside : int or None
        The number outside of the contexts.
    inside : int or None
        The number that the innermost context set.
    """

    outside: int | None = None
    inside: int | None = None


class _Process:
    """What the process shares: OpenBLAS's number of threads, 1 while any thread is inside a context.

    Attributes
    ----------
    inside : set of int
        Identifiers of the threads that are inside. A set, not a count, so that to leave twice does no harm.
    before : list of int
        Number of each library when the first of them came in.
    forked : bool
        Whether the process began as a copy of one that had imported this module.
    """

    def __init__(self) -> None:
        self.lock = process_lock()
        self.inside: set[int] = set()
        self.before: list[int] = []
        self.forked = False

    def enter(self) -> None:
        """Count the calling thread among those inside."""
        with self.lock:
            first = not self.inside
            if first:
                self.before = [number() for number, _ in _openblas()]

            # before any number changes, so that an interruption finds it to be put back
            self.inside.add(threading.get_ident())
            if first:
                for _, set_number in _openblas():
                    set_number(1)

    def leave(self) -> None:
        """Count the calling thread no longer."""
        with self.lock:
            # in this order, so that a call that was interrupted may be repeated
            if self.inside == {threading.get_ident()}:
                self._put_back()
            self.inside.discard(threading.get_ident())

    def _put_back(self) -> None:
        for (_, set_number), n_threads in zip(_openblas(), self.before, strict=True):
            set_number(n_threads)

    def after_fork(self) -> None:
        """Forget, in the child, the threads that it does not have."""
        self.forked = True

        if self.inside and threading.get_ident() not in self.inside:
            self._put_back()
        self.inside &= {threading.get_ident()}

        # a fit of several threads that forked goes on in the child without them
        if _here.inside is not None:
            _own_numbers()().set(1)
            _here.inside = 1


class _Limit:
    """torch's number of threads on the calling thread, from `enter` to `leave`, and numpy's one.

    `leave` undoes as much as `enter` did before it was interrupted, and may be called again.

    Parameters
    ----------
    n_threads : int
    """

    def __init__(self, n_threads: int) -> None:
        self.n_threads = n_threads
        self.inside = _here.inside
        self.numbers = _own_numbers()()

    def enter(self) -> None:
        """Set the number."""
        if self.inside == self.n_threads:
            return

        before = self.numbers.set(self.n_threads)
        _here.inside = self.n_threads

        # the process is concerned by the outermost context alone
        if self.inside is None:
            _here.outside = before
            _process.enter()

    def leave(self) -> None:
        """Put the former number back."""
        if self.inside == self.n_threads:
            return

        # not in a child that was forked meanwhile: there these threads have gone, and the call would wait for them
        if self.n_threads > 1 and _here.inside == self.n_threads:
            _end_pool()

        self.numbers.put_back()
        _here.inside = self.inside

        if self.inside is None:
            _here.outside = None
            _process.leave()


class _OwnNumbers:
    """OpenMP's and MKL's numbers of the calling thread, set by functions of the libraries that torch has loaded."""

    def __init__(self) -> None:
        self.openmp: int | None = None
        self.mkl = 0  # MKL then follows OpenMP

    def set(self, n_threads: int) -> int:
        """Set both numbers to `n_threads` and return torch's former number."""
        library = _torch_library()

        # which also makes a thread that is new to torch read its number
        self.openmp = torch.get_num_threads()
        library.omp_set_num_threads(n_threads)
        if torch.backends.mkl.is_available():
            self.mkl = library.MKL_Set_Num_Threads_Local(n_threads)

        return self.openmp

    def put_back(self) -> None:
        """Set both numbers to what they were, if they were set."""
        if self.openmp is None:
            return

        library = _torch_library()
        library.omp_set_num_threads(self.openmp)
        if torch.backends.mkl.is_available():
            library.MKL_Set_Num_Threads_Local(self.mkl)


class _TorchNumber:
    """The same by `torch.set_num_threads`, where the libraries' functions have no names to be found by.

    The number that threads find when they start is put back at once, by a thread that has nothing else to do: it takes
    about a millisecond.
    """

    lock = process_lock()

    def __init__(self) -> None:
        self.before: int | None = None

    def set(self, n_threads: int) -> int:
        """Set the number of the calling thread and return the former one."""
        with self.lock:
            self.before = torch.get_num_threads()
            self._set_own(n_threads)

        return self.before

    def put_back(self) -> None:
        """Set the number to what it was, if it was set."""
        if self.before is not None:
            with self.lock:
                self._set_own(self.before)

    def _set_own(self, n_threads: int) -> None:
        of_new_threads = _elsewhere(torch.get_num_threads)

        try:
            torch.set_num_threads(n_threads)
        finally:
            _elsewhere(torch.set_num_threads, of_new_threads)


class _NoNumber:
    """torch without OpenMP has threads of its own, whose number cannot change once they have started: it stays."""

    def set(self, n_threads: int) -> int:
        """Return torch's number of threads."""
        return torch.get_num_threads()

    def put_back(self) -> None:
        """Nothing to put back."""


def _elsewhere(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """What `function` returns on a thread of its own."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(function, *args, **kwargs).result()


@functools.cache
def _torch_library() -> ctypes.CDLL:
    """torch's extension module, by which the functions of all libraries it is linked to can be found, too."""
    return ctypes.CDLL(torch._C.__file__)


@functools.cache
def _own_numbers() -> type[_OwnNumbers] | type[_TorchNumber] | type[_NoNumber]:
    """How torch's number of threads is set on this machine."""
    if "ATen parallel backend: OpenMP" not in torch.__config__.parallel_info():
        return _NoNumber

    # Windows looks up no library behind the one it is given, and some builds keep MKL's names to themselves
    library = _torch_library()
    if not hasattr(library, "omp_set_num_threads"):
        return _TorchNumber
    if torch.backends.mkl.is_available() and not hasattr(library, "MKL_Set_Num_Threads_Local"):
        return _TorchNumber

    # a process may hold several copies of OpenMP
    if not _is_torchs(library):
        return _TorchNumber

    return _OwnNumbers


def _is_torchs(library: ctypes.CDLL) -> bool:
    """Whether OpenMP's functions in `library` are those that torch uses."""
    before = torch.get_num_threads()

    try:
        library.omp_set_num_threads(before + 1)
        return torch.get_num_threads() == before + 1
    finally:
        library.omp_set_num_threads(before)


def _end_pool() -> None:
    """Let the threads end that GNU's OpenMP keeps for the calling thread; its number of threads is then the default.

    Other OpenMP libraries would end the threads of the whole process, and mind forks themselves.
    GNU's from before OpenMP 5.0, which torch 2.6 brings along, cannot end them: there they stay idle.
    """
    library = _torch_library()

    # LLVM's and Intel's have this function
    if hasattr(library, "omp_pause_resource") and not hasattr(library, "__kmpc_fork_call"):
        library.omp_pause_resource(PAUSE_HARD, library.omp_get_initial_device())


@functools.cache
def _openblas() -> list[tuple[Callable[[], int], Callable[[int], None]]]:
    """What tells the number of threads of each OpenBLAS in the process, and what sets it; to find them takes milliseconds.

    Not by `threadpoolctl.threadpool_limits`, which in newer versions does nothing on any thread but the first that used it. An
    OpenBLAS that stands on OpenMP is left out: its number is OpenMP's.
    """
    functions = []
    for library in ThreadpoolController().select(internal_api="openblas").lib_controllers:
        for prefix, suffix in itertools.product(("", "scipy_"), ("", "64_", "_64")):
            getter = getattr(library.dynlib, f"{prefix}openblas_get_num_threads{suffix}", None)
            setter = getattr(library.dynlib, f"{prefix}openblas_set_num_threads{suffix}", None)
            if getter and setter and library.threading_layer != "openmp":
                functions.append((getter, setter))

    return functions


_here = _Here()
_process = _Process()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_process.after_fork)
